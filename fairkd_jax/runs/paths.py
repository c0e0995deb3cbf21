"""The paths of the files in a run's folder."""

from dataclasses import dataclass
from pathlib import Path

from fairkd_jax.natural_order import sort_names

BEST = "best"  # the checkpoint whose files have no checkpoint in their names


def _name_by_checkpoint(name: str, checkpoint: str) -> str:
    """Returns the name of a file on a checkpoint: "best", "last" or the number of a step."""
    return name if checkpoint == BEST else f"{name}.{checkpoint}"


@dataclass(frozen=True)
class RunFolder:
    """The paths of the files in a run's folder.

    Attributes:
      path: The folder.
    """

    path: Path

    @property
    def config(self) -> Path:
        """The config, the description of the data and the version of the format."""
        return self.path / "config.json"

    @property
    def metrics(self) -> Path:
        """The logged numbers, a line of JSON for each logged step."""
        return self.path / "metrics.jsonl"

    @property
    def log(self) -> Path:
        """What the training has printed."""
        return self.path / "log.txt"

    @property
    def model_card(self) -> Path:
        """The model card."""
        return self.path / "MODEL_CARD.md"

    @property
    def curves(self) -> Path:
        """The picture of the training's curves."""
        return self.path / "curves.png"

    @property
    def parameters(self) -> Path:
        """The table of the student's arrays."""
        return self.path / "parameters.txt"

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def tensorboard(self) -> Path:
        """The folder of TensorBoard's event files."""
        return self.path / "tensorboard"

    @property
    def class_means(self) -> Path:
        """The mean embedding of each class, beside a teacher."""
        return self.path / "class_means.npz"

    @property
    def diverged(self) -> Path:
        """The reason why a member of a population diverged."""
        return self.path / "diverged.txt"

    @property
    def teacher(self) -> Path:
        """The folder of the teacher's run, where this run trains its teacher."""
        return self.path / "teacher"

    @property
    def baseline(self) -> Path:
        """The folder of the same run without debiasing."""
        return self.path / "baseline"

    @property
    def members(self) -> Path:
        """The folder of the runs of a population's members."""
        return self.path / "members"

    def report(self, checkpoint: str = BEST) -> Path:
        """Returns the path of the page of the report on a checkpoint."""
        return self.path / f"{_name_by_checkpoint('report', checkpoint)}.html"

    def report_numbers(self, checkpoint: str = BEST) -> Path:
        """Returns the path of the numbers of the report on a checkpoint."""
        return self.path / f"{_name_by_checkpoint('report', checkpoint)}.json"

    def evaluation(self, split: str, checkpoint: str = BEST) -> Path:
        """Returns the path of a checkpoint's scores on a split."""
        return self.path / "eval" / f"{_name_by_checkpoint(split, checkpoint)}.json"

    def tables(self, split: str, checkpoint: str = BEST) -> Path:
        """Returns the path of the tables of a checkpoint's scores on a split, as text."""
        return self.path / "eval" / f"{_name_by_checkpoint(split, checkpoint)}.txt"

    def predictions(self, split: str, checkpoint: str = BEST) -> Path:
        """Returns the path of a checkpoint's predictions on a split."""
        return self.path / "predictions" / f"{_name_by_checkpoint(split, checkpoint)}.npz"

    def is_run(self) -> bool:
        """Returns whether the folder holds a run."""
        return self.config.exists()

    def is_population(self) -> bool:
        """Returns whether the folder holds the members of a population."""
        return self.members.is_dir()


def list_members(folder: Path) -> list[RunFolder]:
    """Returns the folders of a population's members that hold a run, in the natural order of their names."""
    members = RunFolder(folder).members
    runs = [RunFolder(members / name) for name in sort_names([path.name for path in members.iterdir()])]
    return [run for run in runs if run.is_run()]
