import pytest
import torch
from interaction_study import fights
from interaction_study.features import load
from interaction_study.fights import (
    FIGHT_VARIANTS,
    cross_validate,
    extract_fights,
    fight_store,
)
from interaction_study.plan import Plan, carry_out
from interaction_study.runs import Run
from interaction_study.training import Budget
from interaction_study.variants import VARIANTS

from gasmcast import TemporalCrossAttentionModel, write_rendered_dataset

PLAN = Plan(folds=4, budget=Budget(steps=2, batch_size=4))


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """Features of four clips of each of two classes and of a video that is none."""
    root = tmp_path_factory.mktemp("fights")
    chosen = {"appearances": ("striped",), "motions": ("lift", "drop")}
    clips = root / "clips"
    write_rendered_dataset(clips, clips_per_class={"some": 4}, num_frames=16, size=32, **chosen)
    (next((clips / "some").iterdir()) / "broken.mp4").write_text("no video")
    model = TemporalCrossAttentionModel(
        num_classes=2,
        semantic_extractor={
            "model_name": "vit_tiny_patch16_224",
            "pretrained": False,
            "image_size": 32,
            "num_frames": 2,
            "model_kwargs": {"patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2},
        },
        motion_extractor={"width": 0.125, "image_size": 32, "allow_random_weights": True},
        num_heads=4,
    )
    model.save_pretrained(root / "extractors")
    extract_fights(clips / "some", root)
    return root


def test_a_video_that_cannot_be_read_is_named_and_left_out(output, capsys):
    extract_fights(output / "clips" / "some", output)
    assert "broken.mp4" in capsys.readouterr().out
    features = load(fight_store(output))
    assert len(features) == len(features.ids) == len(features.semantic) == 8
    assert features.labels.bincount().tolist() == [4, 4]
    assert not any("broken" in clip for clip in features.ids)


@pytest.mark.parametrize("name", FIGHT_VARIANTS)
def test_every_variant_is_measured_on_the_fold_that_it_has_not_seen(name, output):
    found = carry_out(Run("fights", name, 1e-3, 1, fold=1), PLAN, output)
    assert (found["train_clips"], found["test_clips"]) == (6, 2)
    assert found["steps_taken"] == 2
    assert found["test"]["top1"] in (0, 50, 100)
    assert set(found["test"]) == {"top1", "ece"}


def test_the_held_out_fold_has_no_part_in_the_training(output, monkeypatch):
    seen = []

    def spy(model, training, *rest, **more):
        seen.append(training)
        return train(model, training, *rest, **more)

    train = fights.train
    monkeypatch.setattr(fights, "train", spy)
    for fold in (1, 2, 3, 4):
        carry_out(Run("fights", "gasm_cast", 1e-3, 1, fold=fold), PLAN, output)
    clips = set(load(fight_store(output)).ids)
    held_out = [clips - set(training.ids) for training in seen]
    assert [len(fold) for fold in held_out] == [2, 2, 2, 2]
    assert set().union(*held_out) == clips
    for training in seen:
        for tokens in (training.semantic, training.motion):
            torch.testing.assert_close(
                tokens.flatten(0, 1).mean(dim=0), torch.zeros(tokens.size(-1)), atol=1e-3, rtol=0
            )


def test_no_more_steps_than_fixed_beforehand(output, monkeypatch):
    monkeypatch.setattr(fights, "MAX_STEPS", 3)
    budget = Budget(steps=800, batch_size=4)
    assert cross_validate("late_fusion", 1e-3, 1, 1, 2, budget, output)["steps_taken"] == 3


def test_the_plan_has_each_variant_on_each_fold_of_each_repetition():
    runs = Plan().fights(dict.fromkeys(VARIANTS, 1e-3))
    assert len(set(runs)) == len(runs) == 5 * 5 * len(FIGHT_VARIANTS)
    assert {(run.seed, run.fold) for run in runs} == {
        (s, f) for s in range(1, 6) for f in range(1, 6)
    }
    few = Plan(variants=("one_layer", "gasm_cast"))
    assert {run.variant for run in few.fights({"gasm_cast": 1e-3})} == {"gasm_cast"}
