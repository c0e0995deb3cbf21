"""Fairness measures, computed from one integer tensor `counts[group, label, prediction]`.

Only `group_counts` needs JAX, which is imported when the name is first used. A program that reads tables
starts without JAX.
"""

from typing import TYPE_CHECKING, Any

from fairkd_jax.fairness.diagnostics import diagnose
from fairkd_jax.fairness.distributions import compute_fidelity
from fairkd_jax.fairness.metrics import Summary, compute_inflation, summarize

if TYPE_CHECKING:
    from fairkd_jax.fairness.counts import group_counts

__all__ = [
    "Summary",
    "compute_fidelity",
    "compute_inflation",
    "diagnose",
    "group_counts",
    "summarize",
]


def __getattr__(name: str) -> Any:
    """Imports `group_counts` when it is first used."""
    if name != "group_counts":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from fairkd_jax.fairness.counts import group_counts

    return group_counts
