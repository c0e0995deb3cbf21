"""The functions and arguments of a measured program, before the program is compiled."""

import functools
import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fairkd_jax.benchmarks.setting import BenchmarkSetting, create_efficientnet
from fairkd_jax.data.augment import preprocess
from fairkd_jax.engine.optimizers import make_optimizer
from fairkd_jax.engine.population import make_population_step
from fairkd_jax.engine.train_step import Step, init_state, make_train_step
from fairkd_jax.objectives import TaskInfo, create_objective
from fairkd_jax.ops import compiler_options

NUM_CLASSES = 16
WEIGHTS = {"cross_entropy": 1.0, "rkd_distance": 25.0, "rkd_angle": 50.0, "adversary": 1.0}
TEACHERLESS_OBJECTIVES = ("cross_entropy", "adversary")


class ProgramParts:
    """The models, the functions and the arguments of a setting; making the parts allocates no arrays."""

    def __init__(
        self, setting: BenchmarkSetting, optimizer: optax.GradientTransformation | None = None
    ) -> None:
        """Makes the models and the functions.

        Args:
          setting: Setting of the program.
          optimizer: Optimizer of all parameters; AdamW with clipping if None.

        Raises:
          UsageError: A model is unknown.
        """
        self.setting = setting
        schedule = optax.constant_schedule(1e-4)
        make = functools.partial(create_efficientnet, num_classes=NUM_CLASSES, dtype=jnp.dtype(setting.dtype))
        self.student = make(setting.student, rematerialize=setting.rematerialize)
        self.teacher = make(setting.teacher)
        self._objectives = tuple(WEIGHTS) if setting.program == "step" else TEACHERLESS_OBJECTIVES
        self._common: dict[str, Any] = {
            "student": self.student,
            "objectives": {name: create_objective(name) for name in self._objectives},
            "optimizers": {
                "student": optimizer or make_optimizer("adamw", schedule, weight_decay=1e-4, clip_norm=1.0)
            },
        }

    def make_state(self) -> Any:
        """Returns the state of one student, or of a population whose members differ in their seed."""
        members = self.setting.members
        variables = [self._draw_variables(self.student, seed) for seed in range(members)]
        if members == 1:
            return jax.jit(self._make_student_state)(variables[0], 0)
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *variables)
        states = jax.jit(jax.vmap(self._make_student_state))(stacked, np.arange(members))
        return replace(states, step=jnp.zeros((), jnp.int32))

    def _make_student_state(self, variables: Any, seed: Any) -> Any:
        """Returns the state of a student with these variables, without tracing the student's network."""
        student = SimpleNamespace(init=lambda key, image: variables)
        widths = (self.student.embedding_width, self.teacher.embedding_width)
        info = TaskInfo(NUM_CLASSES, 2, *widths, np.full((2, NUM_CLASSES), 10))
        common = self._common | {"student": student}
        return init_state(**common, info=info, image_size=self.setting.size, seed=seed)

    def make_teacher_variables(self) -> Any:
        """Returns the variables of the teacher, on the device, before they are folded."""
        return jax.device_put(self._draw_variables(self.teacher, seed=1))

    def _draw_variables(self, model: Any, seed: int) -> Any:
        image = jnp.zeros((1, self.setting.size, self.setting.size, 3))
        return _draw_arrays(jax.eval_shape(model.init, jax.random.key(0), image), seed)

    def make_weights(self) -> dict[str, jax.Array]:
        """Returns the weight of each objective: float32 scalars, or [members] for a population."""
        shape = (self.setting.members,) if self.setting.members > 1 else ()
        return {name: jnp.full(shape, WEIGHTS[name], jnp.float32) for name in self._objectives}

    def make_step(self) -> Any:
        """Returns the jitted training step, which is not compiled yet."""
        prepare = functools.partial(preprocess, size=self.setting.size)
        step: Step = make_train_step(
            **self._common,
            teacher=self.teacher.inference_form() if self.setting.program == "step" else None,
            augment=lambda key, images: prepare(images),
            num_groups=2,
            data_seed=0,
            total_steps=1000,
            steps_per_epoch=100.0,
        )
        if self.setting.members > 1:
            step = make_population_step(step)
        return jax.jit(step, donate_argnums=0, compiler_options=compiler_options())

    def fold_teacher(self, variables: Any) -> Any:
        """Folds the teacher's variables to the form that the step takes."""
        return self.teacher.fold_variables(variables)

    def make_batch(self) -> dict[str, np.ndarray]:
        """Makes a random batch.

        Returns:
          `image`, uint8 [B, H, W, 3]; `label`, `group` and `index`, int32 [B]; `mask`, ones, float32 [B].
        """
        setting, rng = self.setting, np.random.default_rng(0)
        shape = (setting.batch, setting.size, setting.size, 3)
        return {
            "image": rng.integers(0, 256, shape, dtype=np.uint8),
            "label": rng.integers(0, NUM_CLASSES, setting.batch).astype(np.int32),
            "group": rng.integers(0, 2, setting.batch).astype(np.int32),
            "index": np.arange(setting.batch, dtype=np.int32),
            "mask": np.ones(setting.batch, np.float32),
        }


def _draw_arrays(shapes: Any, seed: int) -> Any:
    """Draws variables of the given shapes.

    Kernels are scaled by their fan-in. The statistics of BatchNorm are neither 0 nor 1, because only such
    statistics reveal a mistake in BatchNorm.
    """
    rng = np.random.default_rng(seed)

    def draw_array(path: Any, leaf: Any) -> np.ndarray:
        name = path[-1].key
        if name == "kernel":
            fan_in = math.prod(leaf.shape[:-1])
            values = rng.normal(size=leaf.shape) * (2.0 / fan_in) ** 0.5
        elif name in ("mean", "var"):
            values = (name == "var") + 0.1 * rng.uniform(size=leaf.shape)
        else:
            values = np.full(leaf.shape, float(name == "scale"))
        return values.astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw_array, shapes)
