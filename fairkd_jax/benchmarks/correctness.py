"""Correctness of a device's results: each op and the whole step against the plain float32 form.

An error is the largest difference divided by the largest value of the reference, for values and for each
gradient. The reference is computed on the same device from the same numbers, in float32 at the highest
precision.
"""

import functools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fairkd_jax.benchmarks.op_cases import Function, OpCase, make_cases
from fairkd_jax.benchmarks.program_parts import ProgramParts
from fairkd_jax.benchmarks.rounds import compile_together
from fairkd_jax.benchmarks.setting import BenchmarkSetting
from fairkd_jax.ops import use_platform


class Form(NamedTuple):
    """A precision to compute in.

    Attributes:
      dtype: Dtype of the activations.
      precision: Precision of JAX's matrix products and convolutions. None is the device's default, with which
        trainings run: on some GPUs TF32, with 10 bits of mantissa.
      bound: Largest error that passes.
    """

    dtype: str
    precision: str | None
    bound: float


FORMS = {
    "float32": Form("float32", "highest", 1e-4),
    "float32 as it trains": Form("float32", None, 2e-2),
    "bfloat16": Form("bfloat16", None, 2e-2),
}


def run(setting: BenchmarkSetting, layers_of: str, layers_size: int, batch: int) -> dict[str, Any]:
    """Checks the ops and the step, and prints a line for each check.

    Args:
      setting: Setting of the step to check; its dtype is ignored.
      layers_of: Name of the model whose layers give the shapes of the ops.
      layers_size: Side of that model's images, in pixels.
      batch: Images in the inputs of the ops.

    Returns:
      `rows`, each with `name`, `form`, `error`, `bound` and `passed`; and `passed`, whether all rows passed.

    Raises:
      UsageError: A model is unknown.
    """
    print(
        "largest error over largest value, of values and gradients, against the plain float32 form",
        flush=True,
    )
    rows = [*check_ops(make_cases(layers_of, layers_size, batch)), *_check_step(setting)]
    failed = sum(not row["passed"] for row in rows)
    print(f"{len(rows) - failed} within their bounds, {failed} above", flush=True)
    return {"rows": rows, "passed": not failed}


def _report_row(name: str, form: str, error: float, bound: float) -> dict[str, Any]:
    """Prints a row of the table at once, because other checks may take minutes, and returns the row."""
    passed = bool(error <= bound)
    print(f"  {error:9.1e}  {form:20}  {name}{'' if passed else f'  ABOVE {bound:.1e}'}", flush=True)
    return {"name": name, "form": form, "error": error, "bound": bound, "passed": passed}


def compute_relative_error(actual: Any, expected: Any) -> float:
    """Computes the largest difference of two trees over the largest value of the second tree.

    Args:
      actual: Tree of arrays.
      expected: Tree of arrays of the same shapes.

    Returns:
      The relative error; infinity if a number is not finite; the largest difference if all expected values
      are 0.
    """
    pairs = list(zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True))
    largest = max(float(np.abs(np.asarray(b, np.float64)).max()) for _, b in pairs)
    difference = max(
        float(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).max()) for a, b in pairs
    )
    return difference / (largest or 1.0) if np.isfinite(difference) else float("inf")


def check_ops(cases: list[OpCase]) -> list[dict[str, Any]]:
    """Checks each case in each dtype, several at a time on a machine with many cores.

    Args:
      cases: Cases to check.

    Returns:
      The rows; see `run`.
    """
    dtypes = dict.fromkeys(form.dtype for form in FORMS.values())
    # A case without cast inputs computes in float32 only.
    jobs = [(case, dtype) for case in cases for dtype in dtypes if case.num_cast or dtype == "float32"]
    results = compile_together([functools.partial(_check_case, *job) for job in jobs])
    return [row for rows in results for row in rows]


def _check_case(case: OpCase, dtype: str) -> list[dict[str, Any]]:
    """Checks the implementations of one op in the forms of a dtype, which share the reference."""
    inputs = tuple(
        jnp.asarray(x, dtype if position < case.num_cast else jnp.float32)
        for position, x in enumerate(case.inputs)
    )
    exact = tuple(x.astype(jnp.float32) for x in inputs)
    shape = jax.eval_shape(case.plain, *exact)
    cotangent = jnp.asarray(np.random.default_rng(1).normal(size=shape.shape), dtype)

    def differentiate(function: Function, precision: str | None, arguments: tuple[jax.Array, ...]) -> Any:
        def compute_value_and_gradients(cotangent: jax.Array, *arguments: jax.Array) -> Any:
            y, pullback = jax.vjp(function, *arguments)
            return y, pullback(cotangent.astype(y.dtype))

        with jax.default_matmul_precision(precision):
            return jax.tree.leaves(jax.jit(compute_value_and_gradients)(cotangent, *arguments))

    expected = differentiate(case.plain, "highest", exact)
    rows = []
    for implementation, op in case.ops.items():
        if implementation == "native" and dtype != "float32":  # the kernels in C++ are float32 only
            continue
        for name, form in FORMS.items():
            if form.dtype == dtype:
                actual = differentiate(op, form.precision, inputs)
                error = max(compute_relative_error(a, b) for a, b in zip(actual, expected, strict=True))
                rows.append(_report_row(f"{case.name} {implementation}".strip(), name, error, form.bound))
    return rows


def _check_step(setting: BenchmarkSetting) -> list[dict[str, Any]]:
    """Checks the losses, and the gradients of student and adversary, in each form.

    Rounding to bfloat16 alone moves the gradients of a whole network by some hundredths. So the error of the
    plain form in bfloat16 is measured too, and the bound is at least 1.5 times this error.
    """
    jobs = {"plain": (FORMS["float32"], "plain")}
    jobs |= {name: (form, jax.default_backend()) for name, form in FORMS.items()}
    if "bfloat16" in FORMS:
        jobs["rounded"] = FORMS["bfloat16"], "plain"
    made = compile_together([functools.partial(_run_first_step, setting, *job) for job in jobs.values()])
    results = dict(zip(jobs, made, strict=True))
    rows = []
    for i, kind in enumerate(("losses", "gradients")):
        expected = results["plain"][i]
        for name, form in FORMS.items():
            bound = form.bound
            if form.dtype == "bfloat16":
                bound = max(bound, 1.5 * compute_relative_error(results["rounded"][i], expected))
            error = compute_relative_error(results[name][i], expected)
            rows.append(_report_row(f"the step's {kind}", name, error, bound))
    return rows


def _run_first_step(
    setting: BenchmarkSetting, form: Form, platform: str
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Returns the losses and gradients of a first step, with the ops of a platform."""
    parts = ProgramParts(replace(setting, dtype=form.dtype), optimizer=_make_recording_optimizer())
    with jax.default_matmul_precision(form.precision), use_platform(platform):
        teacher_variables = jax.jit(parts.fold_teacher)(parts.make_teacher_variables())
        state, metrics = parts.make_step()(
            parts.make_state(), teacher_variables, parts.make_batch(), parts.make_weights()
        )
    return {key: value[0] for key, value in metrics.items() if key.endswith("loss")}, state.opt_state


def _make_recording_optimizer() -> optax.GradientTransformation:
    """Returns an optimizer that leaves the parameters as they are and keeps the gradient as its state."""
    return optax.GradientTransformation(
        lambda params: optax.tree.zeros_like(params),
        lambda gradient, state, params=None: (optax.tree.zeros_like(gradient), gradient),
    )
