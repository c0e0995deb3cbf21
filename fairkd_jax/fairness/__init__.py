"""Fairness measured from one integer tensor, `counts[group, label, prediction]`."""

from fairkd_jax.fairness.alarms import alarms
from fairkd_jax.fairness.counts import group_counts
from fairkd_jax.fairness.distributions import fidelity
from fairkd_jax.fairness.metrics import Summary, inflation, summarize

__all__ = ["Summary", "alarms", "fidelity", "group_counts", "inflation", "summarize"]
