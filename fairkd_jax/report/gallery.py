"""The gallery of a report: test images whose answer debiasing has changed, mended and broken alike."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from fairkd_jax.errors import UsageError
from fairkd_jax.report.blocks import Block, Gallery, Picture, Section, Text
from fairkd_jax.runs.dataset import open_recorded_data
from fairkd_jax.runs.folder import read_run_config
from fairkd_jax.runs.paths import RunFolder
from fairkd_jax.runs.status import make_eval_command

Findings = Mapping[str, Any]
_SPLIT = "test"
_KINDS = {
    "mended": "wrong without debiasing, right with it",
    "broken": "right without debiasing, wrong with it",
}
_STUDENTS = ("baseline", "student")
_SIDE = 96  # pixels on the page
_BLUR = 0.06  # of the side
_BATCH = 16  # images whose maps are computed together
_EVIDENCE = (213, 94, 0)  # colour of what speaks for an answer
_OPACITY = 0.65
_LEAST_MAP = 2  # pixels of a map's side that say something about places


def make_gallery(
    folder: Path, findings: Findings, *, count: int, seed: int = 0, blur: bool = False
) -> Section:
    """Makes the gallery of a run and its run without debiasing.

    Args:
      folder: The run's folder.
      findings: Result of `collect_findings` for the folder.
      count: Largest number of images of each kind.
      seed: Random seed of the choice.
      blur: Whether to blur the images, so that no person can be recognised.

    Raises:
      UsageError: There is no run without debiasing, or the data cannot be opened or are not those of the run.
    """
    predictions = findings["predictions"]
    if "baseline" not in predictions:
        raise UsageError(
            "a gallery shows what debiasing changed, and there is no student without debiasing; train again"
            " with --baseline, or leave --gallery out"
        )
    label = np.asarray(findings["label"])
    right = {name: np.asarray(predictions[name]) == label for name in ("baseline", "student")}
    chosen = choose_changed(right["baseline"], right["student"], count=count, seed=seed)
    split = open_recorded_data(folder, read_run_config(folder), cache="none").split(_SPLIT)
    if split.labels.tolist() != label.tolist():
        raise UsageError(
            f"the prepared data are not those that {folder} was evaluated on; run fairkd-eval again"
        )
    rows = np.concatenate(list(chosen.values()))
    pixels = split.read_images(rows) if len(rows) else np.zeros((0, 1, 1, 3), np.uint8)
    maps = _compute_maps(folder, findings, pixels, rows) if len(rows) else {}
    images = {int(row): image for row, image in zip(rows, pixels, strict=True)}
    blocks: list[Block] = [
        Text(
            f"At most {count} images of each kind, drawn by NumPy's default_rng({seed}).permutation from the"
            " rows of the test split in which the two students differ in being right. Each has its truth, the"
            " answer without debiasing, and then the answer with it."
        ),
        Text(_NOTE if maps else _NO_MAPS, "note"),
    ]
    for kind, own in chosen.items():
        pictures = [
            Picture(
                _encode(images[row], [found[row] for found in maps.values()], blur=blur),
                *_describe(findings, row),
                width=(1 + len(maps)) * _SIDE,
            )
            for row in own.tolist()
        ]
        title = f"{kind.capitalize()}: {_KINDS[kind]} ({len(own)} of {_count(kind, right)})"
        blocks.append(Gallery(title, pictures))
    return Section("gallery", "Images whose answer changed", blocks)


_NOTE = (
    "Beside each image stand two class activation maps: of the student without debiasing, then with it."
    " Orange is where the answer finds its evidence. A map shows places, not reasons, and it is coarse."
)
_NO_MAPS = "These students have no class activation maps of at least 2 x 2 pixels."


def _compute_maps(
    folder: Path, findings: Findings, pixels: np.ndarray, rows: np.ndarray
) -> dict[str, dict[int, np.ndarray]]:
    """Computes the map of each student's own answer, for each of the rows.

    Returns:
      For each student the map by row, float32 [h, w]; nothing where a student has no maps that show places.
    """
    # A report without a gallery starts without JAX.
    from fairkd_jax.engine.sharding import make_mesh
    from fairkd_jax.evaluation.prediction import Predictor
    from fairkd_jax.runs.loading import load_model

    found = {}
    for name, run in zip(_STUDENTS, (RunFolder(folder).baseline, folder), strict=True):
        model = load_model(run, which=findings["checkpoint"], mesh=make_mesh(None))
        if model.step != findings["models"][name]["step"]:
            raise UsageError(
                f"{run} was trained further since it was evaluated; run"
                f" `{make_eval_command(run, _SPLIT, findings['checkpoint'])}` again"
            )
        maps = Predictor(model, batch_size=min(_BATCH, len(rows))).predict(pixels).maps
        if maps is None or min(maps.shape[1:3]) < _LEAST_MAP:
            return {}
        answers = findings["predictions"][name]
        found[name] = {row: maps[place, ..., answers[row]] for place, row in enumerate(rows.tolist())}
    return found


def choose_changed(before: np.ndarray, after: np.ndarray, *, count: int, seed: int) -> dict[str, np.ndarray]:
    """Chooses images of both kinds at random.

    Args:
      before: Whether the model before is right, bool [N].
      after: Whether the model after is right, bool [N].
      count: Largest number of each kind.
      seed: Random seed.

    Returns:
      Rows of "mended" and of "broken" images, in order.
    """
    rng = np.random.default_rng(seed)
    rows = {"mended": np.flatnonzero(~before & after), "broken": np.flatnonzero(before & ~after)}
    return {kind: np.sort(rng.permutation(own)[:count]) for kind, own in rows.items()}


def _count(kind: str, right: Mapping[str, np.ndarray]) -> int:
    first, second = right["baseline"], right["student"]
    return int(np.sum(~first & second if kind == "mended" else first & ~second))


def _describe(findings: Findings, row: int) -> tuple[str, str]:
    """Returns the caption and the alternative text of an image."""
    data, predictions = findings["data"], findings["predictions"]
    classes, groups = data["class_names"], data["group_names"]
    group = findings["group"][row]
    truth = f"{classes[findings['label'][row]]}, {groups[group] if group >= 0 else 'unknown group'}"
    before, after = (classes[predictions[name][row]] for name in ("baseline", "student"))
    caption = f"{truth}: {before}, then {after}"
    return caption, f"Truth: {truth}. Without debiasing: {before}. With debiasing: {after}."


def _encode(pixels: np.ndarray, maps: Sequence[np.ndarray], *, blur: bool) -> str:
    """Encodes an image, with a copy of it for each map at its right, as an address that holds its bytes."""
    image = Image.fromarray(pixels)
    if blur:
        image = image.filter(ImageFilter.GaussianBlur(_BLUR * image.width))
    image = image.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
    strip = Image.new("RGB", (_SIDE * (1 + len(maps)), _SIDE))
    for place, part in enumerate([image, *(_paint_evidence(image, own) for own in maps)]):
        strip.paste(part, (place * _SIDE, 0))
    buffer = io.BytesIO()
    strip.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _paint_evidence(image: Image.Image, evidence: np.ndarray) -> Image.Image:
    """Paints an image where the evidence for the answer is positive, strongest at its largest value."""
    share = np.clip(evidence, 0, None) / max(float(evidence.max()), np.finfo(np.float32).tiny)
    mask = Image.fromarray((255 * _OPACITY * share).astype(np.uint8))
    grey = image.convert("L").convert("RGB")
    colour = Image.new("RGB", image.size, _EVIDENCE)
    return Image.composite(colour, grey, mask.resize(image.size, Image.Resampling.BICUBIC))
