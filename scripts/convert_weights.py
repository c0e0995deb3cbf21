"""Converts pretrained EfficientNet weights between the names of timm, torchvision and Keras.

python scripts/convert_weights.py --architecture tf_efficientnet_b0 keras.h5 b0.safetensors --names timm

Reads .safetensors, .h5 and, with the extra `torch`, .pth; writes .safetensors in float32, without the
counters of steps that torch keeps beside each norm. There and back, every float32 array has the same bytes.
"""

from fairkd_jax import interrupt  # before all that takes long to import

interrupt.install(__name__)

import argparse
import sys
from pathlib import Path

from fairkd_jax.errors import UsageError
from fairkd_jax.models import MODEL_NAMES, load_pretrained
from fairkd_jax.models.weights.convert import to_source
from fairkd_jax.models.weights.files import read_checkpoint, write_safetensors
from fairkd_jax.models.weights.leaves import SOURCES


def main(arguments: list[str] | None = None) -> int:
    """Converts what the command line names; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("input", type=Path, help="the checkpoint that you have")
    parser.add_argument("output", type=Path, help="the .safetensors file to write, or to replace")
    parser.add_argument("--architecture", required=True, choices=MODEL_NAMES, metavar="NAME")
    parser.add_argument("--names", default="timm", choices=SOURCES, help="of the arrays in the output")
    parser.add_argument("--num_classes", type=int, default=1000, help="of the head; another one is a new one")
    options = parser.parse_args(arguments)
    try:
        if options.output.suffix != ".safetensors":
            raise UsageError(f"{options.output} must end in .safetensors, the format that is written")
        if not options.output.absolute().parent.is_dir():
            raise UsageError(f"there is no folder {options.output.parent}; make it first")
        said = read_checkpoint(options.input).metadata.get("architecture", options.architecture)
        if options.output.is_dir() or (options.output.exists() and options.output.samefile(options.input)):
            raise UsageError(f"{options.output} is {'a folder' if options.output.is_dir() else 'the input'}")
        if said != options.architecture:
            raise UsageError(f"{options.input} says that it is of {said}: give --architecture {said}")
        variables = load_pretrained(options.architecture, options.input, num_classes=options.num_classes)
        arrays = to_source(options.architecture, variables, options.names)
        metadata = {"architecture": options.architecture, "source": options.input.name, "format": "pt"}
        write_safetensors(options.output, arrays, metadata)
    except UsageError as error:
        print(f"convert_weights.py: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"convert_weights.py: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    print(f"{options.output}: {len(arrays)} arrays of {options.architecture}, named as in {options.names}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
