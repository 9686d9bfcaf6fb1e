import pytest

from gasmcast.datasets import read_annotation_list, write_rendered_dataset


@pytest.fixture(autouse=True)
def small_pieces(one_thread):
    """These models are too small for two threads, which would wait for each other."""


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    """A few rendered clips on disk: train and test lists of two classes."""
    root = tmp_path_factory.mktemp("clips")
    write_rendered_dataset(
        root,
        clips_per_class={"train": 4, "test": 2},
        motions=("lift", "drop"),
        appearances=("striped",),
        num_frames=8,
        size=32,
    )
    return {
        split: read_annotation_list(root / f"{split}.csv", classes=root / "labels.json")
        for split in ("train", "test")
    }
