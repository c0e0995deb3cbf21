"""Converts pretrained EfficientNet weights between the names of timm, torchvision and Keras.

fairkd-convert --architecture tf_efficientnet_b0 keras.h5 b0.safetensors --names timm

Reads .safetensors, .h5 and, with the extra `torch`, .pth. Writes .safetensors in float32, without the
counters of steps that torch keeps for each norm. After a conversion and the conversion back, every float32
array has the same bytes.
"""

import argparse
from collections.abc import Iterator

from fairkd_jax.cli import OneLineParser, parse_path_argument, print_lines
from fairkd_jax.errors import UsageError

SOURCES = ("timm", "torchvision", "keras")


def _make_parser() -> OneLineParser:
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=parse_path_argument, help="Checkpoint file to convert.")
    parser.add_argument("output", type=parse_path_argument, help="File .safetensors to write or to replace.")
    parser.add_argument(
        "--architecture",
        required=True,
        metavar="NAME",
        help="Name of the model, such as tf_efficientnet_b0.",
    )
    parser.add_argument(
        "--names",
        default="timm",
        choices=SOURCES,
        help="Library whose array names the output uses (default: timm).",
    )
    parser.add_argument(
        "--num_classes",
        type=int,
        default=1000,
        help="Number of classes (default: 1000). A head of another size is replaced by random weights.",
    )
    parser.add_argument(
        "--class_names",
        nargs="+",
        metavar="CLASS",
        help="Names of the classes in order, for the output: a training on the same classes keeps the head.",
    )
    return parser


def _check_files(options: argparse.Namespace) -> None:
    """Checks the paths, and that the input is of the named architecture."""
    from fairkd_jax.models.weights.files import read_checkpoint

    if options.output.suffix != ".safetensors":
        raise UsageError(f"{options.output} must end in .safetensors, the output format; change the name")
    if not options.output.absolute().parent.is_dir():
        raise UsageError(f"there is no folder {options.output.parent}; make it first")
    stated = read_checkpoint(options.input).metadata.get("architecture", options.architecture)
    if options.output.is_dir() or (options.output.exists() and options.output.samefile(options.input)):
        found = "a folder" if options.output.is_dir() else "the input"
        raise UsageError(f"{options.output} is {found}; choose another output")
    if stated != options.architecture:
        raise UsageError(f"{options.input} holds weights of {stated}; use --architecture {stated}")
    names = options.class_names
    if names and len(names) != options.num_classes:
        raise UsageError(f"--class_names has {len(names)} names and --num_classes is {options.num_classes}")


def _convert(options: argparse.Namespace) -> Iterator[str]:
    """Converts the file; yields the lines that say what was written."""
    _check_files(options)
    from fairkd_jax.models import read_pretrained
    from fairkd_jax.models.weights.conventions import get_norm_epsilon, make_metadata
    from fairkd_jax.models.weights.convert import to_source
    from fairkd_jax.models.weights.files import write_safetensors

    name = options.architecture
    pretrained = read_pretrained(name, options.input, num_classes=options.num_classes)
    if options.class_names:
        pretrained = pretrained._replace(class_names=tuple(options.class_names))
    arrays, metadata = to_source(name, pretrained.variables, options.names), make_metadata(name, pretrained)
    write_safetensors(options.output, arrays, metadata | {"source": options.input.name, "format": "pt"})
    yield f"{options.output}: {len(arrays)} arrays of {name}, named as in {options.names}"
    if pretrained.new_head:
        yield f"the head is new and untrained: the input has none of {options.num_classes} classes"
    usual = get_norm_epsilon(name, options.names)
    if (epsilon := float(metadata["norm_epsilon"])) != usual:
        yield (
            f"note: {options.names} would build this network with epsilon {usual:g} in BatchNorm, and these"
            f" weights need {epsilon:g}"
        )


def main(arguments: list[str] | None = None) -> int:
    """Converts the checkpoint that the command line names.

    Args:
      arguments: Arguments of the command line; None for those of the process.

    Returns:
      The exit code: 0, or 2 after a user's mistake.
    """
    parser = _make_parser()
    return print_lines(parser.prog, _convert(parser.parse_args(arguments)))
