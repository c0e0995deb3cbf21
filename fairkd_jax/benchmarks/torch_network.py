"""The networks of student and teacher in PyTorch, for torch_peer.py.

The module runs in another environment: it needs torch, uses timm if timm is installed, and imports nothing of
fairkd_jax.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

try:
    import timm
except (ImportError, RuntimeError):  # RuntimeError: timm was made for another version of PyTorch
    timm = None


class _SamePaddingConv(nn.Conv2d):
    """A convolution with TensorFlow's padding."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        pads = []
        for axis in (3, 2):
            size, kernel, stride = input.shape[axis], self.kernel_size[axis - 2], self.stride[axis - 2]
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        return F.conv2d(F.pad(input, pads), self.weight, self.bias, self.stride, 0, 1, self.groups)


class _SqueezeExcitation(nn.Module):
    """The squeeze-and-excitation gate of a block; its layers have timm's names."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.conv_reduce = nn.Conv2d(channels, squeezed, 1)
        self.conv_expand = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = x.mean((2, 3), keepdim=True)
        return x * torch.sigmoid(self.conv_expand(F.silu(self.conv_reduce(gate))))


class _Block(nn.Module):
    """An inverted residual block; its layers have timm's names."""

    def __init__(
        self, table: dict[str, Any], stage: dict[str, int], channels: int, stride: int, drop: float
    ) -> None:
        super().__init__()
        wide, out = channels * stage["expand"], stage["filters"]
        self.drop, self.residual = drop, stride == 1 and channels == out
        convs = [
            _make_conv(table, wide, wide, stage["kernel"], stride, groups=wide),
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
            self.add_module(f"bn{number}", _make_norm(table, conv.out_channels))
        self.names = names
        self.se = _SqueezeExcitation(wide, max(1, channels // 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inputs = x
        *before, last = self.names
        for number, name in enumerate(before, start=1):
            x = F.silu(getattr(self, f"bn{number}")(getattr(self, name)(x)))
        x = getattr(self, f"bn{len(self.names)}")(getattr(self, last)(self.se(x)))
        if not self.residual:
            return x
        if self.training and self.drop:
            keep = torch.empty(len(x), 1, 1, 1, device=x.device).bernoulli_(1 - self.drop) / (1 - self.drop)
            x = x * keep.to(x.dtype)
        return x + inputs


def _make_conv(
    table: dict[str, Any], inputs: int, outputs: int, kernel: int, stride: int, groups: int = 1
) -> nn.Conv2d:
    if table["padding"] == "SAME":
        return _SamePaddingConv(inputs, outputs, kernel, stride, groups=groups, bias=False)
    return nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False)


def _make_norm(table: dict[str, Any], channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=table["bn_epsilon"], momentum=1 - table["bn_momentum"])


class EfficientNet(nn.Module):
    """The network of a table of stages, which returns logits and embedding."""

    def __init__(self, table: dict[str, Any], num_classes: int) -> None:
        """Makes the layers, with timm's names.

        Args:
          table: Result of `dataclasses.asdict` for an `Architecture`.
          num_classes: Width of the logits.
        """
        super().__init__()
        self.conv_stem = _make_conv(table, 3, table["stem"], 3, 2)
        self.bn1 = _make_norm(table, table["stem"])
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
        self.bn2 = _make_norm(table, table["head"])
        self.dropout = nn.Dropout(table["dropout_rate"])
        self.classifier = nn.Linear(table["head"], num_classes)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Runs the network.

        Args:
          x: Normalized images, float [B, 3, H, W].

        Returns:
          Logits [B, C] and embedding, float32 [B, D].
        """
        x = F.silu(self.bn1(self.conv_stem(x)))
        x = F.silu(self.bn2(self.conv_head(self.blocks(x))))
        embedding = x.mean((2, 3)).float()
        return self.classifier(self.dropout(embedding)), embedding


class TimmNetwork(nn.Module):
    """The network of the same name from timm, which returns logits and embedding."""

    def __init__(self, table: dict[str, Any], name: str, num_classes: int) -> None:
        """Creates timm's network.

        Args:
          table: Result of `dataclasses.asdict` for an `Architecture`; only the rates of dropout are read.
          name: Name of the model.
          num_classes: Width of the logits.
        """
        super().__init__()
        rates = {"drop_rate": table["dropout_rate"], "drop_path_rate": table["stochastic_depth_rate"]}
        self.network = timm.create_model(name, num_classes=num_classes, **rates)

    def load_state_dict(self, state: Any, strict: bool = True, assign: bool = False) -> Any:
        """Loads a state whose keys are those of timm's network."""
        return self.network.load_state_dict(state, strict, assign)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Runs the network.

        Args:
          x: Normalized images, float [B, 3, H, W].

        Returns:
          Logits [B, C] and embedding, float32 [B, D].
        """
        network = self.network
        embedding = network.global_pool(network.forward_features(x)).float()
        dropped = F.dropout(embedding, network.drop_rate, self.training)
        return network.classifier(dropped), embedding


def make_network(table: dict[str, Any], name: str, num_classes: int) -> EfficientNet | TimmNetwork:
    """Creates timm's network if timm is installed and has the name, else an `EfficientNet`.

    Args:
      table: Result of `dataclasses.asdict` for an `Architecture`.
      name: Name of the model.
      num_classes: Width of the logits.

    Returns:
      The network with random weights.
    """
    if timm is not None and timm.is_model(name):
        return TimmNetwork(table, name, num_classes)
    return EfficientNet(table, num_classes)


def describe_network(network: EfficientNet | TimmNetwork) -> str:
    """Returns a phrase about the origin of a network."""
    if isinstance(network, TimmNetwork):
        return f"timm {timm.__version__}"
    return "a network of our own"
