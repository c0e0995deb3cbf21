"""Trains the runs that are kept beside this file, which every later version must read.

python tests/kept/make.py FOLDER

They were made at commit 74fdcb5, before `config.json` had a version. When the format of a run changes, new
runs are kept in the same way, in an archive of their own.
"""

import signal
import sys
from pathlib import Path

import jax

from configs import rkd_adv, sweep
from fairkd_jax.evaluation.evaluate import evaluate_run
from fairkd_jax.recipe.parse import parse_recipe
from fairkd_jax.recipe.related import baseline_config
from fairkd_jax.training import Stopped, loop, train, write_class_means


def small(module):
    """The README's first command at toy length, with less to save."""
    config = module.get_config()
    config.teacher.architecture = "efficientnet_tiny"
    config.data.size = config.data.image_size = 16
    config.epochs = config.teacher.epochs = 4
    config.batch_size, config.log_every_steps = 128, 10
    config.optimizer.name, config.optimizer.learning_rate, config.teacher.learning_rate = "sgd", 0.1, 0.1
    config.eval_every_epochs = 4.0
    config.adversary.hidden, config.adversary.warmup = (8,), 0.0
    return config


def stop_after(step, config, folder):
    """Trains until so many steps are done, and stops as at Ctrl-C."""
    reads = []

    def read(tree):
        reads.append(tree)
        if len(reads) == step:
            signal.raise_signal(signal.SIGTERM)
        return jax.device_get(tree)

    read_from_device, loop.read_from_device = loop.read_from_device, read
    try:
        train(config, folder)
    except Stopped as error:
        print(error)
    loop.read_from_device = read_from_device


def main(folder):
    config = small(rkd_adv)
    train(config, folder / "rkd_adv")
    teacher = folder / "rkd_adv" / "teacher"
    train(baseline_config(parse_recipe(config), teacher), folder / "rkd_adv" / "baseline", name="baseline")
    evaluate_run(folder / "rkd_adv" / "baseline")
    evaluate_run(folder / "rkd_adv", baseline=folder / "rkd_adv" / "baseline")
    write_class_means(teacher)
    config.teacher.checkpoint = str(teacher)
    stop_after(30, config, folder / "stopped")
    config = small(sweep)
    config.teacher.checkpoint = str(teacher)
    config.population.weights.adversary, config.population.seeds = (0.0, 1.0), ()
    stop_after(30, config, folder / "population")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
