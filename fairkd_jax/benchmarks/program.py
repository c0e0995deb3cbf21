"""The compiled programs that the benchmarks measure: a training step, or a forward pass.

A program in this module is one XLA executable with its arguments.
"""

import functools
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from fairkd_jax.benchmarks.program_parts import NUM_CLASSES, ProgramParts
from fairkd_jax.benchmarks.rounds import compile_together
from fairkd_jax.benchmarks.setting import BenchmarkSetting
from fairkd_jax.data.augment import preprocess
from fairkd_jax.training.memory import measure_peak


class MeasuredProgram:
    """A compiled program of this project with its arguments on the device.

    Attributes:
      setting: Setting of the program.
      num_classes: Width of the logits.
      student: Student's network.
      teacher: Teacher's network, not folded.
      batch: Batch on the device.
      teacher_variables: Variables of the teacher, not folded.
      compiled: XLA executable.
      compile_seconds: Seconds that the compilation took.
      run: Function that runs the program once and returns its outputs.
    """

    def __init__(self, setting: BenchmarkSetting) -> None:
        """Makes the arguments and compiles the program.

        Args:
          setting: Setting of the program.

        Raises:
          UsageError: A model is unknown.
        """
        self.setting, self.num_classes = setting, NUM_CLASSES
        parts = ProgramParts(setting)
        self.student, self.teacher = parts.student, parts.teacher
        self.batch = jax.device_put(parts.make_batch())
        self.teacher_variables = parts.make_teacher_variables()
        self._state = parts.make_state() if setting.program != "teacher" else None
        has_teacher = setting.program in ("step", "teacher")
        folded_teacher = jax.jit(parts.fold_teacher)(self.teacher_variables) if has_teacher else {}
        start = time.perf_counter()
        if setting.program.startswith("step"):
            weights = parts.make_weights()
            step = parts.make_step()
            self.compiled = step.lower(self._state, folded_teacher, self.batch, weights).compile()

            def run() -> Any:
                self._state, metrics = self.compiled(self._state, folded_teacher, self.batch, weights)
                return metrics
        else:
            images = self.batch["image"]
            is_student = setting.program == "forward"
            model = self.student if is_student else self.teacher.inference_form()
            variables = self.copy_student_variables() if is_student else folded_teacher
            prepare = functools.partial(preprocess, size=setting.size)
            forward = jax.jit(lambda variables, images: model.apply(variables, prepare(images)))
            self.compiled = forward.lower(variables, images).compile()

            def run() -> Any:
                return self.compiled(variables, images)

        self.compile_seconds = time.perf_counter() - start
        self.run = run

    def copy_student_variables(self) -> dict[str, Any]:
        """Copies the current variables of the student."""
        assert self._state is not None, "the program of the teacher has no student"
        return jax.tree.map(jnp.copy, self._state.student_variables())

    def measure_seconds(self, runs: int) -> float:
        """Measures the seconds of a number of runs."""
        start = time.perf_counter()
        for _ in range(runs):
            result = self.run()
        jax.block_until_ready(result)
        return time.perf_counter() - start

    def get_cost(self) -> dict[str, float]:
        """Returns XLA's counts for one run.

        Returns:
          `operations` (floating-point operations), `bytes` (bytes moved) and `peak_bytes` (bytes of memory at
          the peak).
        """
        analysis = self.compiled.cost_analysis() or {}
        return {
            "operations": analysis.get("flops", 0.0),
            "bytes": analysis.get("bytes accessed", 0.0),
            "peak_bytes": measure_peak(self.compiled),
        }


class ProgramCache:
    """A cache of compiled programs, keyed by their settings."""

    def __init__(self) -> None:
        """Makes an empty cache."""
        self._compiled: dict[BenchmarkSetting, MeasuredProgram] = {}

    def compile_missing(self, settings: Sequence[BenchmarkSetting]) -> None:
        """Compiles the settings that are not in the cache, several at a time on a machine with many cores."""
        missing = [setting for setting in dict.fromkeys(settings) if setting not in self._compiled]
        programs = compile_together([functools.partial(MeasuredProgram, setting) for setting in missing])
        self._compiled |= zip(missing, programs, strict=True)

    def get_program(self, setting: BenchmarkSetting) -> MeasuredProgram:
        """Returns the program of a setting, compiled if necessary."""
        self.compile_missing([setting])
        return self._compiled[setting]

    def keep_only(self, *settings: BenchmarkSetting) -> None:
        """Drops all programs except those of the given settings, which frees their memory."""
        self._compiled = {key: program for key, program in self._compiled.items() if key in settings}
