"""EfficientNet (Tan and Le 2019): inverted residual blocks with squeeze-and-excitation and swish."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from fairkd_jax.models.activation_maps import FEATURE_MAP
from fairkd_jax.models.architecture import Architecture, Stage
from fairkd_jax.models.folding import fold_batch_norms
from fairkd_jax.models.heads import split_by_group
from fairkd_jax.models.layers import (
    BatchNorm,
    DepthwiseConv,
    PointwiseConv,
    Shift,
    StemConv,
    average_pixels,
    draw_classifier_uniform,
)
from fairkd_jax.types import GroupOutputs, Outputs, Tree

_HEAD = "classifier"  # also the name of the attribute that `setup` makes


def _choose_norm(architecture: Architecture, train: bool, folded: bool) -> partial[BatchNorm] | type[Shift]:
    """Chooses the family's BatchNorm, or the bias that remains of a folded one."""
    if folded:
        return Shift
    return partial(BatchNorm, train=train, momentum=architecture.bn_momentum, epsilon=architecture.bn_epsilon)


class MBConv(nn.Module):
    """Inverted residual block (MobileNetV2) with squeeze-and-excitation.

    Attributes:
      architecture: Source of the padding and BatchNorm conventions.
      stage: Kernel, expansion and width of this block.
      stride: Stride of the depthwise convolution: 1, or the stage's stride in its first block.
      drop_rate: Probability that an image of the batch skips the residual branch in training (stochastic
        depth, Huang et al. 2016). The branch of the other images is scaled up, so that evaluation needs no
        change.
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
        """Applies the block.

        Args:
          x: Activations [B, H, W, C].
          train: Whether to use the batch's statistics and to skip branches at random.

        Returns:
          Activations [B, H', W', stage.filters].
        """
        norm = _choose_norm(self.architecture, train and not self.frozen_norm, self.folded)
        inputs, channels = x, x.shape[-1]
        if self.stage.expand != 1:
            x = PointwiseConv(channels * self.stage.expand, name="expand_conv")(x)
            x = norm(name="expand_bn", swish=True)(x)
        x = DepthwiseConv(self.stage.kernel, self.stride, self.architecture.padding, name="depthwise_conv")(x)
        x = norm(name="depthwise_bn", swish=True)(x)
        # The squeeze has a quarter of the channels of the block's input, not of the expanded channels.
        gate = average_pixels(x).astype(self.dtype)
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
    """An image classifier; it satisfies `Classifier`.

    `apply(variables, images, train=False)` returns `Outputs`. In training, `mutable=["batch_stats"]` returns
    the new running averages, and dropout and stochastic depth take the key of `rngs={"dropout": key}`.
    Statistics are those of the global batch: under `jit` with a sharded batch all devices have the same ones.

    Attributes:
      architecture: Static description of the network.
      num_classes: Width of the logits.
      dtype: Compute dtype, float32 or bfloat16; parameters, statistics and outputs are always float32.
      frozen_norm: Whether BatchNorm keeps and uses its running statistics in training too.
      folded: Whether each BatchNorm is folded into its convolution, for inference alone; see `models.fold`.
      rematerialize: Whether the gradient computes each block again instead of storing its activations.
      group_heads: Number of groups, if each has its own head; 0 for a single head. See `models.heads`.
    """

    architecture: Architecture
    num_classes: int
    dtype: Any = jnp.float32
    frozen_norm: bool = False
    folded: bool = False
    rematerialize: bool = False
    group_heads: int = 0

    def setup(self) -> None:
        """Makes the layers of the head."""
        self.dropout = nn.Dropout(self.architecture.dropout_rate)
        heads = max(1, self.group_heads)
        self.classifier = nn.Dense(
            heads * self.num_classes, kernel_init=partial(draw_classifier_uniform, heads=heads)
        )

    @property
    def embedding_width(self) -> int:
        """Width D of the embedding."""
        return self.architecture.head

    @property
    def head_name(self) -> str:
        """Name of the head in the parameters."""
        return _HEAD

    @nn.nowrap
    def inference_form(self) -> "EfficientNet":
        """Returns the same network with folded BatchNorms; a folded network cannot be trained."""
        return self.clone(folded=True)

    @nn.nowrap
    def fold_variables(self, variables: Mapping[str, Tree]) -> dict[str, Tree]:
        """Folds each BatchNorm into the convolution before it; see `folding.fold_batch_norms`.

        Args:
          variables: Parameters and statistics, float32.

        Returns:
          Variables of the inference form: kernels in the compute dtype, biases and the head in float32.
        """
        params, statistics = variables["params"], variables["batch_stats"]
        folded = fold_batch_norms(params, statistics, self.architecture.bn_epsilon, jnp.dtype(self.dtype))
        return {"params": folded}

    def classify(self, embedding: jax.Array, train: bool = False) -> Outputs | GroupOutputs:
        """Applies the head alone.

        Args:
          embedding: Embeddings, float32 [B, D].
          train: Whether to drop at random.

        Returns:
          The same as `__call__`.
        """
        logits = self.classifier(self.dropout(embedding, deterministic=not train))
        if self.group_heads:
            return split_by_group(logits, embedding, self.group_heads)
        return Outputs(logits=logits, embedding=embedding)

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> Outputs | GroupOutputs:
        """Classifies images.

        Args:
          images: Normalised images, floating point [B, H, W, 3].
          train: Whether to use the batch's statistics and to drop at random.

        Returns:
          Logits, float32 [B, num_classes], and embeddings, float32 [B, embedding_width]; with a head for each
          group, also the logits of each group's head.

        Raises:
          ValueError: The network is folded and `train` is True.
        """
        architecture = self.architecture
        if self.folded and train:
            raise ValueError("a folded network only infers; train the network before folding")
        norm = _choose_norm(architecture, train and not self.frozen_norm, self.folded)
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
        x = norm(name="head_bn", swish=True)(x)
        self.sow("intermediates", FEATURE_MAP, x)  # computed for whoever asks for it, see `activation_maps`
        return self.classify(average_pixels(x), train)
