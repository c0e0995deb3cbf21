"""The commands that the package installs."""

import ast
import functools
import tomllib

import pytest

from fairkd_jax.commands import COMMANDS, PREFIX, format_commands, main
from tests.programs import ROOT, run_program

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture
def module(forks):
    """Starts `python -m fairkd_jax`."""
    return functools.partial(forks.run, "fairkd_jax/__main__.py")


def test_each_command_is_installed_and_each_script_starts_one():
    functions = {f"{PREFIX}{name}": command for name, command in COMMANDS.items()}
    assert PROJECT["scripts"].keys() == functions.keys()
    for name, reference in PROJECT["scripts"].items():
        namespace = {}
        exec(f"from {reference.replace(':', ' import ')} as found", namespace)
        assert namespace["found"] is functions[name]
    files = [ROOT / "train.py", ROOT / "eval.py", *(ROOT / "scripts").glob("*.py")]
    started = {
        alias.name
        for path in files
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module == "fairkd_jax.commands"
        for alias in node.names
    }
    assert started == {reference.partition(":")[2] for reference in PROJECT["scripts"].values()}


def test_each_program_has_a_command():
    programs = {path.stem for path in (ROOT / "fairkd_jax" / "programs").glob("[a-z]*.py")}
    assert programs == {command.main.partition(":")[0] for command in COMMANDS.values()}


def test_without_a_name_all_commands_are_listed():
    shown = run_program("-m", "fairkd_jax")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout == format_commands() + "\n"
    assert len(shown.stdout.splitlines()) == len(COMMANDS) + 1


def test_an_unknown_name_is_refused(capsys):
    assert main(["", "fit"]) == 2
    assert capsys.readouterr().err.startswith("fairkd_jax: there is no command 'fit'; use train, eval, ")


def test_a_command_starts_by_its_name_and_names_itself(module):
    for name in ("eval", "fairkd-eval"):
        refused = module(name, "nowhere")
        assert refused.returncode == 2
        assert refused.stderr.startswith("fairkd-eval: nowhere holds no run")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["eval"], "one run is needed, but none is named; write the folder of the run, or --workdir RUN"),
        (["eval", "a", "--workdir=b"], "one run is needed, but 2 are named (a, b)"),
        (
            ["class-means"],
            "one run is needed, but none is named; write the folder of the run, or --teacher",
        ),
        (["class-means", "nowhere"], "nowhere holds no run"),
    ],
)
def test_the_run_is_the_first_argument(module, arguments, message):
    refused = module(*arguments)
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"fairkd-{arguments[0]}: {message}")
    assert len(refused.stderr.splitlines()) == 1
