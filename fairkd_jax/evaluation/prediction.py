"""The answers of a run's model to any images: probabilities, and the maps of what speaks for each class."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fairkd_jax.data.augment import preprocess
from fairkd_jax.models import fold
from fairkd_jax.models.activation_maps import classify_with_maps
from fairkd_jax.runs.loading import LoadedModel


class Answers(NamedTuple):
    """The answers to N images.

    Attributes:
      probabilities: Probabilities, float32 [N, C].
      maps: Class activation maps, float32 [N, h, w, C]; None for a model without such maps.
    """

    probabilities: np.ndarray
    maps: np.ndarray | None


class Predictor:
    """A model with folded BatchNorms that is compiled once, for batches of one size.

    Attributes:
      model: The model of a run.
      batch_size: Number of images in a batch.
    """

    def __init__(self, model: LoadedModel, *, batch_size: int) -> None:
        """Folds the model.

        Args:
          model: The model of a run.
          batch_size: Number of images in a batch; the last batch of a call is padded.
        """
        self.model, self.batch_size = model, batch_size
        module, self._variables = fold(model.module, model.variables)

        def answer(variables: dict, images: jax.Array) -> tuple[jax.Array, jax.Array | None]:
            pixels = preprocess(images, size=model.image_size)
            logits, maps = classify_with_maps(module, variables, pixels)
            return jax.nn.softmax(logits), maps

        self._answer = jax.jit(answer)

    def predict(self, images: np.ndarray) -> Answers:
        """Answers to images.

        Args:
          images: Pixels, uint8 [N, S, S, 3] with N of 1 or more.
        """
        parts = []
        for start in range(0, len(images), self.batch_size):
            batch = images[start : start + self.batch_size]
            missing = self.batch_size - len(batch)
            padded = np.pad(batch, ((0, missing), (0, 0), (0, 0), (0, 0)))
            parts.append(jax.device_get(self._answer(self._variables, jnp.asarray(padded))))
        joined = jax.tree.map(lambda *arrays: np.concatenate(arrays)[: len(images)], *parts)
        return Answers(*joined)
