"""The small network that some objectives train beside the student."""

import flax.linen as nn
import jax
from flax.linen.initializers import Initializer, lecun_normal


class MLP(nn.Module):
    """A multilayer perceptron from features [B, F] to [B, outputs].

    Attributes:
      hidden: Widths of the hidden layers.
      outputs: Width of the last layer.
      output_init: Initializer of the last layer's kernel.
    """

    hidden: tuple[int, ...]
    outputs: int
    output_init: Initializer = lecun_normal()

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """Returns the outputs [B, outputs] of features [B, F]."""
        x = features
        for i, width in enumerate(self.hidden):
            x = nn.relu(nn.Dense(width, name=f"hidden{i}")(x))
        return nn.Dense(self.outputs, kernel_init=self.output_init, name="output")(x)
