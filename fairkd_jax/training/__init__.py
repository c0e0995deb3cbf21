"""Training: the compiled step, the loop around it, checkpoints and whole runs."""

from fairkd_jax.training.config import baseline_config, resolved, teacher_config, uses_teacher
from fairkd_jax.training.member import Diverged
from fairkd_jax.training.members import is_population
from fairkd_jax.training.run import MembersDiverged, member_folders, train
from fairkd_jax.training.scoring import evaluate_run
from fairkd_jax.training.step import init_state, make_train_step
from fairkd_jax.training.stop import Stopped
from fairkd_jax.training.teacher import teacher_folder, write_class_means

__all__ = [
    "Diverged",
    "MembersDiverged",
    "Stopped",
    "baseline_config",
    "evaluate_run",
    "init_state",
    "is_population",
    "make_train_step",
    "member_folders",
    "resolved",
    "teacher_config",
    "teacher_folder",
    "train",
    "uses_teacher",
    "write_class_means",
]
