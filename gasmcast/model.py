"""The whole model: two extractors, GASM-CAST, a classifier."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal, Self

import torch
from huggingface_hub import PyTorchModelHubMixin, hf_hub_download
from huggingface_hub.constants import CONFIG_NAME, SAFETENSORS_SINGLE_FILE
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from gasmcast.extractors import DINOv3SemanticExtractor, I3DMotionExtractor
from gasmcast.nn import GASMCAST
from gasmcast.nn.gasm_cast import GASMCASTAttention, check_fusion
from gasmcast.positions import generate_spatial_positions, generate_temporal_positions

MODEL_CARD = """---
{{ card_data }}
---

A video action recognition model of gasmcast: `config.json`
says how it is built and names its classes, `model.safetensors` holds all its weights.

    from gasmcast import TemporalCrossAttentionModel
    model = TemporalCrossAttentionModel.from_pretrained("this folder or repository")
"""


class TemporalCrossAttentionModel(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="gasmcast",
    pipeline_tag="video-classification",
    model_card_template=MODEL_CARD,
):
    """Video in, action logits out.

    Frozen extractors tell what is there (patches) and how it moves (segments); GASM-CAST refines
    and fuses both streams; their means, side by side, are classified by a linear layer.

    Args:
        num_classes: Classes K; 174 is Something-Something V2.
        semantic_extractor: A module such as :class:`~gasmcast.DINOv3SemanticExtractor` with
            ``feature_dim``, ``grid_size`` and ``image_size``, or a mapping of that class's
            arguments, or None for its defaults (pretrained DINOv3 ViT-B/16 from the hub).
        motion_extractor: A module such as :class:`~gasmcast.I3DMotionExtractor` with
            ``feature_dim``, or a mapping of that class's arguments, or None for its defaults
            (I3D without a checkpoint).
        fusion: ``"bottleneck"``, ``"cross_attention"`` or ``"late"``: see
            :class:`~gasmcast.GASMCAST`.
        bottleneck_dim: Width of the bottleneck, where there is one.
        num_heads: Heads H of graph and cross-attention.
        similarity_threshold: Cosine similarity that connects two nodes of a graph.
        adjacency_window: Segments at most so far apart are adjacent.
        max_similar: At most so many edges a node receives through similarity alone.
        dropout: Probability of dropping a graph attention weight in training.
        drop_path: Probability of skipping a fusion layer for a clip in training.
        num_frames: Frames T a clip is sampled to; kept for whoever prepares clips.
        class_names: Names of the classes in the order of the logits; kept with the weights.

    Shapes:
        - **video_frames:** float [B, T, 3, H, W], RGB in [0, 1]
        - **output:** logits [B, K]; with ``return_attention`` also a
          :class:`~gasmcast.nn.GASMCASTAttention`

    Raises:
        ValueError: Arguments or input that do not fit; the message says what came.

    Example:
        A model small enough for a laptop, of the same parts:

        >>> import torch
        >>> model = TemporalCrossAttentionModel(
        ...     num_classes=4, num_heads=4, bottleneck_dim=32,
        ...     semantic_extractor=dict(
        ...         model_name="vit_tiny_patch16_224", pretrained=False, image_size=64,
        ...         num_frames=2, trainable=True,
        ...         model_kwargs=dict(patch_size=16, embed_dim=48, depth=1, num_heads=3),
        ...     ),
        ...     motion_extractor=dict(width=0.125, image_size=64, trainable=True),
        ... )
        >>> model(torch.rand(2, 16, 3, 64, 64)).shape
        torch.Size([2, 4])
    """

    def __init__(
        self,
        num_classes: int = 174,
        semantic_extractor: Any = None,
        motion_extractor: Any = None,
        *,
        fusion: Literal["bottleneck", "cross_attention", "late"] = "bottleneck",
        bottleneck_dim: int = 256,
        num_heads: int = 8,
        similarity_threshold: float = 0.8,
        adjacency_window: float = 2,
        max_similar: int | None = 16,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        num_frames: int = 16,
        class_names: Sequence[str] | None = None,
    ):
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        if class_names is not None and len(class_names) != num_classes:
            raise ValueError(
                f"class_names must name each of the {num_classes} classes, got {len(class_names)}"
            )
        if class_names is not None and len(set(class_names)) < len(class_names):
            raise ValueError(f"each class must have a name of its own, got {list(class_names)}")
        check_fusion(fusion)  # before anything is downloaded
        self.num_frames = num_frames
        self.class_names = None if class_names is None else list(class_names)
        self.semantic_extractor = _extractor(semantic_extractor, DINOv3SemanticExtractor)
        self.motion_extractor = _extractor(motion_extractor, I3DMotionExtractor)
        _check_extractors(self.semantic_extractor, self.motion_extractor, num_frames)
        self._head_config = {
            "fusion": fusion,
            "bottleneck_dim": bottleneck_dim,
            "num_heads": num_heads,
            "similarity_threshold": similarity_threshold,
            "adjacency_window": adjacency_window,
            "max_similar": max_similar,
            "dropout": dropout,
            "drop_path": drop_path,
        }
        sem_dim = self.semantic_extractor.feature_dim
        mot_dim = self.motion_extractor.feature_dim
        self.gasm_cast = GASMCAST(sem_dim, mot_dim, **self._head_config)
        self.classifier = nn.Linear(sem_dim + mot_dim, num_classes)

    @property
    def image_size(self) -> int:
        """Height and width, in pixels, of the clips the extractors take."""
        return self.semantic_extractor.image_size

    def forward(
        self, video_frames: Tensor, *, return_attention: bool = False
    ) -> Tensor | tuple[Tensor, GASMCASTAttention]:
        """Classify clips; see the class for shapes."""
        semantic = self.semantic_extractor(video_frames)
        motion = self.motion_extractor(video_frames)
        return self.forward_features(semantic, motion, return_attention=return_attention)

    def forward_features(
        self,
        semantic: Tensor,
        motion: Tensor,
        *,
        semantic_mask: Tensor | None = None,
        motion_mask: Tensor | None = None,
        return_attention: bool = False,
    ) -> Tensor | tuple[Tensor, GASMCASTAttention]:
        """Classify clips whose features are at hand already.

        Args:
            semantic: [B, P, D] of the semantic extractor, P its ``grid_size``.
            motion: [B, S, D] of the motion extractor.
            semantic_mask: [B, P], True where a patch exists; None: everywhere.
            motion_mask: [B, S], True where a segment exists; None: everywhere.
            return_attention: Also return every attention weight.

        Returns:
            Logits [B, K], and the :class:`~gasmcast.nn.GASMCASTAttention` if asked.
        """
        semantic, motion, *maps = self.fuse_features(
            semantic,
            motion,
            semantic_mask=semantic_mask,
            motion_mask=motion_mask,
            return_attention=return_attention,
            pooled=True,
        )
        logits = self.classifier(torch.cat([semantic, motion], dim=1))
        return (logits, *maps) if return_attention else logits

    def fuse_features(
        self,
        semantic: Tensor,
        motion: Tensor,
        *,
        semantic_mask: Tensor | None = None,
        motion_mask: Tensor | None = None,
        return_attention: bool = False,
        pooled: bool = False,
    ) -> tuple[Tensor, Tensor] | tuple[Tensor, Tensor, GASMCASTAttention]:
        """What :class:`~gasmcast.GASMCAST` makes of features, before the classifier.

        Args:
            semantic: As for :meth:`forward_features`, and so are the masks.
            motion: Likewise.
            semantic_mask: Likewise.
            motion_mask: Likewise.
            return_attention: Also return every attention weight.
            pooled: Return the means that the classifier takes, [B, D] and [B, D'].

        Returns:
            The tokens of both streams, [B, P, D] and [B, S, D'], and the
            :class:`~gasmcast.nn.GASMCASTAttention` if asked.

        Raises:
            ValueError: Shapes that do not fit; the message says what came.
        """
        rows, columns = self.semantic_extractor.grid_size
        sem_dim = self.semantic_extractor.feature_dim
        if semantic.dim() != 3 or semantic.shape[1:] != (rows * columns, sem_dim):
            raise ValueError(
                f"semantic features must be [B, {rows * columns}, {sem_dim}], one a patch of the "
                f"{rows} x {columns} grid, got {list(semantic.shape)}"
            )
        mot_dim = self.motion_extractor.feature_dim
        if motion.dim() != 3 or motion.size(-1) != mot_dim:
            raise ValueError(f"motion features must be [B, S, {mot_dim}], got {list(motion.shape)}")
        segments = motion.size(1)
        return self.gasm_cast(
            semantic,
            motion,
            generate_spatial_positions((rows, columns)),
            generate_temporal_positions(max(self.num_frames, segments), segments),
            semantic_mask=semantic_mask,
            motion_mask=motion_mask,
            return_attention=return_attention,
            pooled=pooled,
        )

    def fuse_for_inference(self) -> Self:
        """A frozen copy in ``eval()`` mode that needs fewer operations for the same logits.

        See :meth:`gasmcast.GASMCAST.fuse_for_inference`. It is a copy of the extractors too, and
        can be saved; what is loaded from that is not fused.
        """
        # The head is copied already: deepcopy takes this copy for it.
        copied = {id(self.gasm_cast): self.gasm_cast.fuse_for_inference()}
        return deepcopy(self, copied).eval().requires_grad_(False)

    def config(self) -> dict[str, Any]:
        """The arguments, JSON-able, that rebuild this model without any download.

        Raises:
            ValueError: An extractor is a module that JSON cannot describe.
        """
        return {
            "num_classes": self.classifier.out_features,
            "semantic_extractor": _describe(self.semantic_extractor),
            "motion_extractor": _describe(self.motion_extractor),
            **self._head_config,
            "num_frames": self.num_frames,
            "class_names": self.class_names,
        }

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        config: dict[str, Any] | None = None,
        model_card_kwargs: dict[str, Any] | None = None,
    ) -> None:
        """Write ``config.json`` and ``model.safetensors``, extractors included.

        The folder needs nothing else to be loaded: no hub, no network, no pickle. Extractors that
        were passed in as modules of one's own are described by null in the configuration and have
        to be passed to :meth:`from_pretrained` again. All files are written beside those that are
        there and then renamed over them one by one, so none is ever half written.

        Args:
            save_directory: Folder to write to; made if need be.
            config: Written instead of :meth:`config`.
            model_card_kwargs: Fields of the model card (``README.md``).
        """
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = folder / ".unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        super().save_pretrained(
            unfinished, config=config or self.config(), model_card_kwargs=model_card_kwargs
        )
        # safetensors lets only the owner read what it writes: let in who may read the rest.
        shutil.copymode(unfinished / CONFIG_NAME, unfinished / SAFETENSORS_SINGLE_FILE)
        for file in unfinished.iterdir():
            file.replace(folder / file.name)
        unfinished.rmdir()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> Self:
        """Load a model from a folder of :meth:`save_pretrained` or from the Hugging Face hub.

        Only JSON and safetensors are read. The model comes in ``eval()`` mode.

        Args:
            pretrained_model_name_or_path: A folder, or ``"user/name"`` on the hub.
            kwargs: Arguments of the class that replace saved ones, such as
                ``semantic_extractor=module``; and those of
                ``huggingface_hub.ModelHubMixin.from_pretrained``, such as ``revision``.

        Raises:
            FileNotFoundError: The folder lacks a file.
            ValueError: The configuration or the weights do not fit; the message says how.
        """
        folder = Path(pretrained_model_name_or_path)
        if folder.is_dir():
            for name in (CONFIG_NAME, SAFETENSORS_SINGLE_FILE):
                if not (folder / name).is_file():
                    raise FileNotFoundError(
                        f"{folder} holds no {name}: expected a folder written by save_pretrained"
                    )
            try:
                config = json.loads((folder / CONFIG_NAME).read_text())
            except ValueError as error:
                raise ValueError(f"{folder / CONFIG_NAME} is not JSON: {error}") from error
            if not isinstance(config, dict):
                raise ValueError(f"{folder / CONFIG_NAME} must hold an object, got {config!r}")
        elif not _is_hub_name(str(pretrained_model_name_or_path)):
            # Say so here instead of asking there, which takes long where there is no network.
            raise FileNotFoundError(
                f"{folder} is no folder: expected one written by save_pretrained, or user/name on "
                "the Hugging Face hub"
            )
        return super().from_pretrained(pretrained_model_name_or_path, **kwargs)

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        **model_kwargs: Any,
    ) -> Self:
        # The mixin's own way would fall back to a pickle and pass over keys that do not fit.
        for name in ("semantic_extractor", "motion_extractor"):
            if model_kwargs.get(name, "absent") is None:
                raise ValueError(
                    f"{model_id} was saved with a {name} of its own that the configuration cannot "
                    f"describe: pass it, from_pretrained(..., {name}=module)"
                )
        if Path(model_id).is_dir():
            weights = Path(model_id) / SAFETENSORS_SINGLE_FILE
        else:
            weights = hf_hub_download(
                model_id,
                SAFETENSORS_SINGLE_FILE,
                revision=revision,
                cache_dir=cache_dir,
                force_download=force_download,
                local_files_only=local_files_only,
                token=token,
            )
        model = cls(**model_kwargs)
        try:
            model.load_state_dict(load_file(weights))
        except (SafetensorError, RuntimeError) as error:
            raise ValueError(f"{weights} does not fit its configuration: {error}") from error
        return model.eval()


def _extractor(given: Any, default: type[nn.Module]) -> nn.Module:
    if isinstance(given, nn.Module):
        return given
    if given is not None and not isinstance(given, Mapping):
        raise ValueError(
            f"an extractor must be a module, a mapping of {default.__name__}'s arguments or None, "
            f"got {given!r}"
        )
    try:
        return default(**(given or {}))
    except TypeError as error:  # an argument that is not there: name it and its class
        raise ValueError(f"{default.__name__}: {error}") from error


def _check_extractors(semantic: nn.Module, motion: nn.Module, num_frames: int) -> None:
    """Say at once what would fail in the first forward pass."""
    for name, extractor, wanted in (
        ("semantic_extractor", semantic, ("feature_dim", "grid_size", "image_size")),
        ("motion_extractor", motion, ("feature_dim",)),
    ):
        missing = [attribute for attribute in wanted if not hasattr(extractor, attribute)]
        if missing:
            raise ValueError(
                f"{name} {type(extractor).__name__} lacks {', '.join(missing)}: a network of one's "
                "own goes into an extractor as its backbone, DINOv3SemanticExtractor(backbone=...) "
                "or I3DMotionExtractor(backbone=...)"
            )
    size = getattr(motion, "image_size", semantic.image_size)
    if size != semantic.image_size:
        raise ValueError(
            f"both extractors take the same clip: expected one image_size, got "
            f"{semantic.image_size} (semantic) and {size} (motion)"
        )
    least = getattr(semantic, "num_frames", 1)
    if num_frames < least:
        raise ValueError(f"num_frames must be at least the semantic {least}, got {num_frames}")


def _is_hub_name(name: str) -> bool:
    user, _, repository = name.partition("/")
    plain = re.fullmatch(r"[\w.-]+", user) and re.fullmatch(r"[\w.-]+", repository)
    # What begins like a folder at hand is meant as one.
    return bool(plain) and user not in (".", "..") and not Path(user).exists()


def _describe(extractor: nn.Module) -> dict[str, Any] | None:
    """What rebuilds an extractor, or None for one of somebody's own."""
    return extractor.config() if getattr(extractor, "describable", False) else None
