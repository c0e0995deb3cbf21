"""The tfds builder of all data sets, which writes staged images as ArrayRecord files.

The import of tfds takes most of a second. Therefore only `writing` imports this module, and only when there
is a data set to write.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from fairkd_jax.data.layout import HASHES, REPORT_NAME, VERSION, name_table_file
from fairkd_jax.data.preparation_plan import Example


@dataclass
class PreparedConfig(tfds.core.BuilderConfig):
    """Input of a builder: the examples and images to write.

    Attributes:
      size: Side of the images in pixels.
      encoding: Encoding of the images, "png" or "jpeg".
      class_names: Names of the labels.
      group_names: Names of the groups.
      attributes: Names of the additional integers of each example.
      examples: Examples of each split, in order, by split name.
      images: Function that takes a split name and yields (position in the split, encoded bytes) of each
        example, in any order.
      report: Content of the report file, ready for JSON.
      with_hashes: Whether the tables get the SHA-256 of each image file.
    """

    size: int = 0
    encoding: str = "png"
    class_names: tuple[str, ...] = ()
    group_names: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    examples: dict[str, list[Example]] = field(default_factory=dict)
    images: Callable[[str], Iterator[tuple[int, bytes]]] = field(default=lambda split: iter(()))
    report: dict[str, Any] = field(default_factory=dict)
    with_hashes: bool = True


class _OwnInfo(tfds.core.DatasetInfo):
    """Description of a data set that nobody publishes."""

    def initialize_from_bucket(self) -> None:
        """Does nothing; the method of tfds asks a server, and leaves a temporary folder behind."""


class PreparedBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Base of all builders, which writes staged examples in a fixed order.

    Attributes:
      ABOUT: Description of the data set, defined by each subclass.
      HOMEPAGE: Address of the data set's publisher, or None.
    """

    VERSION = tfds.core.Version(VERSION)
    ABOUT: ClassVar[str]
    HOMEPAGE: ClassVar[str | None] = None
    builder_config: PreparedConfig

    def _create_builder_config(self, builder_config: PreparedConfig, version: object) -> PreparedConfig:
        """Returns the configuration unchanged; the method of tfds prints all of it as a warning."""
        del version
        return builder_config

    def _log_download_bytes(self) -> None:
        """Prints nothing, because no builder downloads anything."""

    def _log_download_done(self) -> None:
        """Prints nothing, because the folder gets another name after this call."""

    def _info(self) -> tfds.core.DatasetInfo:
        config = self.builder_config
        side = config.size
        features = {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=(side, side, 3), encoding_format=config.encoding),
            "label": tfds.features.ClassLabel(names=config.class_names),
            "group": tfds.features.ClassLabel(names=config.group_names),
            **{name: tfds.features.Scalar(np.int32) for name in config.attributes},
        }
        return _OwnInfo(
            builder=self,
            description=self.ABOUT,
            features=tfds.features.FeaturesDict(features),
            homepage=self.HOMEPAGE,
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        del dl_manager  # no builder downloads anything
        config = self.builder_config
        self.data_path.joinpath(REPORT_NAME).write_text(json.dumps(config.report, indent=1))
        for split, examples in config.examples.items():
            columns: dict[str, Any] = {
                name: np.array([example.attributes[name] for example in examples], np.int32)
                for name in config.attributes
            }
            if config.with_hashes:
                columns[HASHES] = np.array([example.sha256 for example in examples], dtype=np.str_)
            columns["ids"] = np.array([example.id for example in examples], dtype=np.str_)
            columns["labels"] = np.array([example.label for example in examples], np.int32)
            columns["groups"] = np.array([example.group for example in examples], np.int32)
            with self.data_path.joinpath(name_table_file(split)).open("wb") as stream:
                np.savez_compressed(stream, **columns)
        return {split: self._generate_examples(split) for split in config.examples}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        config = self.builder_config
        examples = config.examples[split]
        for position, image in config.images(split):
            example = examples[position]
            yield (
                position,
                {
                    "id": example.id,
                    "image": image,
                    "label": example.label,
                    "group": example.group,
                    **{name: example.attributes[name] for name in config.attributes},
                },
            )
