"""What a run of a sweep takes of its machine, and what it is told of the environment."""

from collections.abc import Mapping, Sequence

from fairkd_jax.errors import UsageError

# What a run may need to know of the environment that the sweep was started in.
_PREFIXES = ("FAIRKD_", "JAX_", "XLA_", "LIBTPU_", "NCCL_")
_NAMES = ("XDG_CACHE_HOME", "CXX", "NPROC")


def parse_resources(given: Sequence[str]) -> dict[str, float]:
    """Reads `NAME=NUMBER` of --resources.

    Raises:
      UsageError: one is not of this form.
    """
    try:
        pairs = [text.partition("=") for text in given]
        return {name: float(number) for name, _, number in pairs}
    except ValueError:
        raise UsageError(f"--resources={','.join(given)} is not NAME=NUMBER,NAME=NUMBER,...") from None


def asked_for(
    machines: Sequence[Mapping[str, float]], cpus: int, gpus: float | None, resources: Mapping[str, float]
) -> dict[str, float]:
    """The resources of each run.

    Args:
      machines: of each, what it has.
      cpus: 0: all of the smallest machine, or 1 for a run that has an accelerator.
      gpus: None: 1 where the machines have some.
      resources: others.

    Raises:
      UsageError: no machine has as much, or they have TPUs and it was not said how many a run takes.
    """
    has = {name: max(m.get(name, 0.0) for m in machines) for name in {key for m in machines for key in m}}
    if has.get("TPU") and "TPU" not in resources:
        raise UsageError(
            f"the machines have TPUs; say how many each run takes, such as --resources TPU={has['TPU']:g}"
        )
    gpu = float(bool(has.get("GPU"))) if gpus is None else gpus
    accelerated = gpu > 0 or any(resources.values())
    smallest = min((m["CPU"] for m in machines if m.get("CPU")), default=1.0)
    asked = {"CPU": cpus or (1.0 if accelerated else smallest), "GPU": gpu, **resources}
    if not any(all(m.get(name, 0.0) >= n for name, n in asked.items()) for m in machines):
        wanted = ", ".join(f"{name} {n:g}" for name, n in asked.items() if n)
        there = "; ".join(sorted({_described(m) for m in machines}))
        raise UsageError(f"no machine has what each run asks for ({wanted}); they have {there}")
    return asked


def _described(machine: Mapping[str, float]) -> str:
    names = [name for name in machine if ":" not in name and "memory" not in name]
    return ", ".join(f"{name} {machine[name]:g}" for name in sorted(names)) or "nothing"


def environment_of(asked: Mapping[str, float], given: Mapping[str, str]) -> dict[str, str]:
    """The variables that a run gets beside those of its machine.

    Args:
      asked: its resources.
      given: the environment that the sweep was started in.
    """
    passed = {key: text for key, text in given.items() if key.startswith(_PREFIXES) or key in _NAMES}
    if 0.0 < asked["GPU"] < 1.0:  # XLA would take three quarters of it
        passed.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", f"{0.9 * asked['GPU']:.3f}")
    elif not asked["GPU"]:
        passed.setdefault("NPROC", f"{max(1, int(asked['CPU']))}")  # threads of XLA on a CPU
    return passed
