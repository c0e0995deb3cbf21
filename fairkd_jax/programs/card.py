"""Writes the model card of an evaluated run: RUN/MODEL_CARD.md.

fairkd-card RUN [--name NAME]

The card has the sections and the metadata that Hugging Face's hub reads. Nothing is uploaded.
"""

import argparse
from collections.abc import Iterator

from fairkd_jax.cli import OneLineParser, parse_path_argument, print_lines
from fairkd_jax.files import write_text


def main(arguments: list[str] | None = None) -> int:
    """Writes the model card that the command line asks for.

    Args:
      arguments: Arguments of the command line; None for those of the process.

    Returns:
      The exit code: 0, or 2 after a user's mistake.
    """
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=parse_path_argument, metavar="RUN", help="Folder of an evaluated run.")
    parser.add_argument("--name", help="Name of the model (default: the name of the folder).")
    return print_lines(parser.prog, _write_card(parser.parse_args(arguments)))


def _write_card(options: argparse.Namespace) -> Iterator[str]:
    """Writes the card; yields its path."""
    from fairkd_jax.evaluation.odd_files import blame_odd_evaluations
    from fairkd_jax.report.findings import collect_findings
    from fairkd_jax.report.model_card import make_model_card
    from fairkd_jax.runs.paths import RunFolder

    with blame_odd_evaluations(options.run):
        findings = collect_findings(options.run) | {"name": options.name or options.run.absolute().name}
        text = make_model_card(findings)
    path = RunFolder(options.run).model_card
    write_text(path, text)
    yield str(path)
