"""Computes a teacher's mean embedding of each class.

python scripts/class_means.py --teacher runs/kdpp/teacher

KD++ needs these means. A training that finds no means beside its teacher computes them. This program computes
them before the training.
"""

from fairkd_jax import host_memory, interrupt  # before the imports that take seconds

host_memory.tune(__name__)
interrupt.install(__name__)

from pathlib import Path

import numpy as np
from absl import flags

from fairkd_jax import cli

_TEACHER = flags.DEFINE_string("teacher", None, "Folder of the teacher's run.", required=True)
_OVERWRITE = flags.DEFINE_bool(
    "overwrite", False, "Whether to compute the means again where the file exists."
)


def main() -> None:
    """Writes the class means and prints their lengths."""
    from fairkd_jax.training import write_class_means

    cli.use_compilation_cache()
    found = write_class_means(Path(_TEACHER.value), overwrite=_OVERWRITE.value)
    lengths = np.linalg.norm(found.means, axis=1)
    names = [str(name) for name in found.class_names]
    width = max(map(len, [*names, "class"]))
    print(f"{'class':{width}}  images  length of the mean embedding")
    for name, count, length in zip(names, found.counts.tolist(), lengths.tolist(), strict=True):
        print(f"{name:{width}}  {count:6d}  {length:.4g}")


if __name__ == "__main__":
    cli.run(main)
