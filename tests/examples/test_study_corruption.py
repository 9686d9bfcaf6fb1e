import pytest
import torch
from interaction_study.corruption import CORRUPTIONS, ChangedClips, one_frame

from small import small_model


@pytest.fixture(scope="module")
def clip():
    return torch.rand(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def changed(name, clip, seed=0):
    return CORRUPTIONS[name](clip, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_changed_clip_is_a_clip(name, clip):
    before = clip.clone()
    found = changed(name, clip)
    assert found.shape == clip.shape
    assert found.dtype == clip.dtype
    assert found.min() >= 0
    assert found.max() <= 1
    assert not torch.equal(found, clip)
    assert torch.equal(clip, before)


def test_orders_keep_the_frames(clip):
    assert torch.equal(changed("backwards", clip).flip(0), clip)
    for seed in range(3):
        shuffled = changed("shuffled", clip, seed)
        assert torch.equal(shuffled.sum(dim=(1, 2, 3)).sort()[0], clip.sum(dim=(1, 2, 3)).sort()[0])


def test_half_of_the_frames_are_lost_and_the_last_one_is_shown_again(clip):
    found = changed("dropped", clip)
    assert torch.equal(found[0], clip[0])
    repeated = 0
    for before, now, own in zip(found, found[1:], clip[1:], strict=False):
        assert torch.equal(now, own) or torch.equal(now, before)
        repeated += torch.equal(now, before)
    assert repeated == 7


def test_noise_and_compression_do_what_they_say(clip):
    grey = torch.full_like(clip, 0.5)
    assert changed("noise", grey).std().item() == pytest.approx(0.1, rel=0.05)
    error = (changed("compression", clip) - clip).abs().mean(dim=(1, 2, 3))
    assert (error > 0.05).all()


def test_both_streams_see_the_same_change_in_any_batch(clip):
    model = small_model(trainable=False)
    clips = torch.stack([clip, clip.flip(-1), clip])
    seen = []

    def keep(one, drawn):
        seen.append(torch.rand(1, generator=drawn).item())
        return one

    for extractor in (model.semantic_extractor, model.motion_extractor):
        ChangedClips(extractor, keep)(clips)
        ChangedClips(extractor, keep)(clips[1:])
    assert seen[0] == seen[2] != seen[1]
    assert seen == seen[:3] + seen[1:3] + seen[:3] + seen[1:3]


def test_features_are_those_of_the_changed_clip_and_named_so(clip):
    extractor = small_model(trainable=False).motion_extractor
    still = ChangedClips(extractor, one_frame)
    expected = extractor(clip[8].expand(1, 16, -1, -1, -1))
    torch.testing.assert_close(still(clip[None]), expected)
    assert still.fingerprint() == {**extractor.fingerprint(), "change": "one_frame 1"}
