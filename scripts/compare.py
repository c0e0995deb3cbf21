"""Compares evaluated runs: methods over their seeds, and what may be said of their differences.

python scripts/compare.py RUN RUN ... [--split test] [--json FILE]

Runs whose configs differ in the seed alone are one method. The first run's is the reference of all others.
"""

from fairkd_jax import interrupt  # before all that takes long to import

interrupt.install(__name__)

import json
from pathlib import Path

from absl import flags

from fairkd_jax import cli
from fairkd_jax.errors import UsageError
from fairkd_jax.files import write_text
from fairkd_jax.report import comparison_text
from fairkd_jax.training.comparing import compare_runs
from fairkd_jax.training.writers import jsonable

_SPLIT = flags.DEFINE_enum("split", "test", ["train", "val", "test"], "Of which the evaluations are.")
_JSON = flags.DEFINE_string("json", "", "A file for everything that was found.")


def main(folders: list[str]) -> None:
    output = Path(_JSON.value) if _JSON.value else None
    if output and (output.is_dir() or not output.parent.is_dir()):
        raise UsageError(f"--json={output} is no file in an existing folder; name another one")
    result = compare_runs([Path(folder) for folder in folders], split=_SPLIT.value)
    if output:
        write_text(output, json.dumps(jsonable(result), indent=2) + "\n")
    print(comparison_text.comparison(result))


if __name__ == "__main__":
    cli.run(main, positional=True)
