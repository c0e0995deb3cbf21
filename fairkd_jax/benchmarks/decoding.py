"""Decoding and resizing of photographs on one core: the project, PIL, Grain with PIL, and tf.data."""

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

SIDE = 256  # side of the decoded images, in pixels

# Runs in an environment with TensorFlow. For each line of standard input, "plain" or "antialias", the program
# decodes all files and prints its seconds of CPU time.
_TF_DATA_PROGRAM = """
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
    """Prints images per second of CPU time, as medians over rounds in which all decoders run in turn.

    Args:
      rounds: Number of rounds.
      source: Folder of JPEG files.
      tensorflow: Python of an environment that has TensorFlow; "" leaves tf.data out.

    Raises:
      UsageError: The folder holds no JPEG file, or that Python has no TensorFlow.
    """
    files = sorted(path for path in Path(source).rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    if not files:
        raise UsageError(f"{source} holds no JPEG files; name another folder with --source")
    flags.FLAGS.mark_as_parsed()  # Grain reads absl's flags
    decoders = {"project": _decode_by_project, "PIL": _decode_by_pil, "Grain with PIL": _decode_by_grain}
    measures: dict[str, Callable[[], float]] = {
        name: lambda decode=decode: _measure_cpu_seconds(decode, files)  # type: ignore[misc]
        for name, decode in decoders.items()
    }
    peer = _start_peer(tensorflow, files) if tensorflow else None
    if peer is not None:
        for name, kind in (("tf.data, antialiased", "antialias"), ("tf.data, aliasing", "plain")):
            measures[name] = lambda kind=kind: _ask_peer(peer, kind, tensorflow)  # type: ignore[misc]
    try:
        rates: dict[str, list[float]] = {name: [] for name in measures}
        for number in range(rounds + 1):  # the first round is a warm-up
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


def _measure_cpu_seconds(decode: Callable[[list[Path]], None], files: list[Path]) -> float:
    start = time.process_time()
    decode(files)
    return time.process_time() - start


def _decode_by_project(files: list[Path]) -> None:
    for file in files:
        decode_image(file.read_bytes(), size=SIDE, resize="squash")


def _decode_file(file: Path) -> np.ndarray:
    """Decodes a file with PIL in the fastest way, which includes libjpeg's scaled decoding."""
    with Image.open(io.BytesIO(file.read_bytes())) as image:
        image.draft("RGB", (SIDE, SIDE))
        return np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def _decode_by_pil(files: list[Path]) -> None:
    for file in files:
        _decode_file(file)


def _decode_by_grain(files: list[Path]) -> None:
    """Decodes files in a Grain pipeline without workers, so only one core is used."""
    for _ in grain.MapDataset.source(files).map(_decode_file):
        pass


def _start_peer(tensorflow: str, files: list[Path]) -> subprocess.Popen:
    command = [tensorflow, "-c", _TF_DATA_PROGRAM, str(SIDE), *map(str, files)]
    pipe, quiet = subprocess.PIPE, subprocess.DEVNULL
    try:
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=quiet, text=True)
    except OSError as error:
        raise UsageError(f"--tensorflow {tensorflow}: {error.strerror}") from error


def _ask_peer(peer: subprocess.Popen, kind: str, tensorflow: str) -> float:
    assert peer.stdin is not None
    assert peer.stdout is not None
    try:
        peer.stdin.write(f"{kind}\n")
        peer.stdin.flush()
        return float(peer.stdout.readline())
    except (OSError, ValueError):
        raise UsageError(f"{tensorflow} cannot run tf.data; install tensorflow-cpu there") from None
