"""A key of the config, and how the keys of an objective follow from its factory."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple


class Key(NamedTuple):
    """A key of the config.

    Attributes:
      name: Name, with the section and a dot in front; `--config.NAME=VALUE` sets the key.
      default: Default value. A type means an empty value, which the key of this type has by default.
      meaning: Sentence for the user.
    """

    name: str
    default: Any
    meaning: str


def list_options(section: str, factory: Callable[..., object]) -> list[Key]:
    """Lists the keyword arguments of an objective's factory as keys of the objective's section.

    Args:
      section: Name of the section.
      factory: Factory, whose docstring explains each argument under `Args:`.

    Returns:
      Keys with the defaults of the factory; the meaning of an argument without explanation is empty.
    """
    meanings = read_arguments(inspect.getdoc(factory) or "")
    return [
        Key(f"{section}.{name}", parameter.default, meanings.get(name, ""))
        for name, parameter in inspect.signature(factory).parameters.items()
    ]


def read_arguments(docstring: str) -> dict[str, str]:
    """Reads the section `Args:` of a docstring in Google style.

    Args:
      docstring: Docstring without the indentation of its function.

    Returns:
      Explanation by argument, each in one line.
    """
    arguments: dict[str, str] = {}
    name = ""
    for line in docstring.partition("Args:\n")[2].splitlines():
        indent = len(line) - len(line.lstrip())
        if not indent:  # an empty line, or the next section
            break
        if indent == 2:
            name, _, text = line.strip().partition(": ")
            arguments[name] = text
        else:
            arguments[name] += f" {line.strip()}"
    return arguments
