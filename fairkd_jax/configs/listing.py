"""The text of `--list`: configs, words, models and keys, each with its meaning."""

import ast
import textwrap
from collections.abc import Callable, Mapping

from fairkd_jax.configs.base import list_keys
from fairkd_jax.configs.debiasing import DEBIASING
from fairkd_jax.configs.names import CONFIGS, FOLDER
from fairkd_jax.configs.presets import PRESETS
from fairkd_jax.models import MODEL_NAMES

_WIDTH = 110


def format_listing() -> str:
    """Formats all configs, presets, debiasing words, models and keys as a text for the terminal."""
    sections = (
        ("Configs (--config NAME)", _format_rows({name: read_summary(name) for name in CONFIGS})),
        ("Presets (--config NAME:PRESET)", _format_rows(_summarize(PRESETS))),
        ("Debiasing words (--config NAME:WORD or NAME:PRESET,WORD,...)", _format_rows(_summarize(DEBIASING))),
        (
            "Models (--config.student.architecture and --config.teacher.architecture)",
            textwrap.fill(", ".join(MODEL_NAMES), _WIDTH, initial_indent="  ", subsequent_indent="  "),
        ),
        (
            "Keys (--config.KEY=VALUE), with the defaults of the config student; other configs change some",
            _format_keys(),
        ),
    )
    return "\n\n".join(f"{title}\n\n{text}" for title, text in sections)


def read_summary(name: str) -> str:
    """Reads the first line of a config's docstring.

    Args:
      name: Name of the config.
    """
    tree = ast.parse((FOLDER / f"{name}.py").read_text(encoding="utf-8"))
    return (ast.get_docstring(tree) or "").partition("\n")[0]


def _summarize(functions: Mapping[str, Callable[..., None]]) -> dict[str, str]:
    return {name: (function.__doc__ or "").partition("\n")[0] for name, function in functions.items()}


def _format_rows(rows: Mapping[str, str]) -> str:
    width = max(map(len, rows)) + 2
    return "\n".join(f"  {name:{width}}{text}" for name, text in rows.items())


def _format_keys() -> str:
    lines = []
    for key in list_keys():
        is_empty = isinstance(key.default, type) or key.default in ((), "")
        default = "empty" if is_empty else _format_value(key.default)
        lines.append(f"  {key.name} = {default}")
        lines += textwrap.wrap(key.meaning, _WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines)


def _format_value(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
