"""Videos with labels: folders and lists to records, records to clips, and the rendered sets."""

from gasmcast.datasets.annotations import LabeledVideos, VideoRecord, split_videos
from gasmcast.datasets.classes import check_classes, read_classes
from gasmcast.datasets.clips import ClipDataset, collate_clips
from gasmcast.datasets.folders import scan_class_folders
from gasmcast.datasets.hmdb51 import read_hmdb51
from gasmcast.datasets.interactions import (
    InteractionClip,
    interaction_name,
    opposite_interaction,
    render_interaction,
    render_interaction_masks,
    write_interactions,
)
from gasmcast.datasets.kinetics import read_kinetics
from gasmcast.datasets.lists import read_annotation_list
from gasmcast.datasets.mirroring import mirrored_classes
from gasmcast.datasets.rendered import (
    APPEARANCES,
    MOTIONS,
    OPPOSITE,
    RenderedClip,
    class_name,
    render_clip,
    render_object_mask,
    write_rendered_dataset,
)
from gasmcast.datasets.something_something import read_something_something
from gasmcast.datasets.sources import read_videos
from gasmcast.datasets.ucf101 import read_ucf101
from gasmcast.seeds import derive_seed

__all__ = [
    "APPEARANCES",
    "MOTIONS",
    "OPPOSITE",
    "ClipDataset",
    "InteractionClip",
    "LabeledVideos",
    "RenderedClip",
    "VideoRecord",
    "check_classes",
    "class_name",
    "collate_clips",
    "derive_seed",
    "interaction_name",
    "mirrored_classes",
    "opposite_interaction",
    "read_annotation_list",
    "read_classes",
    "read_hmdb51",
    "read_kinetics",
    "read_something_something",
    "read_ucf101",
    "read_videos",
    "render_clip",
    "render_interaction",
    "render_interaction_masks",
    "render_object_mask",
    "scan_class_folders",
    "split_videos",
    "write_interactions",
    "write_rendered_dataset",
]
