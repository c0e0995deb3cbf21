"""EfficientNet (Tan and Le 2019): inverted residual blocks with squeeze-and-excitation and swish."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from fairkd_jax.models.architecture import Architecture, Stage
from fairkd_jax.models.heads import by_group
from fairkd_jax.models.layers import (
    BatchNorm,
    DepthwiseConv,
    PointwiseConv,
    Shift,
    StemConv,
    classifier_uniform,
    spatial_mean,
)
from fairkd_jax.types import GroupOutputs, Outputs


def _norm(architecture: Architecture, train: bool, folded: bool) -> partial[BatchNorm] | type[Shift]:
    """BatchNorm of the family, or what is left of it once it is folded."""
    if folded:
        return Shift
    return partial(BatchNorm, train=train, momentum=architecture.bn_momentum, epsilon=architecture.bn_epsilon)


class MBConv(nn.Module):
    """Inverted residual block (MobileNetV2) with squeeze-and-excitation; layers in the order they run.

    Attributes:
      architecture: Source of the padding and BatchNorm conventions.
      stage: Kernel, expansion and width of this block.
      stride: 1, or the stage's stride in its first block.
      drop_rate: Probability that a row of the batch skips the residual branch while training (stochastic
        depth, Huang et al. 2016, with the survivors scaled up so that nothing changes at evaluation).
      dtype: Compute dtype.
      frozen_norm: Whether BatchNorm uses its running statistics in training too.
      folded: Whether each BatchNorm is folded into its convolution.
    """

    architecture: Architecture
    stage: Stage
    stride: int
    drop_rate: float
    dtype: Any
    frozen_norm: bool = False
    folded: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """[B, H, W, C] -> [B, H', W', stage.filters]."""
        norm = _norm(self.architecture, train and not self.frozen_norm, self.folded)
        inputs, channels = x, x.shape[-1]
        if self.stage.expand != 1:
            x = PointwiseConv(channels * self.stage.expand, name="expand_conv")(x)
            x = norm(name="expand_bn", swish=True)(x)
        x = DepthwiseConv(self.stage.kernel, self.stride, self.architecture.padding, name="depthwise_conv")(x)
        x = norm(name="depthwise_bn", swish=True)(x)
        # The squeeze is a quarter of the block's input, not of its expanded width.
        gate = spatial_mean(x).astype(self.dtype)
        gate = nn.swish(PointwiseConv(max(1, channels // 4), use_bias=True, name="se_reduce")(gate))
        gate = nn.sigmoid(PointwiseConv(x.shape[-1], use_bias=True, name="se_expand")(gate))
        x = x * gate[:, None, None, :]
        x = norm(name="project_bn")(PointwiseConv(self.stage.filters, name="project_conv")(x))
        if self.stride != 1 or channels != self.stage.filters:
            return x
        x = nn.Dropout(
            self.drop_rate, broadcast_dims=(1, 2, 3), deterministic=not train, name="stochastic_depth"
        )(x)
        return x + inputs


class EfficientNet(nn.Module):
    """An image classifier.

    `apply(variables, images, train=False)` gives `Outputs`. In training, `mutable=["batch_stats"]` returns
    the new running averages and `rngs={"dropout": key}` drives dropout and stochastic depth. Statistics are
    those of the global batch: under `jit` with a sharded batch the devices agree on them.

    Attributes:
      architecture: The table to build from.
      num_classes: Width of the logits.
      dtype: Compute dtype, float32 or bfloat16; parameters, statistics and outputs are float32 always.
      frozen_norm: Whether BatchNorm keeps its running statistics, and uses them, in training too.
      folded: Whether each BatchNorm is folded into its convolution, for inference alone; see `models.fold`.
      rematerialize: Whether the gradient computes each block again rather than keep what is inside it.
      group_heads: The number of groups where each has a head of its own; 0 for one head. See `models.heads`.
    """

    architecture: Architecture
    num_classes: int
    dtype: Any = jnp.float32
    frozen_norm: bool = False
    folded: bool = False
    rematerialize: bool = False
    group_heads: int = 0

    def setup(self) -> None:
        self.dropout = nn.Dropout(self.architecture.dropout_rate)
        heads = max(1, self.group_heads)
        self.classifier = nn.Dense(
            heads * self.num_classes, kernel_init=partial(classifier_uniform, heads=heads)
        )

    def classify(self, embedding: jax.Array, train: bool = False) -> Outputs | GroupOutputs:
        """The head alone, from the embedding float32 [B, D]; see `__call__`."""
        logits = self.classifier(self.dropout(embedding, deterministic=not train))
        if self.group_heads:
            return by_group(logits, embedding, self.group_heads)
        return Outputs(logits=logits, embedding=embedding)

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> Outputs | GroupOutputs:
        """Classifies.

        Args:
          images: Floating point [B, H, W, 3], already normalised.
          train: Whether to use the batch's statistics and drop at random.

        Returns:
          Logits float32 [B, num_classes] and the embedding float32 [B, architecture.head]; with heads for the
          groups, the logits of each as well.
        """
        architecture = self.architecture
        if self.folded and train:
            raise ValueError("a folded network only infers")
        norm = _norm(architecture, train and not self.frozen_norm, self.folded)
        x = images.astype(self.dtype)
        x = StemConv(architecture.stem, 3, 2, architecture.padding, name="stem_conv")(x)
        x = norm(name="stem_bn", swish=True)(x)

        block = nn.remat(MBConv, static_argnums=(2,)) if self.rematerialize and train else MBConv
        total = sum(stage.blocks for stage in architecture.stages)
        done = 0
        for i, stage in enumerate(architecture.stages):
            for j in range(stage.blocks):
                x = block(
                    architecture,
                    stage,
                    stride=stage.stride if j == 0 else 1,
                    drop_rate=architecture.stochastic_depth_rate * done / total,
                    dtype=self.dtype,
                    frozen_norm=self.frozen_norm,
                    folded=self.folded,
                    name=f"stage{i}_block{j}",
                )(x, train)
                done += 1

        x = PointwiseConv(architecture.head, name="head_conv")(x)
        embedding = spatial_mean(norm(name="head_bn", swish=True)(x))
        return self.classify(embedding, train)
