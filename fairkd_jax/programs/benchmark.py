"""Measures parts of the project against the alternatives that they replace: fairkd-benchmark PART.

Every PART has its own options; see PART --help. The parts start and data also accept --config.KEY=VALUE for
their trainings. --json FILE saves the figures of a part; the decoding figures of data are printed alone.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Callable
from typing import Any

from fairkd_jax.benchmarks.sections import SECTIONS
from fairkd_jax.cli import OneLineParser, parse_path_argument
from fairkd_jax.errors import UsageError
from fairkd_jax.files import write_text

PARTS = {
    "step": "Measures the whole training step: images/s, compilation, XLA's counts, shares of the machine's"
    " limits.",
    "forward": "Measures the student's inference in the same way as the step.",
    "population": "Measures several students in one program against as many single runs.",
    "depthwise": "Measures the implementations of depthwise convolution for each shape in the student's"
    " network.",
    "memory": "Computes the peak memory of the step, with and without rematerialisation, and the batch that"
    " fits.",
    "start": "Measures the seconds to the first step of a training, with an empty and with a full compilation"
    " cache.",
    "data": "Measures the waiting for data in a training, for each place of the images; with --source also"
    " decoding.",
    "angle": "Measures RKD's angle loss in chunks against the same formula without chunks.",
    "floor": "Computes the least bytes and multiplications of a step, and the seconds that this machine needs"
    " for them.",
    "suite": "Runs all measurements of an accelerator, section by section; see --sections.",
}
WITHOUT_PEERS: Any = {"peers": (), "python": ""}
TAKES_CONFIG = ("data", "start")  # parts that pass --config.key=value on to their trainings


def main(arguments: list[str] | None = None) -> int:
    """Runs the part that the command line names.

    Args:
      arguments: Arguments of the command line; those of the process if None.

    Returns:
      The exit code: 1 if a section of the suite failed, else 0.

    Raises:
      SystemExit: The arguments are wrong, or a part raised a UsageError.
    """
    parser = OneLineParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parts = parser.add_subparsers(
        dest="part", required=True, metavar="PART", help="Name of the part to measure."
    )
    for name, text in PARTS.items():
        part = parts.add_parser(
            name,
            help=text,
            description=text,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
            allow_abbrev=False,
        )
        _add_options(name, part)
    options, overrides = parser.parse_known_args(arguments)
    _check_options(parser, options, overrides)
    from fairkd_jax.benchmarks import suite

    output = getattr(options, "json", None)

    def save(figures: Any) -> None:
        if output is not None:
            document = suite.describe_machine() | {options.part: figures}
            write_text(output, json.dumps(document, indent=1) + "\n")

    try:
        figures = _run_part(options, overrides, save)
    except UsageError as error:
        parser.error(str(error))
    save(figures)
    return 1 if options.part == "suite" and figures["failed"] else 0


def _check_options(
    parser: argparse.ArgumentParser, options: argparse.Namespace, overrides: list[str]
) -> None:
    for name in ("rounds", "size", "batch", "members"):
        value = getattr(options, name, 1)
        if (smallest := min(value if isinstance(value, list) else [value])) < 1:
            parser.error(f"--{name} {smallest} must be at least 1")
    for name in ("limit", "minutes"):
        if (value := getattr(options, name, None)) is not None and not value > 0.0:
            parser.error(f"--{name} {value:g} must be above 0")
    unknown = [word for word in overrides if not word.startswith("--config.")]
    if unknown or (overrides and options.part not in TAKES_CONFIG):
        parser.error(f"unrecognized arguments: {' '.join(unknown or overrides)}")
    output = getattr(options, "json", None)
    if output is not None and not output.absolute().parent.is_dir():
        parser.error(f"--json {output}: there is no folder {output.parent}")
    if output is not None and output.is_dir():
        parser.error(f"--json {output} is a folder; name a file")


def _add_options(name: str, parser: argparse.ArgumentParser) -> None:
    """Adds the options of a part."""
    if name != "angle":
        parser.add_argument("--json", type=parse_path_argument, help="File to write all figures to, as JSON.")
    if name not in ("memory", "start", "floor"):
        parser.add_argument(
            "--rounds", type=int, default=10, help="Number of rounds; figures are medians over rounds."
        )
    _add_model_options(name, parser)
    if name in ("step", "forward", "suite"):
        _add_peer_options(parser)
    if name == "suite":
        _add_suite_options(parser)
    if name == "population":
        parser.add_argument(
            "--members", type=int, nargs="+", default=[4, 8], help="Numbers of students in one program."
        )
    if name == "memory":
        parser.add_argument(
            "--platform",
            default="here",
            help="Platform to compile for: this machine, or a TPU topology such as v5e:1x1, for which any"
            " machine can compile (pip install libtpu).",
        )
        parser.add_argument("--limit", type=float, default=16.0, help="Memory of the device in GiB.")
    if name == "data":
        _add_data_options(parser)


def _add_model_options(name: str, parser: argparse.ArgumentParser) -> None:
    if name in ("step", "forward", "population", "depthwise", "memory", "suite", "floor"):
        parser.add_argument("--student", default="efficientnet_b0", help="Name of the student's model.")
    if name in ("step", "population", "memory", "suite", "floor"):
        parser.add_argument("--teacher", default="efficientnet_b3", help="Name of the teacher's model.")
    if name not in ("step", "forward", "population", "depthwise", "memory", "floor"):
        return
    several: dict[str, Any] = {"nargs": "+"} if name in ("step", "forward", "floor") else {}
    size, batch = {"memory": (224, 128), "population": (64, 16)}.get(name, (128, 16))
    for key, value, text in (
        ("--size", size, "Side of the images in pixels."),
        ("--batch", batch, "Number of images in a batch."),
    ):
        parser.add_argument(key, type=int, default=[value] if several else value, help=text, **several)
    parser.add_argument(
        "--dtype",
        default="bfloat16" if name == "memory" else "float32",
        choices=("float32", "bfloat16"),
        help="Dtype of the activations.",
    )


def _add_peer_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--against",
        choices=("torch",),
        help="Framework to compare with. The same models and weights run in turn in PyTorch, in channels_last"
        " and with autocast for bfloat16; on a GPU also with torch.compile.",
    )
    parser.add_argument(
        "--python",
        default=sys.executable,
        help="Python of an environment that has torch, for --against"
        " (python3 -m venv ENV; ENV/bin/pip install torch numpy).",
    )


def _add_suite_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--sections",
        default="",
        help=f"Sections to run, separated by commas, from {', '.join(SECTIONS)}; all by default.",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        help="Time limit in minutes; a section is left out if its estimate is longer than the time left.",
    )


def _add_data_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--source", default="", help="Folder of JPEG files whose decoding is measured too.")
    parser.add_argument(
        "--tensorflow",
        default="",
        help="Python of an environment that has TensorFlow, to measure tf.data on --source too"
        " (python3 -m venv ENV; ENV/bin/pip install tensorflow-cpu).",
    )
    parser.add_argument(
        "--large",
        action="store_true",
        help="Whether to train EfficientNet-B3 and B0 at 224 pixels instead of tiny models.",
    )


def _run_part(options: argparse.Namespace, overrides: list[str], save: Callable[[Any], None]) -> Any:
    """Runs a part and returns its figures, or None for a part that only prints.

    The suite calls `save` with the figures after each section.
    """
    import jax

    from fairkd_jax.benchmarks import (
        angle,
        decoding,
        layers,
        memory,
        population,
        start,
        step,
        suite,
        waiting,
    )

    part = options.part
    if part == "angle":
        angle.run(options.rounds)
        return None
    if part == "data":
        if options.source:
            decoding.run(options.rounds, options.source, options.tensorflow)
        return waiting.run(large=options.large, overrides=overrides)
    if part == "floor":
        return [step.describe_floor(setting) for setting in _make_settings(options)]
    if part == "start":
        return start.run(overrides=overrides)
    print(f"{jax.devices()[0].device_kind} ({jax.default_backend()}), jax {jax.__version__}", flush=True)
    if part == "depthwise":
        given = {key: getattr(options, key) for key in ("size", "batch", "dtype", "rounds")}
        return layers.run(options.student, **given)
    modes = ("eager", "compiled") if jax.default_backend() == "gpu" else ("eager",)
    with_peers = {"peers": modes, "python": options.python} if getattr(options, "against", None) else {}
    peers = with_peers or WITHOUT_PEERS
    if part == "suite":
        sections = suite.parse_sections(options.sections)
        given = {"sections": sections, "minutes": options.minutes or 0.0, "save": save}
        return suite.run(options.student, options.teacher, rounds=options.rounds, **given, **peers)
    settings = _make_settings(options)
    if part == "memory":
        return memory.run(settings[0], platform=options.platform, limit=options.limit)
    if part == "population":
        return population.run(settings[0], options.members, options.rounds)
    return step.run(settings, rounds=options.rounds, **peers)


def _make_settings(options: argparse.Namespace) -> list[Any]:
    """Returns a `BenchmarkSetting` for each combination of --size and --batch."""
    from fairkd_jax.benchmarks.setting import BenchmarkSetting

    program = "forward" if options.part == "forward" else "step"
    teacher = options.student if options.part == "forward" else options.teacher
    sizes, batches = (
        value if isinstance(value, list) else [value] for value in (options.size, options.batch)
    )
    return [
        BenchmarkSetting(program, options.student, teacher, size, batch, options.dtype)
        for size, batch in itertools.product(sizes, batches)
    ]
