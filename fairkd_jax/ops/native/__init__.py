"""Kernels in C++ for a CPU, compiled for the processor at hand when they are first needed.

XLA's CPU backend makes many passes over memory where one would do, and hardly vectorises a depthwise
convolution's gradients. Milliseconds, value and gradients, on 2 cores, of XLA's best form and of these:

  depthwise (B, H = W, C, k, stride) = (16, 64, 32, 3, 1)    8.2   1.6
                                       (16, 64, 96, 3, 2)   15.8   5.5
                                       (16, 16, 240, 5, 1)   7.7   1.8
  BatchNorm and swish (16, 64, 96)                          11.8  10.3
                      (16, 8, 672)                           1.23  0.94

They serve float32 on a single CPU device; all else, and a machine without a C++ compiler, takes the plain
forms, which are their reference. The compiler is `c++`, or the one that CXX names; FAIRKD_NATIVE=0 does
without. What it makes is kept in the user's cache folder, for each processor and compiler.
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

from fairkd_jax.files import cache_folder, make_folder
from fairkd_jax.ops.platform import platform

KERNEL_SIZES = (3, 5)  # of a depthwise convolution
_SOURCES = Path(__file__).parent
_HANDLERS = (
    "fairkd_batch_norm_forward",
    "fairkd_batch_norm_backward",
    "fairkd_depthwise_forward",
    "fairkd_depthwise_backward",
)
# Nothing that would reorder sums, or take NaN and infinity for impossible: a divergence has to be seen.
_FLAGS = (
    *("-std=c++17", "-O3", "-march=native", "-fPIC", "-shared", "-pthread"),
    *("-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros"),
)
_WIDE = ("-mprefer-vector-width=512",) if os.uname().machine == "x86_64" else ()


def suits(*arrays: jax.Array) -> bool:
    """Whether the kernels serve these operands here: float32, one CPU device, and a compiler was found."""
    return (
        all(array.dtype == jnp.float32 for array in arrays)
        and platform() == jax.default_backend() == "cpu"
        and jax.device_count() == 1  # several are shared out by XLA, which cannot look inside a kernel
        and available()
    )


@functools.cache
def available() -> bool:
    """Compiles what is not compiled yet, loads it and registers it; False, after a line that says why not."""
    if os.environ.get("FAIRKD_NATIVE") == "0":
        return False
    try:
        library = ctypes.CDLL(str(_compiled()))
        handlers = {name: jax.ffi.pycapsule(getattr(library, name)) for name in _HANDLERS}
    except (OSError, AttributeError, subprocess.CalledProcessError) as error:
        reason = str(error)
        if isinstance(error, subprocess.CalledProcessError):
            reason = error.stderr.strip() or f"{error.cmd[0]} failed"
        logging.warning(
            "This CPU does without kernels of its own, and trains more slowly: %s (they need a C++ compiler,"
            " c++ or the one that CXX names; FAIRKD_NATIVE=0 hides this line)",
            " ".join(reason.split())[:300],
        )
        return False
    for name, handler in handlers.items():
        jax.ffi.register_ffi_target(name, handler, platform="cpu")
    return True


def call(name: str, results: Any, *arrays: jax.Array, **attributes: Any) -> Any:
    """Calls a kernel; under `vmap` all operands get the new leading axis. It has no derivative of its own.

    Args:
      name: of a handler, without `fairkd_`.
      results: shapes and dtypes, as of `jax.eval_shape`.
      *arrays: the operands, float32.
      **attributes: numpy scalars.

    Raises:
      ValueError: there are no kernels here, or not for these operands.
    """
    if not available():
        raise ValueError("implementation='native' needs kernels, and they could not be made here")
    if any(array.dtype != jnp.float32 for array in arrays):
        raise ValueError(f"implementation='native' takes float32, not {[str(a.dtype) for a in arrays]}")
    return jax.ffi.ffi_call(f"fairkd_{name}", results, vmap_method="broadcast_all")(*arrays, **attributes)


def _compiled() -> Path:
    """The compiled kernels for this processor, compiler and version of jaxlib."""
    compiler = shlex.split(os.environ.get("CXX", "c++")) or ["c++"]
    program = shutil.which(compiler[0])
    if program is None:
        raise FileNotFoundError(f"there is no compiler {compiler[0]}")
    sources = sorted(_SOURCES.glob("*.cc"))
    command = [*compiler, *_FLAGS, *_WIDE, f"-isystem{jax.ffi.include_dir()}", *map(str, sources)]
    about = Path(program).resolve().stat()
    machine = (jax.lib.__version__, _processor(), str(about.st_size), str(about.st_mtime_ns))
    content = hashlib.sha256("\n".join((*command, *machine)).encode())
    for source in (*sources, *sorted(_SOURCES.glob("*.h"))):
        content.update(source.read_bytes())
    key, folder = content.hexdigest()[:16], _private_folder()
    for path in folder.glob(f"{key}-*.so"):
        if path.name == _named(key, path):  # else it was damaged since
            return path
    with tempfile.TemporaryDirectory(dir=folder) as name:
        made = Path(name) / "made.so"
        subprocess.run(
            [*command, "-o", str(made)], check=True, capture_output=True, text=True, errors="replace"
        )
        return made.replace(folder / _named(key, made))


def _named(key: str, path: Path) -> str:
    """The name of a compiled file, which tells what should be in it."""
    return f"{key}-{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}.so"


def _private_folder() -> Path:
    """Where compiled kernels are kept: a folder that nobody else can put code into, else one for this run."""
    folder = cache_folder() / "native"
    if make_folder(folder, mode=0o700):
        about = folder.stat()
        if about.st_uid == os.geteuid() and not about.st_mode & 0o022:
            return folder
    alone = tempfile.mkdtemp(prefix="fairkd-native-")
    atexit.register(shutil.rmtree, alone, ignore_errors=True)
    return Path(alone)


def _processor() -> str:
    """What tells processors apart: a home folder may be shared by machines that are not alike."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return os.uname().version
    kinds = ("flags", "Features", "model name", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(kinds)}))
