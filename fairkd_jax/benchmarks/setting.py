"""The setting of a benchmark: which program is measured, with which models and sizes."""

from dataclasses import dataclass
from typing import Any

from fairkd_jax.errors import UsageError
from fairkd_jax.models import EfficientNet, create_model


@dataclass(frozen=True)
class BenchmarkSetting:
    """The program that a benchmark measures.

    Attributes:
      program: "step", "step without teacher", "forward" (the student's forward pass) or "teacher" (the
        teacher's forward pass).
      student: Name of the student's model.
      teacher: Name of the teacher's model.
      size: Side of the images, in pixels.
      batch: Images in a batch.
      dtype: Dtype of the activations, "float32" or "bfloat16".
      members: Number of students in the program.
      rematerialize: Whether the student computes its blocks again in the backward pass.
    """

    program: str
    student: str
    teacher: str
    size: int
    batch: int
    dtype: str
    members: int = 1
    rematerialize: bool = False

    @property
    def name(self) -> str:
        """Name of the setting in printed tables."""
        models = f"{self.teacher} to {self.student}" if self.program == "step" else self.student
        students = f", {self.members} students" if self.members > 1 else ""
        again = ", rematerialised" if self.rematerialize else ""
        return f"{self.program} {models} {self.size} px, batch {self.batch}, {self.dtype}{students}{again}"


def create_efficientnet(name: str, **options: Any) -> EfficientNet:
    """Creates an EfficientNet, for a benchmark that reads the table of its stages.

    Args:
      name: Name of the model.
      **options: Options of `create_model`.

    Raises:
      UsageError: The model is unknown, or is no EfficientNet.
    """
    model = create_model(name, **options)
    if not isinstance(model, EfficientNet):
        raise UsageError(f"{name} is no EfficientNet, which this benchmark needs")
    return model
