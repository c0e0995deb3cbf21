"""Domain-independent heads: one for each group (Wang et al. 2020, arXiv 1911.11834, section 4.3)."""

import jax
import jax.numpy as jnp

from fairkd_jax.types import GroupOutputs


def by_group(logits: jax.Array, embedding: jax.Array, num_groups: int) -> GroupOutputs:
    """Takes one wide head apart.

    Args:
      logits: float32 [B, G C], the heads side by side.
      embedding: float32 [B, D].
      num_groups: G.

    Returns:
      The logits of each group's own head, [B, G, C], and their sum over the groups, [B, C], which classifies
      where the group must not be asked for (equation 3).
    """
    group_logits = logits.reshape(len(logits), num_groups, -1)
    return GroupOutputs(jnp.sum(group_logits, axis=1), embedding, group_logits)
