"""Measures memory and open files of a long training: both must stay as they are.

python tests/reliability/steady.py --folder FOLDER [--steps 2000] [--json FILE]

The resident memory is read once a second. After step 200 it may grow by 2 %, and the number of open files may
not grow.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
_SETTLED = 200  # steps
_GROWTH = 0.02


def read_step(path: Path) -> int:
    """Returns the last step that a run has reported."""
    try:
        return int(json.loads(path.read_text().splitlines()[-1])["step"])
    except (OSError, IndexError, ValueError):
        return 0


def read_process(pid: int) -> tuple[float, int]:
    """Returns the resident memory in MiB, and the number of open files."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (resident,) = (int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
    return resident / 1024, len(os.listdir(f"/proc/{pid}/fd"))


def main() -> int:
    """Trains and measures; returns 1 where memory or open files grow."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="Folder of the run; it must be new.")
    parser.add_argument("--steps", type=int, default=2000, help="Number of steps, about.")
    parser.add_argument("--json", type=Path, help="File for the results.")
    options = parser.parse_args()
    epochs = max(1, round(options.steps * 64 / 1078))
    words = ["--config=rkd_adv", "--config.teacher.epochs=1", f"--config.epochs={epochs}"]
    words += ["--config.data.size=16", "--config.data.image_size=16", "--config.log_every_steps=10"]
    command = [sys.executable, "-m", "fairkd_jax", "train", *words, f"--workdir={options.folder}"]
    process = subprocess.Popen(
        command,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    found: list[dict[str, float]] = []
    while process.poll() is None:
        time.sleep(1)
        step = read_step(options.folder / "metrics.jsonl")
        try:
            resident, files = read_process(process.pid)
        except (OSError, ValueError):
            break
        if step >= _SETTLED:
            found.append({"step": step, "resident_mib": resident, "open_files": files})
    last = read_step(options.folder / "metrics.jsonl")
    found = [row for row in found if row["step"] < last]  # the evaluation that follows is other work
    if options.json:
        options.json.write_text(json.dumps(found) + "\n")
    if process.wait() or not found:
        print(f"the training failed, or was too short to measure ({len(found)} measurements)")
        return 1
    first, highest = found[0]["resident_mib"], max(row["resident_mib"] for row in found)
    files = [row["open_files"] for row in found]
    growth = highest / first - 1
    print(
        f"steps {found[0]['step']:.0f} to {found[-1]['step']:.0f}: resident {first:.0f} MiB, at most"
        f" {highest:.0f} ({growth:+.1%}); open files {files[0]:.0f}, at the end {files[-1]:.0f}, at most"
        f" {max(files):.0f}"
    )
    return int(growth > _GROWTH or files[-1] > files[0])


if __name__ == "__main__":
    sys.exit(main())
