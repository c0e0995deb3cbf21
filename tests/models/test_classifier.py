"""The protocol of models, with a model that is not an EfficientNet: created, applied, folded, described."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from fairkd_jax.errors import UsageError
from fairkd_jax.models import (
    MODELS,
    Classifier,
    create_model,
    fold,
    get_image_size,
    load_pretrained,
    read_pretrained,
)
from fairkd_jax.models.architecture import ARCHITECTURES
from fairkd_jax.types import Outputs
from tests.models.toy import STEM, images

WIDTH = 6


class Toy(nn.Module):
    """The mean colour of an image, a matrix, and a gain for each feature that folding multiplies in."""

    num_classes: int
    dropout_rate: float = 0.25
    folded: bool = False

    embedding_width = property(lambda self: WIDTH)
    head_name = property(lambda self: "answer")

    @nn.nowrap
    def inference_form(self):
        return self.clone(folded=True)

    @nn.nowrap
    def fold_variables(self, variables):
        params = dict(variables["params"])
        gain = params.pop("gain")
        return {"params": params | {"colours": {"kernel": params["colours"]["kernel"] * gain[None]}}}

    def setup(self):
        self.colours = nn.Dense(WIDTH, use_bias=False)
        self.answer = nn.Dense(self.num_classes)
        self.dropout = nn.Dropout(self.dropout_rate)
        if not self.folded:
            self.gain = self.param("gain", nn.initializers.constant(3.0), (WIDTH,))

    def classify(self, embedding, train=False):
        return Outputs(self.answer(self.dropout(embedding, deterministic=not train)), embedding)

    def __call__(self, images, train=False):
        embedding = self.colours(jnp.mean(images, axis=(1, 2)))
        return self.classify(embedding if self.folded else embedding * self.gain[None], train)


def make_toy(num_classes, *, dropout_rate=0.25):
    return Toy(num_classes, dropout_rate)


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    monkeypatch.setitem(MODELS, "toy", make_toy)


def test_a_model_from_elsewhere_is_created_and_applied():
    model = create_model("toy", num_classes=4, dropout_rate=0.5)
    assert isinstance(model, Classifier)
    variables = model.init(jax.random.key(0), images(1))
    outputs = model.apply(variables, images(3))
    assert (outputs.logits.shape, outputs.embedding.shape) == ((3, 4), (3, model.embedding_width))
    assert variables["params"][model.head_name]["kernel"].shape == (WIDTH, 4)
    again = model.apply({"params": variables["params"]}, outputs.embedding, method="classify")
    np.testing.assert_array_equal(again.logits, outputs.logits)
    dropped = model.apply(variables, images(3), train=True, rngs={"dropout": jax.random.key(1)})
    assert np.any(dropped.logits != outputs.logits)


def test_an_option_that_is_not_given_is_the_models_own():
    assert create_model("toy", num_classes=4).dropout_rate == 0.25
    assert create_model("toy", num_classes=4, dropout_rate=0.0).dropout_rate == 0.0


def test_it_is_folded_in_its_own_way():
    model = create_model("toy", num_classes=4)
    variables = model.init(jax.random.key(0), images(1))
    folded, folded_variables = fold(model, variables)
    assert set(folded_variables["params"]) == {"colours", "answer"}
    for found, expected in zip(
        folded.apply(folded_variables, images(3)), model.apply(variables, images(3)), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("dtype", jnp.bfloat16),
        ("stochastic_depth_rate", 0.0),
        ("frozen_norm", True),
        ("norm_momentum", 0.9),
        ("rematerialize", True),
        ("group_heads", 2),
    ],
)
def test_an_option_that_a_factory_does_not_take_is_named(option, value, monkeypatch):
    with pytest.raises(UsageError, match=f"model 'toy' does not take the option {option}=") as error:
        create_model("toy", num_classes=4, **{option: value})
    assert "\n" not in str(error.value)
    taken = {}
    monkeypatch.setitem(MODELS, "any", lambda num_classes, **options: taken.update(options))
    create_model("any", num_classes=4, **{option: value})
    assert taken[option] == value


def test_what_is_not_said_of_a_model_is_one_line():
    for ask in (load_pretrained, read_pretrained):
        with pytest.raises(UsageError, match="model 'toy' has no reader of pretrained weights; train it"):
            ask("toy", Path("weights.safetensors"), num_classes=4)
    with pytest.raises(UsageError, match="model 'toy' names no image size"):
        get_image_size("toy")


def test_an_efficientnet_is_a_classifier():
    model = create_model("efficientnet_b2", num_classes=4)
    assert isinstance(model, Classifier)
    assert (model.embedding_width, model.head_name) == (1408, "classifier")
    variables = jax.eval_shape(model.init, jax.random.key(0), images(1))
    assert variables["params"][model.head_name]["kernel"].shape == (1408, 4)
    assert model.inference_form().folded


def test_the_table_follows_that_of_the_architectures(monkeypatch):
    assert "stem" not in MODELS
    monkeypatch.setitem(ARCHITECTURES, "stem", STEM)
    assert create_model("stem", num_classes=4).embedding_width == STEM.head
    assert {"stem", "toy", "efficientnet_b0"} <= set(MODELS)
    assert len(MODELS) == len(ARCHITECTURES) + 1
    with pytest.raises(UsageError, match=r"'absent' is unknown; use one of .*stem.*toy"):
        create_model("absent", num_classes=4)


def test_a_name_of_this_package_can_be_replaced(monkeypatch):
    monkeypatch.setitem(MODELS, "efficientnet_b0", make_toy)
    assert isinstance(create_model("efficientnet_b0", num_classes=4), Toy)
    monkeypatch.undo()
    assert not isinstance(create_model("efficientnet_b0", num_classes=4), Toy)
