"""Class activation maps: where a class finds its evidence (Zhou et al. 2016, arXiv 1512.04150)."""

from typing import Any

import jax
import jax.numpy as jnp

from fairkd_jax.models.classifier import Classifier
from fairkd_jax.types import Tree

# Name under which a network sows its last feature map, [B, h, w, D], whose mean over pixels is the embedding.
FEATURE_MAP = "feature_map"


def classify_with_maps(
    model: Classifier, variables: Tree, images: jax.Array
) -> tuple[jax.Array, jax.Array | None]:
    """Classifies images, and computes their class activation maps from the same pass.

    With a linear head after the mean over pixels, the mean of a class's map over the pixels is the logit of
    the class without its bias (equation 2).

    Args:
      model: The model.
      variables: Its variables.
      images: Normalised images, float [B, H, W, 3].

    Returns:
      Logits, float32 [B, C], and maps, float32 [B, h, w, C]; None for a model that sows no feature map.
    """
    outputs, extra = model.apply(variables, images, mutable=["intermediates"])
    found = extra.get("intermediates", {}).get(FEATURE_MAP)
    if found is None:
        return outputs.logits, None
    (features,) = found
    pixels = features.astype(jnp.float32).reshape(-1, features.shape[-1])
    evidence = _classify(model, variables, pixels) - _classify(model, variables, jnp.zeros_like(pixels[:1]))
    return outputs.logits, evidence.reshape(*features.shape[:3], -1)


def _classify(model: Classifier, variables: Tree, embeddings: jax.Array) -> jax.Array:
    outputs: Any = model.apply({"params": variables["params"]}, embeddings, method="classify")
    return outputs.logits
