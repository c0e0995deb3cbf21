"""Programs start at once: `--help` and the reading of tables need none of the libraries that take seconds."""

from tests.programs import ROOT, run_program

PROGRAMS = ["train.py", "eval.py", *(f"scripts/{path.name}" for path in (ROOT / "scripts").glob("*.py"))]
HEAVY = ("jax", "scipy.stats", "flax", "tensorflow_datasets")

SHOW_HELP = """
import runpy, sys

for program in sys.argv[1:]:
    sys.argv = [program, "--help"]
    try:
        runpy.run_path(program, run_name="__main__")
    except SystemExit as end:
        assert not end.code, program
    print("imported:", program, *(name for name in {heavy} if name in sys.modules))
"""


def test_help_needs_no_library_that_takes_seconds():
    assert len(PROGRAMS) > 10
    for program in PROGRAMS:  # a process each: flags of two programs would clash
        shown = run_program("-c", SHOW_HELP.format(heavy=HEAVY), ROOT / program)
        assert shown.returncode == 0, shown.stderr
        assert shown.stdout.splitlines()[-1] == f"imported: {ROOT / program}"
