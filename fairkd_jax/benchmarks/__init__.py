"""What scripts/benchmark.py runs: parts of the project side by side with what they replace."""
