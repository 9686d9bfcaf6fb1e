"""Clips that nobody rendered, through the whole way."""

import pytest
import torch

from gasmcast import visualize_cross_attention_layers, visualize_graph_attention
from gasmcast.datasets import read_annotation_list, scan_class_folders, split_videos
from gasmcast.explanation import load_clip
from gasmcast.training import VideoDataModule, train_and_test
from small import IMAGE_SIZE, small_model


def test_fights_train_and_evaluate(video_samples, tmp_path):
    videos = scan_class_folders(video_samples / "fights")
    assert videos.classes == ("fight", "nofight")
    train, test = split_videos(videos, 0.25, seed=0)
    assert (len(train), len(test)) == (60, 20)
    torch.manual_seed(0)
    report = train_and_test(
        small_model(2, class_names=videos.classes),
        VideoDataModule(train, test, image_size=IMAGE_SIZE, batch_size=10, num_workers=2),
        tmp_path,
        epochs=1,
        trainer={"accelerator": "cpu", "enable_progress_bar": False, "limit_train_batches": 2},
    )
    assert report.num_videos == 20
    assert report.unreadable == ()
    assert report.confusion.sum(dim=1).tolist() == [10, 10]


@pytest.mark.parametrize("name", ["asl/book.mkv", "asl/yes.mkv", "odd/one_frame.mp4"])
def test_signs_are_predicted_and_drawn(name, video_samples, tmp_path):
    torch.manual_seed(0)
    model = small_model()
    clip = load_clip(model, video_samples / name)
    assert clip.shape == (16, 3, IMAGE_SIZE, IMAGE_SIZE)
    assert 0 <= float(clip.min()) < float(clip.max()) <= 1
    with torch.no_grad():
        assert torch.isfinite(model.eval()(clip.unsqueeze(0))).all()
    for draw in (visualize_graph_attention, visualize_cross_attention_layers):
        path = tmp_path / f"{draw.__name__}.png"
        draw(model, video_samples / name, path)
        assert path.stat().st_size > 10_000


def test_a_manifest_is_an_annotation_list(video_samples, tmp_path):
    lines = (video_samples / "manifest.csv").read_text().splitlines()[1:]
    rows = [line.split(",")[:2] for line in lines if line.startswith("asl/")]
    (tmp_path / "asl.csv").write_text(
        "path,label\n" + "".join(f"{path},{label}\n" for path, label in rows)
    )
    videos = read_annotation_list(tmp_path / "asl.csv", root=video_samples)
    assert len(videos) == len(videos.classes) == 20
    assert all(record.path.is_file() for record in videos.records)
