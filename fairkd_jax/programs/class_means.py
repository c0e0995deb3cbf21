"""Computes a teacher's mean embedding of each class.

fairkd-class-means runs/kdpp/teacher

KD++ needs these means. A training that finds no means beside its teacher computes them. This program computes
them before the training.
"""

import numpy as np
from absl import flags

from fairkd_jax import cli, program_flags

_TEACHER = flags.DEFINE_string(
    "teacher", "", "Folder of the teacher's run, where no argument names the folder."
)
_OVERWRITE = flags.DEFINE_bool(
    "overwrite", False, "Whether to compute the means again where the file exists."
)


def main(arguments: list[str]) -> None:
    """Writes the class means and prints their lengths."""
    from fairkd_jax.training import write_class_means

    folder = program_flags.get_run_folder(arguments, _TEACHER)
    cli.use_compilation_cache()
    found = write_class_means(folder, overwrite=_OVERWRITE.value)
    lengths = np.linalg.norm(found.means, axis=1)
    names = [str(name) for name in found.class_names]
    width = max(map(len, [*names, "class"]))
    print(f"{'class':{width}}  images  length of the mean embedding")
    for name, count, length in zip(names, found.counts.tolist(), lengths.tolist(), strict=True):
        print(f"{name:{width}}  {count:6d}  {length:.4g}")


def run() -> None:
    """Runs the program with the arguments of this process."""
    cli.run(main, positional=True)
