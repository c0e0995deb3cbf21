"""Who may import whom: an arrow that runs upward or sideways is a fault."""

import ast
import sys
from pathlib import Path

from fairkd_jax.runs.paths import RunFolder

PACKAGE = Path(__file__).parent.parent / "fairkd_jax"
LEVELS = {
    "errors": -2,
    "leftovers": -1,
    "user_paths": -1,
    "files": 0,
    "interrupt": 0,
    "host_memory": 0,
    "types": 0,
    "natural_order": 0,
    "run_log": 0,
    "near_paths": 0,
    "digests": 1,
    "progress": 1,
    "commands": 1,
    "__main__": 2,
    "distributed": 1,
    "ops": 1,
    "models": 2,
    "objectives": 2,
    "fairness": 2,
    "data": 2,
    "configs": 3,
    "recipe": 3,
    "engine": 4,
    "runs": 5,
    "training": 6,
    "evaluation": 6,
    "report": 7,
    "sweep": 8,
    "benchmarks": 8,
    "demo": 8,
    "cli": 8,
    "program_flags": 8,
    "programs": 9,
}
# The parts that read a config; all other parts read the recipe.
READS_CONFIG = ("cli.py", "program_flags.py", "configs/", "programs/", "recipe/", "training/run.py")
# Parts that read finished runs, and so must not need what trains them.
READS_RUNS = ("runs", "evaluation", "report")


# Heavy libraries behind an extra, imported by the function that needs them; and a program of its own, whose
# files only this program imports.
LATE = {
    "models/weights/files.py": ("torch",),
    "sweep/ray_runner.py": ("ray",),
    "training/writers.py": ("tensorboardX",),
}
OTHER_PROCESS = {f"benchmarks/{name}.py": ("timm", "torch") for name in ("torch_peer", "torch_network")}


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
        if root in ("configs", "torch", "tensorflow", "tensorboardX", "ray") and root not in allowed:
            yield f"{relative} must not import {name}"
        if name.startswith("fairkd_jax.benchmarks.torch_") and relative not in OTHER_PROCESS:
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


def test_only_the_recipe_reads_a_config():
    found = {
        str(path.relative_to(PACKAGE))
        for path in MODULES
        if any(name.startswith("ml_collections") for name in imports_of(path))
    }
    assert {name for name in found if not name.startswith(READS_CONFIG)} == set()


def test_only_programs_choose_a_config():
    assert {
        part_of(path)
        for path in MODULES
        if any(name.startswith("fairkd_jax.configs") for name in imports_of(path))
    } == {"cli", "configs", "program_flags", "programs"}


def test_readers_of_runs_import_nothing_that_trains():
    assert [
        (str(path.relative_to(PACKAGE)), name)
        for path in MODULES
        if part_of(path) in READS_RUNS
        for name in imports_of(path)
        if name.startswith("fairkd_jax.training")
    ] == []


def spelled_names(path, files, folders):
    """Names of files that a module spells, and names of folders that it joins to a path."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and node.value in files:
            yield node.value
        if (
            isinstance(node, ast.BinOp)
            and isinstance(node.op, ast.Div)
            and isinstance(node.right, ast.Constant)
        ):
            yield from {node.right.value} & folders


def test_only_runs_spells_the_names_of_a_runs_files(tmp_path):
    """`RunFolder` has them, so that a file can be renamed or moved in one place."""
    folder = RunFolder(Path("folder"))
    paths = [getattr(folder, name) for name, kind in vars(RunFolder).items() if isinstance(kind, property)]
    names = {path.name for path in paths} | {"eval", "predictions"}
    files, folders = ({name for name in names if ("." in name) == has_dot} for has_dot in (True, False))
    assert {"config.json", "metrics.jsonl", "class_means.npz"} <= files
    assert {"members", "teacher", "checkpoints"} <= folders
    root = PACKAGE.parent
    programs = [root / "train.py", root / "eval.py", *(root / "scripts").glob("*.py")]
    for path in (*MODULES, *programs):
        if PACKAGE in path.parents and part_of(path) == "runs":
            continue
        assert not set(spelled_names(path, files, folders)), path
    (tmp_path / "new.py").write_text('a = folder / "members" / name\nb = "config.json"\nc = {"members": 1}')
    assert set(spelled_names(tmp_path / "new.py", files, folders)) == {"members", "config.json"}


LONGEST_FUNCTION, LONGEST_FILE, LONGEST_TEST = 60, 300, 400


def test_functions_and_files_are_short():
    root = PACKAGE.parent
    programs = [root / "train.py", root / "eval.py", *(root / "scripts").glob("*.py")]
    for path in (*MODULES, *programs, *(root / "tests").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        longest = LONGEST_TEST if root / "tests" in path.parents else LONGEST_FILE
        assert len(text.splitlines()) <= longest, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                lines = node.end_lineno - node.lineno + 1
                assert lines <= LONGEST_FUNCTION, f"{path}: {node.name} has {lines} lines"


# Modules that import what a name says: a program of the package, and a function that the user names.
RESOLVES_NAMES = ("commands.py", "programs/debiasing_table.py", "training/writers.py")


def test_nothing_is_unpickled_or_executed():
    for path in MODULES:
        names = set(imports_of(path))
        assert "pkgutil.resolve_name" not in names or str(path.relative_to(PACKAGE)) in RESOLVES_NAMES
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
