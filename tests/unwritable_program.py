"""fairkd-eval or fairkd-train on a finished run that cannot be written to, whose scores a file holds.

unwritable_program.py COMMAND EVALUATION.json [ARGUMENT ...]
"""

import errno
import json
import os
import sys
from pathlib import Path

from fairkd_jax import training
from fairkd_jax.commands import COMMANDS
from fairkd_jax.evaluation import evaluate

name, file, *arguments = sys.argv[1:]
scores = json.loads(Path(file).read_text(encoding="utf-8"))


def evaluate_run(workdir, **options):
    error = OSError(errno.EROFS, os.strerror(errno.EROFS), str(workdir))
    raise evaluate.UnwrittenEvaluationError(error, scores)


evaluate.evaluate_run = evaluate_run
training.train_recipe = lambda recipe, workdir, **options: None
sys.argv = [f"fairkd-{name}", *arguments]
sys.exit(COMMANDS[name]())
