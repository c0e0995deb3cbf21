"""All measurements of an accelerator, in sections that are each useful alone.

A machine with a GPU is often lent for minutes. So the sections are in the order of their value, and the
figures are saved after each section. A section is left out if its estimate is longer than the time left.
"""

import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax

from fairkd_jax.benchmarks import correctness, curves, layers, population, step, tracing, waiting
from fairkd_jax.benchmarks.limits import measure_copy_rate
from fairkd_jax.benchmarks.program import ProgramCache
from fairkd_jax.benchmarks.program_parts import ProgramParts
from fairkd_jax.benchmarks.sections import SECTIONS
from fairkd_jax.benchmarks.setting import BenchmarkSetting
from fairkd_jax.errors import UsageError


@dataclass(frozen=True)
class Scale:
    """The sizes of the measured programs.

    Attributes:
      size: Side of the images, in pixels.
      batch: Images in a step.
      dtype: Dtype of the activations.
      largest: Batch at which the search for the best batch ends.
      members: Students of a population.
      small: Size and batch of a population whose cost is in the launches.
      checked: Student, teacher, size and batch of the step in the correctness section.
      checked_batch: Images in the inputs of the checked ops, which have the shapes of the measured student.
      large_data: Whether the data section trains EfficientNet-B0 at 224 pixels.
    """

    size: int
    batch: int
    dtype: str
    largest: int
    members: int
    small: tuple[int, int]
    checked: tuple[str, str, int, int]
    checked_batch: int
    large_data: bool


_CHECKED = ("efficientnet_tiny", "efficientnet_mini", 32, 64)
SCALES = {
    "gpu": Scale(224, 128, "bfloat16", 1024, 8, (64, 32), _CHECKED, 16, large_data=True),
    "cpu": Scale(64, 8, "float32", 16, 2, (32, 4), _CHECKED, 4, large_data=False),
}


@dataclass
class Suite:
    """The sections, and the values that they share; section NAME is the method `run_NAME`.

    Attributes:
      setting: Setting of the measured step.
      scale: Sizes of the measured programs.
      rounds: Rounds of each comparison.
      peers: See `step.run`.
      python: See `step.run`.
      programs: Cache of the programs that several sections run.
    """

    setting: BenchmarkSetting
    scale: Scale
    rounds: int
    peers: Sequence[str]
    python: str
    programs: ProgramCache = field(default_factory=ProgramCache)

    def run_correctness(self) -> dict[str, Any]:
        """Checks the ops and the step; see `correctness.run`."""
        scale = self.scale
        student, teacher, size, batch = scale.checked
        checked = BenchmarkSetting("step", student, teacher, size, batch, "float32")
        return correctness.run(checked, self.setting.student, scale.size, scale.checked_batch)

    def run_step(self) -> dict[str, Any]:
        """Measures the step against its limits and against PyTorch."""
        return self._measure_against_peers(self.setting)

    def _measure_against_peers(self, setting: BenchmarkSetting) -> dict[str, Any]:
        """Measures the step; if a peer cannot run, measures again without the last peer."""
        peers = list(self.peers)
        options: dict[str, Any] = {"rounds": self.rounds, "python": self.python, "programs": self.programs}
        failed: dict[str, str] = {}
        while True:
            try:
                return step.run([setting], peers=peers, **options) | {"failed_peers": failed}
            except UsageError as error:
                if not peers:
                    raise
                print(f"without PyTorch {peers[-1]}: {error}", flush=True)
                failed[peers.pop()] = str(error)

    def run_kernels(self) -> dict[str, Any]:
        """Finds the longest operations of the step."""
        program = self.programs.get_program(self.setting)
        program.measure_seconds(2)
        seconds = program.measure_seconds(_STEPS) / _STEPS
        print(f"compiled in {program.compile_seconds:.0f} s; {1e3 * seconds:.2f} ms a step", flush=True)
        longest = tracing.find_longest_operations(program, measure_copy_rate(), _KEPT_KERNELS)
        print(f"the longest operations of {self.setting.name}: ms, by their bytes, share of the step")
        for row in longest[:_SHOWN_KERNELS]:
            floor = "" if row["floor_milliseconds"] is None else f"{row['floor_milliseconds']:.3f}"
            line = f"  {row['milliseconds']:8.3f}  {floor:>8}  {100 * row['share']:5.1f} %"
            print(f"{line}  {row['name']}  {row['from'][-60:]}")
        return {"longest": longest, "compile_seconds": program.compile_seconds, "seconds": seconds}

    def run_depthwise(self) -> list[dict[str, Any]]:
        """Measures each depthwise convolution of the student."""
        s = self.setting
        return layers.run(s.student, size=s.size, batch=s.batch, dtype=s.dtype, rounds=self.rounds)

    def run_population(self) -> list[dict[str, Any]]:
        """Measures several students in one program."""
        return self._measure_population(self.setting)

    def run_small_population(self) -> list[dict[str, Any]]:
        """Measures several students in one program at a size whose cost is in the launches."""
        size, batch = self.scale.small
        return self._measure_population(replace(self.setting, size=size, batch=batch))

    def _measure_population(self, setting: BenchmarkSetting) -> list[dict[str, Any]]:
        try:
            return population.run(setting, [self.scale.members], self.rounds, self.programs)
        finally:
            self.programs.keep_only(self.setting)

    def run_best_batch(self) -> dict[str, Any]:
        """Finds the batch with the most images per second, and measures the step with this batch."""
        batch = step.find_best_batch(self.setting, self.scale.largest, self.programs)
        try:
            return {"batch": batch} | self._measure_against_peers(replace(self.setting, batch=batch))
        finally:
            self.programs.keep_only(self.setting)

    def run_memory(self) -> dict[str, Any]:
        """Finds the peak of the step with and without rematerialisation."""
        peaks: dict[str, Any] = {}
        for rematerialize in (False, True):
            setting = replace(self.setting, rematerialize=rematerialize)
            peak = self.programs.get_program(setting).get_cost()["peak_bytes"]
            peaks["rematerialized" if rematerialize else "plain"] = peak
            print(f"{setting.name}: {peak / 2**30:.2f} GiB", flush=True)
        statistics = jax.devices()[0].memory_stats() or {}
        return peaks | {"peak_bytes_in_use": statistics.get("peak_bytes_in_use")}

    def run_data(self) -> list[dict[str, Any]]:
        """Measures the share of a training's time spent waiting for images."""
        large, caches = self.scale.large_data, ("device", "host")
        return waiting.run(large=large, overrides=(), caches=caches, with_teacher=False)

    def run_curves(self) -> dict[str, Any]:
        """Compares trainings in float32 and in bfloat16."""
        return curves.run(overrides=("--config.log_every_steps=10",))


_SHOWN_KERNELS, _KEPT_KERNELS = 10, 200
_STEPS = 10  # steps measured before the trace


def describe_machine() -> dict[str, Any]:
    """Returns the device and the versions with which the figures are measured."""
    return {
        "device": jax.devices()[0].device_kind,
        "platform": jax.default_backend(),
        "jax": jax.__version__,
        "python": sys.version.split()[0],
        "cores": os.cpu_count(),
    }


def parse_sections(text: str) -> list[str]:
    """Parses the names of sections.

    Args:
      text: Names separated by commas; an empty text stands for all sections.

    Returns:
      The names, in the order of the text.

    Raises:
      UsageError: A name is unknown.
    """
    names = [name.strip() for name in text.split(",") if name.strip()] or list(SECTIONS)
    for name in names:
        if name not in SECTIONS:
            raise UsageError(f"--sections: there is no {name!r}; the sections are {', '.join(SECTIONS)}")
    return names


def run(
    student: str,
    teacher: str,
    *,
    rounds: int,
    peers: Sequence[str],
    python: str,
    sections: Sequence[str] = tuple(SECTIONS),
    minutes: float = 0.0,
    save: Callable[[dict[str, Any]], None] = lambda document: None,
) -> dict[str, Any]:
    """Measures section by section.

    On a CPU the programs are small; such a run only shows that all sections work.

    Args:
      student: Name of the student's model.
      teacher: Name of the teacher's model.
      rounds: Rounds of each comparison.
      peers: See `step.run`.
      python: See `step.run`.
      sections: Names of the sections, in the order of the run.
      minutes: Minutes within which all sections must end; 0 for no limit.
      save: Function that saves the figures after each section.

    Returns:
      The figures of each section under its name; `seconds` by section; `left_out`, the sections without
      enough time; `failed`, the traceback of each failed section.

    Raises:
      UsageError: A model is unknown.
    """
    scale = SCALES["cpu" if jax.default_backend() == "cpu" else "gpu"]
    setting = BenchmarkSetting("step", student, teacher, scale.size, scale.batch, scale.dtype)
    ProgramParts(setting)  # rejects unknown models before any measurement
    suite = Suite(setting, scale, rounds, peers, python)
    document: dict[str, Any] = {"seconds": {}, "left_out": [], "failed": {}}
    suite_start = time.monotonic()
    for name in sections:
        left = 60.0 * minutes - (time.monotonic() - suite_start)
        if minutes and SECTIONS[name] > left:
            print(
                f"== {name}: left out, it takes about {SECTIONS[name]} s and {left:.0f} are left", flush=True
            )
            document["left_out"].append(name)
            continue
        _run_section(suite, name, document)
        save(document)
    return document


def _run_section(suite: Suite, name: str, document: dict[str, Any]) -> None:
    """Runs a section and adds its figures, or its failure, to the document."""
    print(f"== {name}", flush=True)
    start = time.monotonic()
    try:
        document[name] = getattr(suite, f"run_{name}")()
    # The machine may be lent for minutes, so a failed section must not stop the other sections.
    except Exception as error:
        document["failed"][name] = traceback.format_exc()
        print(f"== {name} failed: {type(error).__name__}: {str(error).strip()[:500]}", flush=True)
    document["seconds"][name] = time.monotonic() - start
    print(f"== {name} took {document['seconds'][name]:.0f} s", flush=True)
