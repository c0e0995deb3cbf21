"""The forward pass against explicit convolutions, and the conventions of the two families."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from fairkd_jax.models import create_model
from fairkd_jax.models.architecture import Architecture, Stage
from fairkd_jax.models.efficientnet import EfficientNet
from fairkd_jax.models.layers import draw_fan_out_normal
from tests.models.toy import TOY, images, random_variables


def test_initialisation():
    key = jax.random.key(0)
    for shape, fan_out in [((3, 3, 3, 64), 576), ((5, 5, 1, 400), 25), ((96, 300), 300)]:
        kernel = draw_fan_out_normal(key, shape)
        assert np.std(kernel) == pytest.approx((2 / fan_out) ** 0.5, rel=0.05)
    model = EfficientNet(replace(TOY, stages=TOY.stages[:1], head=512), num_classes=4)
    params = jax.jit(model.init)(key, images(1))["params"]
    assert np.std(params["head_conv"]["kernel"]) == pytest.approx((2 / 512) ** 0.5, rel=0.05)
    classifier = params["classifier"]
    assert 0.45 < np.max(np.abs(classifier["kernel"])) <= 0.5
    assert not np.any(classifier["bias"])


def reference_forward(params, stats, x, padding, epsilon):
    """A network of one block, spelled out with explicit lax convolutions, in evaluation mode."""

    def conv(x, kernel, stride, pads, groups=1):
        return lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            pads,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )

    def norm(x, name, tree=params, stats=stats):
        mean, var = (stats[name][k].reshape(1, 1, 1, -1) for k in ("mean", "var"))
        scale, bias = (tree[name][k].reshape(1, 1, 1, -1) for k in ("scale", "bias"))
        return (x - mean) / jnp.sqrt(var + epsilon) * scale + bias

    def swish(x):
        return x / (1 + jnp.exp(-x))

    def pads(x, kernel):
        if padding == "symmetric":
            return [((kernel - 1) // 2,) * 2] * 2
        totals = [kernel - 2 if size % 2 == 0 else kernel - 1 for size in x.shape[1:3]]
        return [(total // 2, total - total // 2) for total in totals]

    def one(kernel):
        return kernel[None, None]

    x = swish(norm(conv(x, params["stem_conv"]["kernel"], 2, pads(x, 3)), "stem_bn"))
    p, s = params["stage0_block0"], stats["stage0_block0"]
    x = swish(norm(conv(x, one(p["expand_conv"]["kernel"]), 1, "VALID"), "expand_bn", p, s))
    kernel = p["depthwise_conv"]["kernel"]
    x = conv(x, kernel, 2, pads(x, kernel.shape[0]), groups=kernel.shape[-1])
    x = swish(norm(x, "depthwise_bn", p, s))
    gate = jnp.mean(x, axis=(1, 2), keepdims=True)
    for name in ("se_reduce", "se_expand"):
        gate = conv(gate, one(p[name]["kernel"]), 1, "VALID") + p[name]["bias"].reshape(1, 1, 1, -1)
        gate = swish(gate) if name == "se_reduce" else 1 / (1 + jnp.exp(-gate))
    x = norm(conv(x * gate, one(p["project_conv"]["kernel"]), 1, "VALID"), "project_bn", p, s)
    x = swish(norm(conv(x, one(params["head_conv"]["kernel"]), 1, "VALID"), "head_bn"))
    embedding = jnp.mean(x, axis=(1, 2))
    classifier = params["classifier"]
    return embedding @ classifier["kernel"] + classifier["bias"][None], embedding


@pytest.mark.parametrize("size", [(18, 21), (23, 20)])
@pytest.mark.parametrize(("padding", "epsilon"), [("symmetric", 1e-5), ("SAME", 1e-3)])
def test_forward_equals_explicit_convolutions(padding, epsilon, size):
    """At these sizes the two strided convolutions see every mix of even and odd."""
    architecture = Architecture(
        stem=4,
        stages=(Stage(kernel=5, stride=2, expand=2, filters=6, blocks=1),),
        head=10,
        image_size=20,
        dropout_rate=0.5,
        stochastic_depth_rate=0.5,
        padding=padding,
        bn_epsilon=epsilon,
    )
    model = EfficientNet(architecture, num_classes=3)
    x = images(2, *size)
    variables = random_variables(model, x, spread=0.2)
    outputs = jax.jit(model.apply)(variables, x)
    logits, embedding = jax.jit(reference_forward, static_argnums=(3, 4))(
        variables["params"], variables["batch_stats"], x, padding, epsilon
    )
    np.testing.assert_allclose(outputs.logits, logits, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(outputs.embedding, embedding, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "padding", "epsilon", "momentum"),
    [("efficientnet_b4", "symmetric", 1e-5, 0.9), ("tf_efficientnet_b4", "SAME", 1e-3, 0.99)],
)
def test_conventions_of_the_families(name, padding, epsilon, momentum):
    architecture = create_model(name, num_classes=2).architecture
    assert architecture.padding == padding
    assert architecture.bn_epsilon == epsilon
    assert architecture.bn_momentum == momentum
