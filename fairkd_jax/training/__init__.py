"""Training: from a recipe to a finished run."""

from fairkd_jax.training.run import MembersDiverged, train, train_recipe
from fairkd_jax.training.stop import Stopped
from fairkd_jax.training.student_log import Diverged
from fairkd_jax.training.teacher import write_class_means

__all__ = ["Diverged", "MembersDiverged", "Stopped", "train", "train_recipe", "write_class_means"]
