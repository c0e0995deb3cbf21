"""The values that travel between models, objectives, data and training."""

from typing import Any, NamedTuple

import jax

# Keys: image uint8 [B,H,W,3]; label int32 [B]; group int32 [B], -1 = unknown; mask float32 [B], 0 = padding;
# index int32 [B], the position in the split.
Batch = dict[str, jax.Array]

# A nested dict of arrays, as flax and optax use it.
Tree = Any


class Outputs(NamedTuple):
    """What a classifier returns for a batch.

    Attributes:
      logits: float32 [B, C].
      embedding: float32 [B, D], pooled over the image, before dropout and head.
    """

    logits: jax.Array
    embedding: jax.Array


class GroupOutputs(NamedTuple):
    """What a classifier returns that has a head for each group; `Outputs` with one value more.

    Attributes:
      logits: float32 [B, C], summed over the groups.
      embedding: float32 [B, D].
      group_logits: float32 [B, G, C].
    """

    logits: jax.Array
    embedding: jax.Array
    group_logits: jax.Array
