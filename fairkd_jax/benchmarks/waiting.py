"""The share of a training's time in which the next batch was not there yet, for each place of the images."""

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

CACHES = ("device", "host", "none")
_LARGE_IMAGES = {"train": 2048, "val": 128, "test": 128}
_CLASSES, _SIDE = 16, 256


def run(
    root: Path, *, large: bool, overrides: Sequence[str], caches: Sequence[str] = CACHES, taught: bool = True
) -> list[dict[str, Any]]:
    """Trains once with each place of the images and prints what the runs have measured.

    Args:
      root: the folder with train.py.
      large: EfficientNet-B3 to B0 at 224 pixels in bfloat16, batches of 128 of made-up images, else the tiny
        models on digits.
      overrides: further `--config.key=value` of all runs.
      caches: the places of the images.
      taught: whether there is a teacher; a student alone is faster and waits sooner.

    Returns:
      The same figures, a dict for each place: `cache`, `data_wait_share` and `images_per_second` are medians,
      `largest_data_wait_share` is of the worst report.

    Raises:
      UsageError: a training failed.
    """
    for key in ("data.cache", "data.directory", "teacher.checkpoint"):
        if any(override.startswith(f"--config.{key}") for override in overrides):
            raise UsageError(f"--config.{key} is set by the benchmark itself")
    rows = []
    with tempfile.TemporaryDirectory(prefix="fairkd-waiting-") as name:
        folder = Path(name)
        directory = f"--config.data.directory={folder / 'data'}"
        options = [*_preset(folder, large=large, taught=taught), directory, *overrides]
        print(f"{'images kept':12}  {'waiting %':>9}  {'at most %':>9}  {'images/s':>9}")
        for cache in caches:
            workdir = folder / cache
            own = [f"--config.data.cache={cache}", f"--workdir={workdir}"]
            if taught and cache != caches[0]:  # one teacher serves all
                own.append(f"--config.teacher.checkpoint={folder / caches[0] / 'teacher'}")
            run_train([*options, *own], root)
            shares, rates = _measured(workdir)
            rate, share = statistics.median(rates), statistics.median(shares)
            print(f"{cache:12}  {100 * share:9.2f}  {100 * max(shares):9.2f}  {rate:9.1f}", flush=True)
            row = {"cache": cache, "data_wait_share": share, "largest_data_wait_share": max(shares)}
            rows.append(row | {"images_per_second": rate})
    return rows


def _preset(folder: Path, *, large: bool, taught: bool) -> list[str]:
    """The command line of a training that has more than one report."""
    config = "configs/rkd_adv.py" if taught else "configs/student.py"
    teacher = ["--config.teacher.epochs=2"] if taught else []
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


def run_train(options: Sequence[str], root: Path) -> None:
    """Runs train.py.

    Args:
      options: of its command line.
      root: the folder with train.py.

    Raises:
      UsageError: the training failed; its last line says why.
    """
    command = [sys.executable, "train.py", *options]
    done = subprocess.run(command, cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        *_, last = done.stderr.strip().splitlines() or ["no message"]
        raise UsageError(f"the training failed: {last}")


def _measured(workdir: Path) -> tuple[list[float], list[float]]:
    """Shares of waiting and images per second of each report but the first, which has the compilation."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    reports = [line for line in lines if "data_wait_share" in line][1:]
    if not reports:
        raise UsageError("the trainings are too short to measure; raise --config.epochs")
    return [line["data_wait_share"] for line in reports], [line["images_per_second"] for line in reports]


def _make_images(folder: Path) -> Path:
    """Writes smooth noise as JPEG files and a manifest of them; returns its path."""
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
