"""Small stores whose content is known."""

import torch

from gasmcast.feature_store import FeatureStoreWriter, Manifest, Stream

STREAMS = {"semantic": Stream((4, 6)), "motion": Stream((2, 3))}


def manifest(clips=10, **options):
    settings = {
        "ids": tuple(f"folder/clip {number}" for number in range(clips)),
        "labels": tuple(number % 2 for number in range(clips)),
        "classes": ("lift", "drop"),
        "streams": STREAMS,
        "num_views": 2,
        "fingerprint": {"semantic": {"weights": "abc"}, "sampling": {"num_frames": 16}},
        "clips_per_shard": 3,
    }
    return Manifest(**{**settings, **options})


def record(number, plan):
    """What clip ``number`` holds: small whole numbers, exact in every type."""
    return {
        name: (
            torch.arange(plan.num_views * stream.numel).reshape(plan.num_views, *stream.shape)
            + 7 * number
            + 100 * place
        )
        .remainder(251)
        .float()
        for place, (name, stream) in enumerate(plan.streams.items())
    }


def write_shard(writer, shard, failed=()):
    numbers = writer.manifest.clips_of(shard)
    names = {writer.manifest.ids[number]: number for number in numbers}
    writer.write(
        shard,
        {
            name: record(number, writer.manifest)
            for name, number in names.items()
            if name not in failed
        },
        {name: f"{name}: it is empty" for name in names if name in failed},
    )


def fill(folder, plan, failed=()):
    writer = FeatureStoreWriter(folder, plan)
    for shard in writer.pending():
        write_shard(writer, shard, failed)
    return folder


def files(folder):
    """Every file below a folder, with its content."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
