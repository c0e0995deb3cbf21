"""Ways to debias a student, each a few lines on top of a way to distil: what the files here share."""

from collections.abc import Callable

from ml_collections import ConfigDict


def _add(config: ConfigDict, name: str) -> None:
    config.objectives = (*config.objectives, name)


def adv(config: ConfigDict) -> None:
    """The adversary, with lambda as a factor of its gradient."""
    _add(config, "adversary")


def ratio(config: ConfigDict) -> None:
    """The adversary, with lambda as the ratio of its pull to that of all others."""
    _add(config, "adversary")
    config.adversary.lambda_mode = "ratio"


def projection(config: ConfigDict) -> None:
    """The adversary by projection of the gradients (Zhang 2018)."""
    _add(config, "adversary")
    config.adversary.projection = True


def sampling(config: ConfigDict) -> None:
    """Groups drawn equally often within each class."""
    config.data.balance_groups = True


def weights(config: ConfigDict) -> None:
    """Groups weighted equally within each class, in the loss of the labels."""
    config.cross_entropy.balanced = True


def heads(config: ConfigDict) -> None:
    """A head for each group, summed to classify (domain-independent, Wang 2020)."""
    config.student.group_heads = True


def mfd(config: ConfigDict) -> None:
    """Embeddings of each group as the teacher's of the class (Jung 2021)."""
    _add(config, "mfd")


def critic(config: ConfigDict) -> None:
    """An earlier study's objective, as it was run; a reproduction, no method to recommend."""
    _add(config, "bias_critic")


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


def debiased(config: ConfigDict, name: str) -> ConfigDict:
    """The config with one of the ways of `DEBIASING` added."""
    DEBIASING[name](config)
    return config
