"""Trains a student, with its teacher before it, and prints how they compare.

fairkd-train --config rkd_adv[:WORD,...] [--config.KEY=VALUE ...] [--workdir DIR] [--baseline]
fairkd-train --resume RUN [--config.KEY=VALUE ...] [--baseline]
fairkd-train --list

--config names a config of the project, a file with a function get_config, as in fairkd_jax/configs/rkd.py, or
the folder of a run, whose config it takes. A first argument without a flag means --config. --resume RUN goes
on with a run in its own folder: it means --config RUN --workdir RUN.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags
from ml_collections import config_flags

from fairkd_jax import cli, program_flags
from fairkd_jax.configs.names import make_run_name
from fairkd_jax.errors import StorageError, UsageError
from fairkd_jax.runs.paths import RunFolder
from fairkd_jax.user_paths import parse_path

if TYPE_CHECKING:
    from fairkd_jax.recipe.parse import Recipe

_CONFIG = program_flags.define_config_flag(
    "Config of the run, with optional words: NAME[:WORD,...] or FILE.py[:WORD,...]; --list prints names and"
    " words."
)
_WORKDIR = flags.DEFINE_string(
    "workdir", "", "Folder of the run; by default runs/<config>[_<debiasing words>][-<preset>]."
)
flags.DEFINE_bool("list", False, "Whether to print the configs, words, models and keys, and train nothing.")
_BASELINE = flags.DEFINE_bool(
    "baseline",
    False,
    "Whether to train a second student without debiasing, for comparison; needs a config that debiases.",
)
flags.DEFINE_string("resume", "", "Folder of a run to go on with; no --config and no --workdir are needed.")
program_flags.define_cluster_flags()
flags.mark_flag_as_required("config")


def default_workdir() -> Path:
    """Returns the folder of a run without --workdir: `runs/rkd_mfd-utkface` for `rkd:utkface,mfd`."""
    return Path("runs", make_run_name(config_flags.get_config_filename(flags.FLAGS["config"])))


def evaluate(workdir: Path, baseline: Path | None = None) -> tuple[dict[str, Any], StorageError | None]:
    """Scores a run on test.

    Args:
      workdir: The run's folder.
      baseline: Folder of the run without debiasing, or None.

    Returns:
      The evaluation, and the error where it could not be written.
    """
    from fairkd_jax.evaluation.evaluate import UnwrittenEvaluationError, evaluate_run

    try:
        return evaluate_run(workdir, baseline=baseline), None
    except UnwrittenEvaluationError as error:
        return error.evaluation, error


def train_members(recipe: "Recipe", workdir: Path) -> None:
    """Trains a population, and scores its members that have not diverged."""
    from fairkd_jax.report import scores
    from fairkd_jax.training import MembersDiverged, train_recipe
    from fairkd_jax.training.context import find_student_folder

    folders = {student.name: find_student_folder(student, workdir) for student in recipe.students}
    diverged = None
    try:
        train_recipe(recipe, workdir)
    except MembersDiverged as error:
        folders, diverged = {name: folders[name] for name in error.complete}, error
    if folders:
        found = {name: evaluate(folder) for name, folder in folders.items()}
        evaluations = {name: evaluation for name, (evaluation, _) in found.items()}
        cli.print_once(f"\n{scores.format_members(evaluations, style=cli.get_style())}")
        trouble = next((error for _, error in found.values() if error), None)
        if not trouble:
            scores.write_member_tables(workdir, folders, evaluations)
            cli.print_once(
                f"\nresults below {folders[next(iter(folders))].parent}, log in {RunFolder(workdir).log}"
            )
            cli.print_once(f"next, for figures and more: fairkd-report {workdir}")
        elif not diverged:
            raise trouble
    if diverged:
        raise diverged


def leave_picture(recipe: "Recipe", workdir: Path) -> str:
    """Draws the curves of a run, its teacher and its baseline, where matplotlib is installed.

    Returns:
      Words for the last lines: where the picture is; "" without a picture.
    """
    import jax

    from fairkd_jax.errors import MissingExtraError
    from fairkd_jax.report.charts import draw_training_curves
    from fairkd_jax.report.curves import read_curves
    from fairkd_jax.training.context import find_teacher_folder

    if jax.process_index():
        return ""
    own = RunFolder(workdir)
    folders = {"teacher": find_teacher_folder(recipe, workdir), "student": workdir, "baseline": own.baseline}
    curves = {name: read_curves(RunFolder(path).metrics) for name, path in folders.items() if path}
    try:
        draw_training_curves(
            own.curves, {name: found for name, found in curves.items() if found}, str(workdir)
        )
    except MissingExtraError:
        return ""
    except OSError as error:  # the run is finished, and its folder may be read-only
        return f", no {own.curves.name} ({error.strerror})"
    return f", curves in {own.curves}"


def main() -> None:
    """Trains the runs that the flags ask for."""
    from fairkd_jax.recipe.parse import parse_recipe
    from fairkd_jax.recipe.related import baseline_config
    from fairkd_jax.report import scores
    from fairkd_jax.training import train_recipe
    from fairkd_jax.training.context import find_teacher_folder

    program_flags.join_cluster()
    cli.use_compilation_cache()
    recipe = parse_recipe(program_flags.load_config(_CONFIG))
    workdir = parse_path(_WORKDIR.value) if _WORKDIR.value else default_workdir()
    baseline = None
    if _BASELINE.value:
        baseline = parse_recipe(baseline_config(recipe, find_teacher_folder(recipe, workdir)))
    if recipe.is_population:
        train_members(recipe, workdir)
        return
    train_recipe(recipe, workdir)
    folder = RunFolder(workdir).baseline
    if baseline is not None:
        train_recipe(baseline, folder, name="baseline")
        own_evaluation, trouble = evaluate(folder)  # the baseline is a run of its own, for comparisons
        if not trouble:
            scores.write_tables(folder, own_evaluation)
    evaluation, trouble = evaluate(workdir, folder if baseline is not None else None)
    cli.print_once(f"\n{scores.format_tables(workdir, evaluation, cli.get_style())}")
    if trouble:
        raise trouble
    scores.write_tables(workdir, evaluation)
    picture, own = leave_picture(recipe, workdir), RunFolder(workdir)
    cli.print_once(f"\nresults in {own.evaluation('test')}{picture}, log in {own.log}")
    cli.print_once(f"next, for figures and more: fairkd-report {workdir}")


def run() -> None:
    """Runs the program with the arguments of this process."""
    try:
        sys.argv[1:] = program_flags.expand_arguments(sys.argv[1:])
    except UsageError as error:
        cli.fail(str(error))
    cli.run(main)
