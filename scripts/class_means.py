"""Computes a teacher's mean embedding of each class.

python scripts/class_means.py --teacher runs/kdpp/teacher

KD++ needs them. A training that finds none beside its teacher computes them by itself; this does it ahead.
"""

from fairkd_jax import host_memory, interrupt  # before all that takes long to import

host_memory.tune(__name__)
interrupt.install(__name__)

from pathlib import Path

import numpy as np
from absl import flags

from fairkd_jax import cli
from fairkd_jax.training import write_class_means

_TEACHER = flags.DEFINE_string("teacher", None, "The folder of the teacher's run.", required=True)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Whether to compute them anew where they are there.")


def main() -> None:
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
