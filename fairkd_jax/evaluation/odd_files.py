"""Errors in reading evaluations that nobody can vouch for, in one line.

Nothing here imports JAX.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from fairkd_jax.digests import has_hash
from fairkd_jax.errors import UsageError
from fairkd_jax.evaluation.collect import find_runs
from fairkd_jax.runs.paths import RunFolder

SPLITS = ("test", "val", "train")


@contextlib.contextmanager
def blame_odd_evaluations(folder: Path) -> Iterator[None]:
    """Turns an error into a `UsageError` where an evaluation below a folder was written without a hash.

    Its values may be anything. Where all evaluations have their hashes, the error is a defect and stays.

    Args:
      folder: The folder of a run or of several.

    Raises:
      UsageError: The block raised an exception, and an evaluation has no hash.
    """
    try:
        yield
    except (UsageError, OSError):
        raise
    except Exception as error:
        runs = [run for found in find_runs(folder) for run in (found, RunFolder(found).baseline)]
        files = [RunFolder(run).evaluation(split) for run in runs for split in SPLITS]
        odd = [path for path in files if path.is_file() and not has_hash(path)]
        if not odd:
            raise
        text = str(error).strip().partition("\n")[0]
        raise UsageError(
            f"{odd[0]} holds odd values ({type(error).__name__}: {text[:80]}); run `fairkd-eval"
            f" {odd[0].parents[1]} --split {odd[0].stem}` again"
        ) from error
