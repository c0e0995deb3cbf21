"""The sections of a config as dataclasses whose fields are the keys of the same names."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import jax.numpy as jnp

from fairkd_jax.data.augment import Augmentation
from fairkd_jax.errors import UsageError
from fairkd_jax.models import Classifier, create_model

# timm fine-tunes both families with 0.9. Keras's 0.99 takes some 500 steps to follow a model that changes.
FINETUNED_NORM_MOMENTUM = 0.9
HEADS = ("auto", "keep", "new")

Section = TypeVar("Section")


@dataclass(frozen=True)
class ModelRecipe:
    """A `student` or `teacher` section: the model, and the file of its first weights.

    Attributes: see the section `student` of the default config.
    """

    architecture: str
    dtype: str
    dropout_rate: float | None
    stochastic_depth_rate: float | None
    pretrained: str
    head: str
    norm_epsilon: float | None
    frozen_norm: bool
    norm_momentum: float | None
    rematerialize: bool
    group_heads: bool

    def create(self, num_classes: int, num_groups: int = 2) -> Classifier:
        """Creates the model.

        Args:
          num_classes: Number of classes.
          num_groups: Number of groups, for the heads of a model with one head for each group.

        Raises:
          UsageError: The architecture is unknown, or an option is out of range.
        """
        if self.dtype not in ("float32", "bfloat16"):
            raise UsageError(f"dtype={self.dtype!r} is unknown; use float32 or bfloat16")
        if self.head not in HEADS:
            raise UsageError(f"head={self.head!r} is unknown; use one of {', '.join(HEADS)}")
        if self.head == "keep" and (not self.pretrained or self.group_heads):
            why = "group_heads draws new ones" if self.pretrained else "there is no pretrained file"
            raise UsageError(f"head='keep' has no head to keep: {why}; use auto")
        momentum = self.norm_momentum
        if momentum is None and self.pretrained:
            momentum = FINETUNED_NORM_MOMENTUM
        return create_model(
            self.architecture,
            num_classes=num_classes,
            dtype=jnp.dtype(self.dtype),
            dropout_rate=self.dropout_rate,
            stochastic_depth_rate=self.stochastic_depth_rate,
            frozen_norm=self.frozen_norm,
            norm_momentum=momentum,
            norm_epsilon=self.norm_epsilon,
            rematerialize=self.rematerialize,
            group_heads=num_groups if self.group_heads else 0,
        )


@dataclass(frozen=True)
class TeacherRecipe:
    """The `teacher` section.

    Attributes:
      model: The teacher's model, where this run trains its teacher.
      checkpoint: Folder of a finished run; empty where this run trains its teacher.
      epochs: Number of epochs of its training; 0 takes a pretrained teacher as it is.
    """

    model: ModelRecipe
    checkpoint: str
    epochs: int


@dataclass(frozen=True)
class OptimizerRecipe:
    """The `optimizer` section; see the default config."""

    name: str
    learning_rate: float
    schedule: str
    warmup_epochs: float
    weight_decay: float
    momentum: float
    clip_norm: float
    ema_decay: float
    restart: bool


@dataclass(frozen=True)
class FinetuneRecipe:
    """The `finetune` section; see the default config."""

    backbone_scale: float
    head_first_epochs: float
    frozen: tuple[str, ...]


@dataclass(frozen=True)
class CheckpointRecipe:
    """The `checkpoints` section; see the default config."""

    keep: int
    keep_every_epochs: int


@dataclass(frozen=True)
class DataRecipe:
    """The `data` section; see the default config.

    Attributes:
      by_content: Whether the bytes of the images count, and not their names alone; see `open_dataset`.
      options: The data set's own options.
    """

    name: str
    source: str
    directory: str
    seed: int
    size: int
    resize: str
    quality: int
    image_size: int
    cache: str
    balance_groups: bool
    control: str
    max_bad_fraction: float
    max_file_mib: float
    allow_duplicates: bool
    by_content: bool
    options: Mapping[str, Any]


def parse_section(kind: type[Section], section: Mapping[str, Any], **others: Any) -> Section:
    """Makes a dataclass of the keys of the same names in a section.

    Args:
      kind: The dataclass.
      section: The section, of a config or of a run's `config.json`.
      **others: Values of fields that are no keys of the section.

    Raises:
      UsageError: The section lacks a key, which only the file of a run can.
    """
    names = [field.name for field in fields(kind) if field.name not in others]  # type: ignore[arg-type]
    if absent := [name for name in names if name not in section]:
        raise UsageError(f"the config of a run lacks the key {absent[0]}; train the run again")
    return kind(**make_tuples({name: section[name] for name in names}), **others)


def parse_model(section: Mapping[str, Any]) -> ModelRecipe:
    """Reads a `student` or `teacher` section."""
    return parse_section(ModelRecipe, section)


def parse_data(section: Mapping[str, Any]) -> DataRecipe:
    """Reads a `data` section, with the options of its data set alone."""
    options = section.get(section["name"], {})
    return parse_section(DataRecipe, section, by_content=True, options=make_tuples(dict(options)))


def parse_augmentation(section: Mapping[str, Any]) -> Augmentation:
    """Reads an `augment` section.

    Raises:
      UsageError: A value is out of range.
    """
    return Augmentation(
        crop_scale=(section["crop_scale"], 1.0),
        flip=section["flip"],
        brightness=section["brightness"],
        contrast=section["contrast"],
        saturation=section["saturation"],
    )


def make_tuples(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns options with tuples for lists; a config from JSON holds lists."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
