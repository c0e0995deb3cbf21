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
