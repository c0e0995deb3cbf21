"""Image classifiers: EfficientNet in the two families of published weights, and the table to add others."""

from fairkd_jax.models.classifier import Classifier, fold
from fairkd_jax.models.efficientnet import EfficientNet
from fairkd_jax.models.registry import (
    MODEL_NAMES,
    MODELS,
    create_model,
    get_image_size,
    load_pretrained,
    num_parameters,
    read_pretrained,
)
from fairkd_jax.models.weights.conventions import Pretrained

__all__ = [
    "MODELS",
    "MODEL_NAMES",
    "Classifier",
    "EfficientNet",
    "Pretrained",
    "create_model",
    "fold",
    "get_image_size",
    "load_pretrained",
    "num_parameters",
    "read_pretrained",
]
