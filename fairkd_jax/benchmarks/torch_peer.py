"""The same models and the same step in PyTorch, as a process of its own that needs torch and numpy alone.

    python torch_peer.py SETTING.json

reads a setting that `fairkd_jax.benchmarks.step` has written, checks its models against the outputs recorded
there, and then answers lines on its standard input, "PROGRAM STEPS", with seconds.
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

try:
    import timm
except (ImportError, RuntimeError):  # the latter: made for another PyTorch
    timm = None


class _SamePadding(nn.Conv2d):
    """A convolution with TensorFlow's padding."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        pads = []
        for axis in (3, 2):
            size, kernel, stride = input.shape[axis], self.kernel_size[axis - 2], self.stride[axis - 2]
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        return F.conv2d(F.pad(input, pads), self.weight, self.bias, self.stride, 0, 1, self.groups)


class _Gate(nn.Module):
    """Squeeze-and-excitation."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.conv_reduce, self.conv_expand = (
            nn.Conv2d(channels, squeezed, 1),
            nn.Conv2d(squeezed, channels, 1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = x.mean((2, 3), keepdim=True)
        return x * torch.sigmoid(self.conv_expand(F.silu(self.conv_reduce(gate))))


class _Block(nn.Module):
    """An inverted residual block; its parts have the names that timm gives them."""

    def __init__(
        self, table: dict[str, Any], stage: dict[str, int], channels: int, stride: int, drop: float
    ) -> None:
        super().__init__()
        wide, out = channels * stage["expand"], stage["filters"]
        self.drop, self.residual = drop, stride == 1 and channels == out
        convs = [
            _conv(table, wide, wide, stage["kernel"], stride, groups=wide),
            nn.Conv2d(wide, out, 1, bias=False),
        ]
        names = ["conv_dw", "conv_pwl"]
        if stage["expand"] != 1:
            convs.insert(0, nn.Conv2d(channels, wide, 1, bias=False))
            names.insert(0, "conv_pw")
        else:
            names[1] = "conv_pw"
        for number, (name, conv) in enumerate(zip(names, convs, strict=True), start=1):
            self.add_module(name, conv)
            self.add_module(f"bn{number}", _norm(table, conv.out_channels))
        self.names = names
        self.se = _Gate(wide, max(1, channels // 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inputs = x
        *before, last = self.names
        for number, name in enumerate(before, start=1):
            x = F.silu(getattr(self, f"bn{number}")(getattr(self, name)(x)))
        x = getattr(self, f"bn{len(self.names)}")(getattr(self, last)(self.se(x)))
        if not self.residual:
            return x
        if self.training and self.drop:
            kept = torch.empty(len(x), 1, 1, 1, device=x.device).bernoulli_(1 - self.drop) / (1 - self.drop)
            x = x * kept.to(x.dtype)
        return x + inputs


def _conv(
    table: dict[str, Any], inputs: int, outputs: int, kernel: int, stride: int, groups: int = 1
) -> nn.Conv2d:
    if table["padding"] == "SAME":
        return _SamePadding(inputs, outputs, kernel, stride, groups=groups, bias=False)
    return nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False)


def _norm(table: dict[str, Any], channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=table["bn_epsilon"], momentum=1 - table["bn_momentum"])


class EfficientNet(nn.Module):
    """The network of a table of stages; gives logits and embedding.

    Args:
      table: `dataclasses.asdict` of an `Architecture`.
      num_classes: width of the logits.
    """

    def __init__(self, table: dict[str, Any], num_classes: int) -> None:
        super().__init__()
        self.conv_stem = _conv(table, 3, table["stem"], 3, 2)
        self.bn1 = _norm(table, table["stem"])
        channels, done = table["stem"], 0
        total = sum(stage["blocks"] for stage in table["stages"])
        stages = []
        for stage in table["stages"]:
            blocks = []
            for number in range(stage["blocks"]):
                drop = table["stochastic_depth_rate"] * done / total
                blocks.append(_Block(table, stage, channels, 1 if number else stage["stride"], drop))
                channels, done = stage["filters"], done + 1
            stages.append(nn.Sequential(*blocks))
        self.blocks = nn.Sequential(*stages)
        self.conv_head = nn.Conv2d(channels, table["head"], 1, bias=False)
        self.bn2 = _norm(table, table["head"])
        self.dropout = nn.Dropout(table["dropout_rate"])
        self.classifier = nn.Linear(table["head"], num_classes)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalised images [B, 3, H, W] -> logits [B, C], embedding [B, D]."""
        x = F.silu(self.bn1(self.conv_stem(x)))
        x = F.silu(self.bn2(self.conv_head(self.blocks(x))))
        embedding = x.mean((2, 3)).float()
        return self.classifier(self.dropout(embedding)), embedding


class TimmNetwork(nn.Module):
    """timm's own network of the same name; gives what `EfficientNet` gives.

    Args:
      table: see `EfficientNet`.
      name: of the model.
      num_classes: width of the logits.
    """

    def __init__(self, table: dict[str, Any], name: str, num_classes: int) -> None:
        super().__init__()
        rates = {"drop_rate": table["dropout_rate"], "drop_path_rate": table["stochastic_depth_rate"]}
        self.network = timm.create_model(name, num_classes=num_classes, **rates)

    def load_state_dict(self, state: Any, strict: bool = True, assign: bool = False) -> Any:
        """Takes the state of the network itself."""
        return self.network.load_state_dict(state, strict, assign)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalised images [B, 3, H, W] -> logits [B, C], embedding [B, D]."""
        network = self.network
        embedding = network.global_pool(network.forward_features(x)).float()
        dropped = F.dropout(embedding, network.drop_rate, self.training)
        return network.classifier(dropped), embedding


def make_network(table: dict[str, Any], name: str, num_classes: int) -> EfficientNet | TimmNetwork:
    """timm's network where timm is installed and has one of this name, else ours."""
    if timm is not None and timm.is_model(name):
        return TimmNetwork(table, name, num_classes)
    return EfficientNet(table, num_classes)


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return -gradient


def _distances(x: torch.Tensor) -> torch.Tensor:
    squares = x.pow(2).sum(1)
    squared = (squares[:, None] + squares[None, :] - 2 * x @ x.t()).clamp(min=1e-12)
    distances = squared.sqrt() * (1 - torch.eye(len(x), device=x.device))
    return distances / distances[distances > 0].mean()


def _angles(x: torch.Tensor) -> torch.Tensor:
    directions = F.normalize(x[None] - x[:, None], dim=2)
    return torch.bmm(directions, directions.transpose(1, 2))


def relations_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """RKD, 25 times the distances' loss and 50 times the angles'."""
    with torch.no_grad():
        distances, angles = _distances(teacher), _angles(teacher)
    distance_loss = F.smooth_l1_loss(_distances(student), distances)
    return 25 * distance_loss + 50 * F.smooth_l1_loss(_angles(student), angles)


class Peer:
    """Models, optimizers and a batch; its methods are the programs that are timed."""

    def __init__(self, setting: dict[str, Any], mode: str) -> None:
        self.device = torch.device(setting["device"])
        self.half = setting["dtype"] == "bfloat16"
        self._names = setting["names"]
        arrays = np.load(setting["arrays"])
        self.student, self.teacher = (
            self._model(setting[name], setting["num_classes"], name, arrays)
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
        self._check(arrays)
        kernels: list[torch.Tensor] = []
        rest: list[torch.Tensor] = []
        for parameter in self.student.parameters():
            (kernels if parameter.ndim > 1 else rest).append(parameter)
        groups = [{"params": kernels, "weight_decay": 1e-4}, {"params": rest, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=1e-4, fused=True)
        self.adversary_optimizer = torch.optim.AdamW(self.adversary.parameters(), lr=1e-3, fused=True)
        self._losses: Callable[..., torch.Tensor] = self._forward_losses
        self._infer: Callable[..., Any] = self._forward
        if mode == "compiled":
            self._losses = torch.compile(self._forward_losses)
            self._infer = torch.compile(self._forward)

    def _model(
        self, table: dict[str, Any], num_classes: int, name: str, arrays: Any
    ) -> EfficientNet | TimmNetwork:
        model = make_network(table, self._names[name], num_classes)
        prefix = f"{name}/"
        state = {k[len(prefix) :]: torch.from_numpy(arrays[k]) for k in arrays.files if k.startswith(prefix)}
        missing, unexpected = model.load_state_dict(state, strict=False)
        assert all(k.endswith("num_batches_tracked") for k in missing), missing
        assert not unexpected, unexpected
        return model.to(self.device, memory_format=torch.channels_last).eval()

    def _normalised(self) -> torch.Tensor:
        images = (self.images.float() / 255 - self.mean) / self.std
        return images.contiguous(memory_format=torch.channels_last)

    def _check(self, arrays: Any) -> None:
        convolutions = torch.backends.cudnn
        given = convolutions.allow_tf32
        convolutions.allow_tf32 = False  # TF32 has 10 bits of mantissa
        try:
            self._compare(arrays)
        finally:
            convolutions.allow_tf32 = given

    def _compare(self, arrays: Any) -> None:
        with torch.no_grad():
            for name, model in (("student", self.student), ("teacher", self.teacher)):
                checked = self._normalised()[: len(arrays[f"expected/{name}/logits"])]
                for output, kind in zip(model(checked), ("logits", "embedding"), strict=True):
                    expected = arrays[f"expected/{name}/{kind}"]
                    error = np.abs(output.cpu().numpy() - expected).max() / np.abs(expected).max()
                    assert error < 1e-3, f"{name}'s {kind} differ by {error:g} of the largest value"

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.half)

    def _forward(self) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad(), self._autocast():
            return self.student(self._normalised())

    def _forward_losses(self, images: torch.Tensor) -> torch.Tensor:
        with self._autocast():
            with torch.no_grad():
                _, teacher = self.teacher(images)
            logits, embedding = self.student(images)
        logits = logits.float()
        one_hot = F.one_hot(self.label, self.num_classes).float()
        read = self.adversary(torch.cat([_Reverse.apply(embedding), one_hot], 1))
        loss = F.cross_entropy(logits, self.label) + F.cross_entropy(read, self.group)
        return loss + relations_loss(embedding, teacher)

    def forward(self) -> None:
        """The student's inference."""
        self.student.eval()
        self._infer()

    def step(self) -> None:
        """A whole update of student and adversary."""
        self.student.train()
        loss = self._losses(self._normalised())
        self.optimizer.zero_grad(set_to_none=True)
        self.adversary_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for model, optimizer in (
            (self.student, self.optimizer),
            (self.adversary, self.adversary_optimizer),
        ):
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()

    def time(self, program: str, steps: int) -> float:
        """Seconds of so many runs of a program."""
        run = getattr(self, program)
        self._wait()
        start = time.perf_counter()
        for _ in range(steps):
            run()
        self._wait()
        return time.perf_counter() - start

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def _requests() -> Iterator[tuple[str, int]]:
    for line in sys.stdin:
        program, steps = line.split()
        yield program, int(steps)


def main() -> None:
    """Checks the models, says which torch this is, and answers requests."""
    with open(sys.argv[1]) as stream:
        setting = json.load(stream)
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    peer = Peer(setting, setting["mode"])
    network = f"timm {timm.__version__}" if isinstance(peer.student, TimmNetwork) else "a network of our own"
    about = {"torch": torch.__version__, "network": network, "threads": torch.get_num_threads()}
    print(json.dumps(about), flush=True)
    for program, steps in _requests():
        print(peer.time(program, steps), flush=True)


if __name__ == "__main__":
    main()
