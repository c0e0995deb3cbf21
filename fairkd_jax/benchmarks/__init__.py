"""Benchmarks of scripts/benchmark.py: parts of the project against the alternatives that they replace."""
