"""Scores a run on a split: writes eval/<split>.json and predictions/<split>.npz, and prints the tables.

The files of another checkpoint than best have its name: eval/<split>.last.json, eval/<split>.120.json.

fairkd-eval RUN [--checkpoint best|last|STEP] [--split test] [--baseline OTHER_RUN] [--probe]

RUN is the folder of a run; --workdir RUN is the same.
"""

from pathlib import Path

from absl import flags

from fairkd_jax import cli, program_flags

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


def main(arguments: list[str]) -> None:
    """Scores the run, and prints the tables."""
    from fairkd_jax.evaluation.evaluate import evaluate_run
    from fairkd_jax.report import tables

    folder = program_flags.get_run_folder(arguments, _WORKDIR)
    cli.use_compilation_cache()
    evaluation = evaluate_run(
        folder,
        split=_SPLIT.value,
        checkpoint=_CHECKPOINT.value,
        baseline=Path(_BASELINE.value) if _BASELINE.value else None,
        batch_size=_BATCH_SIZE.value,
        probe=_PROBE.value,
    )
    print(f"{tables.format_comparison(evaluation)}\n\n{tables.format_recall_by_group(evaluation)}")


def run() -> None:
    """Runs the program with the arguments of this process."""
    cli.run(main, positional=True)
