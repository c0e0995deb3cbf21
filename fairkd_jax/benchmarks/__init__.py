"""Benchmarks of fairkd-benchmark: parts of the project against the alternatives that they replace."""
