"""Whether a device computes what it should: each op and the whole step against the plain float32 form.

Errors are the largest difference over the largest value of the reference, of values and of each gradient. The
reference is computed on the same device from the same numbers, in float32 at the highest precision.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from fairkd_jax.benchmarks.angle import without_chunks
from fairkd_jax.benchmarks.layers import implementations, shapes
from fairkd_jax.benchmarks.program import Parts, Setting
from fairkd_jax.benchmarks.rounds import compile_together
from fairkd_jax.models import create_model
from fairkd_jax.objectives import rkd
from fairkd_jax.ops import (
    batch_norm,
    compiling_for,
    depthwise_conv,
    patch_convolution,
    pointwise,
    reverse_gradient,
)
from fairkd_jax.ops.convolution import resolve_padding

Function = Callable[..., jax.Array]


class Form(NamedTuple):
    """A precision to compute in.

    Attributes:
      dtype: of the activations.
      precision: of JAX's matrix products and convolutions; None for the device's default, which is what
        trains: on some GPUs that is TF32, with 10 bits of mantissa.
      bound: on the error.
    """

    dtype: str
    precision: str | None
    bound: float


FORMS = {
    "float32": Form("float32", "highest", 1e-4),
    "float32 as it trains": Form("float32", None, 2e-2),
    "bfloat16": Form("bfloat16", None, 2e-2),
}


class Case(NamedTuple):
    """An op to check, in all its implementations.

    Attributes:
      name: for the table.
      ops: the functions under test, by the name of the implementation; "" where there is one alone.
      plain: the same by its definition.
      inputs: float32 arrays; those before `wide` take the dtype of a form, the others stay.
      wide: the position of the first input that is float32 always.
    """

    name: str
    ops: Mapping[str, Function]
    plain: Function
    inputs: tuple[np.ndarray, ...]
    wide: int


def run(setting: Setting, layers_of: str, layers_size: int, batch: int) -> dict[str, Any]:
    """Checks the ops and the step, and prints a line for each.

    Args:
      setting: of the step that is checked; its dtype is not looked at.
      layers_of: the name of a model, whose layers' shapes the ops are checked at.
      layers_size: pixels of the side of that model's images.
      batch: images of the ops' inputs.

    Returns:
      `rows`, each with `name`, `form`, `error`, `bound` and `passed`; and `passed`, of all of them.
    """
    print(
        "largest error over largest value, of values and gradients, against the plain float32 form",
        flush=True,
    )
    rows = [*_check_ops(_cases(layers_of, layers_size, batch)), *_check_step(setting)]
    failed = sum(not row["passed"] for row in rows)
    print(f"{len(rows) - failed} within their bounds, {failed} above", flush=True)
    return {"rows": rows, "passed": not failed}


def _report_row(name: str, form: str, error: float, bound: float) -> dict[str, Any]:
    """Prints a row of the table and returns it: the rest of the checks may take minutes."""
    passed = bool(error <= bound)
    print(f"  {error:9.1e}  {form:20}  {name}{'' if passed else f'  ABOVE {bound:.1e}'}", flush=True)
    return {"name": name, "form": form, "error": error, "bound": bound, "passed": passed}


def relative_error(found: Any, expected: Any) -> float:
    """The largest difference of two trees over the largest value of the second.

    Args:
      found: arrays.
      expected: as many, of the same shapes.

    Returns:
      Infinity where a number is not finite; the largest difference alone where all is expected to be 0.
    """
    pairs = list(zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True))
    largest = max(float(np.abs(np.asarray(b, np.float64)).max()) for _, b in pairs)
    apart = max(float(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).max()) for a, b in pairs)
    return apart / (largest or 1.0) if np.isfinite(apart) else float("inf")


def _check_ops(cases: list[Case]) -> list[dict[str, Any]]:
    """Each case in each dtype is checked as one, several at a time where there are many cores."""
    dtypes = dict.fromkeys(form.dtype for form in FORMS.values())
    # What is float32 always has no other form.
    jobs = [(case, dtype) for case in cases for dtype in dtypes if case.wide or dtype == "float32"]
    found = compile_together([functools.partial(_check_case, *job) for job in jobs])
    return [row for rows in found for row in rows]


def _check_case(case: Case, dtype: str) -> list[dict[str, Any]]:
    """The implementations of one op in the forms of a dtype, which share the reference."""
    inputs = tuple(
        jnp.asarray(x, dtype if position < case.wide else jnp.float32)
        for position, x in enumerate(case.inputs)
    )
    exact = tuple(x.astype(jnp.float32) for x in inputs)
    shape = jax.eval_shape(case.plain, *exact)
    cotangent = jnp.asarray(np.random.default_rng(1).normal(size=shape.shape), dtype)

    def differentiate(function: Function, precision: str | None, arguments: tuple[jax.Array, ...]) -> Any:
        def both(cotangent: jax.Array, *arguments: jax.Array) -> Any:
            y, pullback = jax.vjp(function, *arguments)
            return y, pullback(cotangent.astype(y.dtype))

        with jax.default_matmul_precision(precision):
            return jax.tree.leaves(jax.jit(both)(cotangent, *arguments))

    expected = differentiate(case.plain, "highest", exact)
    rows = []
    for implementation, op in case.ops.items():
        if implementation == "native" and dtype != "float32":  # kernels in C++ are for float32 alone
            continue
        for name, form in FORMS.items():
            if form.dtype == dtype:
                found = differentiate(op, form.precision, inputs)
                error = max(relative_error(a, b) for a, b in zip(found, expected, strict=True))
                rows.append(_report_row(f"{case.name} {implementation}".strip(), name, error, form.bound))
    return rows


def _cases(model: str, size: int, batch: int) -> list[Case]:
    rng = np.random.default_rng(0)
    architecture = create_model(model, num_classes=2).architecture

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape)

    cases = []
    # One shape, the smallest, of each kind: on a GPU the choice of the kernels takes a second for each.
    kinds = {(row["kernel"], row["stride"]): row for row in shapes(architecture, size)}
    for row in kinds.values():
        side, channels, kernel, stride = (row[k] for k in ("size", "channels", "kernel", "stride"))
        inputs = (normal(batch, side, side, channels), normal(kernel, kernel, 1, channels))
        options = {"stride": stride, "padding": architecture.padding}
        names = implementations(*(jax.ShapeDtypeStruct(x.shape, jnp.float32) for x in inputs))
        ops = {n: functools.partial(depthwise_conv, **options, implementation=n) for n in names}
        plain = functools.partial(_plain_depthwise, **options)
        title = f"depthwise {side} px, {channels} channels, {kernel}x{kernel}, stride {stride}"
        cases.append(Case(title, ops, plain, inputs, 1))
    side, channels = -(-size // 2), architecture.stem
    x, scale = normal(batch, side, side, channels), 1 + 0.1 * normal(channels)
    for swish in (True, False):
        op = functools.partial(_normalize, swish=swish)
        plain = functools.partial(_plain_batch_norm, swish=swish)
        title = f"BatchNorm{' and swish' if swish else ''}, {side} px, {channels} channels"
        cases.append(Case(title, {"": op}, plain, (x, scale, 0.1 * normal(channels)), 1))
    wide = architecture.stages[-1].filters
    inputs = (normal(batch, side, side, channels), normal(channels, wide) * channels**-0.5)
    cases.append(
        Case(f"1x1, {side} px, {channels} to {wide} channels", {"": pointwise}, _plain_pointwise, inputs, 1)
    )
    inputs = (normal(batch, size, size, 3), normal(3, 3, 3, channels))
    options = {"stride": 2, "padding": architecture.padding}
    stem, plain = functools.partial(patch_convolution, **options), functools.partial(_plain_stem, **options)
    cases.append(Case(f"stem, {size} px, {channels} channels", {"": stem}, plain, inputs, 1))
    embeddings = (normal(batch, architecture.head), normal(batch, architecture.head + 8))
    cases.append(Case("RKD distance", {"": rkd.distance_loss}, _plain_distance, embeddings, 0))
    cases.append(Case("RKD angle", {"": rkd.angle_loss}, without_chunks, embeddings, 0))
    reverse = functools.partial(reverse_gradient, strength=0.5)
    cases.append(Case("gradient reversal", {"": reverse}, _plain_reversal, (x,), 1))
    return cases


def _plain_reversal(x: jax.Array) -> jax.Array:
    """The value of x, and a gradient of -0.5."""
    return lax.stop_gradient(1.5 * x) - 0.5 * x


def _normalize(x: jax.Array, scale: jax.Array, bias: jax.Array, *, swish: bool) -> jax.Array:
    return batch_norm(x, scale, bias, 1e-3, swish)[0]


def _plain_batch_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, *, swish: bool) -> jax.Array:
    centred = x - jnp.mean(x, (0, 1, 2), keepdims=True)
    z = centred / jnp.sqrt(jnp.mean(centred**2, (0, 1, 2), keepdims=True) + 1e-3)
    z = z * scale[None, None, None] + bias[None, None, None]
    return z * jax.nn.sigmoid(z) if swish else z


def _plain_depthwise(x: jax.Array, kernel: jax.Array, *, stride: int, padding: Any) -> jax.Array:
    size, area = x.shape[1:3], kernel.shape[:2]
    pads = resolve_padding(padding, (size[0], size[1]), (area[0], area[1]), stride)
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    rows, columns = (padded.shape[1 + a] - area[a] + 1 for a in (0, 1))
    taps = [
        padded[:, i : i + rows : stride, j : j + columns : stride] * kernel[i, j, 0][None, None, None]
        for i in range(area[0])
        for j in range(area[1])
    ]
    return functools.reduce(jnp.add, taps)


def _plain_pointwise(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jnp.einsum("bhwi,io->bhwo", x, kernel)


def _plain_stem(x: jax.Array, kernel: jax.Array, *, stride: int, padding: Any) -> jax.Array:
    size, area = x.shape[1:3], kernel.shape[:2]
    pads = resolve_padding(padding, (size[0], size[1]), (area[0], area[1]), stride)
    names = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (stride, stride), pads, dimension_numbers=names)


def _plain_distance(student: jax.Array, teacher: jax.Array) -> jax.Array:
    apart = ~jnp.eye(len(student), dtype=bool)

    def relative(emb: jax.Array) -> jax.Array:
        squared = jnp.sum((emb[:, None] - emb[None]) ** 2, axis=2)
        distances = jnp.where(apart, jnp.sqrt(jnp.where(apart, squared, 1.0)), 0.0)
        return distances * (apart.sum() / distances.sum())

    difference = jnp.abs(relative(student) - relative(lax.stop_gradient(teacher)))
    return jnp.mean(jnp.where(difference < 1.0, 0.5 * difference**2, difference - 0.5))


def _check_step(setting: Setting) -> list[dict[str, Any]]:
    """The losses, and the gradients of student and adversary, in each form.

    Rounding to bfloat16 alone moves the gradients of a whole network by some hundredths. What the plain form
    in bfloat16 is off is therefore measured too, and one and a half times of that is allowed at least.
    """
    jobs = {"plain": (FORMS["float32"], "plain")}
    jobs |= {name: (form, jax.default_backend()) for name, form in FORMS.items()}
    if "bfloat16" in FORMS:
        jobs["rounded"] = FORMS["bfloat16"], "plain"
    made = compile_together([functools.partial(_step_results, setting, *job) for job in jobs.values()])
    results = dict(zip(jobs, made, strict=True))
    rows = []
    for i, what in enumerate(("losses", "gradients")):
        expected = results["plain"][i]
        for name, form in FORMS.items():
            bound = form.bound
            if form.dtype == "bfloat16":
                bound = max(bound, 1.5 * relative_error(results["rounded"][i], expected))
            rows.append(
                _report_row(f"the step's {what}", name, relative_error(results[name][i], expected), bound)
            )
    return rows


def _step_results(setting: Setting, form: Form, platform: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The losses and gradients of a first step, with the ops that a platform takes."""
    parts = Parts(replace(setting, dtype=form.dtype), optimizer=_recording())
    with jax.default_matmul_precision(form.precision), compiling_for(platform):
        taught = jax.jit(parts.folded)(parts.teacher_variables())
        state, metrics = parts.step()(parts.init(), taught, parts.batch(), parts.weights())
    return {key: value[0] for key, value in metrics.items() if key.endswith("loss")}, state.opt_state


def _recording() -> optax.GradientTransformation:
    """An optimizer that moves nothing and keeps the gradient as its state."""
    return optax.GradientTransformation(
        lambda params: optax.tree.zeros_like(params),
        lambda gradient, state, params=None: (optax.tree.zeros_like(gradient), gradient),
    )
