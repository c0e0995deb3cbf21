"""The text of `--config`: which file it names, and the name of the run's folder."""

import os
from pathlib import Path

from fairkd_jax.configs.debiasing import ADVERSARY_FORMS, DEBIASING
from fairkd_jax.configs.presets import DEFAULT_PRESET
from fairkd_jax.configs.words import Words, parse_words
from fairkd_jax.errors import UsageError
from fairkd_jax.near_paths import explain_missing
from fairkd_jax.user_paths import parse_path

FOLDER = Path(__file__).parent
CONFIGS = (
    "student",
    "teacher",
    "ckd",
    "lskd",
    "rkd",
    "ctkd",
    "kdpp",
    "dkd",
    "dist",
    "ckd_adv",
    "lskd_adv",
    "rkd_adv",
    "ctkd_adv",
    "kdpp_adv",
    "dkd_adv",
    "dist_adv",
    "sweep",
    "placebo",
    "positive_control",
)
# Config files that a debiasing word has replaced.
_REPLACED = {f"{name}_{word}" for name in ("ckd", "rkd") for word in DEBIASING if word != "adv"}


def find_file(text: str) -> str:
    """Finds the file that the text of `--config` names.

    Args:
      text: NAME[:WORDS] for a config of the project, or FILE.py[:WORDS].

    Returns:
      FILE.py[:WORDS], for an existing file.

    Raises:
      UsageError: There is no such config or file.
    """
    source, colon, words = text.partition(":")
    is_name = "/" not in source and not source.endswith(".py")
    if is_name and source in (*CONFIGS, "base"):
        return f"{FOLDER / source}.py{colon}{words}"
    if not is_name and os.path.isfile(path := parse_path(source)):
        return f"{path}{colon}{words}"
    if spelling := _suggest_spelling(Path(source).name.removesuffix(".py"), words):
        is_replaced = Path(source).stem in _REPLACED
        told = f"{source} is now" if is_replaced else f"there is no config {source}; write"
        raise UsageError(f"{told} --config {spelling}")
    near = "" if is_name else explain_missing(Path(source))
    missing = f"there is no config {'' if is_name else 'file '}{source or repr(source)}{near}"
    raise UsageError(f"{missing}; the configs of the project are {', '.join(CONFIGS)}")


def _suggest_spelling(stem: str, words: str) -> str:
    """Returns the spelling of a config whose name holds debiasing words; empty where there is none.

    Args:
      stem: Name without folder and ending, as `rkd_mfd` or `rkd_adv`.
      words: Text behind the colon.
    """
    for name in sorted(CONFIGS, key=len, reverse=True):
        rest = stem.removeprefix(name)
        if stem.startswith(name) and (not rest or rest.startswith("_")):
            try:
                parsed = parse_words(",".join((*rest.split("_"), words)))
            except UsageError:
                return ""
            spelling = str(parsed)
            if name.endswith("_adv") and set(parsed.debiasing) & set(ADVERSARY_FORMS):
                name = name.removesuffix("_adv")  # the word is the adversary
            return f"{name}:{spelling}" if spelling else name
    return ""


def make_run_name(text: str) -> str:
    """Makes the name of a run's folder from the text of `--config`.

    Args:
      text: NAME[:WORDS] or FILE.py[:WORDS].

    Returns:
      The stem of the file, the debiasing words in the order of `DEBIASING`, and the preset, unless it is
      digits: `rkd_adv_sampling-utkface` for `configs/rkd_adv.py:utkface,sampling`.
    """
    source, _, text_of_words = text.partition(":")
    stem = Path(source).name.removesuffix(".py")
    is_name = "/" not in source and not source.endswith(".py")
    is_project = is_name or Path(source).parent.name == "configs"
    if not is_project and "," not in text_of_words:  # a preset of the user's own file
        return "-".join(filter(None, (stem, text_of_words)))
    try:
        words = parse_words(text_of_words)
    except UsageError:  # a user's config file may have words of its own
        words = Words(preset=text_of_words)
    preset = () if words.preset == DEFAULT_PRESET else (words.preset,)
    return "-".join(("_".join((stem, *words.debiasing)), *preset))
