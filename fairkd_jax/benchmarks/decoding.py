"""Decoding and resizing photographs on one core: the project, PIL, Grain with PIL, and tf.data."""

import io
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import grain
import numpy as np
from absl import flags
from PIL import Image

from fairkd_jax.data.images import decode_image
from fairkd_jax.errors import UsageError

SIDE = 256  # pixels of the images that are made

# Runs in an environment with TensorFlow: seconds of CPU time for each line that it reads, which says whether
# to antialias.
_BY_TF_DATA = """
import sys, time
import tensorflow as tf
tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)
side, *files = sys.argv[1:]
def dataset(antialias):
    def decode(name):
        data = tf.io.read_file(name)
        shape = tf.image.extract_jpeg_shape(data)
        whole = tf.stack([0, 0, shape[0], shape[1]])
        image = tf.io.decode_and_crop_jpeg(data, whole, channels=3)
        return tf.cast(tf.image.resize(image, (int(side), int(side)), antialias=antialias), tf.uint8)
    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    return tf.data.Dataset.from_tensor_slices(files).map(decode).with_options(options)
datasets = {"plain": dataset(False), "antialias": dataset(True)}
for line in sys.stdin:
    start = time.process_time()
    for image in datasets[line.strip()]:
        pass
    print(time.process_time() - start, flush=True)
"""


def run(rounds: int, source: str, tensorflow: str) -> None:
    """Prints images per second of CPU time, medians of rounds taken in turn.

    Args:
      rounds: how many.
      source: a folder of JPEG files.
      tensorflow: the Python of an environment that has TensorFlow; "" leaves it out.

    Raises:
      UsageError: there is no JPEG file, or that Python has no TensorFlow.
    """
    files = sorted(path for path in Path(source).rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    if not files:
        raise UsageError(f"{source} holds no JPEG files; name another folder with --source")
    flags.FLAGS.mark_as_parsed()  # Grain reads absl's flags
    measures: dict[str, Callable[[], float]] = {
        name: lambda decode=decode: _seconds(decode, files)  # type: ignore[misc]
        for name, decode in {"project": _by_project, "PIL": _by_pil, "Grain with PIL": _by_grain}.items()
    }
    peer = None
    if tensorflow:
        command = [tensorflow, "-c", _BY_TF_DATA, str(SIDE), *map(str, files)]
        pipe, quiet = subprocess.PIPE, subprocess.DEVNULL
        try:
            peer = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=quiet, text=True)
        except OSError as error:
            raise UsageError(f"--tensorflow {tensorflow}: {error.strerror}") from error
        for name, kind in (("tf.data, antialiased", "antialias"), ("tf.data, aliasing", "plain")):
            measures[name] = lambda kind=kind: _ask(peer, kind, tensorflow)  # type: ignore[misc]
    try:
        rates: dict[str, list[float]] = {name: [] for name in measures}
        for number in range(rounds + 1):  # the first one does not count
            for name, measure in measures.items():
                seconds = measure()
                if number:
                    rates[name].append(len(files) / seconds)
    finally:
        if peer is not None:
            peer.kill()
            peer.communicate()
    print(f"{len(files)} images to {SIDE} pixels, {rounds} rounds, one core")
    for name, values in rates.items():
        ratio = statistics.median(a / b for a, b in zip(rates["project"], values, strict=True))
        rate = statistics.median(values)
        compared = "" if name == "project" else f"   the project's rate is {ratio:.2f} times this"
        print(f"{name:20}  {rate:6.0f} images/s of CPU time{compared}")


def _seconds(decode: Callable[[list[Path]], None], files: list[Path]) -> float:
    start = time.process_time()
    decode(files)
    return time.process_time() - start


def _by_project(files: list[Path]) -> None:
    for file in files:
        decode_image(file.read_bytes(), size=SIDE, resize="squash")


def _pil(file: Path) -> np.ndarray:
    """PIL at its fastest: libjpeg's scaled decoding as well."""
    with Image.open(io.BytesIO(file.read_bytes())) as image:
        image.draft("RGB", (SIDE, SIDE))
        return np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def _by_pil(files: list[Path]) -> None:
    for file in files:
        _pil(file)


def _by_grain(files: list[Path]) -> None:
    """In a Grain pipeline without workers, so that its time is that of one core."""
    for _ in grain.MapDataset.source(files).map(_pil):
        pass


def _ask(peer: subprocess.Popen, kind: str, tensorflow: str) -> float:
    assert peer.stdin is not None
    assert peer.stdout is not None
    try:
        peer.stdin.write(f"{kind}\n")
        peer.stdin.flush()
        return float(peer.stdout.readline())
    except (OSError, ValueError):
        raise UsageError(f"{tensorflow} cannot run tf.data; does it have tensorflow-cpu installed?") from None
