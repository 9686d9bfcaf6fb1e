"""What the extractors share: the checks at the door, the normalisation, and being frozen."""

import copy
import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import xxhash
from torch import Tensor, nn

__all__ = ["FeatureExtractor", "WeightsNotFoundError"]

_NOT_OF_FEATURES = ("training", "trainable", "pretrained", "checkpoint", "allow_random_weights")


class WeightsNotFoundError(RuntimeError):
    """Pretrained weights were asked for and are not to be had.

    The message says which file is missing, where it comes from, and how to go on without it.
    """


class FeatureExtractor(nn.Module):
    """A backbone that turns clips into features, frozen unless it is said to be trainable.

    Frozen means three things: no parameter requires a gradient, the module stays in eval mode when
    a model around it is told to train (so dropout is off and BatchNorm statistics do not move), and
    ``forward`` records nothing for backward. A backbone that was passed in is frozen in place.

    A subclass writes :meth:`extract`; the rest is done here.

    Args:
        backbone: The network itself, kept as ``backbone``.
        feature_dim: Width D of the features.
        image_size: Height and width that the frames must have, in pixels.
        mean: Per-channel mean (R, G, B) that the backbone expects, for values in [0, 1].
        std: Per-channel standard deviation (R, G, B) that the backbone expects.
        min_frames: The fewest frames that a clip may have.
        trainable: ``True`` makes this an ordinary module.
        config: The keyword arguments that :meth:`config` gives, or ``None`` where a backbone was
            passed in and there are none.

    Shapes:
        - clip: float [B, T, 3, H, W], RGB in [0, 1]
        - output: [B, N, D], where N is P patches or S segments
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        *,
        feature_dim: int,
        image_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        min_frames: int = 1,
        trainable: bool = False,
        config: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.feature_dim = feature_dim
        self.image_size = image_size
        self.trainable = trainable
        self._min_frames = min_frames
        self._config = config
        # Not part of the weights: they follow from the choice of backbone.
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        if not trainable:
            self.requires_grad_(False)
            self.eval()

    def forward(self, clip: Tensor) -> Tensor:
        """Check the clip, then compute its features.

        Raises:
            ValueError: If ``clip`` is not a floating tensor [B, T, 3, H, W], has frames of another
                size than ``image_size``, or has too few of them. That the values lie in [0, 1] is
                not checked: reading them would make a GPU wait.
        """
        self._check_clip(clip)
        # A clip stored in half precision meets float32 weights here, and the other way round.
        clip = clip.to(self.mean.dtype)
        with torch.set_grad_enabled(self.trainable and torch.is_grad_enabled()):
            return self.extract(clip)

    def extract(self, clip: Tensor) -> Tensor:
        """Compute the features of a checked clip; each subclass has its own."""
        raise TypeError(f"{type(self).__name__} does not say how it extracts: extract(clip)")

    def normalize(self, frames: Tensor) -> Tensor:
        """Give ``(frames - mean) / std`` for frames [..., 3, H, W] in [0, 1]."""
        return (frames - self.mean) / self.std

    def train(self, mode: bool = True) -> "FeatureExtractor":
        """Set the mode; a frozen extractor stays in eval mode whatever it is told."""
        return super().train(mode and self.trainable)

    @property
    def describable(self) -> bool:
        """Whether :meth:`config` can describe this extractor, whose backbone was not passed in."""
        return self._config is not None

    def config(self) -> dict[str, Any]:
        """Give the keyword arguments that build this architecture again, without any weights.

        They hold nothing that JSON cannot, and building from them downloads and opens nothing.

        Raises:
            ValueError: If the backbone was passed in as a module, or an argument is not JSON-able.
        """
        name = type(self).__name__
        if self._config is None:
            raise ValueError(
                f"config() of {name} cannot describe a backbone that was passed in as a module, "
                f"got {type(self.backbone).__name__}; build that module again and pass it in"
            )
        try:
            json.dumps(self._config)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"config() of {name} must be JSON-able, got {self._config}: {error}"
            ) from error
        return copy.deepcopy(self._config)

    def fingerprint(self) -> dict[str, Any]:
        """Say what the features depend on, JSON-able: equal for equal features only.

        Its entries are the class of the extractor and of its backbone, its settings, and an xxh3
        checksum of all weights.
        """
        settings = {
            name: value
            for name, value in vars(self).items()
            if not name.startswith("_") and isinstance(value, bool | int | float | str | tuple)
        }
        settings |= self._config or {}
        # Where the weights came from and whether they are trained: not what they are.
        for name in _NOT_OF_FEATURES:
            settings.pop(name, None)
        for name in ("mean", "std"):
            settings[name] = getattr(self, name).flatten().tolist()
        return {
            "extractor": type(self).__name__,
            "backbone": type(self.backbone).__name__,
            "settings": settings,
            "weights": checksum(self.state_dict()),
        }

    def _check_clip(self, clip: Tensor) -> None:
        is_clip = isinstance(clip, Tensor) and clip.ndim == 5 and clip.shape[2] == 3
        if not is_clip or not clip.is_floating_point():
            raise ValueError(
                "clip must be float [B, T, 3, H, W] with values in [0, 1], got " + describe(clip)
            )
        if clip.shape[3:] != (self.image_size, self.image_size):
            raise ValueError(
                f"clip must have frames of {self.image_size} x {self.image_size} pixels "
                f"(image_size={self.image_size}), got {describe(clip)}"
            )
        if clip.shape[1] < self._min_frames:
            raise ValueError(
                f"clip must have at least {self._min_frames} frames for this extractor, "
                f"got {clip.shape[1]} in {describe(clip)}"
            )


def checksum(state: Mapping[str, Tensor]) -> str:
    """xxh3 of names, types, shapes and numbers of a state dict."""
    total = xxhash.xxh3_128()
    for name, tensor in sorted(state.items()):
        total.update(f"{name} {tensor.dtype} {list(tensor.shape)};".encode())
        total.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return total.hexdigest()


def describe(value: object) -> str:
    """Name what came, for an error message: dtype and shape of a tensor, else the type."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    return type(value).__name__
