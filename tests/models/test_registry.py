"""Names, sizes and trees of the networks."""

from functools import cache

import jax
import jax.numpy as jnp
import pytest

from fairkd_jax.errors import UsageError
from fairkd_jax.models import MODEL_NAMES, create_model, get_image_size, num_parameters
from fairkd_jax.models.architecture import ARCHITECTURES, round_filters


@cache
def shapes(name, num_classes=1000):
    model = create_model(name, num_classes=num_classes)
    size = get_image_size(name)
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, size, size, 3)))


@pytest.mark.parametrize(
    ("name", "trainable", "with_statistics"),
    [
        ("efficientnet_b0", 5_288_548, 5_330_564),
        ("efficientnet_b1", 7_794_184, None),
        ("efficientnet_b2", 9_109_994, None),
        ("efficientnet_b3", 12_233_232, 12_320_528),
        ("tf_efficientnet_b0", 5_288_548, 5_330_564),
    ],
)
def test_published_parameter_counts(name, trainable, with_statistics):
    variables = shapes(name)
    assert num_parameters(variables["params"]) == trainable
    if with_statistics is not None:
        assert num_parameters(variables) == with_statistics


def count_parameters(network):
    """Counts the scalars of a network with 1000 classes, from its table alone."""
    channels, total = network.stem, 3 * 9 * network.stem + 2 * network.stem
    for stage in network.stages:
        for _ in range(stage.blocks):
            inner, squeezed = channels * stage.expand, channels // 4
            total += (channels + 2) * inner if stage.expand > 1 else 0
            total += (stage.kernel**2 + 2) * inner + 2 * inner * squeezed + inner + squeezed
            total += (inner + 2) * stage.filters
            channels = stage.filters
    return total + (channels + 2) * network.head + 1000 * (network.head + 1)


@pytest.mark.parametrize(
    ("size", "parameters", "image_size", "dropout"),
    [  # torchvision's documentation of its weights; image size and dropout of the authors' own table
        (0, 5_288_548, 224, 0.2),
        (1, 7_794_184, 240, 0.2),
        (2, 9_109_994, 260, 0.3),
        (3, 12_233_232, 300, 0.3),
        (4, 19_341_616, 380, 0.4),
        (5, 30_389_784, 456, 0.4),
        (6, 43_040_704, 528, 0.5),
        (7, 66_347_960, 600, 0.5),
    ],
)
def test_the_constants_of_every_variant(size, parameters, image_size, dropout):
    for family, padding, epsilon, momentum in (("", "symmetric", 1e-5, 0.9), ("tf_", "SAME", 1e-3, 0.99)):
        network = ARCHITECTURES[f"{family}efficientnet_b{size}"]
        assert count_parameters(network) == parameters
        assert (network.image_size, network.dropout_rate, network.stochastic_depth_rate) == (
            image_size,
            dropout,
            0.2,
        )
        assert (network.padding, network.bn_epsilon, network.bn_momentum) == (padding, epsilon, momentum)
        assert [stage.kernel for stage in network.stages] == [3, 3, 5, 3, 5, 5, 3]
        assert [stage.stride for stage in network.stages] == [1, 2, 2, 2, 1, 2, 1]


@pytest.mark.parametrize(
    ("name", "stem", "filters", "blocks", "head"),
    [
        ("efficientnet_b0", 32, [16, 24, 40, 80, 112, 192, 320], [1, 2, 2, 3, 3, 4, 1], 1280),
        ("efficientnet_b3", 40, [24, 32, 48, 96, 136, 232, 384], [2, 3, 3, 5, 5, 6, 2], 1536),
        ("tf_efficientnet_b7", 64, [32, 48, 80, 160, 224, 384, 640], [4, 7, 7, 10, 10, 13, 4], 2560),
    ],
)
def test_widths_and_depths(name, stem, filters, blocks, head):
    architecture = create_model(name, num_classes=2).architecture
    assert architecture.stem == stem
    assert [stage.filters for stage in architecture.stages] == filters
    assert [stage.blocks for stage in architecture.stages] == blocks
    assert architecture.head == head


@pytest.mark.parametrize(
    ("name", "width"),
    [("efficientnet_b0", 1280), ("efficientnet_b2", 1408), ("tf_efficientnet_b3", 1536)],
)
def test_embedding_width_and_dtypes(name, width):
    model = create_model(name, num_classes=7, dtype=jnp.bfloat16)
    x = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    outputs = jax.eval_shape(model.apply, variables, x)
    assert (outputs.embedding.shape, outputs.logits.shape) == ((2, width), (2, 7))
    assert outputs.embedding.dtype == outputs.logits.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}


def test_small_models_are_small():
    tiny, mini = (num_parameters(shapes(f"efficientnet_{name}", 10)["params"]) for name in ("tiny", "mini"))
    assert 30_000 <= tiny <= 40_000
    assert 4 <= mini / tiny <= 6
    heads = [create_model(f"efficientnet_{n}", num_classes=2).architecture.head for n in ("tiny", "mini")]
    assert heads[0] < heads[1]


def test_squeeze_width_comes_from_the_input_of_the_block():
    params = shapes("efficientnet_b0")["params"]
    assert params["stage0_block0"]["se_reduce"]["kernel"].shape == (32, 8)
    assert params["stage1_block0"]["se_reduce"]["kernel"].shape == (96, 4)
    assert params["stage1_block1"]["se_expand"]["kernel"].shape == (6, 144)


def test_every_submodule_has_an_explicit_name():
    variables = shapes("efficientnet_b0")
    layers = {"depthwise_conv", "depthwise_bn", "se_reduce", "se_expand", "project_conv", "project_bn"}
    blocks = {f"stage{i}_block{j}" for i, n in enumerate([1, 2, 2, 3, 3, 4, 1]) for j in range(n)}
    params = variables["params"]
    assert type(params) is dict
    assert set(params) == blocks | {"stem_conv", "stem_bn", "head_conv", "head_bn", "classifier"}
    for block in blocks:
        expanded = set() if block == "stage0_block0" else {"expand_conv", "expand_bn"}
        assert set(params[block]) == layers | expanded
    assert params["stem_conv"]["kernel"].shape == (3, 3, 3, 32)
    assert params["stage2_block1"]["depthwise_conv"]["kernel"].shape == (5, 5, 1, 240)
    assert set(variables["batch_stats"]["stage1_block0"]) == {"expand_bn", "depthwise_bn", "project_bn"}


@pytest.mark.parametrize(
    ("filters", "width", "expected"),
    [(32, 1.0, 32), (16, 1.1, 16), (40, 1.1, 48), (80, 1.2, 96), (24, 1.4, 32), (8, 0.5, 8)],
)
def test_rounding_of_filters(filters, width, expected):
    assert round_filters(filters, width) == expected


def test_names_and_resolutions():
    published = [f"{prefix}efficientnet_b{i}" for prefix in ("", "tf_") for i in range(8)]
    assert [*published, "efficientnet_tiny", "efficientnet_mini"] == list(MODEL_NAMES)
    sizes = [224, 240, 260, 300, 380, 456, 528, 600]
    assert [get_image_size(name) for name in published] == sizes * 2
    rates = [create_model(name, num_classes=2).architecture.dropout_rate for name in published]
    assert rates == [0.2, 0.2, 0.3, 0.3, 0.4, 0.4, 0.5, 0.5] * 2


def test_rates_can_be_chosen():
    model = create_model("tf_efficientnet_b1", num_classes=2, dropout_rate=0.0, stochastic_depth_rate=0.1)
    assert model.architecture.dropout_rate == 0.0
    assert model.architecture.stochastic_depth_rate == 0.1


def test_mistakes_are_named():
    with pytest.raises(UsageError, match=r"'resnet50' is unknown; use one of efficientnet_b0, .*_mini"):
        create_model("resnet50", num_classes=2)
    with pytest.raises(UsageError, match="is unknown"):
        get_image_size("efficientnet_b9")
    with pytest.raises(UsageError, match="num_classes=1"):
        create_model("efficientnet_tiny", num_classes=1)
    with pytest.raises(UsageError, match="dtype float16"):
        create_model("efficientnet_tiny", num_classes=2, dtype=jnp.float16)
    for key in ("dropout_rate", "stochastic_depth_rate"):
        with pytest.raises(UsageError, match=f"{key}=1.0"):
            create_model("efficientnet_tiny", num_classes=2, **{key: 1.0})


@pytest.mark.parametrize("name", ["efficientnet_tiny", "efficientnet_mini"])
def test_small_models_trace_a_training_step(name):
    model = create_model(name, num_classes=4, dtype=jnp.bfloat16, stochastic_depth_rate=0.2)
    x = jax.ShapeDtypeStruct((8, 32, 32, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)

    def loss(params, stats, x):
        outputs, _ = model.apply(
            {"params": params, "batch_stats": stats},
            x,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(0)},
        )
        return outputs.logits.sum()

    gradients = jax.eval_shape(jax.grad(loss), variables["params"], variables["batch_stats"], x)
    assert jax.tree.structure(gradients) == jax.tree.structure(variables["params"])
