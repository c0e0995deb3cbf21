"""Who may import whom: an arrow that runs upward or sideways is a fault."""

import ast
import sys
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "fairkd_jax"
LEVELS = {
    "errors": 0,
    "files": 0,
    "interrupt": 0,
    "host_memory": 0,
    "types": 0,
    "ops": 1,
    "models": 2,
    "objectives": 2,
    "fairness": 2,
    "data": 2,
    "training": 3,
    "report": 3,
    "benchmarks": 4,
    "sweep": 4,
    "cli": 4,
}
# The one module of the package that turns a config into objects, and those that hand it a config.
READS_CONFIG = {
    "cli.py",
    "training/config.py",
    "training/experiment.py",
    "training/members.py",
    "training/run.py",
    "training/scoring.py",
    "training/task.py",
    "training/teacher.py",
    "training/trained.py",
    "training/workdir.py",
}


# Heavy libraries behind an extra, imported by the function that needs them; and a program of its own.
LATE = {"models/weights/files.py": ("torch",), "sweep/ray_runner.py": ("ray",)}
OTHER_PROCESS = {"benchmarks/torch_peer.py": ("timm", "torch")}


def part_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path):
    """The modules that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def test_every_part_has_a_level():
    assert {part_of(path) for path in MODULES} == set(LEVELS)


def upward(path):
    """What is wrong with the imports of a file, a line each."""
    part, relative = part_of(path), str(path.relative_to(PACKAGE))
    allowed = (LATE | OTHER_PROCESS).get(relative, ())
    for name in imports_of(path):
        root, *rest = name.split(".")
        if root in ("configs", "torch", "tensorflow", "ray") and root not in allowed:
            yield f"{relative} must not import {name}"
        if name.startswith("fairkd_jax.benchmarks.torch_peer"):
            yield f"{relative} imports {name}, a program of its own"
        if root == "fairkd_jax" and rest and rest[0] != part and LEVELS[rest[0]] >= LEVELS[part]:
            yield f"{relative}: {part} must not import {name}"


def test_imports_run_downward():
    assert [line for path in MODULES for line in upward(path)] == []


def test_an_import_that_runs_upward_is_found(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path)
    (tmp_path / "ops").mkdir()
    path = tmp_path / "ops" / "new.py"
    path.write_text("import torch\nfrom fairkd_jax.models import fold\nfrom fairkd_jax.ops import tap\n")
    assert list(upward(path)) == [
        "ops/new.py must not import torch",
        "ops/new.py: ops must not import fairkd_jax.models.fold",
    ]


def test_only_the_experiment_reads_a_config():
    found = {
        str(path.relative_to(PACKAGE))
        for path in MODULES
        if any(name.startswith("ml_collections") for name in imports_of(path))
    }
    assert found <= READS_CONFIG


def test_nothing_is_unpickled_or_executed():
    for path in MODULES:
        names = set(imports_of(path))
        assert not {name.split(".")[0] for name in names} & {"pickle", "shelve"}
        assert not names & {"importlib", "importlib.import_module"}
        calls = {
            node.func.id
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert not calls & {"eval", "exec", "__import__"}


def test_heavy_libraries_are_imported_late():
    for name, heavy in LATE.items():
        for node in ast.parse((PACKAGE / name).read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import):
                assert not {alias.name.split(".")[0] for alias in node.names} & set(heavy)
            elif isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] not in heavy


def test_a_program_of_its_own_finds_the_standard_library():
    """Python looks for modules beside the program first."""
    for program in OTHER_PROCESS:
        beside = {path.stem for path in (PACKAGE / program).parent.glob("*.py")}
        assert not beside & sys.stdlib_module_names
