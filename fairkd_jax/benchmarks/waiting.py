"""The share of a training's time spent waiting for the next batch, for each place where images are kept."""

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fairkd_jax.data.images import encode_image
from fairkd_jax.errors import UsageError
from fairkd_jax.runs.paths import RunFolder

CACHES = ("device", "host", "none")
_LARGE_IMAGES = {"train": 2048, "val": 128, "test": 128}
_CLASSES, _SIDE = 16, 256


def run(
    *,
    large: bool,
    overrides: Sequence[str],
    caches: Sequence[str] = CACHES,
    with_teacher: bool = True,
) -> list[dict[str, Any]]:
    """Trains once for each place of the images and prints the waiting times that the runs report.

    Args:
      large: Whether to train EfficientNet-B3 to B0 at 224 pixels in bfloat16, with batches of 128 random
        images. Otherwise the tiny models are trained on digits.
      overrides: Further `--config.key=value` arguments for all runs.
      caches: Places of the images, values of `--config.data.cache`.
      with_teacher: Whether the student has a teacher; without a teacher the student is faster and waits
        sooner.

    Returns:
      A dict for each place. `cache` is the place; `data_wait_share` and `images_per_second` are medians over
      reports; `largest_data_wait_share` is the value of the worst report.

    Raises:
      UsageError: A training failed or is too short, or an override sets a key of the benchmark.
    """
    for key in ("data.cache", "data.directory", "teacher.checkpoint"):
        if any(override.startswith(f"--config.{key}") for override in overrides):
            raise UsageError(f"--config.{key} is set by the benchmark; leave it out")
    rows = []
    with tempfile.TemporaryDirectory(prefix="fairkd-waiting-") as name:
        folder = Path(name)
        directory = f"--config.data.directory={folder / 'data'}"
        options = [*_make_options(folder, large=large, with_teacher=with_teacher), directory, *overrides]
        print(f"{'images kept':12}  {'waiting %':>9}  {'at most %':>9}  {'images/s':>9}")
        for cache in caches:
            workdir = folder / cache
            own = [f"--config.data.cache={cache}", f"--workdir={workdir}"]
            if with_teacher and cache != caches[0]:  # all runs share the first run's teacher
                own.append(f"--config.teacher.checkpoint={RunFolder(folder / caches[0]).teacher}")
            run_train([*options, *own])
            shares, rates = _read_reports(workdir)
            rate, share = statistics.median(rates), statistics.median(shares)
            print(f"{cache:12}  {100 * share:9.2f}  {100 * max(shares):9.2f}  {rate:9.1f}", flush=True)
            row = {"cache": cache, "data_wait_share": share, "largest_data_wait_share": max(shares)}
            rows.append(row | {"images_per_second": rate})
    return rows


def _make_options(folder: Path, *, large: bool, with_teacher: bool) -> list[str]:
    """Returns the command line of a training that is long enough for more than one report."""
    config = "rkd_adv" if with_teacher else "student"
    teacher = ["--config.teacher.epochs=2"] if with_teacher else []
    if not large:
        return ["--config", config, "--config.epochs=8", "--config.log_every_steps=10", *teacher]
    manifest = _make_images(folder / "images")
    data = ["--config.data.name=manifest", f"--config.data.source={manifest}"]
    return [
        "--config",
        f"{config}:wider",
        *data,
        "--config.epochs=24",
        "--config.log_every_steps=32",
        *teacher,
    ]


def run_train(options: Sequence[str]) -> None:
    """Runs fairkd-train.

    Args:
      options: Arguments of the command line.

    Raises:
      UsageError: The training failed; the message has the last line of its output.
    """
    command = [sys.executable, "-m", "fairkd_jax", "train", *options]
    process = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if process.returncode:
        *_, last = process.stderr.strip().splitlines() or ["no message"]
        raise UsageError(f"the training failed: {last}")


def _read_reports(workdir: Path) -> tuple[list[float], list[float]]:
    """Reads waiting shares and images per second of all reports except the first."""
    lines = [json.loads(line) for line in RunFolder(workdir).metrics.read_text().splitlines()]
    reports = [line for line in lines if "data_wait_share" in line][1:]  # the first includes the compilation
    if not reports:
        raise UsageError("the trainings are too short to measure; raise --config.epochs")
    return [line["data_wait_share"] for line in reports], [line["images_per_second"] for line in reports]


def _make_images(folder: Path) -> Path:
    """Writes smooth noise as JPEG files with a manifest, and returns the manifest's path."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = ["path,label,group,split"]
    for split, count in _LARGE_IMAGES.items():
        for number in range(count):
            coarse = Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8))
            pixels = np.asarray(coarse.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC))
            name = f"{split}-{number:04d}.jpg"
            (folder / name).write_bytes(encode_image(pixels, quality=90))
            rows.append(f"{name},class{number % _CLASSES:02d},{'ab'[number // _CLASSES % 2]},{split}")
    manifest = folder / "manifest.csv"
    manifest.write_text("\n".join(rows) + "\n")
    return manifest
