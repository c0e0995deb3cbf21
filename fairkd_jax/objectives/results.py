"""Check of what an objective's loss returns, while the step is traced: it costs nothing at a step."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from fairkd_jax.errors import UsageError
from fairkd_jax.types import Tree


def check_result(name: str, found: Any, state: Tree, batch_size: int) -> None:
    """Checks structure, shapes and dtypes of the result of a loss.

    Args:
      name: Name of the objective.
      found: Result of the loss, which must be `(value, (state, metrics))`.
      state: State that the loss has received.
      batch_size: Number B of images in the batch.

    Raises:
      UsageError: The value is neither a scalar nor [B], or holds no floating-point numbers; the new state
        differs from the state in structure, shape or dtype; or a metric is no pair of two scalars.
    """
    is_pair = isinstance(found, tuple) and len(found) == 2
    if not (is_pair and isinstance(found[1], tuple) and len(found[1]) == 2):
        raise UsageError(f"the loss of objective {name} must return (value, (state, metrics))")
    value, (new_state, metrics) = found
    if not _is_array(value) or jnp.shape(value) not in ((), (batch_size,)):
        shape = list(jnp.shape(value)) if _is_array(value) else type(value).__name__
        raise UsageError(
            f"the loss of objective {name} has the shape {shape}; it must be a scalar, or [B], one value for"
            f" each of the {batch_size} images"
        )
    if not jnp.issubdtype(jnp.result_type(value), jnp.floating):
        kind = jnp.result_type(value)
        raise UsageError(f"the loss of objective {name} is of {kind}; it must be floating-point")
    if _describe(new_state) != _describe(state):
        raise UsageError(
            f"the loss of objective {name} returns a state of another structure, shape or dtype than its init"
        )
    named: Mapping[str, Any] = metrics if isinstance(metrics, Mapping) else {"their type": None}
    for key, metric in named.items():
        is_metric = isinstance(metric, tuple) and len(metric) == 2
        if not (is_metric and all(_is_array(part) and jnp.shape(part) == () for part in metric)):
            raise UsageError(
                f"the metrics of objective {name} must map each name to a pair (sum, weight) of scalars;"
                f" {key} does not"
            )


def _is_array(value: Any) -> bool:
    """Returns whether JAX takes a value for an array or a number."""
    return isinstance(value, jax.Array | int | float) or hasattr(value, "__array__")


def _describe(tree: Tree) -> Any:
    """Returns the structure of a tree, and the shape and dtype of each leaf."""
    leaves, structure = jax.tree.flatten(tree)
    return structure, [(jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves]
