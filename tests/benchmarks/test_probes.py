import runpy
import sys

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import compression, probes, progression
from benchmarks.compression import recovered
from gasmcast import BottleneckCrossAttention, TemporalCrossAttentionModel
from gasmcast.datasets import write_rendered_dataset
from small import small_model


def test_what_a_bottleneck_keeps_by_hand():
    torch.manual_seed(0)
    sources = torch.randn(10, 40, 3)
    tokens = sources @ torch.randn(3, 8)  # of rank 3
    wide, narrow = torch.randn(8, 3), torch.randn(8, 2)
    assert recovered(lambda x: x @ wide, tokens) == pytest.approx(1, abs=1e-4)
    assert recovered(lambda x: x @ narrow, tokens) < 0.999
    # Of white noise each kept channel keeps its share, and no other.
    noise = torch.randn(20, 200, 8)
    assert recovered(lambda x: x[:, :2], noise) == pytest.approx(2 / 8, abs=0.02)
    assert recovered(lambda x: torch.zeros(len(x), 1), noise) == pytest.approx(0, abs=0.01)


def test_compression_runs_on_all_layers_and_streams():
    torch.manual_seed(0)
    layers = [BottleneckCrossAttention(12, 10, 4, 2) for _ in range(2)]
    section = compression.run(layers, [[torch.randn(8, 9, 12), torch.randn(8, 3, 10)]] * 2)
    lines = section.splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == [
        "| layer 1, semantic: 12 to 4",
        "| layer 1, motion: 10 to 4",
        "| layer 2, semantic: 12 to 4",
        "| layer 2, motion: 10 to 4",
    ]


def test_cut_layers():
    torch.manual_seed(0)
    layers = [BottleneckCrossAttention(12, 10, 4, 2) for _ in range(3)]  # fresh: they add nothing
    classifier = nn.Linear(22, 2)
    semantic, motion = torch.randn(30, 9, 12), torch.randn(30, 3, 10)
    places = torch.rand(9, 2), torch.rand(3, 1)
    logits = classifier(torch.cat([semantic.mean(1), motion.mean(1)], dim=1))
    section = progression.run_cut(
        layers, classifier, semantic, motion, places, logits.argmax(dim=1)
    )
    rows = section.splitlines()[2:]
    assert len(rows) == 8
    assert rows[0].startswith("| basic + pattern + action | 100.0% (")
    assert rows[-1].startswith("| none | 100.0% (")


def test_distances_by_hand():
    p, q = torch.tensor([[0.5, 0.5, 0.0]]), torch.tensor([[0.0, 0.5, 0.5]])
    assert progression.total_variation(p, q).tolist() == [0.5]
    assert progression.total_variation(p, p).tolist() == [0]
    even = torch.full((4,), 0.25)
    assert progression.entropy(even) == pytest.approx(1)
    assert progression.entropy(torch.tensor([1.0, 0, 0, 0])) == 0
    # Newcombe (1998), table I: 81 of 263.
    assert np.allclose(progression.wilson(81, 263), (0.2553, 0.3662), atol=1e-4)
    assert progression.wilson(20, 20)[1] == pytest.approx(1)


def test_gradients_pass_fresh_layers_undamped():
    torch.manual_seed(0)
    layers = [BottleneckCrossAttention(12, 10, 4, 2) for _ in range(3)]
    where = torch.rand(9, 2), torch.rand(3, 1)
    streams = torch.randn(2, 9, 12), torch.randn(2, 3, 10)
    assert probes.damping(layers, *streams, where) == [1, 1, 1]
    nn.init.ones_(layers[1].sem_expand.weight)
    before = probes.damping(layers, *streams, where)
    assert before[2] == 1
    assert before[0] == before[1] != 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("probes")
    clips = write_rendered_dataset(
        root / "videos",
        clips_per_class={"test": 2},
        motions=("left_to_right", "right_to_left", "towards", "away"),
        appearances=("plain", "checked"),
        size=32,
    )["test"]
    names = list(dict.fromkeys(clip.label for clip in clips))
    torch.manual_seed(0)
    small_model(8, class_names=names).save_pretrained(root / "model")
    return root


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["probes.py", *map(str, arguments)])
    runpy.run_path(probes.__file__, run_name="__main__")


def test_the_command_writes_its_section(folder, tmp_path, monkeypatch, capsys):
    page = tmp_path / "page.md"
    page.write_text("<!-- begin: probes -->\n<!-- end: probes -->\n")
    videos = folder / "videos" / "test"
    run(
        monkeypatch,
        *("--model", folder / "model", "--videos", videos, "--clips", 1, "--write", page),
    )
    text = page.read_text()
    assert "16 real clips, 0 unreadable; 8 rendered clips" in text
    assert "| fresh | 0 | 0 | 1 | 1 | 1 |" in text
    assert "| semantic to motion |" in text
    assert "**Compression**" in capsys.readouterr().out


def test_a_model_of_other_classes_is_refused(folder, tmp_path, monkeypatch):
    small_model(3, class_names=["a", "b", "c"]).save_pretrained(tmp_path / "other")
    with pytest.raises(SystemExit, match=r"error: the model must have been trained on the classes"):
        run(
            monkeypatch,
            *("--model", tmp_path / "other", "--videos", folder / "videos" / "test"),
            *("--clips", 1),
        )


def test_features_are_what_the_model_reads(folder):
    from gasmcast import scan_class_folders

    model = TemporalCrossAttentionModel.from_pretrained(folder / "model")
    videos = scan_class_folders(folder / "videos" / "test")
    semantic, motion, labels, unreadable = probes.refined(model, videos)
    assert (len(semantic), unreadable) == (16, 0)
    inputs, weights = probes.through_layers(model, semantic, motion)
    assert torch.equal(inputs[0][0], semantic)
    assert len(weights) == 3
    dataset = probes.ClipDataset(
        videos,
        probes.eval_transform(model.image_size),
        sampling=probes.FrameSampling(model.num_frames),
    )
    with torch.no_grad():
        logits, maps = model(dataset[3]["clip"].unsqueeze(0), return_attention=True)
        means = probes.progression.fuse_and_pool(
            model.gasm_cast.fusion_layers, semantic[3:4], motion[3:4], *probes.places(model, 8)
        )[:2]
    torch.testing.assert_close(model.classifier(torch.cat(means, dim=1)), logits)
    torch.testing.assert_close(
        weights[2].motion_to_semantic[3], maps.action.motion_to_semantic[0], atol=1e-5, rtol=1e-4
    )
    assert labels[3] == videos.records[3].label
