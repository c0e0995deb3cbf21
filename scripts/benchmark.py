"""Measures parts of the project side by side with what they replace: python scripts/benchmark.py PART.

angle  RKD's angle loss, value and gradient at batch 128 and widths 1280 and 1536, against the same formula
       without chunks: milliseconds (median of the rounds, taken in turn) and temporary memory.
data   The share of a training's time in which it waits for the next batch, with the images kept on the
       device, in the host's memory, and not at all; an upper bound of what the device waits. Options that are
       not listed here (--config.epochs=20) are handed to the trainings.
       With --source: decoding and resizing that folder's photographs to 256 pixels on one core, against PIL,
       Grain with PIL, and tf.data where --tensorflow names the Python of an environment that has it
       (python3 -m venv ENV; ENV/bin/pip install tensorflow-cpu): images per second of CPU time, medians of
       the rounds, taken in turn.
step, forward
       The whole training step (EfficientNet-B3 teaches B0, with RKD and an adversary), and the student's
       inference: images per second, compilation, operations, bytes and memory by XLA's count, and the shares
       of what a matrix product and a copy reach in the same run. --against torch measures the same models,
       with the same weights, in PyTorch, in turn (channels_last; on a GPU also torch.compile, and with
       --dtype bfloat16 autocast). --python names the Python of an environment that has it
       (python3 -m venv ENV; ENV/bin/pip install torch numpy). --json writes all figures.
"""

from fairkd_jax import host_memory, interrupt  # before all that takes long to import

host_memory.tune(__name__)
interrupt.install(__name__)

import argparse
import sys
from pathlib import Path

import jax

from fairkd_jax.benchmarks import angle, decoding, step, waiting
from fairkd_jax.benchmarks.program import Setting
from fairkd_jax.errors import UsageError

ROOT = Path(__file__).resolve().parent.parent


def main(arguments: list[str] | None = None) -> int:
    """Runs what the command line asks for; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("part", choices=("angle", "data", "step", "forward"))
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--source", default="", help="data: a folder of JPEG files, to be decoded as well")
    parser.add_argument("--tensorflow", default="", help="data: the python of an environment with tensorflow")
    parser.add_argument(
        "--large", action="store_true", help="data: train B3 to B0 at 224 pixels rather than tiny models"
    )
    parser.add_argument("--student", default="efficientnet_b0", help="step, forward: a model")
    parser.add_argument("--teacher", default="efficientnet_b3", help="step: a model")
    parser.add_argument(
        "--size", type=int, nargs="+", default=[128], help="step, forward: pixels of the side"
    )
    parser.add_argument("--batch", type=int, nargs="+", default=[16, 32], help="step, forward: images")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--against", choices=("torch",), help="step, forward: measure this in turn")
    parser.add_argument("--python", default=sys.executable, help="of the environment of --against")
    parser.add_argument("--json", type=Path, help="step, forward: a file for all figures")
    options, overrides = parser.parse_known_args(arguments)
    smallest = min(options.rounds, *options.size, *options.batch)
    if smallest < 1:
        parser.error(f"{smallest} must be at least 1")
    unknown = [word for word in overrides if not word.startswith("--config.")]
    if unknown or (overrides and options.part != "data"):
        parser.error(f"unrecognized arguments: {' '.join(unknown or overrides)}")
    try:
        if options.part == "angle":
            angle.run(options.rounds)
        elif options.part == "data":
            if options.source:
                decoding.run(options.rounds, options.source, options.tensorflow)
            waiting.run(ROOT, large=options.large, overrides=overrides)
        else:
            _steps(options)
    except UsageError as error:
        parser.error(str(error))
    return 0


def _steps(options: argparse.Namespace) -> None:
    models = (options.student, options.teacher)
    settings = [
        Setting(options.part, *models, size, batch, options.dtype)
        for size in options.size
        for batch in options.batch
    ]
    modes = ("eager", "compiled") if jax.default_backend() == "gpu" else ("eager",)
    peers = modes if options.against else ()
    step.run(settings, rounds=options.rounds, peers=peers, python=options.python, output=options.json)


if __name__ == "__main__":
    sys.exit(main())
