"""Scores a run on a split: writes eval/<split>.json and predictions/<split>.npz, and prints the tables.

python eval.py --workdir DIR [--checkpoint best|last|STEP] [--split test] [--baseline OTHER_DIR] [--probe]
"""

from fairkd_jax import host_memory, interrupt  # before all that takes long to import

host_memory.tune(__name__)
interrupt.install(__name__)

from pathlib import Path

from absl import flags

from fairkd_jax import cli
from fairkd_jax.report import tables
from fairkd_jax.training import evaluate_run

_WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder.", required=True)
_CHECKPOINT = flags.DEFINE_string("checkpoint", "best", "Of the student: best, last or a step's number.")
_SPLIT = flags.DEFINE_enum("split", "test", ["train", "val", "test"], "What to score on.")
_BASELINE = flags.DEFINE_string("baseline", "", "The folder of a run to compare with.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 0, "Images at a time; 0: as in training.", lower_bound=0)
_PROBE = flags.DEFINE_bool("probe", False, "Whether to ask how well the group can be read from each model.")


def main() -> None:
    cli.use_compilation_cache()
    evaluation = evaluate_run(
        Path(_WORKDIR.value),
        split=_SPLIT.value,
        checkpoint=_CHECKPOINT.value,
        baseline=Path(_BASELINE.value) if _BASELINE.value else None,
        batch_size=_BATCH_SIZE.value,
        probe=_PROBE.value,
    )
    print(f"{tables.comparison(evaluation)}\n\n{tables.recall_by_group(evaluation)}")


if __name__ == "__main__":
    cli.run(main)
