"""The debiasing words: each adds one way of debiasing to a config."""

from collections.abc import Callable

from ml_collections import ConfigDict


def adv(config: ConfigDict) -> None:
    """Adds the adversary, with lambda as a factor of its gradient (Ganin 2015)."""
    _add_objective(config, "adversary")


def ratio(config: ConfigDict) -> None:
    """Adds the adversary, with lambda as the ratio of its gradient to that of all other objectives."""
    _add_objective(config, "adversary")
    config.adversary.lambda_mode = "ratio"


def projection(config: ConfigDict) -> None:
    """Adds the adversary, with a projection of the gradients (Zhang 2018, arXiv 1801.07593)."""
    _add_objective(config, "adversary")
    config.adversary.projection = True


def sampling(config: ConfigDict) -> None:
    """Draws the groups of each class equally often in training."""
    config.data.balance_groups = True


def weights(config: ConfigDict) -> None:
    """Gives the groups of each class equal weight in the loss of the labels."""
    config.cross_entropy.balanced = True


def heads(config: ConfigDict) -> None:
    """Adds a head for each group; the sum of the heads classifies (Wang 2020, arXiv 1911.11834)."""
    config.student.group_heads = True


def mfd(config: ConfigDict) -> None:
    """Matches each group's embeddings to the teacher's of the same class (Jung 2021, arXiv 2106.04411)."""
    _add_objective(config, "mfd")


def critic(config: ConfigDict) -> None:
    """Adds the bias critic of an earlier study; the critic is not recommended (after arXiv 2006.08564)."""
    _add_objective(config, "bias_critic")


def _add_objective(config: ConfigDict, name: str) -> None:
    config.objectives = (*config.objectives, name)


# The order is the order of the words in the name of a run's folder.
DEBIASING: dict[str, Callable[[ConfigDict], None]] = {
    "adv": adv,
    "ratio": ratio,
    "projection": projection,
    "sampling": sampling,
    "weights": weights,
    "heads": heads,
    "mfd": mfd,
    "critic": critic,
}
# Three forms of the same adversary, of which a config can have one.
ADVERSARY_FORMS = ("adv", "ratio", "projection")
