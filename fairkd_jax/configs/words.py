"""The words behind the colon of `--config NAME:WORD,WORD`: at most one preset, and debiasing words."""

import functools
from collections.abc import Callable
from types import ModuleType
from typing import NamedTuple

from ml_collections import ConfigDict

from fairkd_jax.configs.debiasing import ADVERSARY_FORMS, DEBIASING
from fairkd_jax.configs.presets import DEFAULT_PRESET, PRESETS
from fairkd_jax.errors import UsageError


class Words(NamedTuple):
    """The words behind a colon.

    Attributes:
      preset: Key of `PRESETS`.
      debiasing: Keys of `DEBIASING`, in the order of this table.
    """

    preset: str = DEFAULT_PRESET
    debiasing: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Returns the words in their canonical order, as a command line has them; may be empty."""
        preset = () if self.preset == DEFAULT_PRESET else (self.preset,)
        return ",".join((*self.debiasing, *preset))


def parse_words(text: str) -> Words:
    """Parses the text behind the colon.

    Args:
      text: Words in any order, separated by commas; may be empty.

    Raises:
      UsageError: A word is unknown, is there twice, or excludes another word.
    """
    words = [word for part in text.split(",") if (word := part.strip())]
    for word in words:
        if word not in PRESETS and word not in DEBIASING:
            raise UsageError(
                f"unknown word {word!r} behind the colon; the presets are {', '.join(PRESETS)}, and the"
                f" debiasing words are {', '.join(DEBIASING)}"
            )
        if words.count(word) > 1:
            raise UsageError(f"the word {word} is there twice behind the colon; name {word} once")
    presets = [word for word in words if word in PRESETS]
    if len(presets) > 1:
        raise UsageError(f"{' and '.join(presets)} are presets, which exclude each other; name one preset")
    debiasing = tuple(word for word in DEBIASING if word in words)
    forms = [word for word in debiasing if word in ADVERSARY_FORMS]
    if len(forms) > 1:
        raise UsageError(f"{' and '.join(forms)} are forms of the same adversary; name one form")
    return Words(presets[0] if presets else DEFAULT_PRESET, debiasing)


def accept_words(get_config: Callable[[str], ConfigDict]) -> Callable[..., ConfigDict]:
    """Makes the `get_config` of a config file accept debiasing words beside a preset.

    Args:
      get_config: Function from a preset to the config.

    Returns:
      Function from words to the config. The words of debiasing apply to the finished config of the preset.
    """

    @functools.wraps(get_config)
    def get_debiased_config(words: str = "") -> ConfigDict:
        preset, debiasing = parse_words(words)
        config = get_config(preset)
        for word in debiasing:
            if word in ADVERSARY_FORMS and "adversary" in config.objectives:
                raise UsageError(
                    f"this config has an adversary already; leave out {word}, and choose the form of the"
                    " adversary with --config.adversary.lambda_mode and --config.adversary.projection"
                )
            DEBIASING[word](config)
        return config

    return get_debiased_config


def with_adversary(module: ModuleType) -> Callable[..., ConfigDict]:
    """Makes the `get_config` of the config NAME_adv, which adds the adversary to the config NAME.

    Args:
      module: Module of the config NAME.

    Returns:
      Function from words to the config: the config NAME with the further word `adv`.
    """
    name = module.__name__.rpartition(".")[2]

    def get_config(words: str = "") -> ConfigDict:
        preset, debiasing = parse_words(words)
        if forms := set(debiasing) & set(ADVERSARY_FORMS):
            spelling = Words(preset, debiasing)
            raise UsageError(
                f"{name}_adv has the adversary already, of which {forms.pop()} is a form; write --config"
                f" {name}:{spelling}"
            )
        config: ConfigDict = module.get_config(",".join((preset, *debiasing, "adv")))
        return config

    return get_config
