"""The data presets: each fits data, models and schedule to one another."""

from collections.abc import Callable

from ml_collections import ConfigDict


def digits(config: ConfigDict) -> None:
    """Trains on handwritten digits in two tints, which need no download; the default."""


def utkface(config: ConfigDict) -> None:
    """Trains small models from scratch on UTKFace at 64 pixels."""
    _fit_photographs(config)
    config.data.name = "utkface"


def manifest(config: ConfigDict) -> None:
    """Trains small models from scratch on your own images at 64 pixels."""
    _fit_photographs(config)
    config.data.name = "manifest"


def wider(config: ConfigDict) -> None:
    """Trains EfficientNet-B3 and B0 on WIDER Attribute at 224 pixels, on one or several accelerators."""
    config.batch_size = 128
    config.epochs = 15
    config.teacher.epochs = 10
    config.teacher.architecture, config.student.architecture = "efficientnet_b3", "efficientnet_b0"
    config.teacher.dtype = config.student.dtype = "bfloat16"
    config.optimizer.learning_rate = config.teacher.learning_rate = 1e-3
    config.optimizer.weight_decay = 1e-5
    config.data.name = "wider_attribute"
    config.data.size = 256
    config.data.image_size = 224
    _augment_photographs(config)
    config.augment.saturation = 0.2


def _fit_photographs(config: ConfigDict) -> None:
    """Sets the keys for small photographs of faces or scenes, and models that start from scratch."""
    config.epochs = config.teacher.epochs = 12
    config.data.size = 80
    config.data.image_size = 64
    _augment_photographs(config)


def _augment_photographs(config: ConfigDict) -> None:
    config.augment.crop_scale = 0.5
    config.augment.flip = True
    config.augment.brightness = 0.2
    config.augment.contrast = 0.2


DEFAULT_PRESET = "digits"
PRESETS: dict[str, Callable[[ConfigDict], None]] = {
    DEFAULT_PRESET: digits,
    "utkface": utkface,
    "wider": wider,
    "manifest": manifest,
}
