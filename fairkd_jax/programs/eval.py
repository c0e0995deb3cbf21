"""Scores a run on a split: writes eval/<split>.json and predictions/<split>.npz, and prints the tables.

The files of another checkpoint than best have its name: eval/<split>.last.json, eval/<split>.120.json.

fairkd-eval RUN [--checkpoint best|last|STEP] [--split test] [--baseline OTHER_RUN] [--probe]

RUN is the folder of a run; --workdir RUN is the same. Of a population's folder all members are scored, in
one table. The tables are also in eval/<split>.txt.
"""

import sys
from pathlib import Path
from typing import Any

from absl import flags

from fairkd_jax import cli, program_flags
from fairkd_jax.errors import StorageError, UsageError
from fairkd_jax.runs.paths import RunFolder, list_members
from fairkd_jax.user_paths import parse_path

_WORKDIR = flags.DEFINE_string("workdir", "", "Folder of the run, where no argument names the folder.")
_CHECKPOINT = flags.DEFINE_string(
    "checkpoint", "best", "Checkpoint of the student: best, last or the number of a step."
)
_SPLIT = flags.DEFINE_enum("split", "test", ["train", "val", "test"], "Split to score the models on.")
_BASELINE = flags.DEFINE_string("baseline", "", "Folder of another run to compare with.")
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 0, "Number of images in a batch; 0 for the batch size of the training.", lower_bound=0
)
_PROBE = flags.DEFINE_bool(
    "probe", False, "Whether to fit probes that predict the group from each model; needs --split=test."
)

_PREPARE = flags.DEFINE_bool(
    "prepare",
    False,
    "Whether to prepare the data where the run's config.json says, if they are not prepared there; only for"
    " runs that you trust.",
)


def main(arguments: list[str]) -> None:
    """Scores the run, or all members of a population, prints the tables, and writes them."""
    from fairkd_jax.report import scores

    folder = program_flags.get_run_folder(arguments, _WORKDIR)
    cli.use_compilation_cache()
    if _is_population(folder):
        _score_members(folder)
        return
    evaluation, trouble = _score(folder)
    print(scores.format_tables(folder, evaluation, cli.get_style()), flush=True)
    if trouble:
        raise trouble
    scores.write_tables(folder, evaluation)


def _is_population(folder: Path) -> bool:
    """Returns whether a folder is a population's, and not a run's."""
    own = RunFolder(folder)
    return own.is_population() and not own.is_run()


def _score(folder: Path) -> tuple[dict[str, Any], StorageError | None]:
    """Scores a run as the flags ask for; returns the error too where the scores could not be written."""
    from fairkd_jax.evaluation.evaluate import UnwrittenEvaluationError, evaluate_run

    try:
        evaluation = evaluate_run(
            folder,
            split=_SPLIT.value,
            checkpoint=_CHECKPOINT.value,
            baseline=parse_path(_BASELINE.value) if _BASELINE.value else None,
            batch_size=_BATCH_SIZE.value,
            probe=_PROBE.value,
            allow_preparation=_PREPARE.value,
        )
    except UnwrittenEvaluationError as error:
        return error.evaluation, error
    return evaluation, None


def _score_members(folder: Path) -> None:
    """Scores the members of a population that have not diverged, one after the other, in one table."""
    from fairkd_jax.report import scores

    evaluations, folders, left_out, troubles = {}, {}, list[str](), list[StorageError]()
    for member in list_members(folder):
        name = member.path.name
        if member.diverged.exists():
            left_out.append(f"left out, as it diverged: {name}")
            continue
        print(f"scoring {name} ...", file=sys.stderr, flush=True)
        folders[name] = member.path
        evaluations[name], trouble = _score(member.path)
        troubles += [trouble] if trouble else []
    if not evaluations:
        raise UsageError(f"{folder} holds no member that could be scored; finish its training first")
    print(scores.format_members(evaluations, left_out, cli.get_style()), flush=True)
    if troubles:
        raise troubles[0]
    scores.write_member_tables(folder, folders, evaluations, left_out)


def run() -> None:
    """Runs the program with the arguments of this process."""
    cli.run(main, positional=True)
