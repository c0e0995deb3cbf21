"""Links of the documentation lead somewhere, and what it names is there."""

import re
from pathlib import Path

import pytest

from fairkd_jax.commands import COMMANDS, PREFIX
from tests.programs import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
TEXTS = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in PAGES}
_LINK = re.compile(r"\]\((?!https?://|mailto:)([^)\s#]*)(?:#([^)\s]*))?\)")


def anchors_of(text):
    """The anchors that the headings of a page have."""
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def broken_links(name, text):
    """The links of a page that lead nowhere."""
    page = ROOT / name
    for path, anchor in _LINK.findall(text):
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors_of(target.read_text(encoding="utf-8"))):
            yield f"{path}#{anchor}" if anchor else path


def test_there_are_pages():
    assert {"README.md", "CONTRIBUTING.md", "docs/index.md", "docs/design.md"} <= TEXTS.keys()


@pytest.mark.parametrize("name", TEXTS)
def test_every_link_leads_somewhere(name):
    assert list(broken_links(name, TEXTS[name])) == []


def test_a_link_that_leads_nowhere_is_found():
    text = "[a](docs/none.md) [b](docs/start.md#nothing) [c](docs/start.md#how-to-read-the-table) [d](#more)"
    assert list(broken_links("README.md", text)) == ["docs/none.md", "docs/start.md#nothing"]


@pytest.mark.parametrize("name", TEXTS)
def test_every_command_and_file_that_is_named_is_there(name):
    for command in re.findall(rf"(?<![\w=]){PREFIX}([a-z-]+)", TEXTS[name]):
        assert command in COMMANDS, command
    for path in re.findall(
        r"\b((?:scripts|configs|fairkd_jax|tests)/[a-z_/]+\.(?:py|sh|md|json|toml))\b", TEXTS[name]
    ):
        assert (ROOT / path).is_file(), path


def test_the_readme_is_short_and_starts_with_two_commands():
    text = TEXTS["README.md"]
    assert len(text.split()) < 1000
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    assert (
        re.findall(r"^python3 scripts/with_env\.py .*$", blocks[0], re.MULTILINE)
        == blocks[0].strip().splitlines()
    )
    assert len(blocks[0].strip().splitlines()) == 2
    assert Path(ROOT, "docs", "overview.svg").exists()


def test_every_page_is_in_the_index():
    index = TEXTS["docs/index.md"]
    entries = {
        line for block in re.findall(r"```{toctree}\n(.*?)```", index, re.DOTALL) for line in block.split()
    }
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} - {"index"}
    assert pages <= entries
