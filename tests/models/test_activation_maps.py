"""Class activation maps: they add up to the logits, and the other outputs stay as they are."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fairkd_jax.models import EfficientNet, fold
from fairkd_jax.models.activation_maps import classify_with_maps
from tests.models.toy import TOY, images, random_variables


@pytest.mark.parametrize("group_heads", [0, 2])
def test_the_mean_of_a_map_is_the_logit_without_its_bias(group_heads):
    model, x = EfficientNet(TOY, num_classes=3, group_heads=group_heads), images(2)
    variables = random_variables(model, x, spread=0.5)
    plain = jax.jit(model.apply)(variables, x).logits
    bias = variables["params"]["classifier"]["bias"].reshape(-1, 3).sum(axis=0)
    for form, values in ((model, variables), fold(model, variables)):
        logits, maps = jax.jit(lambda v, form=form: classify_with_maps(form, v, x))(values)
        np.testing.assert_allclose(logits, plain, rtol=1e-4, atol=1e-4)
        assert maps.ndim == 4
        np.testing.assert_allclose(
            np.asarray(maps).mean(axis=(1, 2)) + np.asarray(bias), plain, rtol=1e-4, atol=1e-4
        )


def test_a_network_that_sows_no_map_has_none():
    model = SimpleNamespace(apply=lambda variables, x, mutable: (SimpleNamespace(logits=x), {}))
    logits, maps = classify_with_maps(model, {}, jnp.ones((1, 2)))
    assert maps is None
    assert logits.shape == (1, 2)


def test_the_first_variables_hold_no_map():
    model = EfficientNet(TOY, num_classes=3)
    assert set(jax.eval_shape(model.init, jax.random.key(0), images(1))) == {"params", "batch_stats"}
