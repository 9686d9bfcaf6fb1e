"""Videos with labels: folders and lists to records, records to clips, and the rendered set."""

from gasmcast.datasets._stand_in import check_classes, mirrored_classes, read_videos
from gasmcast.datasets.annotations import (
    LabeledVideos,
    VideoRecord,
    read_annotation_list,
    scan_class_folders,
    split_videos,
)
from gasmcast.datasets.clips import ClipDataset, collate_clips
from gasmcast.datasets.rendered import (
    APPEARANCES,
    MOTIONS,
    OPPOSITE,
    RenderedClip,
    class_name,
    render_clip,
    write_rendered_dataset,
)
from gasmcast.datasets.seeds import derive_seed

__all__ = [
    "APPEARANCES",
    "MOTIONS",
    "OPPOSITE",
    "ClipDataset",
    "LabeledVideos",
    "RenderedClip",
    "VideoRecord",
    "check_classes",
    "class_name",
    "collate_clips",
    "derive_seed",
    "mirrored_classes",
    "read_annotation_list",
    "read_videos",
    "render_clip",
    "scan_class_folders",
    "split_videos",
    "write_rendered_dataset",
]
