"""Keys of a config that several parts must know by name; nothing here imports JAX."""

from typing import Any

# Keys of a teacher that is trained within a run, with the values that mean none of them.
TEACHER_KEYS: dict[str, Any] = {"pretrained": "", "image_size": None, "group_heads": False}

# Section and key of each switch that removes bias without an objective.
DEBIASING_SWITCHES = (("cross_entropy", "balanced"), ("data", "balance_groups"), ("student", "group_heads"))

# Keys of a `student` or `teacher` section.
MODEL_KEYS = (
    "architecture",
    "dtype",
    "dropout_rate",
    "stochastic_depth_rate",
    "pretrained",
    "head",
    "norm_epsilon",
    "frozen_norm",
    "norm_momentum",
    "rematerialize",
    "group_heads",
)


def count_steps(epochs: float, num_train: int, batch_size: int) -> int:
    """Returns the length of a training in steps.

    Args:
      epochs: Number of passes over the training split; 0 for a pretrained model that is taken as it is.
      num_train: Number of training images.
      batch_size: Number of images in a step, over all devices.
    """
    return max(1, round(epochs * num_train / batch_size)) if epochs else 0
