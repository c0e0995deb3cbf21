"""Kernels in C++ for a CPU, compiled for the present processor at their first use.

XLA's CPU backend makes many passes over memory where a single pass is enough, and hardly vectorises the
gradients of a depthwise convolution. Milliseconds, value and gradients, on 2 cores, of XLA's best form and of
these kernels:

  depthwise (B, H = W, C, k, stride) = (16, 64, 32, 3, 1)    8.2   1.6
                                       (16, 64, 96, 3, 2)   15.8   5.5
                                       (16, 16, 240, 5, 1)   7.7   1.8
  BatchNorm and swish (16, 64, 96)                          11.8  10.3
                      (16, 8, 672)                           1.23  0.94

The kernels serve float32 on a single CPU device. Other operands, and a machine without a C++ compiler, use
the plain forms, which are the reference of the kernels. The compiler is `c++`, or the compiler that the
environment variable CXX names. FAIRKD_NATIVE=0 turns the kernels off. Compiled kernels are kept in the user's
cache folder, a file for each processor and compiler.
"""

import atexit
import ctypes
import functools
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from absl import logging

from fairkd_jax.files import get_cache_folder, make_private_folder
from fairkd_jax.leftovers import make_mark, remove_abandoned
from fairkd_jax.ops.platform import get_platform

KERNEL_SIZES = (3, 5)  # sides of the kernels of a depthwise convolution
_SOURCES = Path(__file__).parent
_HANDLERS = (
    "fairkd_batch_norm_forward",
    "fairkd_batch_norm_backward",
    "fairkd_depthwise_forward",
    "fairkd_depthwise_backward",
)
# No flag that reorders sums, or that assumes NaN and infinity never occur: a divergence must stay visible.
_FLAGS = (
    *("-std=c++17", "-O3", "-march=native", "-fPIC", "-shared", "-pthread"),
    *("-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros"),
)
# Runs a command, and ends its group of processes when the standard input ends.
_END_WITH_PARENT = """
exec 3<&0
"$@" </dev/null 3<&- & command=$!
(read -r _ <&3; kill -KILL 0) >/dev/null 2>&1 & watch=$!
wait "$command"; code=$?
kill -KILL "$watch"
exit "$code"
"""
_WIDE = ("-mprefer-vector-width=512",) if os.uname().machine == "x86_64" else ()


def can_serve(*arrays: jax.Array) -> bool:
    """Tells whether the kernels serve operands here: float32, a single CPU device, and a compiler was found.

    Args:
      *arrays: Operands, or their shapes and dtypes.

    Returns:
      Whether `call_kernel` can be used.
    """
    return (
        all(array.dtype == jnp.float32 for array in arrays)
        and get_platform() == jax.default_backend() == "cpu"
        and jax.device_count() == 1  # XLA cannot split a kernel between devices
        and is_available()
    )


@functools.cache
def is_available() -> bool:
    """Compiles the kernels if necessary, loads and registers them, and tells whether they can be used.

    If they cannot be used, the first call logs a line with the reason.
    """
    if os.environ.get("FAIRKD_NATIVE") == "0":
        return False
    try:
        library = ctypes.CDLL(str(_compile_kernels()))
        handlers = {name: jax.ffi.pycapsule(getattr(library, name)) for name in _HANDLERS}
    except (OSError, AttributeError, subprocess.CalledProcessError) as error:
        reason = str(error)
        if isinstance(error, subprocess.CalledProcessError):
            reason = error.stderr.strip() or f"{error.cmd[0]} failed"
        logging.warning(
            "Training on this CPU is slower, without the kernels in C++: %s (the kernels need a C++ compiler,"
            " c++ or the compiler that CXX names; FAIRKD_NATIVE=0 hides this line)",
            " ".join(reason.split())[:300],
        )
        return False
    for name, handler in handlers.items():
        jax.ffi.register_ffi_target(name, handler, platform="cpu")
    return True


def call_kernel(name: str, results: Any, *arrays: jax.Array, **attributes: Any) -> Any:
    """Calls a kernel, which has no derivative; under `vmap` all operands get the new leading axis.

    Args:
      name: Name of a handler, without `fairkd_`.
      results: Shapes and dtypes of the results, such as `jax.eval_shape` returns.
      *arrays: Operands, float32.
      **attributes: Attributes of the kernel, numpy scalars.

    Returns:
      The results.

    Raises:
      ValueError: There are no kernels here, or none for these operands.
    """
    if not is_available():
        raise ValueError(
            "implementation='native' needs kernels in C++, which could not be made here; use None"
        )
    if any(array.dtype != jnp.float32 for array in arrays):
        raise ValueError(
            f"implementation='native' takes float32, not {[str(a.dtype) for a in arrays]}; use None"
        )
    return jax.ffi.ffi_call(f"fairkd_{name}", results, vmap_method="broadcast_all")(*arrays, **attributes)


def _compile_kernels() -> Path:
    """Returns the library for this processor, compiler and version of jaxlib; compiles an absent library."""
    compiler = shlex.split(os.environ.get("CXX", "c++")) or ["c++"]
    program = shutil.which(compiler[0])
    if program is None:
        raise FileNotFoundError(f"there is no compiler {compiler[0]}")
    sources = sorted(_SOURCES.glob("*.cc"))
    command = [*compiler, *_FLAGS, *_WIDE, f"-isystem{jax.ffi.include_dir()}", *map(str, sources)]
    about = Path(program).resolve().stat()
    machine = (jax.lib.__version__, _describe_processor(), str(about.st_size), str(about.st_mtime_ns))
    content = hashlib.sha256("\n".join((*command, *machine)).encode())
    for source in (*sources, *sorted(_SOURCES.glob("*.h"))):
        content.update(source.read_bytes())
    key, folder = content.hexdigest()[:16], _find_private_folder()
    for path in folder.glob(f"{key}-*.so"):
        if path.name == _name_library(key, path):  # another name means that the file was damaged
            return path
    remove_abandoned(folder.glob("tmp*"))
    with tempfile.TemporaryDirectory(dir=folder, prefix=f"tmp-{make_mark()}-") as name:
        made = Path(name) / "made.so"
        _run_compiler([*command, "-o", str(made)], name)
        return made.replace(folder / _name_library(key, made))


def _run_compiler(command: list[str], folder: str) -> None:
    """Runs the compiler; no process of it outlives this one, however this one ends.

    Args:
      command: Compiler and its arguments.
      folder: Folder for the compiler's temporary files.

    Raises:
      CalledProcessError: The compiler failed.
    """
    with subprocess.Popen(
        ["sh", "-c", _END_WITH_PARENT, "sh", *command],
        stdin=subprocess.PIPE,  # it ends when this process does
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, "TMPDIR": folder},
        text=True,
        errors="replace",
    ) as process:
        assert process.stderr
        said = process.stderr.read()
        code = process.wait()  # before the standard input is closed
    if code:
        raise subprocess.CalledProcessError(code, command, stderr=said)


def _name_library(key: str, path: Path) -> str:
    """Makes the file name of a library: its key, and a hash of its content."""
    return f"{key}-{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}.so"


def _find_private_folder() -> Path:
    """Returns a cache folder that no other user can write to; else a temporary folder for this run."""
    folder = get_cache_folder() / "native"
    if make_private_folder(folder):
        return folder
    temporary = tempfile.mkdtemp(prefix="fairkd-native-")
    atexit.register(shutil.rmtree, temporary, ignore_errors=True)
    return Path(temporary)


def _describe_processor() -> str:
    """Describes the processor, as machines with different processors may share a home folder."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return os.uname().version
    kinds = ("flags", "Features", "model name", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(kinds)}))
