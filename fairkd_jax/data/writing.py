"""Writer of a tfds data set from staged images, in one atomic step."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fairkd_jax.data.layout import VERSION, is_prepared
from fairkd_jax.data.preparation_plan import SPLITS, Example, PreparationPlan
from fairkd_jax.data.staging import StagedImages
from fairkd_jax.digests import remember_checked, write_sums
from fairkd_jax.errors import UsageError
from fairkd_jax.leftovers import make_mark, remove_abandoned


def write_dataset(
    plan: PreparationPlan, staged: StagedImages, directory: Path, folder: Path, report: dict[str, Any]
) -> None:
    """Writes a data set into a temporary folder and gives the folder its final name.

    Args:
      plan: Preparation plan of the data set.
      staged: Staged images.
      directory: Root of prepared data.
      folder: Final folder of the data set.
      report: Report of the preparation, which is stored with the data.

    Raises:
      UsageError: No image is left for train.
      OSError: The folder cannot be written (for example, the disk is full), or another process has created
        the final folder first.
    """
    placed = _assign_positions(staged.examples, sort_by_id=plan.sort_by_id)
    if not any(split == "train" for split, _ in placed):
        raise UsageError(
            f"{plan.source or plan.name} has no usable image for train; check the path of the source"
        )
    scratch = directory / ".staging" / f"write-{make_mark()}"
    remove_abandoned(scratch.parent.glob("write-*"))
    try:
        _run_builder(plan, staged, placed, scratch, report)
        folder.parent.mkdir(parents=True, exist_ok=True)
        written = scratch / plan.name / plan.config_name / VERSION
        write_sums(written)
        if folder.exists() and not is_prepared(folder):  # somebody has deleted a file of it
            folder.rename(scratch / "damaged")
        written.rename(folder)
        remember_checked(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _run_builder(
    plan: PreparationPlan,
    staged: StagedImages,
    placed: list[tuple[str, int]],
    scratch: Path,
    report: dict[str, Any],
) -> None:
    import tensorflow_datasets as tfds

    from fairkd_jax.data.builder import PreparedConfig
    from fairkd_jax.data.builders import BUILDERS

    def iterate_images(split: str) -> Iterator[tuple[int, bytes]]:
        places = iter(placed)
        for chunk in staged.chunks:
            for image in filter(None, chunk.read_images()):
                place, position = next(places)
                if place == split:
                    yield position, image

    config = PreparedConfig(
        name=plan.config_name,
        size=plan.size,
        encoding="jpeg" if plan.quality else "png",
        class_names=plan.class_names,
        group_names=plan.group_names,
        attributes=plan.attributes,
        examples=_group_by_split(staged.examples, placed),
        images=iterate_images,
        report=report,
        with_hashes=plan.reads_files,
    )
    tfds.disable_progress_bar()
    builder = BUILDERS[plan.name](data_dir=scratch, config=config, file_format="array_record")
    builder.download_and_prepare()


def _assign_positions(examples: list[Example], *, sort_by_id: bool) -> list[tuple[str, int]]:
    """Returns the split of each example and the position within that split."""
    order = sorted(range(len(examples)), key=lambda i: examples[i].id) if sort_by_id else range(len(examples))
    counts = dict.fromkeys(SPLITS, 0)
    positions = [0] * len(examples)
    for i in order:
        split = examples[i].split
        positions[i] = counts[split]
        counts[split] += 1
    return [(example.split, position) for example, position in zip(examples, positions, strict=True)]


def _group_by_split(examples: list[Example], placed: list[tuple[str, int]]) -> dict[str, list[Example]]:
    result: dict[str, list[Example]] = {}
    for split in SPLITS:
        own = [(place[1], i) for i, place in enumerate(placed) if place[0] == split]
        if own:
            result[split] = [examples[i] for _, i in sorted(own)]
    return result
