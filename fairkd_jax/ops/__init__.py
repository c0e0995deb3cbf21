"""Operations for the hardware: convolutions with several implementations, BatchNorm, gradient reversal."""

from fairkd_jax.ops.convolution import patch_convolution
from fairkd_jax.ops.depthwise import depthwise_conv
from fairkd_jax.ops.gradient_reversal import reverse_gradient
from fairkd_jax.ops.normalization import batch_norm
from fairkd_jax.ops.platform import compiler_options, use_platform
from fairkd_jax.ops.pointwise import pointwise_conv

__all__ = [
    "batch_norm",
    "compiler_options",
    "depthwise_conv",
    "patch_convolution",
    "pointwise_conv",
    "reverse_gradient",
    "use_platform",
]
