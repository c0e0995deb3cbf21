"""Prints which kernels in C++ a small program uses: `python native_program.py DTYPE`."""

import sys

import jax
import jax.numpy as jnp

from fairkd_jax.ops import batch_norm, depthwise_conv

NAMES = ("depthwise_forward", "depthwise_backward", "batch_norm_forward", "batch_norm_backward")


def run(x, kernel, scale):
    y = depthwise_conv(x, kernel, stride=1, padding="SAME")
    return batch_norm(y, scale, scale, 1e-3, True)[0].sum()


x = jnp.ones((2, 8, 8, 4), sys.argv[1])
program = jax.jit(jax.grad(run)).lower(x, jnp.ones((3, 3, 1, 4)), jnp.ones(4)).as_text()
print([name for name in NAMES if "fairkd_" + name in program])
