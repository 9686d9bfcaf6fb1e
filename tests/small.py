"""The real model, small enough for a test."""

from gasmcast import TemporalCrossAttentionModel

IMAGE_SIZE = 32


def small_model(num_classes: int = 3, *, trainable: bool = True, **options):
    return TemporalCrossAttentionModel(
        num_classes=num_classes,
        semantic_extractor={
            "model_name": "vit_tiny_patch16_224",
            "pretrained": False,
            "image_size": IMAGE_SIZE,
            "num_frames": 2,
            "model_kwargs": {"patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2},
            "trainable": trainable,
        },
        motion_extractor={
            "width": 0.0625,
            "image_size": IMAGE_SIZE,
            "trainable": trainable,
            "allow_random_weights": True,
        },
        bottleneck_dim=16,
        num_heads=4,
        **options,
    )
