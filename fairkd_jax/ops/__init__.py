"""What the hardware runs: convolutions with several implementations, and gradient reversal."""

from fairkd_jax.ops.convolution import patch_convolution
from fairkd_jax.ops.depthwise import depthwise_conv
from fairkd_jax.ops.gradient_reversal import reverse_gradient

__all__ = ["depthwise_conv", "patch_convolution", "reverse_gradient"]
