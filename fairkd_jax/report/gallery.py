"""The gallery of a report: test images whose answer debiasing has changed, mended and broken alike."""

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from fairkd_jax.errors import UsageError
from fairkd_jax.report.blocks import Block, Gallery, Picture, Section, Text
from fairkd_jax.runs.dataset import open_data, parse_recorded_data
from fairkd_jax.runs.folder import read_run_config

Findings = Mapping[str, Any]
_SPLIT = "test"
_KINDS = {
    "mended": "wrong without debiasing, right with it",
    "broken": "right without debiasing, wrong with it",
}
_SIDE = 96  # pixels on the page
_BLUR = 0.06  # of the side


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
    dataset = open_data(parse_recorded_data(read_run_config(folder)))
    split = dataset.split(_SPLIT)
    if split.labels.tolist() != label.tolist():
        raise UsageError(
            f"the prepared data are not those that {folder} was evaluated on; run fairkd-eval again"
        )
    blocks: list[Block] = [
        Text(
            f"At most {count} images of each kind, drawn by NumPy's default_rng({seed}).permutation from the"
            " rows of the test split in which the two students differ in being right. Each has its truth, the"
            " answer without debiasing, and then the answer with it."
        )
    ]
    for kind, rows in chosen.items():
        total = _count(kind, right)
        pixels = split.read_images(rows) if len(rows) else np.zeros((0, 1, 1, 3), np.uint8)
        pictures = [
            Picture(_encode(image, blur=blur), *_describe(findings, int(row)))
            for row, image in zip(rows, pixels, strict=True)
        ]
        blocks.append(Gallery(f"{kind.capitalize()}: {_KINDS[kind]} ({len(rows)} of {total})", pictures))
    return Section("gallery", "Images whose answer changed", blocks)


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


def _encode(pixels: np.ndarray, *, blur: bool) -> str:
    """Encodes an image as an address that holds its bytes."""
    image = Image.fromarray(pixels)
    if blur:
        image = image.filter(ImageFilter.GaussianBlur(_BLUR * image.width))
    image = image.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
