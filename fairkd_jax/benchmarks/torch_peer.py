"""The same models and the same step in PyTorch, as a program for another environment.

    python torch_peer.py SETTING.json

The environment needs only torch and numpy; timm is used if timm is installed. The program reads a setting
that `fairkd_jax.benchmarks.peer` has written, and checks its models against the outputs in the setting. Then
the program reads lines "PROGRAM STEPS" from standard input and answers each line with seconds.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

if __package__:  # started by `python -m`
    from fairkd_jax.benchmarks import torch_network
else:  # started by its path: Python looks for modules in the folder of the program
    import torch_network  # type: ignore[no-redef]


class _GradientReversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return -gradient


def _compute_distances(x: torch.Tensor) -> torch.Tensor:
    squares = x.pow(2).sum(1)
    squared = (squares[:, None] + squares[None, :] - 2 * x @ x.t()).clamp(min=1e-12)
    distances = squared.sqrt() * (1 - torch.eye(len(x), device=x.device))
    return distances / distances[distances > 0].mean()


def _compute_angles(x: torch.Tensor) -> torch.Tensor:
    directions = F.normalize(x[None] - x[:, None], dim=2)
    return torch.bmm(directions, directions.transpose(1, 2))


def compute_rkd_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Computes the loss of RKD: 25 times the distance loss plus 50 times the angle loss.

    Args:
      student: Student embeddings, float32 [B, Ds].
      teacher: Teacher embeddings, float32 [B, Dt], which get no gradient.

    Returns:
      The loss, a scalar.
    """
    with torch.no_grad():
        distances, angles = _compute_distances(teacher), _compute_angles(teacher)
    distance_loss = F.smooth_l1_loss(_compute_distances(student), distances)
    return 25 * distance_loss + 50 * F.smooth_l1_loss(_compute_angles(student), angles)


class Peer:
    """Models, optimizers and a batch; the methods `forward` and `step` are the programs that are timed."""

    def __init__(self, setting: dict[str, Any], mode: str) -> None:
        """Makes the models and optimizers, and checks the models.

        Args:
          setting: The setting that `fairkd_jax.benchmarks.peer` has written.
          mode: "eager", or "compiled" for `torch.compile`.

        Raises:
          AssertionError: A model's outputs differ from the outputs in the setting.
        """
        self.device = torch.device(setting["device"])
        self.use_bfloat16 = setting["dtype"] == "bfloat16"
        self._names = setting["names"]
        arrays = np.load(setting["arrays"])
        self.student, self.teacher = (
            self._load_model(setting[name], setting["num_classes"], name, arrays)
            for name in ("student", "teacher")
        )
        self.adversary = nn.Sequential(
            nn.Linear(setting["student"]["head"] + setting["num_classes"], 128),
            nn.ReLU(),
            nn.Linear(128, 128),
            nn.ReLU(),
            nn.Linear(128, 2),
        ).to(self.device)
        self.num_classes = setting["num_classes"]
        self.images = torch.from_numpy(arrays["image"]).to(self.device).permute(0, 3, 1, 2)
        self.label, self.group = (
            torch.from_numpy(arrays[n]).long().to(self.device) for n in ("label", "group")
        )
        mean, std = (
            torch.tensor(values, device=self.device)[:, None, None] for values in setting["normalise"]
        )
        self.mean, self.std = mean, std
        self._check_models(arrays)
        kernels: list[torch.Tensor] = []
        rest: list[torch.Tensor] = []
        for parameter in self.student.parameters():
            (kernels if parameter.ndim > 1 else rest).append(parameter)
        groups = [{"params": kernels, "weight_decay": 1e-4}, {"params": rest, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=1e-4, fused=True)
        self.adversary_optimizer = torch.optim.AdamW(self.adversary.parameters(), lr=1e-3, fused=True)
        self._compute_loss: Callable[..., torch.Tensor] = self._compute_eager_loss
        self._infer: Callable[..., Any] = self._infer_eagerly
        if mode == "compiled":
            self._compute_loss = torch.compile(self._compute_eager_loss)
            self._infer = torch.compile(self._infer_eagerly)

    def _load_model(self, table: dict[str, Any], num_classes: int, name: str, arrays: Any) -> nn.Module:
        model = torch_network.make_network(table, self._names[name], num_classes)
        prefix = f"{name}/"
        state = {k[len(prefix) :]: torch.from_numpy(arrays[k]) for k in arrays.files if k.startswith(prefix)}
        missing, unexpected = model.load_state_dict(state, strict=False)
        assert all(k.endswith("num_batches_tracked") for k in missing), missing
        assert not unexpected, unexpected
        return model.to(self.device, memory_format=torch.channels_last).eval()

    def _normalize_images(self) -> torch.Tensor:
        images = (self.images.float() / 255 - self.mean) / self.std
        return images.contiguous(memory_format=torch.channels_last)

    def _check_models(self, arrays: Any) -> None:
        """Checks the models' outputs in float32."""
        cudnn = torch.backends.cudnn
        allow_tf32 = cudnn.allow_tf32
        cudnn.allow_tf32 = False  # TF32 has 10 bits of mantissa
        try:
            self._compare_outputs(arrays)
        finally:
            cudnn.allow_tf32 = allow_tf32

    def _compare_outputs(self, arrays: Any) -> None:
        with torch.no_grad():
            for name, model in (("student", self.student), ("teacher", self.teacher)):
                images = self._normalize_images()[: len(arrays[f"expected/{name}/logits"])]
                for output, kind in zip(model(images), ("logits", "embedding"), strict=True):
                    expected = arrays[f"expected/{name}/{kind}"]
                    error = np.abs(output.cpu().numpy() - expected).max() / np.abs(expected).max()
                    assert error < 1e-3, f"{name}'s {kind} differ by {error:g} of the largest value"

    def _make_autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.use_bfloat16)

    def _infer_eagerly(self) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad(), self._make_autocast():
            return self.student(self._normalize_images())

    def _compute_eager_loss(self, images: torch.Tensor) -> torch.Tensor:
        with self._make_autocast():
            with torch.no_grad():
                _, teacher = self.teacher(images)
            logits, embedding = self.student(images)
        logits = logits.float()
        one_hot = F.one_hot(self.label, self.num_classes).float()
        group_logits = self.adversary(torch.cat([_GradientReversal.apply(embedding), one_hot], 1))
        loss = F.cross_entropy(logits, self.label) + F.cross_entropy(group_logits, self.group)
        return loss + compute_rkd_loss(embedding, teacher)

    def forward(self) -> None:
        """Runs the student's inference."""
        self.student.eval()
        self._infer()

    def step(self) -> None:
        """Runs a whole update of student and adversary."""
        self.student.train()
        loss = self._compute_loss(self._normalize_images())
        self.optimizer.zero_grad(set_to_none=True)
        self.adversary_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for model, optimizer in (
            (self.student, self.optimizer),
            (self.adversary, self.adversary_optimizer),
        ):
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()

    def measure_seconds(self, program: str, steps: int) -> float:
        """Measures a number of runs of a program.

        Args:
          program: Name of the program: "forward" or "step".
          steps: Number of runs.

        Returns:
          Seconds of all runs.
        """
        run = getattr(self, program)
        self._synchronize()
        start = time.perf_counter()
        for _ in range(steps):
            run()
        self._synchronize()
        return time.perf_counter() - start

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def _read_requests() -> Iterator[tuple[str, int]]:
    for line in sys.stdin:
        program, steps = line.split()
        yield program, int(steps)


def main() -> None:
    """Checks the models, prints which PyTorch this is, and answers requests."""
    with open(sys.argv[1]) as stream:
        setting = json.load(stream)
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    peer = Peer(setting, setting["mode"])
    about = {
        "torch": torch.__version__,
        "network": torch_network.describe_network(peer.student),
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(about), flush=True)
    for program, steps in _read_requests():
        print(peer.measure_seconds(program, steps), flush=True)


if __name__ == "__main__":
    main()
