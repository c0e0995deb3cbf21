"""Jobs as tasks of Ray: on this machine, or on the cluster that RAY_ADDRESS names."""

import os
import secrets
import socket
from collections.abc import Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager, ExitStack, redirect_stdout, suppress
from pathlib import Path
from typing import Any

from fairkd_jax.errors import UsageError
from fairkd_jax.sweep.resources import asked_for
from fairkd_jax.sweep.tasks import Job, Outcome, run_job

_LOST = 255  # of a task whose machine or worker is gone, as an exit code
_STORE = 10**8  # bytes of Ray's object store, which is not used
_TOKENS = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}
_LOCAL = "local"
_REACH = 5.0  # seconds
_CURRENT = "ray_current_cluster"
_ADVICE = (
    "start the sweep on a machine of the cluster (after `ray start --address=HEAD:PORT` there), with the same"
    " Ray and Python; where the head has a token in ~/.ray/auth_token, each machine needs that file, this"
    " one too, and RAY_AUTH_MODE=token for `ray start`"
)
_LOCAL_ADVICE = "look into /tmp/ray/session_latest/logs"


def prepare(environment: MutableMapping[str, str]) -> None:
    """Sets what Ray reads when it is imported, where the user has not.

    A cluster of our own gets a token of its own. By itself Ray would leave one in ~/.ray/auth_token, for
    which every cluster that is started later asks; but its drivers look for the token only in the mode
    "token", which does no harm where a cluster asks for none.
    """
    environment.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if "RAY_AUTH_MODE" in environment:
        return
    if not named_address(environment):
        environment["RAY_AUTH_MODE"], environment["RAY_AUTH_TOKEN"] = "token", secrets.token_hex(32)
    elif environment.keys() & _TOKENS or Path("~/.ray/auth_token").expanduser().exists():
        environment["RAY_AUTH_MODE"] = "token"


def named_address(environment: Mapping[str, str]) -> str:
    """The cluster that the user names; empty: one on this machine alone."""
    address = environment.get("RAY_ADDRESS", "")
    return "" if address == _LOCAL else address


def require_ray() -> Any:
    """Ray's core.

    Raises:
      UsageError: it is not installed.
    """
    prepare(os.environ)
    try:
        import ray
    except ImportError as error:
        raise UsageError(
            f"a sweep needs the extra `sweep` ({error}); start the command with"
            " `python3 scripts/with_env.py --extra sweep`"
        ) from error
    return ray


class RayLauncher(AbstractContextManager["RayLauncher"]):
    """Runs jobs as Ray tasks, each with the resources that it asks for."""

    def __init__(self, *, cpus: int, gpus: float | None, resources: Mapping[str, float]) -> None:
        """Joins the cluster of RAY_ADDRESS, or starts one on this machine.

        Args:
          cpus: for each run; 0: all of the smallest machine, or 1 for a run that has an accelerator.
          gpus: for each run; None: 1 where the machines have some.
          resources: other resources of Ray for each run.

        Raises:
          UsageError: Ray is not installed, the cluster cannot be joined, or its machines lack what is asked.
        """
        self._ray = require_ray()
        with ExitStack() as stack:
            connect(self._ray, named_address(os.environ))
            stack.callback(self._ray.shutdown)
            machines = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
            self.asked = asked_for(machines, cpus, gpus, resources)
            # A machine that is lost has its last words, a page of them, printed there.
            stack.enter_context(redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
            self._stack = stack.pop_all()
        # A process for each task: what it may have left ends with it. Retries are the schedule's.
        self._task = self._ray.remote(
            max_retries=0,
            max_calls=1,
            num_cpus=self.asked["CPU"],
            num_gpus=self.asked["GPU"],
            resources={name: n for name, n in self.asked.items() if name not in ("CPU", "GPU")},
        )(run_job)

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def start(self, job: Job) -> Any:
        """Hands a job to Ray, which starts it as soon as a machine has room for it."""
        return self._task.options(name=job.name).remote(job)

    def finished(self, handles: Sequence[Any], seconds: float) -> list[tuple[Any, Outcome]]:
        """Those of some jobs that have ended; waits so long for them."""
        if not handles:
            return []
        ready, _ = self._ray.wait(list(handles), num_returns=len(handles), timeout=seconds)
        return [(handle, self._outcome(handle)) for handle in ready]

    def stop(self, handles: Sequence[Any], *, at_once: bool) -> None:
        """Asks jobs to save their state and end, or ends them at once."""
        for handle in handles:
            self._ray.cancel(handle, force=at_once)

    def _outcome(self, handle: Any) -> Outcome:
        try:
            return Outcome(*self._ray.get(handle))
        except self._ray.exceptions.RayTaskError as error:  # of our own function
            return Outcome(1, " ".join(str(error.cause or error).split()))
        except self._ray.exceptions.RayError as error:
            return Outcome(_LOST, " ".join(str(error).split()).partition(". ")[0])


def connect(ray: Any, address: str) -> None:
    """Joins a cluster, or starts one that is this machine's alone where the address is empty.

    Raises:
      UsageError: it does not work; says what to do.
    """
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address:
        check_reachable(address)
    else:  # not "auto", which a cluster that was killed would mislead
        address = _LOCAL
        options |= {"include_dashboard": False, "object_store_memory": _STORE}
    try:
        ray.init(address, **options)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UsageError(f"Ray: {reason}; {_ADVICE if address != _LOCAL else _LOCAL_ADVICE}") from error


def check_reachable(address: str) -> None:
    """Looks whether anybody listens at an address, for which Ray itself would take minutes.

    Raises:
      UsageError: nobody does.
    """
    named = f"RAY_ADDRESS={address}"
    if address == "auto":
        with suppress(OSError):
            file = Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp", "ray", _CURRENT)
            address = file.read_text(encoding="utf-8").strip()
            named += f" is {address}, as {file} says, which a head that was killed leaves behind (remove it)"
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if not (colon and port.isdigit()):
        return  # Ray has words for it
    try:
        socket.create_connection((host, int(port)), timeout=_REACH).close()
    except OSError as error:
        raise UsageError(
            f"{named}: nobody answers there ({error.strerror or error}); start a cluster with"
            " `ray start --head`, or unset RAY_ADDRESS to run on this machine alone"
        ) from None
