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
"""

from fairkd_jax import interrupt  # before all that takes long to import

interrupt.install(__name__)

import argparse
import sys
from pathlib import Path

from fairkd_jax.benchmarks import angle, decoding, waiting
from fairkd_jax.errors import UsageError

ROOT = Path(__file__).resolve().parent.parent


def main(arguments: list[str] | None = None) -> int:
    """Runs what the command line asks for; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("part", choices=("angle", "data"))
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--source", default="", help="data: a folder of JPEG files, to be decoded as well")
    parser.add_argument("--tensorflow", default="", help="data: the python of an environment with tensorflow")
    parser.add_argument(
        "--large", action="store_true", help="data: train B3 to B0 at 224 pixels rather than tiny models"
    )
    options, overrides = parser.parse_known_args(arguments)
    if options.rounds < 1:
        parser.error(f"--rounds {options.rounds} must be at least 1")
    unknown = [word for word in overrides if not word.startswith("--config.")]
    if unknown or (overrides and options.part != "data"):
        parser.error(f"unrecognized arguments: {' '.join(unknown or overrides)}")
    try:
        if options.part == "angle":
            angle.run(options.rounds)
            return 0
        if options.source:
            decoding.run(options.rounds, options.source, options.tensorflow)
        waiting.run(ROOT, large=options.large, overrides=overrides)
    except UsageError as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
