"""Measures parts of the project, side by side with what they replace: python scripts/benchmark.py PART.

Every PART has options of its own (PART --help); --json FILE, where it has that, keeps all figures.
"""

from fairkd_jax import host_memory, interrupt  # before all that takes long to import

host_memory.tune(__name__)
interrupt.install(__name__)

import argparse
import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from fairkd_jax.benchmarks import angle, decoding, layers, memory, population, start, step, suite, waiting
from fairkd_jax.benchmarks.program import Setting
from fairkd_jax.errors import UsageError
from fairkd_jax.files import write_text

ROOT = Path(__file__).resolve().parent.parent
PARTS = {
    "step": "the whole training step: images/s, compilation, XLA's counts, shares of the machine's limits",
    "forward": "the student's inference, likewise",
    "population": "several students in one program against as many lone runs",
    "depthwise": "the implementations of depthwise convolution, for each shape of the student's network",
    "memory": "peak memory of the step, with and without rematerialisation, and the batch that fits",
    "start": "seconds to the first step of a training, with nothing compiled yet and started again",
    "data": "waiting for data in a training, with each place of the images; decoding, with --source",
    "angle": "RKD's angle loss in chunks against the same formula without",
    "floor": "what a step must move and multiply, counted from the networks",
    "suite": "all that an accelerator is asked, section by section; see --sections",
}
NOBODY: Any = {"peers": (), "python": ""}  # to measure against
TAKES_CONFIG = ("data", "start")  # hand --config.key=value to their trainings


def main(arguments: list[str] | None = None) -> int:
    """Runs what the command line asks for; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parts = parser.add_subparsers(dest="part", required=True, metavar="PART")
    for name, text in PARTS.items():
        _add_options(name, parts.add_parser(name, help=text, **_parser(text)))
    options, overrides = parser.parse_known_args(arguments)
    for name in ("rounds", "size", "batch", "members"):
        given = getattr(options, name, 1)
        if (smallest := min(given if isinstance(given, list) else [given])) < 1:
            parser.error(f"--{name} {smallest} must be at least 1")
    for name, least in (("limit", 0.0), ("minutes", 0.0)):
        if (given := getattr(options, name, None)) is not None and not given > least:
            parser.error(f"--{name} {given:g} must be above {least:g}")
    unknown = [word for word in overrides if not word.startswith("--config.")]
    if unknown or (overrides and options.part not in TAKES_CONFIG):
        parser.error(f"unrecognized arguments: {' '.join(unknown or overrides)}")
    output = getattr(options, "json", None)
    if output is not None and not output.absolute().parent.is_dir():
        parser.error(f"--json {output}: there is no folder {output.parent}")
    if output is not None and output.is_dir():
        parser.error(f"--json {output} is a folder")

    def save(figures: Any) -> None:
        if output is not None:
            write_text(output, json.dumps(suite.about() | {options.part: figures}, indent=1) + "\n")

    try:
        figures = _measured(options, overrides, save)
    except UsageError as error:
        parser.error(str(error))
    save(figures)
    return 1 if options.part == "suite" and figures["failed"] else 0


def _parser(text: str) -> dict[str, Any]:
    shown = argparse.ArgumentDefaultsHelpFormatter
    return {"description": text, "formatter_class": shown, "allow_abbrev": False}


def _add_options(name: str, parser: argparse.ArgumentParser) -> None:
    if name != "angle":
        parser.add_argument("--json", type=Path, help="a file for all figures")
    if name not in ("memory", "start", "floor"):
        parser.add_argument("--rounds", type=int, default=10, help="of which medians are taken")
    if name in ("step", "forward", "population", "depthwise", "memory", "suite", "floor"):
        parser.add_argument("--student", default="efficientnet_b0", help="a model")
    if name in ("step", "population", "memory", "suite", "floor"):
        parser.add_argument("--teacher", default="efficientnet_b3", help="a model")
    several = name in ("step", "forward", "floor")
    if name in ("step", "forward", "population", "depthwise", "memory", "floor"):
        size, batch = {"memory": (224, 128), "population": (64, 16)}.get(name, (128, 16))
        for key, value, text in (("--size", size, "pixels of the side"), ("--batch", batch, "images")):
            if several:
                parser.add_argument(key, type=int, nargs="+", default=[value], help=text)
            else:
                parser.add_argument(key, type=int, default=value, help=text)
        dtype = "bfloat16" if name == "memory" else "float32"
        parser.add_argument("--dtype", default=dtype, choices=("float32", "bfloat16"))
    if name in ("step", "forward", "suite"):
        parser.add_argument(
            "--against",
            choices=("torch",),
            help="measure the same models with the same weights in turn: PyTorch in channels_last, with"
            " autocast for bfloat16; on a GPU torch.compile, too",
        )
        parser.add_argument(
            "--python",
            default=sys.executable,
            help="for --against, the Python of an environment that has torch"
            " (python3 -m venv ENV; ENV/bin/pip install torch numpy)",
        )
    if name == "suite":
        listed = ", ".join(suite.SECTIONS)
        parser.add_argument("--sections", default="", help=f"which, with commas between them: {listed}; all")
        parser.add_argument(
            "--minutes",
            type=float,
            help="no section begins that would not end within so many, by its estimate",
        )
    if name == "population":
        parser.add_argument("--members", type=int, nargs="+", default=[4, 8], help="students")
    if name == "memory":
        parser.add_argument(
            "--platform",
            default=memory.HERE,
            help="a TPU topology, such as v5e:1x1, to compile for it on any machine (pip install libtpu)",
        )
        parser.add_argument("--limit", type=float, default=16.0, help="GiB of the device")
    if name == "data":
        parser.add_argument("--source", default="", help="a folder of JPEG files, to be decoded as well")
        parser.add_argument(
            "--tensorflow",
            default="",
            help="with --source, against tf.data, too: the Python of an environment that has it"
            " (python3 -m venv ENV; ENV/bin/pip install tensorflow-cpu)",
        )
        parser.add_argument(
            "--large", action="store_true", help="train B3 to B0 at 224 pixels rather than tiny models"
        )


def _measured(options: argparse.Namespace, overrides: list[str], save: Callable[[Any], None]) -> Any:
    """Runs a part; returns its figures, None for one that only prints; `save` takes those that are there."""
    part = options.part
    if part == "angle":
        angle.run(options.rounds)
        return None
    if part == "data":
        if options.source:
            decoding.run(options.rounds, options.source, options.tensorflow)
        return waiting.run(ROOT, large=options.large, overrides=overrides)
    if part == "floor":
        sizes = itertools.product(options.size, options.batch)
        given = (Setting("step", options.student, options.teacher, *size, options.dtype) for size in sizes)
        return [step.describe_floor(setting) for setting in given]
    if part == "start":
        return start.run(ROOT, overrides=overrides)
    print(f"{jax.devices()[0].device_kind} ({jax.default_backend()}), jax {jax.__version__}", flush=True)
    if part == "depthwise":
        given = {key: getattr(options, key) for key in ("size", "batch", "dtype", "rounds")}
        return layers.run(options.student, **given)
    modes = ("eager", "compiled") if jax.default_backend() == "gpu" else ("eager",)
    against = {"peers": modes, "python": options.python} if getattr(options, "against", None) else NOBODY
    if part == "suite":
        sections = suite.read_sections(options.sections)
        given = {"sections": sections, "minutes": options.minutes or 0.0, "save": save, "root": ROOT}
        return suite.run(options.student, options.teacher, rounds=options.rounds, **given, **against)
    teacher = options.student if part == "forward" else options.teacher

    def setting(size: int, batch: int) -> Setting:
        program = "forward" if part == "forward" else "step"
        return Setting(program, options.student, teacher, size, batch, options.dtype)

    if part == "memory":
        wanted = setting(options.size, options.batch)
        return memory.run(wanted, platform=options.platform, limit=options.limit)
    if part == "population":
        return population.run(setting(options.size, options.batch), options.members, options.rounds)
    settings = [setting(size, batch) for size in options.size for batch in options.batch]
    return step.run(settings, rounds=options.rounds, **against)


if __name__ == "__main__":
    sys.exit(main())
