"""Probes that read the protected group from a trained model's embedding and logits."""

import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fairkd_jax.data.pipeline import Dataset
from fairkd_jax.engine.eval_step import Scores
from fairkd_jax.errors import UsageError
from fairkd_jax.fairness.probe import Sample, probe_features

SOURCES = ("embedding", "logits")
# Kind of probe -> widths of its hidden layers.
KINDS: dict[str, tuple[int, ...]] = {"linear": (), "mlp": (128,)}


def check_can_probe(dataset: Dataset, split: str) -> None:
    """Checks that probes can be fitted on train and chosen on val, and are reported on test.

    Args:
      dataset: The data of the run.
      split: The split to report on.

    Raises:
      UsageError: The split is not "test", the data have no "val", or fewer than two groups are known.
    """
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
    """Fits new probes to a frozen model: fitted on train, chosen on val, reported on test.

    The function prints its progress on stderr, because many images take a minute.

    Args:
      name: Name of the model, for the progress.
      score: Function `split -> scores` of the model, with features.
      test: The model's features of the test images.
      dataset: The data of the run.

    Returns:
      The result of `fairness.probe.probe_features` by source ("embedding", "logits") and kind of probe
      ("linear", "mlp").
    """
    _print_progress(f"probing {name}: its features of the training and validation images ...")
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
            _print_progress(f"probing {name}: {source}, {kind} ...")
            found[source][kind] = probe_features(
                *samples, num_groups=groups, num_classes=classes, hidden=hidden
            )
    return found


def _print_progress(text: str) -> None:
    """Prints a line on stderr."""
    print(text, file=sys.stderr, flush=True)
