"""Runs that only look as if they had been trained, and a launcher whose workers are processes of our own."""

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
from absl import flags
from ml_collections import config_flags

from fairkd_jax.digests import write_json
from fairkd_jax.runs.folder import to_json_dict
from fairkd_jax.sweep.worker import Outcome

ROOT = Path(__file__).parents[2]
TASK = {
    "dataset": "animals",
    "class_names": ["cat", "dog"],
    "group_names": ["dark", "light"],
    "num_examples": {"train": 100, "val": 20, "test": 20},
    "digests": {"train": "r", "val": "v", "test": "t"},
}
SUMMARY = {
    "accuracy": 0.9,
    "mean_abs_disparity": 0.2,
    "corrected_mean_abs_disparity": 0.15,
    "corrected_interval": [0.1, 0.25],
    "any_bias_p": 0.01,
    "d2": 0.02,
    "worst_group_recall": 0.5,
    "disparity": [0.1, -0.3],
}


def make_config(file):
    """`texts by key -> config` of a file, as a program reads its command line."""

    def make(texts):
        arguments = ["", f"--config={file}", *(f"--config.{key}={text}" for key, text in texts.items())]
        values = flags.FlagValues()
        holder = config_flags.DEFINE_config_file(
            "config", None, lock_config=True, flag_values=values, sys_argv=arguments
        )
        with warnings.catch_warnings():  # ml_collections loads the file in an old way
            warnings.simplefilter("ignore", DeprecationWarning)
            values(arguments)
        return holder.value

    return make


def write_run(folder, config, *, last=1000, best=1000, scores=(("test", {}),), lines=()):
    """Writes what a run leaves behind, as far as it is read; `scores` by split, changes of SUMMARY."""
    folder.mkdir(parents=True, exist_ok=True)
    content = config if isinstance(config, dict) else to_json_dict(config)
    write_json(folder / "config.json", content | {"task": TASK})
    for which, step in (("last", last), ("best", best)):
        (folder / "checkpoints" / which / str(step)).mkdir(parents=True, exist_ok=True)
    (folder / "eval").mkdir(exist_ok=True)
    for split, changes in scores:
        student = SUMMARY | {"step": best} | changes
        content = {"student": student, "class_names": TASK["class_names"]}
        write_json(folder / "eval" / f"{split}.json", content)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


class ProcessLauncher:
    """Does jobs in processes that are interrupted and killed as Ray's workers are."""

    CODE = (
        "import json, signal, sys\nfrom fairkd_jax.sweep.worker import Job, run_job\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"  # as a shell's background has it
        "print(json.dumps(run_job(Job(*json.loads(sys.argv[1])))))"
    )

    def __init__(self, room=100):
        self.room, self.queue, self.workers, self.started = room, [], {}, []
        self.most, self.cancelled = 0, set()

    def start(self, job):
        self.started.append(job.name)
        self.queue.append((handle := (len(self.started), job.name), job))
        return handle

    def _fill(self):
        while self.queue and len(self.workers) < self.room:
            handle, job = self.queue.pop(0)
            self.workers[handle] = subprocess.Popen(
                [sys.executable, "-c", self.CODE, json.dumps(job)],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                start_new_session=True,
            )
        self.most = max(self.most, len(self.workers))

    def collect_finished(self, handles, seconds):
        if cancelled := [handle for handle in handles if handle in self.cancelled]:
            return [(handle, Outcome(255, "cancelled")) for handle in cancelled]
        self._fill()
        deadline = time.monotonic() + seconds
        while not (over := [h for h in handles if h in self.workers and self.workers[h].poll() is not None]):
            if time.monotonic() > deadline:
                return []
            time.sleep(0.01)
        return [(handle, self._outcome(self.workers.pop(handle))) for handle in over]

    def _outcome(self, worker):
        printed, _ = worker.communicate()
        return Outcome(*json.loads(printed)) if worker.returncode == 0 else Outcome(255, "worker lost")

    def stop(self, handles, *, at_once):
        self.cancelled |= {handle for handle, _ in self.queue if handle in handles}
        self.queue = [(handle, job) for handle, job in self.queue if handle not in handles]
        for handle in handles:
            if handle in self.workers:
                self.workers[handle].send_signal(signal.SIGKILL if at_once else signal.SIGINT)


@pytest.fixture
def launcher():
    launcher = ProcessLauncher()
    yield launcher
    for worker in launcher.workers.values():
        worker.kill()
        worker.communicate()
