"""Configuration of Sphinx: `sphinx-build -W docs build/docs`."""

import re

from fairkd_jax import __version__

project = "fairkd_jax"
author = "the fairkd_jax authors"
copyright = f"2026, {author}"
release = version = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
html_theme = "furo"
html_title = project
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}
autoclass_content = "both"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
nitpicky = False
suppress_warnings = ["config.cache"]


def convert_docstring(app, what, name, obj, options, lines):
    """Turns the code spans of a docstring into Sphinx's, and keeps its `|` and `*` as they stand."""
    for number, line in enumerate(lines):
        parts = re.split(r"(`[^`]+`)", line)  # every second one is a code span
        lines[number] = "".join(
            f"`{part}`" if index % 2 else re.sub(r"([|*])", r"\\\1", part) for index, part in enumerate(parts)
        )


def setup(app):
    """Runs before napoleon, which reads the sections."""
    app.connect("autodoc-process-docstring", convert_docstring, priority=100)
