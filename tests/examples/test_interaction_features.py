import pytest
import torch

from examples.running import EXAMPLES, run
from gasmcast.feature_store import FeatureStore

SCRIPT = EXAMPLES / "interaction_features.py"
SMALL = (
    "--output=it",
    "--clips_per_class={train: 1, validation: 1, test: 1, combinations: 1}",
    "--semantic_frames=32",
    "--semantic_epochs=1",
    "--motion_steps=2",
    "--processes=1",
)


@pytest.fixture(scope="module")
def output(quick_study):
    return quick_study / "it"


def test_it_makes_clips_extractors_and_stores(output, example):
    store = FeatureStore(output / "stores" / "train")
    assert len(store) == 44
    assert not store.failed()
    features = store[0]
    assert features["semantic"].shape == (1, 64, 96)
    assert features["motion"].shape == (1, 8, 128)
    model = example.TemporalCrossAttentionModel.from_pretrained(output / "extractors")
    for extractor in (model.semantic_extractor, model.motion_extractor):
        assert not any(parameter.requires_grad for parameter in extractor.parameters())


def test_what_is_there_is_not_made_again(output):
    weights = output / "extractors" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    printed = run(SCRIPT.name, *SMALL, cwd=output.parent).stdout
    assert "extractors are there" in printed
    assert weights.stat().st_mtime_ns == before


@pytest.mark.parametrize("option", ["--motion_steps=3", "--seed=1"])
def test_extractors_trained_otherwise_are_not_taken_for_those_asked_for(output, option):
    printed = run(SCRIPT.name, *SMALL, option, cwd=output.parent, status=1).stderr
    assert "were trained with {'benchmark': " in printed
    assert "'motion_steps': 2}, got " in printed
    assert "delete them" in printed


def test_extractors_that_do_not_say_how_they_were_trained_are_refused(output):
    stated = output / "extractors" / "trained_with.json"
    kept = stated.rename(stated.with_suffix(".kept"))
    try:
        assert "unknown settings" in run(SCRIPT.name, *SMALL, cwd=output.parent, status=1).stderr
    finally:
        kept.rename(stated)


def test_extractors_that_are_half_saved_are_made_again(tmp_path, example, monkeypatch):
    monkeypatch.setattr(example, "write_interactions", lambda *_, **__: {})
    trained = []
    for name in ("train_semantic", "train_motion"):
        monkeypatch.setattr(example, name, lambda *_: trained.append(True))
    folder = tmp_path / "extractors"
    for left in ("model.safetensors", "config.json"):
        example.main(tmp_path)
        (folder / left).rename(tmp_path / left)
    example.main(tmp_path)
    example.main(tmp_path)
    assert len(trained) == 2 * 3


def test_the_motion_extractor_sees_grey(output, example):
    model = example.TemporalCrossAttentionModel.from_pretrained(output / "extractors")
    torch.manual_seed(0)
    clip = torch.rand(1, 16, 3, 96, 96)
    grey = (clip * example.LUMA.view(1, 1, 3, 1, 1)).sum(dim=2, keepdim=True).expand_as(clip)
    with torch.no_grad():
        colours, without = model.motion_extractor(clip), model.motion_extractor(grey)
    torch.testing.assert_close(colours, without, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(model.semantic_extractor(clip), model.semantic_extractor(grey))


def test_squares_move_as_they_are_labelled(example):
    clips, motions = example.moving_squares(64, torch.Generator().manual_seed(0))
    assert clips.shape == (64, 16, 3, 96, 96)
    change = (clips[:, 1:, 0] - clips[:, :-1, 0]).square()  # most where the square moves
    axis = torch.linspace(-1, 1, 96)

    def middle(moving):
        whole = moving.sum(dim=(1, 2, 3))
        across, down = ((moving.sum(dim=(1, dim)) * axis).sum(dim=1) / whole for dim in (2, 3))
        return torch.stack([across, down], dim=1)

    went = middle(change[:, -5:]) - middle(change[:, :5])
    for motion, direction in ((0, (1.0, 0.0)), (2, (0.0, 1.0)), (4, (-1.0, 0)), (6, (0, -1.0))):
        along = went[motions == motion] @ torch.tensor(direction)
        assert along.mean() > 0.15
    assert motions.unique().tolist() == list(range(12))


def test_a_frame_comes_with_its_patches_of_both_things(example):
    frame, shares = example.single_frame(0, 3)
    assert frame.shape == (3, 96, 96)
    assert shares.shape == (64, 2)
    assert float(shares.sum(dim=1).max()) <= 1
    assert float(shares.sum(dim=0).min()) > 0.2
    again, _ = example.single_frame(0, 3)
    assert torch.equal(frame, again)
