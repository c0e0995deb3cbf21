"""Every flag's help is a sentence that stands alone."""

import ast

import pytest

from tests.programs import ROOT

FILES = [ROOT / "fairkd_jax" / "program_flags.py", *(ROOT / "fairkd_jax" / "programs").glob("*.py")]
FILES += (ROOT / "scripts").glob("*.py")


def text_of(node):
    """The text of a constant or of an f-string, whose values count as a word each."""
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "value" for part in node.values)
    return node.value if isinstance(node, ast.Constant) else None


def helps_of(tree):
    """The name and the help of each flag of a program: "" without a help, None for one in a variable."""
    absent = ast.Constant("")
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        keywords = {keyword.arg: keyword.value for keyword in node.keywords}
        name, place = node.func.attr, 3 if node.func.attr == "DEFINE_enum" else 2
        if "flag_values" in keywords:  # no flag of the program's own
            continue
        if name.startswith("DEFINE_"):
            given = node.args[place] if len(node.args) > place else keywords.get("help", absent)
        elif name in ("add_argument", "add_parser"):
            given = keywords.get("help", absent)
        else:
            continue
        yield text_of(node.args[0]), text_of(given)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_flags_help_is_a_sentence(path):
    for name, text in helps_of(ast.parse(path.read_text(encoding="utf-8"))):
        if text is None:  # handed over in a variable, as the parts of benchmark.py are
            continue
        assert text.endswith("."), f"{name}: {text}"
        assert len(text.split()) >= 3, f"{name}: {text}"
        assert text[0].isupper(), f"{name}: {text}"


def test_a_help_that_is_no_sentence_is_found():
    code = """
flags.DEFINE_string("seed", "", "Of it all")
parser.add_argument("--a", help=f"{x} b.")
parser.add_argument("b")
"""
    assert list(helps_of(ast.parse(code))) == [("seed", "Of it all"), ("--a", "value b."), ("b", "")]
