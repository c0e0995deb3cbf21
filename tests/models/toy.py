"""A network that compiles in a second or two, its images and its variables."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from fairkd_jax.models.architecture import Architecture, Stage

# Small, and still with every kind of block.
TOY = Architecture(
    stem=8,
    stages=(
        Stage(kernel=3, stride=1, expand=1, filters=8, blocks=1),
        Stage(kernel=5, stride=2, expand=2, filters=16, blocks=1),
    ),
    head=24,
    image_size=16,
    dropout_rate=0.0,
    stochastic_depth_rate=0.0,
)
# No block, or two: what surrounds a network is tested with these, which compile in a second.
STEM = Architecture(8, (), head=16, image_size=16, dropout_rate=0.1, stochastic_depth_rate=0.0)
_STAGE = Stage(kernel=3, stride=2, expand=2, filters=8, blocks=1)
BLOCKS = replace(STEM, stages=(_STAGE, _STAGE))
STEMS = {"stem": STEM, "wide_stem": replace(STEM, stem=12, head=24), "blocks": BLOCKS}


def images(batch, height=16, width=16):
    return jnp.float32(np.random.default_rng(7).normal(size=(batch, height, width, 3)))


def random_variables(module, *args, spread=0.0):
    """Variables drawn by numpy, which compiles nothing; biases, scales and statistics vary by `spread`."""
    rng = np.random.default_rng(0)
    starts = {"scale": 1.0, "var": 1.0, "bias": 0.0, "mean": 0.0}

    def draw(path, leaf):
        name = path[-1].key
        if name in starts:
            return jnp.float32(starts[name] + spread * rng.uniform(size=leaf.shape))
        fan_in = np.prod(leaf.shape[:-1])
        return jnp.float32(rng.normal(size=leaf.shape) * (2.0 / fan_in) ** 0.5)

    tree = jax.eval_shape(lambda key: module.init(key, *args), jax.random.key(0))
    return jax.tree_util.tree_map_with_path(draw, tree)
