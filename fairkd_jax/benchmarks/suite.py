"""All that is asked of an accelerator, in sections of which each one is worth having alone.

A machine with a GPU is often lent for minutes: the sections stand in the order of their worth, none begins
that would not end in time by its own estimate, and what was measured is handed over after each of them.
"""

import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax

from fairkd_jax.benchmarks import correctness, curves, layers, population, step, tracing, waiting
from fairkd_jax.benchmarks.limits import copy_rate
from fairkd_jax.benchmarks.program import Parts, Programs, Setting
from fairkd_jax.errors import UsageError


@dataclass(frozen=True)
class Scale:
    """How large what is measured is.

    Attributes:
      size: pixels of the side.
      batch: images of a step.
      dtype: of the activations.
      largest: the batch at which the search for the best one ends.
      members: students of a population.
      small: size and batch of a population whose cost is in the launches.
      checked: student, teacher, size and batch of the step whose numbers are checked.
      checked_batch: images of the ops that are checked, at the shapes of the measured student.
      large_data: whether the trainings that wait for data are of EfficientNet-B0 at 224 pixels.
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
    """What the sections share.

    Attributes:
      setting: of the step that is measured.
      scale: see `Scale`.
      rounds: of each comparison.
      peers: see `step.run`.
      python: see `step.run`.
      root: the folder with train.py.
      programs: those that more than one section runs.
    """

    setting: Setting
    scale: Scale
    rounds: int
    peers: Sequence[str]
    python: str
    root: Path
    programs: Programs = field(default_factory=Programs)

    def correctness(self) -> dict[str, Any]:
        """Checks the ops and the step; see `correctness.run`."""
        scale = self.scale
        student, teacher, size, batch = scale.checked
        checked = Setting("step", student, teacher, size, batch, "float32")
        return correctness.run(checked, self.setting.student, scale.size, scale.checked_batch)

    def step(self) -> dict[str, Any]:
        """Measures the step against its limits and against PyTorch."""
        return self._against_peers(self.setting)

    def _against_peers(self, setting: Setting) -> dict[str, Any]:
        """Our own figures are worth having where a peer cannot run: then it is measured without the last."""
        peers = list(self.peers)
        given: dict[str, Any] = {"rounds": self.rounds, "python": self.python, "programs": self.programs}
        failed: dict[str, str] = {}
        while True:
            try:
                return step.run([setting], peers=peers, **given) | {"failed_peers": failed}
            except UsageError as error:
                if not peers:
                    raise
                print(f"without PyTorch {peers[-1]}: {error}", flush=True)
                failed[peers.pop()] = str(error)

    def kernels(self) -> dict[str, Any]:
        """Finds the longest operations of the step."""
        program = self.programs.get(self.setting)
        program.time(2)
        seconds = program.time(_STEPS) / _STEPS
        print(f"compiled in {program.compile_seconds:.0f} s; {1e3 * seconds:.2f} ms a step", flush=True)
        found = tracing.longest(program, copy_rate(), _KEPT_KERNELS)
        print(f"the longest operations of {self.setting.name}: ms, by their bytes, share of the step")
        for row in found[:_SHOWN_KERNELS]:
            floor = "" if row["floor_milliseconds"] is None else f"{row['floor_milliseconds']:.3f}"
            line = f"  {row['milliseconds']:8.3f}  {floor:>8}  {100 * row['share']:5.1f} %"
            print(f"{line}  {row['name']}  {row['from'][-60:]}")
        return {"longest": found, "compile_seconds": program.compile_seconds, "seconds": seconds}

    def depthwise(self) -> list[dict[str, Any]]:
        """Measures each depthwise convolution of the student."""
        s = self.setting
        return layers.run(s.student, size=s.size, batch=s.batch, dtype=s.dtype, rounds=self.rounds)

    def population(self) -> list[dict[str, Any]]:
        """Measures several students in one program."""
        return self._population(self.setting)

    def small_population(self) -> list[dict[str, Any]]:
        """Measures several students in one program where the cost is in the launches."""
        size, batch = self.scale.small
        return self._population(replace(self.setting, size=size, batch=batch))

    def _population(self, setting: Setting) -> list[dict[str, Any]]:
        try:
            return population.run(setting, [self.scale.members], self.rounds, self.programs)
        finally:
            self.programs.keep(self.setting)

    def best_batch(self) -> dict[str, Any]:
        """Looks for the batch with the most images per second, and measures it as `step` does."""
        batch = step.best_batch(self.setting, self.scale.largest, self.programs)
        try:
            return {"batch": batch} | self._against_peers(replace(self.setting, batch=batch))
        finally:
            self.programs.keep(self.setting)

    def memory(self) -> dict[str, Any]:
        """Finds the peak of the step with and without rematerialisation."""
        found: dict[str, Any] = {}
        for again in (False, True):
            setting = replace(self.setting, rematerialize=again)
            peak = self.programs.get(setting).cost()["peak_bytes"]
            found["rematerialized" if again else "plain"] = peak
            print(f"{setting.name}: {peak / 2**30:.2f} GiB", flush=True)
        statistics = jax.devices()[0].memory_stats() or {}
        return found | {"peak_bytes_in_use": statistics.get("peak_bytes_in_use")}

    def data(self) -> list[dict[str, Any]]:
        """Measures the share of a training's time in which it waits for images."""
        large = self.scale.large_data
        return waiting.run(self.root, large=large, overrides=(), caches=("device", "host"), taught=False)

    def curves(self) -> dict[str, Any]:
        """Compares trainings in float32 and in bfloat16."""
        return curves.run(self.root, overrides=("--config.log_every_steps=10",))


_SHOWN_KERNELS, _KEPT_KERNELS = 10, 200
_STEPS = 10  # that are timed before the trace

# In the order of their worth; seconds that each takes on one H100 with 16 cores, PyTorch in turn included.
# These are estimates: none of the sections has run there to its end.
SECTIONS = {
    "correctness": 120,
    "step": 240,
    "kernels": 15,
    "depthwise": 60,
    "population": 100,
    "small_population": 70,
    "best_batch": 200,
    "memory": 60,
    "data": 120,
    "curves": 110,
}


def about() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "device": jax.devices()[0].device_kind,
        "platform": jax.default_backend(),
        "jax": jax.__version__,
        "python": sys.version.split()[0],
        "cores": os.cpu_count(),
    }


def read_sections(text: str) -> list[str]:
    """The names in a list with commas; all of them where it is empty.

    Raises:
      UsageError: one is unknown.
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
    root: Path,
    sections: Sequence[str] = tuple(SECTIONS),
    minutes: float = 0.0,
    save: Callable[[dict[str, Any]], None] = lambda document: None,
) -> dict[str, Any]:
    """Measures section by section.

    Args:
      student: the name of a model.
      teacher: the name of a model.
      rounds: of each comparison.
      peers: see `step.run`.
      python: see `step.run`.
      root: the folder with train.py.
      sections: their names, in the order in which they run.
      minutes: within which all of it is to end; 0 for no limit.
      save: takes the document after each section.

    Raises:
      UsageError: a model is unknown.

    Returns:
      The figures of each section under its name; `seconds` of each; `left_out`, those for which there was no
      time; and `failed`, with the reasons. On a CPU programs are small, to see that everything runs.
    """
    scale = SCALES["cpu" if jax.default_backend() == "cpu" else "gpu"]
    setting = Setting("step", student, teacher, scale.size, scale.batch, scale.dtype)
    Parts(setting)  # refuses unknown models before anything is measured
    suite = Suite(setting, scale, rounds, peers, python, root)
    document: dict[str, Any] = {"seconds": {}, "left_out": [], "failed": {}}
    begun = time.monotonic()
    for name in sections:
        left = 60.0 * minutes - (time.monotonic() - begun)
        if minutes and SECTIONS[name] > left:
            print(
                f"== {name}: left out, it takes about {SECTIONS[name]} s and {left:.0f} are left", flush=True
            )
            document["left_out"].append(name)
            continue
        print(f"== {name}", flush=True)
        start = time.monotonic()
        try:
            document[name] = getattr(suite, name)()
        # The machine may be lent for minutes: whatever it is, the others are measured all the same.
        except Exception as error:
            document["failed"][name] = traceback.format_exc()
            print(f"== {name} failed: {type(error).__name__}: {str(error).strip()[:500]}", flush=True)
        document["seconds"][name] = time.monotonic() - start
        print(f"== {name} took {document['seconds'][name]:.0f} s", flush=True)
        save(document)
    return document
