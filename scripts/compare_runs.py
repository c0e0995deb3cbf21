"""Compares evaluated runs: methods over their seeds, and the differences between methods.

python scripts/compare_runs.py RUN RUN ... [--split test] [--json FILE]

Runs whose configs differ only in the seed belong to one method. The method of the first run is the reference
for all other methods.
"""

from fairkd_jax import interrupt  # before the imports that take seconds

interrupt.install(__name__)

import json
from pathlib import Path

from absl import flags

from fairkd_jax import cli
from fairkd_jax.errors import UsageError
from fairkd_jax.files import make_jsonable, write_text

_SPLIT = flags.DEFINE_enum("split", "test", ["train", "val", "test"], "Split to compare the runs on.")
_JSON = flags.DEFINE_string("json", "", "File to write all results to, as JSON.")


def main(folders: list[str]) -> None:
    """Compares the runs in the folders and prints the comparison."""
    from fairkd_jax.evaluation.compare import compare_runs
    from fairkd_jax.report import comparison_text

    output = Path(_JSON.value) if _JSON.value else None
    if output and (output.is_dir() or not output.parent.is_dir()):
        raise UsageError(f"--json={output} is not a file in an existing folder; name another file")
    result = compare_runs([Path(folder) for folder in folders], split=_SPLIT.value)
    if output:
        write_text(output, json.dumps(make_jsonable(result), indent=2) + "\n")
    print(comparison_text.format_comparison(result))


if __name__ == "__main__":
    cli.run(main, positional=True)
