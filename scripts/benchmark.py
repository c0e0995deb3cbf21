"""Measures parts of the project side by side with what they replace: python scripts/benchmark.py angle.

angle  RKD's angle loss, value and gradient at batch 128 and widths 1280 and 1536, against the same formula
       without chunks: milliseconds (median of the rounds, taken in turn) and temporary memory.
data   Decoding and resizing photographs (--source FOLDER of JPEG files) to 256 pixels on one core: the
       project's preparation, PIL alone, Grain with PIL, and tf.data where --tensorflow names the Python of an
       environment that has it (python3 -m venv ENV; ENV/bin/pip install tensorflow-cpu): images per second of
       CPU time, medians of the rounds, taken in turn.
"""

from fairkd_jax import interrupt  # before all that takes long to import

interrupt.install(__name__)

import argparse
import io
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from PIL import Image

from fairkd_jax.data.images import decode_image
from fairkd_jax.errors import UsageError
from fairkd_jax.objectives import rkd

SIDE = 256  # pixels of the images that `data` makes
BATCH, STUDENT_WIDTH, TEACHER_WIDTH = 128, 1280, 1536


def angle_without_chunks(student: jax.Array, teacher: jax.Array) -> jax.Array:
    """The angle loss through the whole [B, B, B] tensor, from inner products."""

    def cosines(emb: jax.Array) -> jax.Array:
        gram = jnp.matmul(emb, emb.T, precision="highest")
        squares = jnp.diagonal(gram)
        squared = squares[:, None] + squares[None, :] - 2.0 * gram
        apart = ~jnp.eye(len(emb), dtype=bool)
        inverse = jnp.where(apart, 1.0 / jnp.sqrt(jnp.where(apart, squared, 1.0)), 0.0)
        products = gram[None] - gram[:, :, None] - gram[:, None, :] + squares[:, None, None]
        return products * inverse[:, :, None] * inverse[:, None, :]

    difference = jnp.abs(cosines(student) - cosines(teacher))
    return jnp.mean(jnp.where(difference < 1.0, 0.5 * difference**2, difference - 0.5))


def compare(functions: Mapping[str, Callable[..., Any]], arguments: tuple, rounds: int) -> None:
    """Compiles the functions, runs them in turn, and prints a table; ratios are to the last one."""
    compiled = {name: jax.jit(f).lower(*arguments).compile() for name, f in functions.items()}
    times: dict[str, list[float]] = {name: [] for name in compiled}
    for number in range(rounds + 1):  # the first one does not count
        for name, run in compiled.items():
            start = time.perf_counter()
            jax.block_until_ready(run(*arguments))
            if number:
                times[name].append(time.perf_counter() - start)
    *_, last = compiled
    print(f"{jax.default_backend()}, jax {jax.__version__}, {rounds} rounds")
    print(f"{'':16}  {'ms':>8}  {'ratio':>6}  {'memory MiB':>10}")
    for name, run in compiled.items():
        ratio = statistics.median(a / b for a, b in zip(times[name], times[last], strict=True))
        memory = run.memory_analysis().temp_size_in_bytes / 2**20
        print(f"{name:16}  {1e3 * statistics.median(times[name]):8.2f}  {ratio:6.2f}  {memory:10.1f}")


def angle(rounds: int) -> None:
    """RKD's angle loss in chunks and without."""
    rng = np.random.default_rng(0)
    widths = (STUDENT_WIDTH, TEACHER_WIDTH)
    embeddings = tuple(jnp.asarray(rng.normal(size=(BATCH, width)), jnp.float32) for width in widths)
    functions = {"in chunks": rkd.angle_loss, "without chunks": angle_without_chunks}
    compare({name: jax.value_and_grad(f) for name, f in functions.items()}, embeddings, rounds)


def by_project(files: list[Path]) -> None:
    """Decoded and resized as in a preparation."""
    for file in files:
        decode_image(file.read_bytes(), size=SIDE, resize="squash")


def _by_pil(file: Path) -> np.ndarray:
    with Image.open(io.BytesIO(file.read_bytes())) as image:
        image.draft("RGB", (SIDE, SIDE))
        return np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def by_pil(files: list[Path]) -> None:
    """PIL at its fastest: libjpeg's scaled decoding as well."""
    for file in files:
        _by_pil(file)


def by_grain(files: list[Path]) -> None:
    """The same in a Grain pipeline without workers, so that its time is that of one core."""
    for _ in grain.MapDataset.source(files).map(_by_pil):
        pass


# Runs in the environment of --tensorflow: seconds of CPU time for each line that it reads.
BY_TF_DATA = """
import sys, time
import tensorflow as tf
tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)
side, *files = sys.argv[1:]
def decode(name):
    data = tf.io.read_file(name)
    shape = tf.image.extract_jpeg_shape(data)
    whole = tf.stack([0, 0, shape[0], shape[1]])
    image = tf.io.decode_and_crop_jpeg(data, whole, channels=3)
    return tf.cast(tf.image.resize(image, (int(side), int(side))), tf.uint8)
options = tf.data.Options()
options.threading.private_threadpool_size = 1
dataset = tf.data.Dataset.from_tensor_slices(files).map(decode).with_options(options)
for line in sys.stdin:
    start = time.process_time()
    for image in dataset:
        pass
    print(time.process_time() - start, flush=True)
"""


def data(rounds: int, source: str, tensorflow: str) -> None:
    """Images per second of CPU time for decoding and resizing."""
    files = sorted(
        path for path in Path(source or ".").rglob("*") if path.suffix.lower() in (".jpg", ".jpeg")
    )
    if not files:
        raise UsageError(f"{source or 'the current folder'} holds no JPEG files; name a folder with --source")
    flags.FLAGS.mark_as_parsed()  # Grain reads absl's flags
    ours = {"project": by_project, "PIL": by_pil, "Grain with PIL": by_grain}
    peer = None
    if tensorflow:
        command = [tensorflow, "-c", BY_TF_DATA, str(SIDE), *map(str, files)]
        peer = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
    rates: dict[str, list[float]] = {name: [] for name in [*ours, *(["tf.data"] if peer else [])]}
    for number in range(rounds + 1):  # the first one does not count
        seconds = {}
        for name, run in ours.items():
            start = time.process_time()
            run(files)
            seconds[name] = time.process_time() - start
        if peer is not None:
            seconds["tf.data"] = _ask(peer, tensorflow)
        for name, spent in seconds.items():
            if number:
                rates[name].append(len(files) / spent)
    if peer is not None:
        peer.communicate()
    print(f"{len(files)} images to {SIDE} pixels, {rounds} rounds")
    for name, values in rates.items():
        ratio = statistics.median(a / b for a, b in zip(rates["project"], values, strict=True))
        rate = statistics.median(values)
        print(f"{name:16}  {rate:8.0f} images/s of CPU time   the project's rate is {ratio:.2f} times this")


def _ask(peer: subprocess.Popen, tensorflow: str) -> float:
    assert peer.stdin is not None
    assert peer.stdout is not None
    try:
        peer.stdin.write("\n")
        peer.stdin.flush()
        return float(peer.stdout.readline())
    except (OSError, ValueError):
        raise UsageError(f"{tensorflow} cannot run tf.data; does it have tensorflow-cpu installed?") from None


def main() -> int:
    """Runs what the command line asks for; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=("angle", "data"))
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--source", default="", help="data: a folder of JPEG files")
    parser.add_argument("--tensorflow", default="", help="data: the python of an environment with tensorflow")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error(f"--rounds {options.rounds} must be at least 1")
    try:
        if options.part == "data":
            data(options.rounds, options.source, options.tensorflow)
        else:
            angle(options.rounds)
    except UsageError as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
