"""What is there: patch features of a clip from a frozen image model."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from .base import FeatureExtractor, WeightsNotFoundError, describe

__all__ = ["DINOv3SemanticExtractor"]

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
_POOLINGS = ("mean", "max")
_HUB_FILE = "model.safetensors"
_HUB_ANSWER_SECONDS = 10.0
_OWN_KWARGS = ("pretrained", "pretrained_cfg_overlay", "num_classes", "img_size")
# What would have timm open a file, which may be a pickle, also of a model that is loaded later.
_FILE_KWARGS = ("checkpoint_path", "pretrained_cfg", "cache_dir")


class DINOv3SemanticExtractor(FeatureExtractor):
    r"""Clip -> one feature per image patch, from a Vision Transformer of timm.

    .. math:: f_p = \text{pool}_{i = 1 \ldots n} \text{ViT}(\text{frame}_{t_i})_{k + p}, \qquad
        t_i = \left\lfloor \frac{(2 i - 1)\, T}{2 n} \right\rfloor

    n = ``num_frames`` frames are looked at, the centres of n equal bins of the clip. The k prefix
    tokens (class token and registers, five in DINOv3) are cut off; the tokens are those after the
    final norm. Patches come row by row, from the top left.

    Args:
        model_name: Any model of timm that gives patch tokens and takes ``img_size``. The default is
            DINOv3 ViT-B/16.
        pretrained: Load timm's weights, from the local cache of the Hugging Face hub or the hub.
        image_size: Height and width of the frames, in pixels; a multiple of the patch size.
        num_frames: Frames of the clip that are looked at. A clip must have at least as many.
        pooling: ``"mean"`` or ``"max"`` over these frames.
        model_kwargs: Further arguments of ``timm.create_model``, for instance ``{"depth": 3}``;
            nothing that names a file.
        backbone: A module to use instead; ``model_name`` and ``pretrained`` are not looked at then.
            It must have ``forward_features`` (frames [B, 3, H, W] -> tokens [B, k + P, D]),
            ``num_prefix_tokens`` (k), ``num_features`` or ``embed_dim`` (D), and the patch grid as
            ``patch_embed.grid_size`` or ``grid_size`` (rows, columns) or by way of
            ``patch_embed.patch_size`` (pixels). Mean and std are taken from its ``pretrained_cfg``
            where it has one, else they are ImageNet's.
        trainable: ``True`` trains the backbone jointly with the head; see
            :class:`FeatureExtractor`.

    Attributes:
        feature_dim: D, 768 by default.
        grid_size: Rows and columns of the patches, (14, 14) by default.
        image_size: As given.

    Shapes:
        - clip: float [B, T, 3, H, W], RGB in [0, 1], H = W = ``image_size``
        - output: [B, P, D] with P = rows * columns; [B, 196, 768] by default

    Raises:
        ValueError: If an argument is out of its range, or the model gives no patch tokens.
        WeightsNotFoundError: If pretrained weights cannot be had.

    Source: Siméoni et al., "DINOv3", 2025, https://arxiv.org/abs/2508.10104. The weights come under
    Meta's DINOv3 licence.

    Example:
        >>> import torch
        >>> semantic = DINOv3SemanticExtractor(
        ...     "vit_tiny_patch16_224",
        ...     pretrained=False,
        ...     image_size=64,
        ...     model_kwargs={"patch_size": 8, "embed_dim": 96, "depth": 3, "num_heads": 3},
        ... )
        >>> semantic(torch.rand(2, 16, 3, 64, 64)).shape, semantic.grid_size
        (torch.Size([2, 64, 96]), (8, 8))
    """

    def __init__(
        self,
        model_name: str = "vit_base_patch16_dinov3.lvd1689m",
        *,
        pretrained: bool = True,
        image_size: int = 224,
        num_frames: int = 4,
        pooling: str = "mean",
        model_kwargs: dict[str, Any] | None = None,
        backbone: nn.Module | None = None,
        trainable: bool = False,
    ) -> None:
        for name, value in (("image_size", image_size), ("num_frames", num_frames)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if pooling not in _POOLINGS:
            raise ValueError(f"pooling must be one of {', '.join(_POOLINGS)}, got {pooling!r}")
        config = None
        if backbone is None:
            model_kwargs = copy.deepcopy(model_kwargs or {})
            backbone = _build_timm_model(model_name, image_size, pretrained, model_kwargs)
            config = {
                "model_name": model_name,
                "pretrained": False,
                "image_size": image_size,
                "num_frames": num_frames,
                "pooling": pooling,
                "model_kwargs": model_kwargs,
                "trainable": trainable,
            }
        elif model_kwargs:
            raise ValueError(
                "model_kwargs are for timm.create_model and cannot go with a backbone, "
                f"got {model_kwargs}"
            )
        feature_dim, grid_size = _patch_layout(backbone, image_size)
        data_config = getattr(backbone, "pretrained_cfg", None) or {}
        super().__init__(
            backbone,
            feature_dim=feature_dim,
            image_size=image_size,
            mean=data_config.get("mean") or _IMAGENET_MEAN,
            std=data_config.get("std") or _IMAGENET_STD,
            min_frames=num_frames,
            trainable=trainable,
            config=config,
        )
        self.grid_size = grid_size
        self.num_frames = num_frames
        self.pooling = pooling

    def frame_indices(self, num_clip_frames: int) -> list[int]:
        """Which frames of a clip of so many are looked at."""
        return [
            (2 * i + 1) * num_clip_frames // (2 * self.num_frames) for i in range(self.num_frames)
        ]

    def extract(self, clip: Tensor) -> Tensor:
        """Compute [B, P, D] from a checked clip."""
        batch, num_clip_frames = clip.shape[:2]
        chosen = self.frame_indices(num_clip_frames)
        # Stacked views: indexing with a list would send its indices to the GPU and wait for them.
        frames = torch.stack([clip[:, t] for t in chosen], dim=1).flatten(0, 1)
        tokens = self.backbone.forward_features(self.normalize(frames))
        prefix, patches = self.backbone.num_prefix_tokens, self.grid_size[0] * self.grid_size[1]
        expected = (len(frames), prefix + patches, self.feature_dim)
        if not isinstance(tokens, Tensor) or tokens.shape != expected:
            raise ValueError(
                f"forward_features of the backbone must give {prefix} prefix and {patches} patch "
                f"tokens, {list(expected)}, got {describe(tokens)}"
            )
        tokens = tokens[:, prefix:].unflatten(0, (batch, self.num_frames))
        return tokens.mean(1) if self.pooling == "mean" else tokens.amax(1)


def _patch_layout(backbone: nn.Module, image_size: int) -> tuple[int, tuple[int, int]]:
    """Read the width of the tokens and the rows and columns of the patches off a backbone."""
    patch_embed = getattr(backbone, "patch_embed", None)
    feature_dim = getattr(backbone, "num_features", None) or getattr(backbone, "embed_dim", None)
    grid_size = getattr(patch_embed, "grid_size", None) or getattr(backbone, "grid_size", None)
    patch_size = getattr(patch_embed, "patch_size", None)
    if isinstance(patch_size, int):
        patch_size = (patch_size, patch_size)
    if grid_size is None and patch_size is not None:
        grid_size = (image_size // patch_size[0], image_size // patch_size[1])
    wanted = {
        "forward_features": getattr(backbone, "forward_features", None),
        "num_prefix_tokens": getattr(backbone, "num_prefix_tokens", None),
        "num_features or embed_dim": feature_dim,
        "patch_embed.grid_size or grid_size": grid_size,
    }
    absent = [name for name, value in wanted.items() if value is None]
    if absent:
        raise ValueError(
            "the backbone must be an image model that gives patch tokens, got "
            f"{type(backbone).__name__} without {', '.join(absent)}"
        )
    if patch_size is not None and any(image_size % size for size in patch_size):
        raise ValueError(
            f"image_size must be a multiple of the patch size {tuple(patch_size)}, got {image_size}"
        )
    rows, columns = grid_size
    return feature_dim, (rows, columns)


def _build_timm_model(
    model_name: str, image_size: int, pretrained: bool, model_kwargs: dict[str, Any]
) -> nn.Module:
    import timm

    if clash := [name for name in _OWN_KWARGS if name in model_kwargs]:
        raise ValueError(
            f"model_kwargs must not hold {', '.join(clash)}: the extractor sets them itself "
            "(pretrained, image_size)"
        )
    if files := [name for name in _FILE_KWARGS if name in model_kwargs]:
        raise ValueError(
            f"model_kwargs must not hold {', '.join(files)}: a saved model has to depend on no "
            "file beside it; load weights into a module and pass it as backbone"
        )
    if not timm.is_model(model_name.split(".")[0]):
        raise ValueError(
            f"model_name must be a model of timm's registry, got {model_name!r}; "
            "timm.list_models() names them, and any other module can be passed as backbone"
        )
    overlay = _pretrained_source(model_name) if pretrained else None
    try:
        return timm.create_model(
            model_name,
            pretrained=pretrained,
            pretrained_cfg_overlay=overlay,
            num_classes=0,
            img_size=image_size,
            **model_kwargs,
        )
    except (TypeError, AssertionError) as error:
        raise ValueError(
            f"timm cannot build {model_name!r} with img_size={image_size} and "
            f"model_kwargs={model_kwargs}: {error}; a model that gives patch tokens is needed"
        ) from error


def _pretrained_source(model_name: str) -> dict[str, Any] | None:
    """Find the weights of a timm model as a file, and say so in the terms of its configuration."""
    import timm

    data_config = timm.get_pretrained_cfg(model_name)
    if data_config is None or not data_config.has_weights:
        raise WeightsNotFoundError(
            f"timm has no pretrained weights for {model_name!r}; name a model out of "
            "timm.list_pretrained(), or go on with random weights: pretrained=False"
        )
    if not data_config.hf_hub_id:
        return None  # an address outside the hub, which timm fetches by itself
    repository, _, revision = data_config.hf_hub_id.partition("@")
    filename = data_config.hf_hub_filename or _HUB_FILE
    return {
        "file": _hub_file(repository, filename, revision or None, data_config.license),
        # "hf" marks the few hub files in a format of their own. A plain True speaks of a file that
        # the model has elsewhere, and older versions of timm would take this one for it.
        "custom_load": data_config.custom_load == "hf",
    }


def _hub_file(
    repository: str, filename: str, revision: str | None = None, licence: str | None = None
) -> str:
    """Give the path of a file of the Hugging Face hub: from the local cache, else downloaded.

    What is in the cache is taken as it is. timm would ask the hub first whether it is still the
    newest, and without a network each such question is repeated for most of a minute.
    """
    from huggingface_hub import constants, hf_hub_download, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.utils import get_session

    cached = try_to_load_from_cache(repository, filename, revision=revision)
    if isinstance(cached, str):
        return cached
    try:
        # One question without repetitions tells whether there is a hub to download from.
        get_session().head(hf_hub_url(repository, filename), timeout=_HUB_ANSWER_SECONDS)
        return hf_hub_download(repository, filename, revision=revision)
    except Exception as error:  # whatever it is, of whichever HTTP library: no weights came
        reason = str(error).strip().partition("\n")[0]
        terms = ""
        if licence:
            terms = (
                f" The weights come under the licence {licence!r}; if the hub asks for it, accept "
                f"it at {constants.ENDPOINT}/{repository} and log in with `hf auth login`."
            )
        raise WeightsNotFoundError(
            f"{filename!r} of the Hugging Face repository {repository!r} is not in the cache "
            f"{constants.HF_HUB_CACHE!r} and could not be downloaded "
            f"({type(error).__name__}: {reason}).\n"
            f"To get it, where there is a network: `hf download {repository} {filename}`; the "
            "cache can be copied to a machine without one (set HF_HUB_CACHE to where it lies, and "
            f"HF_HUB_OFFLINE=1 so that nobody asks the hub).{terms}\n"
            "To go on without, with random weights: pretrained=False"
        ) from error
