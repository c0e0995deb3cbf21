"""Simulation of test sets with few images of a group and class, to check the corrected interval."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairkd_jax.fairness.gap_bounds import compute_gap_bounds
from fairkd_jax.fairness.gaps import Floats
from fairkd_jax.fairness.inference import compute_normal_interval, find_comparable_cells, join_intervals

_UNEQUAL = ((5, 40, 9, 25, 6, 16, 30, 12), (20, 5, 8, 40, 6, 11, 5, 35))


class Scenario(NamedTuple):
    """True recalls and numbers of images.

    Attributes:
      name: Words for the true recalls.
      recall: True recalls of the two groups, float64 [2, C].
      sizes: Images, int64 [2, C].
    """

    name: str
    recall: Floats
    sizes: NDArray[np.int64]


def list_scenarios() -> list[Scenario]:
    """Lists the scenarios: few classes, cells that are all right, and gaps in a quarter of the classes."""
    found = []
    for first, second, classes, images in (
        (0.98, 0.93, (2, 3, 4), (5, 8, 30)),
        (0.98, 0.93, (16,), (5, 8, 30)),
        (1.0, 0.9, (2, 16), (5, 8)),
        (1.0, 1.0, (4,), (5,)),
    ):
        for number in classes:
            recall = np.repeat([[first], [second]], number, axis=1)
            name = f"recalls {first:g} and {second:g}"
            found += [Scenario(name, recall, np.full((2, number), size)) for size in images]
    for middle, gap, images in ((0.65, 0.4, (5, 8, 30)), (0.95, 0.1, (5, 8, 30))):
        signed = 0.5 * gap * np.array([1.0, -1.0] + [0.0] * 6)
        name = f"recall {middle:g}, gaps of {gap:g} and -{gap:g}"
        recall = middle + np.stack([signed, -signed])
        found += [Scenario(name, recall, np.full((2, 8), size)) for size in images]
    unequal = np.array(_UNEQUAL)
    recall = np.repeat([[0.98], [0.93]], unequal.shape[1], axis=1)
    return [*found, Scenario("recalls 0.98 and 0.93", recall, unequal)]


def simulate_scenario(scenario: Scenario, trials: int, num_resamples: int, seed: int) -> dict[str, Any]:
    """Draws many test sets of a scenario and checks their intervals.

    Args:
      scenario: The true recalls and the numbers of images.
      trials: Number of test sets.
      num_resamples: Number of resamples of every interval.
      seed: Random seed.

    Returns:
      `scenario`, the name; `classes`; `images`, of a cell; `gap`, the mean true |gap|;
      `covers`, the share of trials whose interval holds the mean true |gap|; `above` and `below`, the shares
      of intervals that lie above or below it; `width`, the mean width of the interval;
      `normal_covers` and `normal_width`, the same of the first of the two intervals alone.
    """
    rng = np.random.default_rng((seed, len(scenario.sizes[0]), int(scenario.sizes.sum())))
    enough = find_comparable_cells(scenario.sizes, 2)
    truth = float(np.mean(np.abs(scenario.recall[0] - scenario.recall[1])))
    rows = []
    for _ in range(trials):
        correct = rng.binomial(scenario.sizes, scenario.recall)
        options = {"num_resamples": num_resamples, "seed": int(rng.integers(2**32))}
        normal = compute_normal_interval(correct, scenario.sizes, enough, **options)
        bounds = compute_gap_bounds(correct, scenario.sizes, enough)
        rows.append((*normal, *join_intervals(normal, bounds)))
    normal_low, normal_high, low, high = np.array(rows).T
    least, most = int(scenario.sizes.min()), int(scenario.sizes.max())
    above, below = float(np.mean(low > truth)), float(np.mean(high < truth))
    return {
        "scenario": scenario.name,
        "classes": scenario.sizes.shape[1],
        "images": str(least) if least == most else f"{least}-{most}",
        "gap": truth,
        "covers": 1.0 - above - below,
        "above": above,
        "below": below,
        "width": float(np.mean(high - low)),
        "normal_covers": float(np.mean((normal_low <= truth) & (truth <= normal_high))),
        "normal_width": float(np.mean(normal_high - normal_low)),
    }
