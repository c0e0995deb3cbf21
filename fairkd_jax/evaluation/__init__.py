"""Evaluation of finished runs: scores, probes, comparisons, and collections of many runs."""
