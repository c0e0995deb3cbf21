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

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from absl import logging

from fairkd_jax.files import cache_folder
from fairkd_jax.ops.platform import platform

KERNEL_SIZES = (3, 5)  # of a depthwise convolution
_SOURCES = Path(__file__).parent
_HANDLERS = (
    "fairkd_batch_norm_forward",
    "fairkd_batch_norm_backward",
    "fairkd_depthwise_forward",
    "fairkd_depthwise_backward",
)
# NaN and infinity stay what they are: a training that diverges has to be seen.
_FLAGS = (
    *("-std=c++17", "-O3", "-march=native", "-fPIC", "-shared", "-pthread"),
    *(
        "-fno-math-errno",
        "-fno-trapping-math",
        "-fno-signed-zeros",
        "-fassociative-math",
        "-freciprocal-math",
    ),
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
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", "") or str(error)
        logging.warning(
            "This CPU does without its own kernels, and a training takes about 1.5 times as long: %s"
            " (install a C++ compiler, or name one by CXX; FAIRKD_NATIVE=0 hides this line)",
            " ".join(reason.split())[:300],
        )
        return False
    for name in _HANDLERS:
        jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(getattr(library, name)), platform="cpu")
    return True


def call(name: str, results: Any, *arrays: jax.Array, **attributes: Any) -> Any:
    """Calls a kernel; under `vmap` all operands get the new leading axis.

    Args:
      name: of a handler, without `fairkd_`.
      results: shapes and dtypes, as of `jax.eval_shape`.
      *arrays: the operands.
      **attributes: numpy scalars.
    """
    return jax.ffi.ffi_call(f"fairkd_{name}", results, vmap_method="broadcast_all")(*arrays, **attributes)


def _compiled() -> Path:
    """The compiled kernels for this processor, compiler and version of jaxlib."""
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        raise FileNotFoundError(f"there is no compiler {os.environ.get('CXX', 'c++')}")
    sources = sorted(_SOURCES.glob("*.cc"))
    command = [compiler, *_FLAGS, *_WIDE, f"-isystem{jax.ffi.include_dir()}", *map(str, sources)]
    content = hashlib.sha256("\n".join((*command, jax.lib.__version__, _processor())).encode())
    for source in (*sources, *sorted(_SOURCES.glob("*.h"))):
        content.update(source.read_bytes())
    folder = cache_folder() / "native"
    path = folder / f"{content.hexdigest()[:16]}.so"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as name:
            made = Path(name) / path.name
            subprocess.run([*command, "-o", str(made)], check=True, capture_output=True, text=True)
            made.replace(path)
    return path


def _processor() -> str:
    """What tells processors apart: a home folder may be shared by machines that are not alike."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return os.uname().version
    kinds = ("flags", "Features", "model name", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(kinds)}))
