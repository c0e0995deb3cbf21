"""What a trained model gives away about the protected group: probes of its embedding and of its logits."""

import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fairkd_jax.data.pipeline import Dataset
from fairkd_jax.errors import UsageError
from fairkd_jax.fairness.probe import Sample, probe
from fairkd_jax.training.evaluation import Scores

SOURCES = ("embedding", "logits")
# Kind of probe -> widths of its hidden layers.
KINDS: dict[str, tuple[int, ...]] = {"linear": (), "mlp": (128,)}


def check_can_probe(dataset: Dataset, split: str) -> None:
    """Raises UsageError where no probe can be fitted and chosen, or where the split is used for that."""
    if split != "test":
        raise UsageError(
            f"probes are fitted on train and chosen on val: --probe needs --split=test, not {split}"
        )
    dataset.split("val")
    groups = np.count_nonzero(dataset.split("train").counts.sum(axis=1))
    if groups < 2:
        raise UsageError(
            f"--probe needs training images of at least two known groups; {dataset.info.name} has {groups}"
        )


def probe_model(
    name: str, score: Callable[[str], Scores], test: Mapping[str, np.ndarray], dataset: Dataset
) -> dict[str, dict[str, Any]]:
    """Fits fresh probes to a frozen model: on the training images, chosen on val, reported on test.

    Says on stderr what it is at: on many images this takes a minute.

    Args:
      name: of the model, for these lines.
      score: scores it on a split, with features.
      test: its features of the test images.
      dataset: the images' labels and groups.

    Returns:
      "embedding" and "logits" -> "linear" and "mlp" -> what `fairness.probe.probe` returns.
    """
    _say(f"probing {name}: its features of the training and validation images ...")
    features = {"train": score("train").features, "val": score("val").features, "test": test}
    groups, classes = len(dataset.info.group_names), len(dataset.info.class_names)
    found: dict[str, dict[str, Any]] = {}
    for source in SOURCES:
        samples = [
            Sample(arrays[source], dataset.split(split).labels, dataset.split(split).groups)
            for split, arrays in features.items()
        ]
        found[source] = {}
        for kind, hidden in KINDS.items():
            _say(f"probing {name}: {source}, {kind} ...")
            found[source][kind] = probe(*samples, num_groups=groups, num_classes=classes, hidden=hidden)
    return found


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
