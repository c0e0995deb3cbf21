"""Other forms of a network that compute the same: folded for inference, rematerialised for training."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from fairkd_jax.models import EfficientNet, fold
from fairkd_jax.ops import compiler_options
from tests.models.toy import TOY, images, random_variables

MODEL = EfficientNet(TOY, num_classes=5)
IMAGES = np.random.default_rng(1).normal(size=(4, 16, 16, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def variables():
    return random_variables(MODEL, images(2), spread=0.5)


def error(found, expected):
    return max(np.abs(a - b).max() / np.abs(b).max() for a, b in zip(found, expected, strict=True))


def test_a_folded_network_infers_the_same(variables):
    model, folded = jax.jit(lambda v: fold(MODEL, v)[1])(variables), fold(MODEL, variables)[0]
    assert model.keys() == {"params"}
    assert not any("scale" in jax.tree_util.keystr(p) for p, _ in jax.tree_util.tree_leaves_with_path(model))
    x = images(4)
    expected = jax.jit(MODEL.apply)(variables, x)
    assert error(jax.jit(folded.apply)(model, x), expected) < 1e-5
    # The folded variables are those that the folded model makes.
    shapes = jax.eval_shape(folded.init, jax.random.key(0), x)["params"]
    assert jax.tree.map(jnp.shape, model["params"]) == jax.tree.map(jnp.shape, shapes)


def test_folding_takes_the_epsilon_of_the_architecture():
    """Variances are small, as those of a trained network may be: another epsilon would be seen."""
    model = EfficientNet(replace(TOY, stages=(), bn_epsilon=1e-3), num_classes=5)
    variables = random_variables(model, IMAGES, spread=0.5)
    small = jax.tree_util.tree_map_with_path(
        lambda path, leaf: 1e-3 * leaf if path[-1].key == "var" else leaf, variables["batch_stats"]
    )
    variables = variables | {"batch_stats": small}
    folded = fold(model, variables)
    quick = {"xla_backend_optimization_level": 0}
    found, expected = (
        jax.jit(m.apply, compiler_options=quick)(v, IMAGES) for m, v in (folded, (model, variables))
    )
    assert error(found, expected) < 1e-5


@pytest.mark.parametrize("epsilon", [1e-5, 1e-3])
def test_folded_kernels_and_biases_are_those_of_the_formula(epsilon):
    model = EfficientNet(replace(TOY, bn_epsilon=epsilon), num_classes=5)
    variables = random_variables(model, IMAGES, spread=0.5)
    found = flatten_dict(fold(model, variables)[1]["params"])
    given, statistics = (
        {path: np.asarray(leaf, np.float64) for path, leaf in flatten_dict(variables[name]).items()}
        for name in ("params", "batch_stats")
    )
    norms = [path[:-1] for path in statistics if path[-1] == "var"]
    assert norms
    for *where, name in norms:
        norm, kernel = (*where, name), (*where, name.removesuffix("bn") + "conv", "kernel")
        factor = given[*norm, "scale"] / np.sqrt(statistics[*norm, "var"] + epsilon)
        np.testing.assert_allclose(found[kernel], given[kernel] * factor, rtol=1e-5)
        bias = given[*norm, "bias"] - statistics[*norm, "mean"] * factor
        np.testing.assert_allclose(found[*norm, "bias"], bias, rtol=1e-5, atol=1e-6)


def test_in_bfloat16_it_is_as_exact_as_before(variables):
    narrow, x = MODEL.clone(dtype=jnp.bfloat16), images(16)
    exact = jax.jit(MODEL.apply)(variables, x)
    folded, folded_variables = fold(narrow, variables)
    kernels = folded_variables["params"]["stage1_block0"]["expand_conv"]
    assert kernels["kernel"].dtype == jnp.bfloat16
    assert folded_variables["params"]["stem_bn"]["bias"].dtype == jnp.float32
    found = error(jax.jit(folded.apply)(folded_variables, x), exact)
    assert found < 1.5 * error(jax.jit(narrow.apply)(variables, x), exact)


def test_it_cannot_be_trained(variables):
    folded, folded_variables = fold(MODEL, variables)
    with pytest.raises(ValueError, match="only infers"):
        folded.apply(folded_variables, images(2), train=True)


def test_rematerialisation_changes_nothing_but_the_memory():
    deep = replace(TOY, stages=(replace(TOY.stages[1], stride=1, blocks=4),), dropout_rate=0.3)
    lossy, x = MODEL.clone(architecture=deep), images(16, 32, 32)
    variables = random_variables(lossy, x)

    def compiled(model):
        def loss(params):
            outputs, updates = model.apply(
                {"params": params, "batch_stats": variables["batch_stats"]},
                x,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": jax.random.key(1)},
            )
            return jnp.sum(outputs.logits**2), updates

        gradient = jax.value_and_grad(loss, has_aux=True)
        return jax.jit(gradient, compiler_options=compiler_options()).lower(variables["params"]).compile()

    plain, again = compiled(lossy), compiled(lossy.clone(rematerialize=True))
    (expected, statistics), gradient = plain(variables["params"])
    (found, same_statistics), same_gradient = again(variables["params"])
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), same_statistics, statistics)
    leaves = [jax.tree.leaves(tree) for tree in (same_gradient, gradient)]
    largest = max(np.abs(leaf).max() for leaf in leaves[1])
    for a, b in zip(*leaves, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * largest)
    kept, recomputed = (program.memory_analysis().temp_size_in_bytes for program in (plain, again))
    assert recomputed < 0.7 * kept
