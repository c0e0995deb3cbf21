"""The curves of a training, read from its metrics.jsonl."""

from pathlib import Path

from fairkd_jax.runs.status import read_metrics

ADVANTAGE = "adversary/advantage"
# Name in metrics.jsonl -> title.
CURVES = {
    "loss": "Training loss",
    "validation/accuracy": "Accuracy on validation",
    "validation/mean_abs_disparity": "Mean absolute disparity on validation",
    ADVANTAGE: "Advantage of the adversary in nats",
}
Curves = dict[str, list[list[float]]]  # name -> steps and values


def read_curves(path: Path) -> Curves:
    """Reads the logged curves of a run.

    Args:
      path: The run's metrics.jsonl, which need not exist.

    Returns:
      Steps and values by name, for each name of `CURVES` that was logged.

    Raises:
      UsageError: The file is damaged.
    """
    curves: Curves = {}
    for line in read_metrics(path) if path.exists() else []:
        for name in CURVES:
            if isinstance(line.get(name), int | float):
                steps, values = curves.setdefault(name, [[], []])
                steps.append(line["step"])
                values.append(line[name])
    return curves
