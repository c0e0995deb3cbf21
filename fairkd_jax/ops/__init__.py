"""What the hardware runs: convolutions with several implementations, BatchNorm, and gradient reversal."""

from fairkd_jax.ops.convolution import patch_convolution
from fairkd_jax.ops.depthwise import depthwise_conv
from fairkd_jax.ops.gradient_reversal import reverse_gradient
from fairkd_jax.ops.normalization import batch_norm
from fairkd_jax.ops.platform import compiler_options, compiling_for
from fairkd_jax.ops.pointwise import pointwise

__all__ = [
    "batch_norm",
    "compiler_options",
    "compiling_for",
    "depthwise_conv",
    "patch_convolution",
    "pointwise",
    "reverse_gradient",
]
