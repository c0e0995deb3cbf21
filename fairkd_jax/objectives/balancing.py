"""Groups that weigh the same within each class, and what the label alone then says of the group."""

import numpy as np


def balancing_weights(group_counts: np.ndarray) -> np.ndarray:
    """Weights under which every group is equally frequent within each class: `n_y / (G n_yg)`.

    Args:
      group_counts: [G, C], images by known group and class, or what is expected of them.

    Returns:
      float64 [G, C]; 0 for a cell without images.
    """
    counts = np.asarray(group_counts, np.float64)
    per_class = counts.sum(axis=0, keepdims=True)
    return np.divide(
        np.broadcast_to(per_class, counts.shape),
        len(counts) * counts,
        out=np.zeros_like(counts),
        where=counts > 0,
    )


def label_only_losses(group_counts: np.ndarray, weights: np.ndarray, by_label: bool) -> np.ndarray:
    """Cross-entropy per cell of the best predictor of the group that sees no features.

    Args:
      group_counts: [G, C].
      weights: float [G, C], of a sample of the cell.
      by_label: whether that predictor knows the label.

    Returns:
      float64 [G, C], -log of the group's weighted frequency, in the class or overall, in nats; 0 for a cell
      that has no weight.
    """
    mass = np.asarray(group_counts, np.float64) * weights
    if not by_label:
        mass = np.broadcast_to(mass.sum(axis=1, keepdims=True), mass.shape)
    total = np.broadcast_to(mass.sum(axis=0, keepdims=True), mass.shape)
    frequency = np.divide(mass, total, out=np.ones_like(mass), where=mass > 0)
    return -np.log(frequency)
