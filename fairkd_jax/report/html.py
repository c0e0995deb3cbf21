"""One self-contained HTML page from the sections of a report (extra `report`)."""

import base64
import hashlib
import json
from collections.abc import Sequence
from importlib import resources
from typing import Any

from fairkd_jax.errors import MissingExtraError
from fairkd_jax.files import make_jsonable
from fairkd_jax.report.blocks import Figure, Gallery, Section, Table, Text

_TEMPLATES = "fairkd_jax.report.templates"


def render_page(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """Renders a page that needs no network, and that runs no script but its own two.

    Args:
      title: Title of the page.
      subtitle: Sentence below the title.
      sections: Sections in order.

    Returns:
      The page, with plotly.js and all values in it.

    Raises:
      UsageError: The extra `report` is not installed.
    """
    try:
        import jinja2
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise MissingExtraError("a report needs", "report", error) from error
    figures = [block for section in sections for block in section.blocks if isinstance(block, Figure)]
    scripts = [_close_no_script(get_plotlyjs()), _read("report.js")] if figures else []
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_read),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("report.html.j2").render(
        title=title,
        subtitle=subtitle,
        sections=sections,
        figures=figures,
        values=_inline_json(make_jsonable([_describe_figure(figure) for figure in figures])),
        style=_read("report.css"),
        scripts=scripts,
        policy=_make_policy(scripts),
        is_figure=lambda block: isinstance(block, Figure),
        is_table=lambda block: isinstance(block, Table),
        is_gallery=lambda block: isinstance(block, Gallery),
        is_text=lambda block: isinstance(block, Text),
    )


def _read(name: str) -> str:
    return resources.files(_TEMPLATES).joinpath(name).read_text(encoding="utf-8")


def _close_no_script(script: str) -> str:
    """Keeps a script from ending the element that holds it."""
    return script.replace("</script", "<\\/script")


def _inline_json(value: Any) -> str:
    """Returns JSON in which no text can end the element that holds it."""
    return json.dumps(value, allow_nan=False).replace("<", "\\u003c").replace("\u2028", "\\u2028")


def _make_policy(scripts: Sequence[str]) -> str:
    """Makes the content security policy: nothing is loaded, and only these scripts run.

    plotly adds rules of style when it starts, and draws images of its own: hence style and img.
    """
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        for script in scripts
    )
    return (
        f"default-src 'none'; script-src {hashes or chr(39) + 'none' + chr(39)}; style-src 'unsafe-inline';"
        " img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _describe_figure(figure: Figure) -> dict[str, Any]:
    return {
        "traces": list(figure.traces),
        "layout": {**figure.layout, "height": figure.height},
        "turnable": figure.is_turnable,
    }
