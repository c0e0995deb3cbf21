"""What a loss returns is checked while the step is traced, and the objective is named."""

import jax
import jax.numpy as jnp
import pytest

from fairkd_jax.errors import UsageError
from fairkd_jax.objectives import Objective
from fairkd_jax.objectives.base import differentiate
from fairkd_jax.objectives.results import check_result
from tests.objectives.test_all_methods import BATCH, SPEC, make_inputs

STATE = {"mean": jnp.zeros((2, 3))}
ANOTHER = "a state of another structure, shape or dtype"
PAIR = "must return (value, (state, metrics))"
GOOD = {"accuracy": (jnp.ones(()), jnp.ones(()))}


def run(loss):
    """Traces an objective with this loss, as a step does."""
    objective = Objective(lambda key, info: ({}, STATE), loss)
    params, state = objective.init(jax.random.key(0), SPEC)
    return jax.jit(lambda inputs: differentiate(objective, params, state, inputs, name="mine"))(make_inputs())


def returning(value=None, state=None, metrics=None):
    """A loss with one part of its result replaced."""

    def loss(params, old, inputs):
        example = jnp.sum(inputs.student.logits, axis=1)
        parts = value(example) if value else example
        return parts, (state or old, GOOD if metrics is None else metrics)

    return loss


def test_a_scalar_and_a_value_for_each_image_pass():
    assert run(returning()).value.shape == ()
    assert run(returning(value=jnp.mean)).value.shape == ()


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (
            returning(value=lambda x: x[:, None] * x[None, :]),
            f"the shape [{BATCH}, {BATCH}]; it must be",
        ),
        (returning(value=lambda x: x[:, None]), f"the shape [{BATCH}, 1]"),
        (returning(value=lambda x: x[1:]), f"the shape [{BATCH - 1}]"),
        (returning(value=lambda x: [x]), "the shape list"),
        (returning(value=lambda x: x > 0), "is of bool; it must be floating-point"),
        (returning(value=lambda x: jnp.argmax(x)), "is of int32; it must be floating-point"),
        (returning(state={"mean": jnp.zeros((3, 2))}), ANOTHER),
        (returning(state={"other": jnp.zeros((2, 3))}), ANOTHER),
        (
            returning(state={"mean": jnp.zeros((2, 3), jnp.int32)}),
            ANOTHER,
        ),
        (returning(metrics={"a": jnp.ones(())}), "of scalars; a does not"),
        (
            returning(metrics={"a": (jnp.ones(3), jnp.ones(()))}),
            "of scalars; a does not",
        ),
        (returning(metrics=[1.0]), "their type does not"),
        (
            lambda params, state, inputs: jnp.sum(inputs.student.logits),
            PAIR,
        ),
        (lambda params, state, inputs: (1.0, state), PAIR),
        (lambda params, state, inputs: (1.0, (state, {}), {}), PAIR),
    ],
)
def test_anything_else_is_refused_in_one_line(loss, message):
    with pytest.raises(UsageError) as refused:
        run(loss)
    assert message in str(refused.value)
    assert "objective mine" in str(refused.value)


def test_a_plain_number_is_a_scalar():
    check_result("mine", (1.0, ({}, {})), {}, 4)
