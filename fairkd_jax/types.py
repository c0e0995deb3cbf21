"""Types of the values that models, objectives, data and training exchange."""

from typing import Any, NamedTuple

import jax

# Keys: image, uint8 [B, H, W, 3]; label, int32 [B]; group, int32 [B], -1 where unknown; mask, float32 [B],
# 0 for padding; index, int32 [B], position in the split.
Batch = dict[str, jax.Array]

# Nested dict of arrays, such as the parameters of flax and the states of optax.
Tree = Any


class Outputs(NamedTuple):
    """Outputs of a classifier for a batch.

    Attributes:
      logits: Logits of the classes, float32 [B, C].
      embedding: Features pooled over the image, before dropout and head, float32 [B, D].
    """

    logits: jax.Array
    embedding: jax.Array


class GroupOutputs(NamedTuple):
    """Outputs of a classifier with one head for each group; `Outputs` with one more field.

    Attributes:
      logits: Sum of the group logits over the groups, float32 [B, C].
      embedding: Features pooled over the image, before dropout and heads, float32 [B, D].
      group_logits: Logits of each head, float32 [B, G, C].
    """

    logits: jax.Array
    embedding: jax.Array
    group_logits: jax.Array
