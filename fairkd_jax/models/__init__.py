"""Image classifiers: EfficientNet in the two families that published weights come in."""

from fairkd_jax.models.efficientnet import EfficientNet
from fairkd_jax.models.folding import fold
from fairkd_jax.models.registry import MODEL_NAMES, create_model, image_size, num_parameters
from fairkd_jax.models.weights.convert import load_pretrained, read_pretrained

__all__ = [
    "MODEL_NAMES",
    "EfficientNet",
    "create_model",
    "fold",
    "image_size",
    "load_pretrained",
    "num_parameters",
    "read_pretrained",
]
