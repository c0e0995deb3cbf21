"""Domain-independent heads: one for each group (Wang et al. 2020, arXiv 1911.11834, section 4.3)."""

import jax
import jax.numpy as jnp

from fairkd_jax.types import GroupOutputs


def split_by_group(logits: jax.Array, embedding: jax.Array, num_groups: int) -> GroupOutputs:
    """Splits the logits of one wide head into those of each group's head.

    Args:
      logits: Logits of all heads side by side, float32 [B, G C].
      embedding: Embeddings, float32 [B, D].
      num_groups: Number of groups G.

    Returns:
      The logits of each group's head, [B, G, C]; and their sum over the groups, [B, C], which classifies
      without knowledge of the group (equation 3).
    """
    group_logits = logits.reshape(len(logits), num_groups, -1)
    return GroupOutputs(jnp.sum(group_logits, axis=1), embedding, group_logits)
