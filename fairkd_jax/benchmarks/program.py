"""The step and the forward pass that are measured: built, compiled, and ready to be run."""

import functools
import time
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fairkd_jax.data.augment import preprocess
from fairkd_jax.models import create_model
from fairkd_jax.objectives import Spec, create_objective
from fairkd_jax.ops import compiler_options
from fairkd_jax.training.optimizer import make_optimizer
from fairkd_jax.training.step import init_state, make_train_step

CLASSES = 16
WEIGHTS = {"cross_entropy": 1.0, "rkd_distance": 25.0, "rkd_angle": 50.0, "adversary": 1.0}


@dataclass(frozen=True)
class Setting:
    """What is measured.

    Attributes:
      program: "step" or "forward".
      student: the name of a model.
      teacher: the name of a model.
      size: pixels of the side.
      batch: images.
      dtype: of the activations, "float32" or "bfloat16".
    """

    program: str
    student: str
    teacher: str
    size: int
    batch: int
    dtype: str

    @property
    def name(self) -> str:
        """The line's name in the table."""
        models = self.student if self.program == "forward" else f"{self.teacher} to {self.student}"
        return f"{self.program} {models} {self.size} px, batch {self.batch}, {self.dtype}"


class Program:
    """Our own compiled program, its arguments on the device."""

    def __init__(self, setting: Setting) -> None:
        """Builds and compiles it; see `Setting`."""
        self.setting, self.num_classes = setting, CLASSES
        make = functools.partial(create_model, num_classes=CLASSES, dtype=jnp.dtype(setting.dtype))
        self.student, self.teacher = make(setting.student), make(setting.teacher)
        self.batch = _batch(setting)
        self.teacher_variables = _variables(self.teacher, 1, setting.size)
        size = functools.partial(preprocess, size=setting.size)
        objectives = {name: create_objective(name) for name in WEIGHTS}
        schedule = optax.constant_schedule(1e-4)
        optimizer = make_optimizer("adamw", schedule, weight_decay=1e-4, clip_norm=1.0)
        common: dict[str, Any] = {
            "student": self.student,
            "objectives": objectives,
            "optimizers": {"student": optimizer},
        }
        widths = (self.student.architecture.head, self.teacher.architecture.head)
        counts = np.full((2, CLASSES), 10)
        self._state = jax.jit(
            functools.partial(
                init_state, **common, spec=Spec(CLASSES, 2, *widths, counts), image_size=setting.size, seed=0
            )
        )()
        start = time.perf_counter()
        if setting.program == "step":
            step = make_train_step(
                **common,
                teacher=self.teacher,
                augment=lambda key, images: size(images),
                data_seed=0,
                total_steps=1000,
                steps_per_epoch=100.0,
            )
            weights = {name: jnp.float32(weight) for name, weight in WEIGHTS.items()}
            jitted = jax.jit(step, donate_argnums=0, compiler_options=compiler_options())
            self.compiled = jitted.lower(self._state, self.teacher_variables, self.batch, weights).compile()

            def run() -> Any:
                self._state, metrics = self.compiled(self._state, self.teacher_variables, self.batch, weights)
                return metrics
        else:
            variables, images = self.student_variables(), self.batch["image"]
            forward = jax.jit(lambda variables, images: self.student.apply(variables, size(images)))
            self.compiled = forward.lower(variables, images).compile()

            def run() -> Any:
                return self.compiled(variables, images)

        self.compile_seconds = time.perf_counter() - start
        self._run = run

    def student_variables(self) -> dict[str, Any]:
        """A copy of the student as it is now."""
        return jax.tree.map(jnp.copy, self._state.student_variables())

    def time(self, steps: int) -> float:
        """Seconds of so many runs."""
        start = time.perf_counter()
        for _ in range(steps):
            result = self._run()
        jax.block_until_ready(result)
        return time.perf_counter() - start

    def cost(self) -> dict[str, float]:
        """What XLA says of one run: floating-point operations, bytes moved, bytes of memory at the peak."""
        analysis = self.compiled.cost_analysis() or {}
        memory = self.compiled.memory_analysis()
        peak = 0
        if memory is not None:
            peak = memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes
            peak -= memory.alias_size_in_bytes
        return {
            "operations": analysis.get("flops", 0.0),
            "bytes": analysis.get("bytes accessed", 0.0),
            "peak_bytes": float(peak),
        }


def _variables(model: Any, seed: int, size: int) -> Any:
    """Initial variables with statistics that are not all 0 and 1, so that a mistake in BatchNorm shows."""
    variables = jax.jit(model.init)(jax.random.key(seed), jnp.zeros((1, size, size, 3)))
    rng = np.random.default_rng(seed)
    stats = jax.tree.map(
        lambda x: jnp.asarray(x + 0.1 * rng.uniform(size=x.shape), x.dtype), variables["batch_stats"]
    )
    return {"params": variables["params"], "batch_stats": stats}


def _batch(setting: Setting) -> dict[str, jax.Array]:
    rng = np.random.default_rng(0)
    shape = (setting.batch, setting.size, setting.size, 3)
    batch = {
        "image": rng.integers(0, 256, shape, dtype=np.uint8),
        "label": rng.integers(0, CLASSES, setting.batch).astype(np.int32),
        "group": rng.integers(0, 2, setting.batch).astype(np.int32),
        "index": np.arange(setting.batch, dtype=np.int32),
        "mask": np.ones(setting.batch, np.float32),
    }
    return jax.device_put(batch)
