"""Weights that balance the groups within each class, and the loss of a predictor without features."""

import numpy as np


def compute_balancing_weights(group_counts: np.ndarray) -> np.ndarray:
    """Computes the weights under which every group is equally frequent within each class.

    The weight is `n_y / (G n_yg)` for `n_yg` images of group g in class y.

    Args:
      group_counts: Number of images by known group and class, or the expected number, [G, C].

    Returns:
      Weights of a sample, float64 [G, C]; 0 for a cell without images.
    """
    counts = np.asarray(group_counts, np.float64)
    per_class = counts.sum(axis=0, keepdims=True)
    return np.divide(
        np.broadcast_to(per_class, counts.shape),
        len(counts) * counts,
        out=np.zeros_like(counts),
        where=counts > 0,
    )


def compute_label_only_losses(group_counts: np.ndarray, weights: np.ndarray, by_label: bool) -> np.ndarray:
    """Computes the cross-entropy of the best predictor of the group that sees no features.

    Args:
      group_counts: Number of images by known group and class, [G, C].
      weights: Weights of a sample of each cell, float [G, C].
      by_label: Whether the predictor knows the label.

    Returns:
      Cross-entropy by cell in nats, float64 [G, C]: -log of the group's weighted frequency, in the class or
      overall. A cell without weight has 0.
    """
    mass = np.asarray(group_counts, np.float64) * weights
    if not by_label:
        mass = np.broadcast_to(mass.sum(axis=1, keepdims=True), mass.shape)
    total = np.broadcast_to(mass.sum(axis=0, keepdims=True), mass.shape)
    frequency = np.divide(mass, total, out=np.ones_like(mass), where=mass > 0)
    return -np.log(frequency)
