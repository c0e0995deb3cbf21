"""Factories of EfficientNet, a factory for each name in the table of architectures."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from fairkd_jax.models.architecture import ARCHITECTURES, find_architecture
from fairkd_jax.models.efficientnet import EfficientNet
from fairkd_jax.models.weights.conventions import Pretrained
from fairkd_jax.models.weights.convert import read_efficientnet


@dataclass(frozen=True)
class EfficientNetFactory:
    """The factory of an EfficientNet, with the reader of its pretrained weights.

    Attributes:
      name: Name in `ARCHITECTURES`.
    """

    name: str

    @property
    def image_size(self) -> int:
        """Side, in pixels, of the images that the network was designed for."""
        return find_architecture(self.name).image_size

    def __call__(
        self,
        num_classes: int,
        *,
        dtype: Any = jnp.float32,
        dropout_rate: float | None = None,
        stochastic_depth_rate: float | None = None,
        frozen_norm: bool = False,
        norm_momentum: float | None = None,
        norm_epsilon: float | None = None,
        rematerialize: bool = False,
        group_heads: int = 0,
    ) -> EfficientNet:
        """Makes the network; see `create_model` for the arguments."""
        chosen = {
            "dropout_rate": dropout_rate,
            "stochastic_depth_rate": stochastic_depth_rate,
            "bn_momentum": norm_momentum,
            "bn_epsilon": norm_epsilon,
        }
        given: dict[str, Any] = {key: value for key, value in chosen.items() if value is not None}
        return EfficientNet(
            replace(find_architecture(self.name), **given),
            num_classes,
            dtype=jnp.dtype(dtype),
            frozen_norm=frozen_norm,
            rematerialize=rematerialize,
            group_heads=group_heads,
        )

    def read_pretrained(self, path: Path, num_classes: int) -> Pretrained:
        """Reads published weights; see `registry.read_pretrained`."""
        return read_efficientnet(self.name, path, num_classes=num_classes)


class EfficientNetFactories(Mapping[str, EfficientNetFactory]):
    """A view of `ARCHITECTURES` as factories, which follows the table when it changes."""

    def __getitem__(self, name: str) -> EfficientNetFactory:
        """Returns the factory of a name; raises KeyError for an unknown name."""
        if name not in ARCHITECTURES:
            raise KeyError(name)
        return EfficientNetFactory(name)

    def __iter__(self) -> Iterator[str]:
        """Iterates over the names."""
        return iter(ARCHITECTURES)

    def __len__(self) -> int:
        """Returns the number of names."""
        return len(ARCHITECTURES)
