"""Compares evaluated runs: methods over their seeds, and the differences between methods.

fairkd-compare RUN RUN ... [--split test] [--checkpoint best|last|STEP] [--json FILE]

Runs whose configs differ only in the seed belong to one method. The method of the first run is the reference
for all other methods.
"""

import json

from absl import flags

from fairkd_jax import cli, program_flags
from fairkd_jax.files import make_jsonable, write_text
from fairkd_jax.runs.paths import BEST
from fairkd_jax.user_paths import parse_path

_SPLIT = flags.DEFINE_enum("split", "test", ["train", "val", "test"], "Split to compare the runs on.")
_CHECKPOINT = flags.DEFINE_string(
    "checkpoint", BEST, "Scored checkpoint of every run: best, last or the number of a step."
)
_JSON = flags.DEFINE_string("json", "", "File to write all results to, as JSON.")


def main(folders: list[str]) -> None:
    """Compares the runs in the folders and prints the comparison."""
    from fairkd_jax.evaluation.compare import compare_runs
    from fairkd_jax.report import comparison_text

    output = program_flags.get_output_file(_JSON)
    runs = [parse_path(folder) for folder in folders]
    result = compare_runs(runs, split=_SPLIT.value, checkpoint=_CHECKPOINT.value)
    if output:
        write_text(output, json.dumps(make_jsonable(result), indent=2) + "\n")
    print(comparison_text.format_comparison(result, cli.get_style()))


def run() -> None:
    """Runs the program with the arguments of this process."""
    cli.run(main, positional=True)
