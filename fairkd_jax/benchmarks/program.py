"""The programs that are measured: the training step of one student or several, and the forward pass."""

import functools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fairkd_jax.benchmarks.rounds import compile_together
from fairkd_jax.data.augment import preprocess
from fairkd_jax.models import create_model, fold
from fairkd_jax.objectives import Spec, create_objective
from fairkd_jax.ops import compiler_options
from fairkd_jax.training.optimizer import make_optimizer
from fairkd_jax.training.population import population_step
from fairkd_jax.training.room import peak_bytes
from fairkd_jax.training.step import Step, init_state, make_train_step

CLASSES = 16
WEIGHTS = {"cross_entropy": 1.0, "rkd_distance": 25.0, "rkd_angle": 50.0, "adversary": 1.0}
ALONE = ("cross_entropy", "adversary")  # what a student learns from without a teacher


@dataclass(frozen=True)
class Setting:
    """What is measured.

    Attributes:
      program: "step", "step without teacher", "forward" (of the student), or "teacher" (its forward).
      student: the name of a model.
      teacher: the name of a model.
      size: pixels of the side.
      batch: images.
      dtype: of the activations, "float32" or "bfloat16".
      members: students in one program.
      rematerialize: whether the student computes blocks again in its gradient.
    """

    program: str
    student: str
    teacher: str
    size: int
    batch: int
    dtype: str
    members: int = 1
    rematerialize: bool = False

    @property
    def name(self) -> str:
        """The line's name in the table."""
        models = f"{self.teacher} to {self.student}" if self.program == "step" else self.student
        students = f", {self.members} students" if self.members > 1 else ""
        again = ", rematerialised" if self.rematerialize else ""
        return f"{self.program} {models} {self.size} px, batch {self.batch}, {self.dtype}{students}{again}"


class Parts:
    """What a setting is made of, before it takes any memory."""

    def __init__(self, setting: Setting, optimizer: optax.GradientTransformation | None = None) -> None:
        """Makes the models and the functions.

        Args:
          setting: see `Setting`.
          optimizer: of all parameters; AdamW with clipping by default.
        """
        self.setting = setting
        schedule = optax.constant_schedule(1e-4)
        make = functools.partial(create_model, num_classes=CLASSES, dtype=jnp.dtype(setting.dtype))
        self.student = make(setting.student, rematerialize=setting.rematerialize)
        self.teacher = make(setting.teacher)
        self._names = tuple(WEIGHTS) if setting.program == "step" else ALONE
        self._common: dict[str, Any] = {
            "student": self.student,
            "objectives": {name: create_objective(name) for name in self._names},
            "optimizers": {
                "student": optimizer or make_optimizer("adamw", schedule, weight_decay=1e-4, clip_norm=1.0)
            },
        }

    def init(self) -> Any:
        """The state of one student, or of the population, whose members differ in their seed."""
        members = self.setting.members
        drawn = [self._variables(self.student, seed) for seed in range(members)]
        if members == 1:
            return jax.jit(self._init)(drawn[0], 0)
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *drawn)
        states = jax.jit(jax.vmap(self._init))(stacked, np.arange(members))
        return replace(states, step=jnp.zeros((), jnp.int32))

    def _init(self, variables: Any, seed: Any) -> Any:
        """The state with these variables of the student, which no tracing of its network has to make."""
        given = SimpleNamespace(init=lambda key, image: variables)
        widths = (self.student.architecture.head, self.teacher.architecture.head)
        spec = Spec(CLASSES, 2, *widths, np.full((2, CLASSES), 10))
        common = self._common | {"student": given}
        return init_state(**common, spec=spec, image_size=self.setting.size, seed=seed)

    def teacher_variables(self) -> Any:
        """The variables of the teacher before it is folded."""
        return jax.device_put(self._variables(self.teacher, seed=1))

    def _variables(self, model: Any, seed: int) -> Any:
        image = jnp.zeros((1, self.setting.size, self.setting.size, 3))
        return _drawn(jax.eval_shape(model.init, jax.random.key(0), image), seed)

    def weights(self) -> dict[str, jax.Array]:
        """One for each objective, and for each member of a population."""
        shape = (self.setting.members,) if self.setting.members > 1 else ()
        return {name: jnp.full(shape, WEIGHTS[name], jnp.float32) for name in self._names}

    def step(self) -> Any:
        """The update, to be compiled."""
        size = functools.partial(preprocess, size=self.setting.size)
        step: Step = make_train_step(
            **self._common,
            teacher=self.teacher.clone(folded=True) if self.setting.program == "step" else None,
            augment=lambda key, images: size(images),
            num_groups=2,
            data_seed=0,
            total_steps=1000,
            steps_per_epoch=100.0,
        )
        if self.setting.members > 1:
            step = population_step(step)
        return jax.jit(step, donate_argnums=0, compiler_options=compiler_options())

    def folded(self, variables: Any) -> Any:
        """The teacher's variables as the step takes them."""
        return fold(self.teacher, variables)[1]

    def batch(self) -> dict[str, np.ndarray]:
        """Made-up images, labels and groups."""
        setting, rng = self.setting, np.random.default_rng(0)
        shape = (setting.batch, setting.size, setting.size, 3)
        return {
            "image": rng.integers(0, 256, shape, dtype=np.uint8),
            "label": rng.integers(0, CLASSES, setting.batch).astype(np.int32),
            "group": rng.integers(0, 2, setting.batch).astype(np.int32),
            "index": np.arange(setting.batch, dtype=np.int32),
            "mask": np.ones(setting.batch, np.float32),
        }


class Program:
    """Our own compiled program, its arguments on the device."""

    def __init__(self, setting: Setting) -> None:
        """Builds and compiles it; see `Setting`."""
        self.setting, self.num_classes = setting, CLASSES
        parts = Parts(setting)
        self.student, self.teacher = parts.student, parts.teacher
        self.batch = jax.device_put(parts.batch())
        self.teacher_variables = parts.teacher_variables()
        self._state = parts.init() if setting.program != "teacher" else None
        asked = setting.program in ("step", "teacher")
        taught = jax.jit(parts.folded)(self.teacher_variables) if asked else {}
        start = time.perf_counter()
        if setting.program.startswith("step"):
            weights = parts.weights()
            self.compiled = parts.step().lower(self._state, taught, self.batch, weights).compile()

            def run() -> Any:
                self._state, metrics = self.compiled(self._state, taught, self.batch, weights)
                return metrics
        else:
            images = self.batch["image"]
            of_student = setting.program == "forward"
            model = self.student if of_student else self.teacher.clone(folded=True)
            variables = self.student_variables() if of_student else taught
            size = functools.partial(preprocess, size=setting.size)
            forward = jax.jit(lambda variables, images: model.apply(variables, size(images)))
            self.compiled = forward.lower(variables, images).compile()

            def run() -> Any:
                return self.compiled(variables, images)

        self.compile_seconds = time.perf_counter() - start
        self.run = run

    def student_variables(self) -> dict[str, Any]:
        """A copy of the student as it is now."""
        assert self._state is not None, "the teacher alone has no student"
        return jax.tree.map(jnp.copy, self._state.student_variables())

    def time(self, steps: int) -> float:
        """Seconds of so many runs."""
        start = time.perf_counter()
        for _ in range(steps):
            result = self.run()
        jax.block_until_ready(result)
        return time.perf_counter() - start

    def cost(self) -> dict[str, float]:
        """What XLA says of one run: floating-point operations, bytes moved, bytes of memory at the peak."""
        analysis = self.compiled.cost_analysis() or {}
        return {
            "operations": analysis.get("flops", 0.0),
            "bytes": analysis.get("bytes accessed", 0.0),
            "peak_bytes": peak_bytes(self.compiled),
        }


class Programs:
    """Programs by their settings, each compiled once."""

    def __init__(self) -> None:
        """Holds none yet."""
        self._compiled: dict[Setting, Program] = {}

    def compile(self, settings: Sequence[Setting]) -> None:
        """Compiles those that are not there yet, several at a time where there are many cores."""
        missing = [setting for setting in dict.fromkeys(settings) if setting not in self._compiled]
        made = compile_together([functools.partial(Program, setting) for setting in missing])
        self._compiled |= zip(missing, made, strict=True)

    def get(self, setting: Setting) -> Program:
        """The program of a setting."""
        self.compile([setting])
        return self._compiled[setting]

    def keep(self, *settings: Setting) -> None:
        """Gives the memory of all others back."""
        self._compiled = {key: program for key, program in self._compiled.items() if key in settings}


def _drawn(shapes: Any, seed: int) -> Any:
    """Variables of these shapes: kernels by their fan-in; statistics that are not all 0 and 1.

    A mistake in BatchNorm shows only where statistics are neither.
    """
    rng = np.random.default_rng(seed)

    def draw(path: Any, leaf: Any) -> np.ndarray:
        name = path[-1].key
        if name == "kernel":
            fan_in = math.prod(leaf.shape[:-1])
            values = rng.normal(size=leaf.shape) * (2.0 / fan_in) ** 0.5
        elif name in ("mean", "var"):
            values = (name == "var") + 0.1 * rng.uniform(size=leaf.shape)
        else:
            values = np.full(leaf.shape, float(name == "scale"))
        return values.astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)
