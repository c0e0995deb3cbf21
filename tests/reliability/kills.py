"""Kills programs at random moments, starts them again, and compares what they leave with an undisturbed run.

python tests/reliability/kills.py --folder FOLDER [--kills 20] [--seed 0] [--json FILE]

Each kind of work is done once without being disturbed. Then it is done in another folder and killed with
SIGKILL, with all processes it has started, at moments drawn from its duration; the kind "saving" is killed
while a checkpoint is being written. What is left must be the same bit for bit, with no temporary file.
"""

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from PIL import Image

from fairkd_jax.data.pipeline import open_dataset
from fairkd_jax.runs.checkpoint import Checkpoints

ROOT = Path(__file__).parents[2]
_TRAIN = (
    "--config=rkd_adv",
    "--config.data.size=16",
    "--config.data.image_size=16",
    "--config.checkpoint_every_steps=7",
    "--config.log_every_steps=10",
)
_LEFT = re.compile(r"tmp|\.part$|^\.staging$|write-")
# Files that hold times, or what one start alone has printed, or that differ each time they are written.
_VARIES = re.compile(
    r"log\.txt|metrics\.jsonl|curves\.png|SHA256SUMS|.*METADATA|_sharding|.*\.array_record-.*"
)
_TIMES = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_HASHES = re.compile(rb'"(sha256|hash|digest)[a-z_]*": *"[^"]*"')
_MOST_STARTS = 60  # of one kind; then something stands still


class Work:
    """A kind of work: a command in a folder, and how long it takes.

    Attributes:
      name: What is killed.
      command: Arguments of `python -m fairkd_jax`, with FOLDER for the folder.
      prepare: Function that makes what the command reads, in a new folder.
    """

    def __init__(self, name: str, *command: str, prepare: Callable[[Path], None]) -> None:
        """Names the work; see the attributes."""
        self.name, self.command, self.prepare = name, command, prepare

    def start(self, folder: Path) -> subprocess.Popen:
        """Starts the command in a process group of its own."""
        words = [word.replace("FOLDER", str(folder)) for word in self.command]
        return subprocess.Popen(
            [sys.executable, "-m", "fairkd_jax", *words],
            env=os.environ | {"PYTHONPATH": str(ROOT), "FAIRKD_DATA": str(folder.parent / "data")},
            stdout=subprocess.DEVNULL,
            stderr=(folder.parent / f"{folder.name}.err").open("ab"),
            start_new_session=True,
        )

    def finish(self, folder: Path) -> float:
        """Runs the command to its end; returns its seconds."""
        start = time.monotonic()
        process = self.start(folder)
        if process.wait():
            raise SystemExit(f"{self.name} failed in {folder}; see {folder}.err")
        return time.monotonic() - start


def wait_for_saving(process: subprocess.Popen, folder: Path, rng: random.Random, seconds: float) -> None:
    """Waits until a checkpoint is being written, and a little more."""
    end = time.monotonic() + 2 * seconds
    wanted = rng.randint(1, 12)
    seen: set[str] = set()
    while process.poll() is None and time.monotonic() < end and len(seen) < wanted:
        seen |= {path.name for path in folder.glob("**/checkpoints/*/*tmp*")}
        time.sleep(0.001)
    time.sleep(rng.random() * 0.02)


def kill_some_times(work: Work, folder: Path, kills: int, seconds: float, rng: random.Random) -> list[float]:
    """Kills the work several times, and then lets it end; returns the seconds after which it was killed."""
    moments: list[float] = []
    for _ in range(_MOST_STARTS):
        if len(moments) == kills:
            break
        process, start = work.start(folder), time.monotonic()
        if work.name == "saving":
            wait_for_saving(process, folder, rng, seconds)
        else:
            time.sleep(rng.uniform(0.2, seconds / 2))  # what is left gets shorter with each start
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            moments.append(time.monotonic() - start)
            print(f"  killed after {moments[-1]:.1f} s", flush=True)
        elif not moments or work.name == "saving":
            continue
        else:
            break
    work.finish(folder)
    return moments


def hash_files(folder: Path) -> dict[str, str]:
    """Returns the hash of each file that does not hold times."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(_normalize(path, folder)).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not _VARIES.fullmatch(path.name)
    }


def _normalize(path: Path, folder: Path) -> bytes:
    """Returns the bytes of a file without the name of its folder and without times."""
    data = path.read_bytes().replace(str(folder).encode(), b"FOLDER")
    if path.suffix == ".json":
        data = _HASHES.sub(b"", data)
    return _TIMES.sub(b"", data)


def read_weights(folder: Path) -> dict[str, str]:
    """Returns the hash of each array in the last checkpoints below a folder."""
    found = {}
    for path in sorted(folder.glob("**/checkpoints")):
        step = Checkpoints(path.parent).last_step()
        tree = ocp.StandardCheckpointer().restore((path / "last" / str(step) / "student").absolute())
        for key, leaf in jax.tree_util.tree_leaves_with_path(tree):
            name = f"{path.parent.relative_to(folder)}:{step}{jax.tree_util.keystr(key)}"
            found[name] = hashlib.sha256(np.ascontiguousarray(leaf).tobytes()).hexdigest()
    return found


def read_images(folder: Path) -> dict[str, str]:
    """Returns the hash of the images of each split of prepared data below a folder."""
    if not (folder / "data" / "manifest").exists():
        return {}
    options = {"source": str(folder / "images.csv"), "directory": folder / "data"}
    dataset = open_dataset("manifest", size=64, cache="none", **options)
    return {
        f"images of {name}": hashlib.sha256(dataset.split(name).read_images().tobytes()).hexdigest()
        for name in dataset.info.num_examples
    }


def list_works(shared: Path) -> list[Work]:
    """Lists the kinds of work.

    Args:
      shared: Folder with a finished teacher, in `teacher`, and a finished run, in `run`.
    """

    def copy_run(folder: Path) -> None:
        shutil.copytree(shared / "run", folder / "run")

    def write_images(folder: Path) -> None:
        rng = np.random.default_rng(0)
        lines = ["path,label,group,split"]
        for number in range(1500):
            pixels = rng.integers(0, 256, (96, 96, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.jpg")
            split = ("train", "train", "val", "test")[number % 4]
            lines.append(f"{number}.jpg,{'ab'[number % 2]},{'xy'[number // 2 % 2]},{split}")
        (folder / "images.csv").write_text("\n".join(lines) + "\n")

    def nothing(folder: Path) -> None:
        del folder

    teacher = f"--config.teacher.checkpoint={shared / 'teacher'}"
    student = ("train", *_TRAIN, teacher)
    single = (*student, "--config.epochs=25", "--workdir=FOLDER/run")
    members = ("--config.population.weights.adversary=0.0,1.0", "--config.population.seeds=0,1")
    prepare = ("prepare", "manifest", "--source=FOLDER/images.csv", "--size=64", "--directory=FOLDER/data")
    return [
        Work("training", *single, prepare=nothing),
        Work("saving", *single, prepare=nothing),
        Work("population", *student, *members, "--config.epochs=15", "--workdir=FOLDER/run", prepare=nothing),
        Work("preparation", *prepare, prepare=write_images),
        Work("evaluation", "eval", "FOLDER/run", "--probe", prepare=copy_run),
    ]


def check(work: Work, folder: Path, kills: int, rng: random.Random) -> dict:
    """Does a kind of work undisturbed and killed; returns what differs."""
    folders = [folder / f"{work.name}-{name}" for name in ("whole", "killed")]
    for own in folders:
        own.mkdir()
        work.prepare(own)
    seconds = work.finish(folders[0])
    print(f"{work.name}: {seconds:.1f} s", flush=True)
    moments = kill_some_times(work, folders[1], kills, seconds, rng)
    whole, killed = ({**hash_files(own), **read_weights(own), **read_images(own)} for own in folders)
    if any("checkpoints/" in name for name in whole):  # the files of a checkpoint may lie otherwise
        whole, killed = (
            {key: value for key, value in found.items() if "checkpoints/" not in key or ":" in key}
            for found in (whole, killed)
        )
    differs = sorted(name for name in whole.keys() | killed.keys() if whole.get(name) != killed.get(name))
    left = [str(p.relative_to(folders[1])) for p in folders[1].rglob("*") if _LEFT.search(p.name)]
    found = {"kind": work.name, "seconds": seconds, "killed_after": moments, "differs": differs, "left": left}
    print(f"  compared {len(whole)} files and arrays; differ: {differs or 'none'}; left: {left or 'none'}")
    return found


def main() -> int:
    """Checks all kinds of work; returns 1 where something differs or is left."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="Folder for all files; it must be empty.")
    parser.add_argument("--kills", type=int, default=20, help="Number of kills of all kinds together.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the moments.")
    parser.add_argument("--only", nargs="*", default=(), help="Kinds of work to check; by default all kinds.")
    parser.add_argument("--json", type=Path, help="File for the results.")
    options = parser.parse_args()
    folder, rng = options.folder.absolute(), random.Random(options.seed)
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        parser.error(f"{folder} is not empty")
    teacher = ("train", *_TRAIN, "--config.teacher.epochs=3", "--config.epochs=3", "--workdir=FOLDER/run")
    (folder / "shared").mkdir()
    Work("teacher", *teacher, prepare=lambda own: None).finish(folder / "shared")
    shutil.copytree(folder / "shared" / "run" / "teacher", folder / "shared" / "teacher")
    works = [work for work in list_works(folder / "shared") if work.name in (options.only or work.name)]
    results = [
        check(work, folder, options.kills // len(works) + (place < options.kills % len(works)), rng)
        for place, work in enumerate(works)
    ]
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    kills = sum(len(found["killed_after"]) for found in results)
    faults = [found["kind"] for found in results if found["differs"] or found["left"]]
    print(f"{kills} kills; faults in: {', '.join(faults) or 'none'}")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
