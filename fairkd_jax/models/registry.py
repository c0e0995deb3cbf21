"""The table of models: a name, and the factory of the classifier with this name."""

import inspect
from collections import ChainMap
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
from absl import logging

from fairkd_jax.errors import UsageError
from fairkd_jax.models.architecture import ARCHITECTURES
from fairkd_jax.models.classifier import Classifier
from fairkd_jax.models.efficientnet_factory import EfficientNetFactories
from fairkd_jax.models.weights.conventions import Pretrained
from fairkd_jax.types import Tree
from fairkd_jax.user_paths import parse_path

# Called as `factory(num_classes, **options)`; its signature says which options of `create_model` it takes.
# It may have the attribute `image_size` (pixels) and the method `read_pretrained(path, num_classes)`, which
# returns the fields of `Pretrained`, at least the variables and whether their head is new.
Factory = Callable[..., Classifier]

# Other packages add an architecture with `MODELS["mine"] = factory`.
MODELS: MutableMapping[str, Factory] = ChainMap(
    {}, cast(MutableMapping[str, Factory], EfficientNetFactories())
)
# The names of this package.
MODEL_NAMES: tuple[str, ...] = tuple(ARCHITECTURES)

# The values that ask nothing of a model: a factory need not take an option that has this value.
_NEUTRAL: dict[str, Any] = {
    "dtype": jnp.dtype(jnp.float32),
    "dropout_rate": None,
    "stochastic_depth_rate": None,
    "frozen_norm": False,
    "norm_momentum": None,
    "norm_epsilon": None,
    "rematerialize": False,
    "group_heads": 0,
}


def create_model(
    name: str,
    *,
    num_classes: int,
    dtype: Any = jnp.float32,
    dropout_rate: float | None = None,
    stochastic_depth_rate: float | None = None,
    frozen_norm: bool = False,
    norm_momentum: float | None = None,
    norm_epsilon: float | None = None,
    rematerialize: bool = False,
    group_heads: int = 0,
) -> Classifier:
    """Creates a model by its name.

    Args:
      name: Name in `MODELS`. The package has `efficientnet_b0` to `_b7` (symmetric padding, epsilon 1e-5:
        torchvision, timm), `tf_efficientnet_b0` to `_b7` (SAME padding, epsilon 1e-3: TensorFlow, Keras), and
        `efficientnet_tiny` and `efficientnet_mini` for 32 px images.
      num_classes: Width of the logits, at least 2.
      dtype: Compute dtype, float32 or bfloat16.
      dropout_rate: Probability of dropout on the embedding; None for the model's own.
      stochastic_depth_rate: Probability that the deepest block is skipped; None for the model's own.
      frozen_norm: Whether BatchNorm keeps and uses its running statistics in training too.
      norm_momentum: Share of BatchNorm's old running statistics that a step keeps; None for the model's own.
      norm_epsilon: Number that BatchNorm adds to the variance; None for the model's own.
      rematerialize: Whether the gradient computes each block again instead of storing its activations.
      group_heads: Number of groups, if each has its own head; 0 for a single head.

    Returns:
      The model; `.apply(variables, images, train=False)` returns `Outputs`.

    Raises:
      UsageError: The name is unknown, a number is out of range, or the model does not take an option.
    """
    factory = _find_factory(name)
    _check_num_classes(num_classes)
    if group_heads < 0 or group_heads == 1:
        raise UsageError(f"group_heads={group_heads} tells no groups apart; use 2 or more, or 0 for one head")
    if jnp.dtype(dtype) not in (jnp.dtype(jnp.float32), jnp.dtype(jnp.bfloat16)):
        raise UsageError(f"dtype {jnp.dtype(dtype).name} is not supported; use float32 or bfloat16")
    _check_rate("dropout_rate", dropout_rate)
    _check_rate("stochastic_depth_rate", stochastic_depth_rate)
    _check_rate("norm_momentum", norm_momentum)
    if norm_epsilon is not None and not 0.0 < norm_epsilon < 1.0:
        raise UsageError(f"norm_epsilon={norm_epsilon} is out of range; use a number above 0 and below 1")
    options = {
        "dtype": jnp.dtype(dtype),
        "dropout_rate": dropout_rate,
        "stochastic_depth_rate": stochastic_depth_rate,
        "frozen_norm": frozen_norm,
        "norm_momentum": norm_momentum,
        "norm_epsilon": norm_epsilon,
        "rematerialize": rematerialize,
        "group_heads": group_heads,
    }
    return factory(num_classes, **_select_options(name, factory, options))


def read_pretrained(name: str, path: str | Path, *, num_classes: int) -> Pretrained:
    """Reads published weights as `load_pretrained` does, with what the file says beside the arrays.

    Raises:
      UsageError: See `load_pretrained`.
    """
    reader = getattr(_find_factory(name), "read_pretrained", None)
    _check_num_classes(num_classes)
    if reader is None:
        raise UsageError(f"model {name!r} has no reader of pretrained weights; train it from scratch")
    return Pretrained(*reader(parse_path(path), num_classes))


def load_pretrained(name: str, path: str | Path, *, num_classes: int = 1000) -> Tree:
    """Reads published weights.

    Args:
      name: Name of the model. Its family must be that of the file: `efficientnet_*` for the weights of
        torchvision and timm, `tf_efficientnet_*` for those of Keras and for timm's `tf_` ones.
      path: A .safetensors, .h5 or .pth file of torchvision, timm or Keras; the names of its arrays say which.
      num_classes: Number of classes. A head of this size is kept, whatever its classes are. If the file has
        no head, or a head of another size, a new head is drawn at random, and the log says so.

    Returns:
      Variables `{"params": ..., "batch_stats": ...}`, float32.

    Raises:
      UsageError: The model has no reader of pretrained weights, the file cannot be read, or its arrays do not
        fit: one line with the names that are missing, unexpected or of another shape.
    """
    pretrained = read_pretrained(name, path, num_classes=num_classes)
    if pretrained.new_head:
        logging.info("%s has no head of %d classes: the head is new", path, num_classes)
    if pretrained.norm_epsilon is not None:
        logging.warning(
            "%s needs create_model(%r, ..., norm_epsilon=%g)", path, name, pretrained.norm_epsilon
        )
    return pretrained.variables


def get_image_size(name: str) -> int:
    """Returns the side, in pixels, of the images that a model was designed for.

    Raises:
      UsageError: The name is unknown, or the model is made for images of any size.
    """
    size = getattr(_find_factory(name), "image_size", None)
    if size is None:
        raise UsageError(f"model {name!r} names no image size; choose a size yourself")
    return size


def num_parameters(params: Tree) -> int:
    """Counts the scalars in a tree of arrays or of shapes, such as `variables["params"]`."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def _find_factory(name: str) -> Factory:
    if name not in MODELS:
        raise UsageError(f"model {name!r} is unknown; use one of {', '.join(MODELS)}")
    return MODELS[name]


def _select_options(name: str, factory: Factory, options: dict[str, Any]) -> dict[str, Any]:
    """Selects the options that a factory takes; None is left out, for the factory's own default.

    Raises:
      UsageError: An option that the factory does not take has another value than the neutral one.
    """
    parameters = inspect.signature(factory).parameters.values()
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    taken = {parameter.name for parameter in parameters}
    selected = {}
    for key, value in options.items():
        if takes_all or key in taken:
            if value is not None:
                selected[key] = value
        elif value != _NEUTRAL[key]:
            raise UsageError(f"model {name!r} does not take the option {key}={value}; leave the option out")
    return selected


def _check_num_classes(num_classes: int) -> None:
    if num_classes < 2:
        raise UsageError(f"num_classes={num_classes} leaves nothing to tell apart; use 2 or more")


def _check_rate(key: str, rate: float | None) -> None:
    if rate is not None and not 0.0 <= rate < 1.0:
        raise UsageError(f"{key}={rate} is not a probability below 1; use a number in [0, 1)")
