"""What tests read of a run's folder."""

import json

import jax
import numpy as np
import orbax.checkpoint as ocp

from fairkd_jax.runs.checkpoint import Checkpoints

ONE = jax.devices()[:1]
CLOCKS = ("images_per_second", "data_wait_share")  # what a metrics line says of the time that it took


def lines_of(workdir):
    """What the run has reported, a dict for each line."""
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def values(lines, key):
    """A number that every line has."""
    assert lines
    return np.array([line[key] for line in lines])


def last_student(workdir):
    """The last checkpoint's step, and every array of its student."""
    step = Checkpoints(workdir).last_step()
    path = workdir / "checkpoints" / "last" / str(step) / "student"
    return step, ocp.StandardCheckpointer().restore(path.absolute())
