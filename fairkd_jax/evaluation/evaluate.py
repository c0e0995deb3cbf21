"""The scores of runs: a student, its teacher and another student on a split, written to the run's folder."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fairkd_jax.data.batches import iterate_eval_batches
from fairkd_jax.data.pipeline import Dataset
from fairkd_jax.digests import read_json, write_arrays, write_json
from fairkd_jax.engine.eval_step import Scores, compile_eval_step, evaluate, make_eval_step
from fairkd_jax.engine.sharding import make_mesh
from fairkd_jax.errors import StorageError, UsageError, reading
from fairkd_jax.evaluation.probes import check_can_probe, probe_model
from fairkd_jax.fairness import compute_fidelity, compute_inflation, diagnose, summarize
from fairkd_jax.fairness.probabilities import compute_probability_measures
from fairkd_jax.fairness.published_measures import compute_cell_accuracies, compute_rate_gaps
from fairkd_jax.files import make_jsonable
from fairkd_jax.models import num_parameters
from fairkd_jax.recipe.objectives import describe_balancing
from fairkd_jax.runs.dataset import describe_data, open_recorded_data
from fairkd_jax.runs.folder import RunConfig, find_teacher, read_run_config
from fairkd_jax.runs.loading import LoadedModel, load_run
from fairkd_jax.runs.paths import RunFolder


class UnwrittenEvaluationError(StorageError):
    """An evaluation that could not be written: the run's folder is read-only, or the disk is full.

    Attributes:
      evaluation: What `evaluate_run` would have returned.
    """

    def __init__(self, error: OSError, evaluation: dict[str, Any]) -> None:
        """Takes the error of the system, and the evaluation."""
        super().__init__(f"nothing was written: {error.filename}: {error.strerror}")
        self.evaluation = evaluation


def evaluate_run(
    workdir: Path,
    *,
    split: str = "test",
    checkpoint: str = "best",
    baseline: Path | None = None,
    batch_size: int = 0,
    probe: bool = False,
    allow_preparation: bool = False,
    devices: Sequence[jax.Device] | None = None,
) -> dict[str, Any]:
    """Scores a run's student, its teacher, and another run's student on a split.

    The function writes `eval/<split>.json` and `predictions/<split>.npz` into the run's folder. For another
    checkpoint than "best" their names have the checkpoint, as in `eval/<split>.last.json`.

    Args:
      workdir: The run's folder.
      split: "train", "val" or "test".
      checkpoint: Checkpoint of the student: "best", "last" or the number of a step. Other models are scored
        at their best checkpoint.
      baseline: Folder of a run to compare with.
      batch_size: Number of images in a batch; 0 for the run's own.
      probe: Whether to fit probes that read the group from each model; see `probe_model`. Probes are fitted
        on "train" and chosen on "val", so the split must be "test".
      allow_preparation: Whether to prepare the data where the run's config says; see `open_recorded_data`.
      devices: The devices of the evaluation; all devices by default.

    Returns:
      The content of the JSON file. "teacher", "student" and "baseline" hold a summary each, with the scored
      "step" and the results of probes under "probe"; "inflation" holds the inflation by model.

    Raises:
      UsageError: A folder holds no such run or checkpoint, runs do not fit together, or no probe is possible.
      UnwrittenEvaluationError: The files cannot be written; the error holds the evaluation.
    """
    saved = read_run_config(workdir)
    if baseline is not None:
        read_run_config(baseline)  # an error must come before any model is loaded
    mesh = make_mesh(devices)
    dataset, current = _open_run_data(saved, workdir, allow_preparation)
    if probe:
        check_can_probe(dataset, split)
    folders = _find_models(saved, workdir, baseline)
    models = {
        name: load_run(folder, checkpoint if name == "student" else "best", saved.data_info, mesh)
        for name, folder in folders.items()
    }
    rows = _count_rows(batch_size or saved.config["batch_size"], dataset, mesh)
    score = {name: _make_scorer(model, dataset, rows, mesh, probe) for name, model in models.items()}
    scores = {name: score[name](split) for name in models}
    result = _make_result(models, scores, folders, dataset, split)
    result |= {"split": split, "checkpoint": checkpoint, **current}
    for name in models if probe else ():
        result[name]["probe"] = probe_model(name, score[name], scores[name].features, dataset)
    if not probe:
        _keep_probes(RunFolder(workdir).evaluation(split, checkpoint), result)
    if not jax.process_index():
        _write_evaluation(workdir, dataset, scores, result)
    return result


def _open_run_data(
    saved: RunConfig, workdir: Path, allow_preparation: bool
) -> tuple[Dataset, dict[str, Any]]:
    """Opens the data of a run, and checks them; returns the data, their description and their counts."""
    # The shuffled groups are for training alone.
    changes = {"control": "none"} if saved.config["data"].get("control") == "shuffle" else {}
    dataset = open_recorded_data(workdir, saved, allow_preparation=allow_preparation, **changes)
    current = describe_data(dataset)
    if any(saved.data_info.get(key) != value for key, value in current.items()):
        raise UsageError(f"the prepared {dataset.info.name} data are not those that {workdir} was trained on")
    counts = {name: np.asarray(dataset.split(name).counts).tolist() for name in dataset.info.num_examples}
    return dataset, {"counts": counts, **current}


def _count_rows(batch_size: int, dataset: Dataset, mesh: jax.sharding.Mesh) -> int:
    """Returns the rows of a batch; more rows than the largest split has would only be padding."""
    largest = max(dataset.info.num_examples.values())
    return -(-min(batch_size, largest) // mesh.size) * mesh.size


def _find_models(saved: RunConfig, workdir: Path, baseline: Path | None) -> dict[str, Path]:
    """Returns the folders of the models to score, in the order of the tables."""
    folders = {}
    if "teacher" in saved.data_info:
        folders["teacher"] = find_teacher(saved.config["teacher"]["checkpoint"], workdir)
    folders["student"] = workdir
    if baseline is not None:
        folders["baseline"] = baseline
    return folders


def describe_method(workdir: Path) -> dict[str, Any]:
    """Describes the method of a run.

    Args:
      workdir: The run's folder.

    Returns:
      Weights of the `objectives` and their descriptions, `methods`, by name; and the `balancing` of groups.

    Raises:
      UsageError: The folder holds no run, or its config is damaged.
    """
    saved = read_run_config(workdir)
    config, methods = saved.config, saved.methods
    with reading(str(RunFolder(workdir).config), "train the run again"):
        return {
            "objectives": {objective: config[objective]["weight"] for objective in config["objectives"]},
            "methods": methods,
            "balancing": describe_balancing(config, methods.values()),
        }


def _make_scorer(
    model: LoadedModel, dataset: Dataset, batch_size: int, mesh: jax.sharding.Mesh, with_features: bool
) -> Callable[[str], Scores]:
    """Makes the function that scores a model on a split; it is compiled once for all splits."""
    step = make_eval_step(
        model.module,
        image_size=model.image_size,
        num_groups=len(dataset.info.group_names),
        with_features=with_features,
    )
    compiled = compile_eval_step(step, mesh)

    def score(split: str) -> Scores:
        batches = iterate_eval_batches(
            dataset.split(split),
            batch_size=batch_size,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        return evaluate(compiled, model.variables, batches, mesh)

    return score


def _make_result(
    models: Mapping[str, LoadedModel],
    scores: Mapping[str, Scores],
    folders: Mapping[str, Path],
    dataset: Dataset,
    split: str,
) -> dict[str, Any]:
    """Makes the content of the JSON file from the scores of all models."""
    result: dict[str, Any] = {}
    training_counts, source = dataset.split("train").counts, dataset.split(split)
    for name, model in models.items():
        known, probabilities = scores[name].counts[:-1], scores[name].probabilities
        result[name] = summarize(scores[name].counts, training_counts=training_counts) | {
            "rates": compute_rate_gaps(known),
            **compute_cell_accuracies(known, training_counts),
            **compute_probability_measures(probabilities, source.labels, source.groups, len(known)),
            "architecture": model.architecture,
            "parameters": num_parameters(model.variables["params"]),
            "step": model.step,
            **describe_method(folders[name]),
            "diagnostics": diagnose(scores[name].counts, training_counts),
        }
    if "teacher" in result:
        groups, taught = source.groups, scores["teacher"].prediction
        students = [name for name in models if name != "teacher"]
        for name in students:
            own = scores[name].prediction
            result[name] |= compute_fidelity(own, taught, groups, len(dataset.info.group_names))
        result["inflation"] = {name: compute_inflation(result[name], result["teacher"]) for name in students}
    return result


def _keep_probes(path: Path, result: dict[str, Any]) -> None:
    """Keeps the results of earlier probes of the same checkpoints of the run and its teacher."""
    for name in {"teacher", "student"} & result.keys():
        # The file may be absent or damaged; the new one replaces it.
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            earlier = read_json(path)[name]
            if earlier["step"] == result[name]["step"]:
                result[name]["probe"] = earlier["probe"]


def _write_evaluation(
    workdir: Path, dataset: Dataset, scores: Mapping[str, Scores], result: dict[str, Any]
) -> None:
    """Writes the predictions and the scores into the run's folder."""
    split, checkpoint = result["split"], result["checkpoint"]
    source = dataset.split(split)
    arrays: dict[str, np.ndarray] = {
        "id": np.asarray(source.ids, dtype=np.str_),
        "label": np.asarray(source.labels),
        "group": np.asarray(source.groups),
    }
    for name, score in scores.items():
        arrays[f"{name}_prediction"] = score.prediction
        arrays[f"{name}_probabilities"] = score.probabilities
        arrays[f"{name}_step"] = np.asarray(result[name]["step"])
    folder = RunFolder(workdir)
    predictions, evaluation = (find(split, checkpoint) for find in (folder.predictions, folder.evaluation))
    try:
        for path in (predictions, evaluation):
            path.parent.mkdir(exist_ok=True)
        write_arrays(predictions, arrays)
        write_json(evaluation, make_jsonable(result))
    except OSError as error:
        raise UnwrittenEvaluationError(error, result) from error
