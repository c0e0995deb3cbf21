"""Chooses the resources of each run of a sweep, and the environment variables that a run gets."""

from collections.abc import Mapping, Sequence

from fairkd_jax.errors import UsageError

# Variables of the sweep's environment that a run may need.
_PREFIXES = ("FAIRKD_", "JAX_", "XLA_", "LIBTPU_", "NCCL_")
_NAMES = ("XDG_CACHE_HOME", "CXX", "NPROC")


def parse_resources(texts: Sequence[str]) -> dict[str, float]:
    """Parses the `NAME=NUMBER` texts of --resources.

    Args:
      texts: One text for each resource.

    Returns:
      Number by name of the resource.

    Raises:
      UsageError: A text does not have this form.
    """
    try:
        pairs = [text.partition("=") for text in texts]
        return {name: float(number) for name, _, number in pairs}
    except ValueError:
        raise UsageError(
            f"--resources={','.join(texts)} is not NAME=NUMBER,NAME=NUMBER,...; write such as TPU=4"
        ) from None


def choose_resources(
    machines: Sequence[Mapping[str, float]], cpus: int, gpus: float | None, resources: Mapping[str, float]
) -> dict[str, float]:
    """Chooses the resources of each run.

    Args:
      machines: Number by name of the resource, for each machine.
      cpus: CPU cores of a run; 0 takes all cores of the smallest machine, or 1 core beside an accelerator.
      gpus: GPUs of a run; None takes 1 where a machine has a GPU.
      resources: Number by name, for other resources of a run.

    Returns:
      Number by name of the resource, with CPU and GPU.

    Raises:
      UsageError: No machine has the resources, or the machines have TPUs and `resources` names no TPU.
    """
    largest = {name: max(m.get(name, 0.0) for m in machines) for name in {key for m in machines for key in m}}
    if largest.get("TPU") and "TPU" not in resources:
        raise UsageError(
            "the machines have TPUs; give the number of TPUs for each run,"
            f" such as --resources TPU={largest['TPU']:g}"
        )
    gpu = float(bool(largest.get("GPU"))) if gpus is None else gpus
    uses_accelerator = gpu > 0 or any(resources.values())
    smallest = min((m["CPU"] for m in machines if m.get("CPU")), default=1.0)
    chosen = {"CPU": cpus or (1.0 if uses_accelerator else smallest), "GPU": gpu, **resources}
    if not any(all(m.get(name, 0.0) >= n for name, n in chosen.items()) for m in machines):
        wanted = ", ".join(f"{name} {n:g}" for name, n in chosen.items() if n)
        available = "; ".join(sorted({_describe_machine(m) for m in machines}))
        raise UsageError(
            f"no machine has the resources of a run ({wanted}); the machines have {available};"
            " lower --cpus, --gpus or --resources"
        )
    return chosen


def _describe_machine(machine: Mapping[str, float]) -> str:
    names = [name for name in machine if ":" not in name and "memory" not in name]
    return ", ".join(f"{name} {machine[name]:g}" for name in sorted(names)) or "nothing"


def select_environment(resources: Mapping[str, float], environment: Mapping[str, str]) -> dict[str, str]:
    """Selects the variables that a run gets in addition to the variables of its machine.

    Args:
      resources: Number by name, for the resources of the run.
      environment: Environment that the sweep was started in.

    Returns:
      Text by name of the variable.
    """
    selected = {k: text for k, text in environment.items() if k.startswith(_PREFIXES) or k in _NAMES}
    if 0.0 < resources["GPU"] < 1.0:  # by default XLA takes three quarters of the GPU's memory
        selected.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", f"{0.9 * resources['GPU']:.3f}")
    elif not resources["GPU"]:
        selected.setdefault("NPROC", f"{max(1, int(resources['CPU']))}")  # number of XLA's threads on a CPU
    return selected
