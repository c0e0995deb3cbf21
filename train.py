"""Trains a student, with its teacher before it, and prints how they compare.

python train.py --config configs/rkd_adv.py[:PRESET] [--config.KEY=VALUE ...] [--workdir DIR] [--baseline]
"""

from fairkd_jax import host_memory, interrupt  # before all that takes long to import

host_memory.tune(__name__)
interrupt.install(__name__)

from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from fairkd_jax import cli
from fairkd_jax.report import tables
from fairkd_jax.training import (
    MembersDiverged,
    baseline_config,
    evaluate_run,
    is_population,
    member_folders,
    resolved,
    teacher_folder,
    train,
    uses_teacher,
)

_CONFIG = config_flags.DEFINE_config_file("config", None, "File[:preset].", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", "", "The run's folder; runs/<config>[-<preset>] by default.")
_BASELINE = flags.DEFINE_bool("baseline", False, "Whether to train the student without debiasing as well.")
cli.define_cluster_flags()
flags.mark_flag_as_required("config")


def default_workdir() -> Path:
    """`runs/rkd_adv-utkface` for `--config configs/rkd_adv.py:utkface`."""
    path, _, preset = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")
    return Path("runs") / "-".join(filter(None, (Path(path).stem, preset)))


def train_members(config: ConfigDict, workdir: Path) -> None:
    """Trains a population, and scores those of its members that have not diverged."""
    folders, diverged = member_folders(config, workdir), None
    try:
        train(config, workdir)
    except MembersDiverged as error:
        folders, diverged = {name: folders[name] for name in error.complete}, error
    if folders:
        cli.say(f"\n{tables.members({name: evaluate_run(folder) for name, folder in folders.items()})}")
    if diverged:
        raise diverged


def main() -> None:
    cli.join_cluster()
    cli.use_compilation_cache()
    config = resolved(cli.load_config(_CONFIG))
    workdir = Path(_WORKDIR.value) if _WORKDIR.value else default_workdir()
    teacher = teacher_folder(config, workdir) if uses_teacher(config) else None
    baseline = baseline_config(config, teacher) if _BASELINE.value else None
    if is_population(config):
        train_members(config, workdir)
        return
    train(config, workdir)
    if baseline is not None:
        train(baseline, workdir / "baseline", name="baseline")
        evaluate_run(workdir / "baseline")  # a run of its own, to be compared as such
    evaluation = evaluate_run(workdir, baseline=workdir / "baseline" if baseline is not None else None)
    cli.say(f"\n{tables.comparison(evaluation)}\n\n{tables.recall_by_group(evaluation)}")


if __name__ == "__main__":
    cli.run(main)
