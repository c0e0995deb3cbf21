"""How tests start the project's programs: in processes that share what is compiled with the tests."""

import atexit
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

import jax

from fairkd_jax import host_memory
from fairkd_jax.files import get_cache_folder

ROOT = Path(__file__).parent.parent
# Settings of JAX: everything is kept, however small and however quickly compiled.
CACHE = {
    "jax_compilation_cache_dir": str(get_cache_folder() / "tests"),
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}
# XLA's older way to make code for a CPU compiles in a third of the time; jax 0.11 has dropped it.
QUICK = "--xla_cpu_use_fusion_emitters=false" if jax.__version_info__ < (0, 11) else ""


def environment(**changes):
    """The variables of a program: a CPU, quick compilation, and the compilation cache of the tests.

    Args:
      changes: further variables; None takes one out.
    """
    found = os.environ | {name.upper(): str(value) for name, value in CACHE.items()}
    found |= {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "PYTHONPATH": str(ROOT)}
    found |= {"XLA_FLAGS": QUICK, "RAY_ADDRESS": ""}  # no cluster that this machine may know
    return {name: str(value) for name, value in (found | changes).items() if value is not None}


def command(program, *arguments):
    """The command line of a program, whose path is relative to the root; or of `-c CODE`, `-m MODULE`."""
    option = program in ("-c", "-m")
    return [sys.executable, program if option else str(ROOT / program), *map(str, arguments)]


def run_program(program, *arguments, cwd=ROOT, timeout=600, **changes):
    """Runs a program to its end; returns its exit code and what it printed, as `subprocess.run` does."""
    return subprocess.run(
        command(program, *arguments),
        cwd=cwd,
        env=environment(**changes),
        capture_output=True,
        text=True,
        timeout=timeout,
    )


class Forks:
    """Runs programs in copies of one process that has imported already what they import.

    Importing takes seconds, and a mistake in the arguments is found in milliseconds.
    """

    def __init__(self):
        # The setting for which a program would start itself once more.
        changes = {host_memory.VARIABLE: host_memory.SETTING}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._server = subprocess.Popen(command(__file__), env=environment(**changes), **pipes)

    def run(self, program, *arguments, cwd=ROOT, **changes):
        """Runs a program to its end, with further variables; see `run_program`.

        Those of JAX would come too late: it is imported already.
        """
        assert not any(name.startswith(("JAX_", "XLA_")) for name in changes), changes
        with tempfile.TemporaryDirectory(prefix="fairkd-fork-") as folder:
            request = [str(ROOT / program), [*map(str, arguments)], str(cwd), folder, changes]
            self._server.stdin.write(json.dumps(request) + "\n")
            self._server.stdin.flush()
            code = int(self._server.stdout.readline())
            texts = [Path(folder, name).read_text() for name in ("stdout", "stderr")]
        return subprocess.CompletedProcess(request[:2], code, *texts)

    def close(self):
        """Ends the process."""
        self._server.communicate()


def _serve():
    """Answers requests, a line each, with exit codes."""
    import fairkd_jax.evaluation.evaluate
    import fairkd_jax.report.tables
    import fairkd_jax.sweep.planned_runs
    import fairkd_jax.sweep.ray_runner
    import fairkd_jax.sweep.summary
    import fairkd_jax.training  # noqa: F401

    for line in sys.stdin:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # JAX has not started any thread yet
            child = os.fork()
        if not child:
            _become(*json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _become(program, arguments, cwd, folder, changes):
    """Runs a program in this process, and ends it as Python would."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(Path(folder, name), os.O_CREAT | os.O_WRONLY), number)
    os.chdir(cwd)
    os.environ |= {name: str(value) for name, value in changes.items()}
    signal.alarm(300)  # ends what hangs
    sys.argv, sys.path[0] = [program, *arguments], str(Path(program).parent)
    code = 0
    try:
        runpy.run_path(program, run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _serve()
