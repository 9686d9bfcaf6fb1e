import pickle
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms import v2

from gasmcast import eval_transform, train_transform
from gasmcast.transforms import Mix


def ramp(height: int, width: int, step: int) -> torch.Tensor:
    """A clip that tells directions: frame 0 brightens to the right, frame 1 to the bottom."""
    right = (torch.arange(width) * step).expand(height, width)
    down = (torch.arange(height) * step)[:, None].expand(height, width)
    return torch.stack([right, down])[:, None].expand(2, 3, height, width).to(torch.uint8)


def draws(transform, clip, number=40):
    torch.manual_seed(0)
    return torch.stack([transform(clip) for _ in range(number)])


def whole_picture(image_size, **options):
    """A random transform whose crop, of all the area, is left no choice on a square frame."""
    return train_transform(image_size, min_scale=1.0, **options)


@pytest.mark.parametrize("portrait", [False, True])
def test_evaluation_crops_the_centre_by_hand(portrait):
    frame = torch.tensor([[10 * row + column for column in range(8)] for row in range(4)])
    centre = frame[:, 2:6]
    if portrait:
        frame, centre = frame.t(), centre.t()
    clip = torch.stack([frame, frame + 100])[:, None].repeat(1, 3, 1, 1).to(torch.uint8)
    expected = torch.stack([centre, centre + 100])[:, None].repeat(1, 3, 1, 1) / 255
    out = draws(eval_transform(4), clip, number=8)  # the same every time
    torch.testing.assert_close(out, expected.expand(8, 2, 3, 4, 4))


@pytest.mark.parametrize("portrait", [False, True])
def test_evaluation_takes_the_short_side_to_the_size_by_hand(portrait):
    clip = ramp(8, 12, step=20)[:1]  # 8 x 12 is halved to 4 x 6, then cropped to 4 x 4
    expected = torch.tensor([50, 90, 130, 170]).expand(1, 3, 4, 4) / 255  # pixels 2.5, 4.5, ...
    if portrait:
        clip, expected = clip.mT, expected.mT
    torch.testing.assert_close(eval_transform(4)(clip), expected)


@pytest.mark.parametrize("make", [eval_transform, train_transform])
@pytest.mark.parametrize("size", [(20, 36), (36, 20), (7, 9)])
def test_bytes_of_any_size_to_floats_of_one_size(make, size):
    torch.manual_seed(0)
    clip = torch.randint(0, 256, (5, 3, *size), dtype=torch.uint8)
    before = clip.clone()
    out = draws(make(16), clip, number=8)
    assert out.shape == (8, 5, 3, 16, 16)
    assert out.dtype == torch.float32
    assert 0 <= out.min() < 0.4 < 0.6 < out.max() <= 1
    assert torch.equal(clip, before)


def test_black_is_zero_and_white_is_one():
    for value in (0, 255):
        clip = torch.full((2, 3, 8, 8), value, dtype=torch.uint8)
        for transform in (eval_transform(4), train_transform(4, color_jitter=0)):
            assert torch.equal(transform(clip), torch.full((2, 3, 4, 4), value / 255))


def test_training_never_flips():
    """What moves from left to right must not be shown moving from right to left."""
    out = draws(train_transform(8), ramp(32, 32, step=8))
    assert (out[:, 0].diff(dim=-1).sum(dim=-1) > 0).all()
    assert (out[:, 1].diff(dim=-2).sum(dim=-2) > 0).all()


def test_one_crop_and_one_colour_for_all_frames_of_a_clip():
    torch.manual_seed(0)
    clip = torch.randint(0, 256, (1, 3, 24, 40), dtype=torch.uint8).repeat(6, 1, 1, 1)
    out = draws(train_transform(16), clip)
    assert torch.equal(out, out[:, :1].expand_as(out))
    assert len({float(clip.mean()) for clip in out}) == len(out)  # and another for the next clip


def test_no_jitter_and_the_whole_area_change_nothing():
    clip = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    out = draws(whole_picture(16, color_jitter=0), clip, number=8)
    torch.testing.assert_close(out, (clip / 255).expand(8, 2, 3, 16, 16))


@pytest.mark.parametrize("min_scale", [0.25, 0.75])
def test_the_crop_covers_at_least_the_least_share(min_scale):
    # From the slopes of what comes out: how many pixels of the frame it shows in each direction.
    out = draws(
        train_transform(16, min_scale=min_scale, color_jitter=0), ramp(64, 64, step=4), number=100
    )
    out = out[:, :, 0] * 255 / 4
    width = (out[:, 0, 8, 12] - out[:, 0, 8, 4]) / 8 * 16
    height = (out[:, 1, 12, 8] - out[:, 1, 4, 8]) / 8 * 16
    area = width * height / 64**2
    assert min_scale - 0.05 < area.min() < min_scale + 0.1
    assert 0.9 < area.max() < 1.05


@pytest.mark.parametrize("color_jitter", [0.1, 0.4])
def test_brightness_changes_by_at_most_the_jitter(color_jitter):
    clip = torch.full((1, 3, 8, 8), 170, dtype=torch.uint8)  # nothing but brightness moves it
    out = draws(whole_picture(8, color_jitter=color_jitter), clip, number=60) * 255
    change = out[:, 0, 0, 0, 0] / 170 - 1
    assert -color_jitter - 0.02 < change.min() < -0.7 * color_jitter
    assert 0.7 * color_jitter < change.max() < color_jitter + 0.02


def test_contrast_and_saturation_change_too():
    grey = torch.full((1, 3, 8, 8), 100, dtype=torch.uint8)
    grey[..., 4:] = 140
    out = draws(whole_picture(8, color_jitter=0.4), grey)[:, 0, 0, 0]
    ratio = out[:, 7] / out[:, 0]  # 1.4 whatever the brightness
    assert ratio.min() < 1.3
    assert ratio.max() > 1.5
    # More and less red than the mean of grey 100: only saturation parts the two greens.
    red = torch.full((1, 3, 8, 8), 100, dtype=torch.uint8)
    red[:, 0, :, :4], red[:, 0, :, 4:] = 140, 60
    out = draws(whole_picture(8, color_jitter=0.4), red)[:, 0, 1, 0] * 255
    parted = out[:, 7] - out[:, 0]
    assert parted.min() < -4
    assert parted.max() > 4


@pytest.mark.parametrize("portrait", [False, True])
def test_three_crops_along_the_long_side_by_hand(portrait):
    frame = torch.tensor([[10 * row + column for column in range(9)] for row in range(4)])
    views = [frame[:, 0:4], frame[:, 2:6], frame[:, 5:9]]  # of 5 to spare, 2 before the centre
    if portrait:
        frame, views = frame.t(), [view.t() for view in views]
    clip = torch.stack([frame, frame + 100])[:, None].repeat(1, 3, 1, 1).to(torch.uint8)
    out = eval_transform(4, crops=3)(clip)
    assert out.shape == (3, 2, 3, 4, 4)
    for view, expected in zip(out, views, strict=True):
        torch.testing.assert_close(view[0], expected.expand(3, 4, 4) / 255)
        torch.testing.assert_close(view[1], (expected + 100).expand(3, 4, 4) / 255)


@given(st.integers(4, 40), st.integers(4, 40), st.integers(2, 12), st.integers(0, 2**32))
def test_the_centre_of_three_crops_is_the_one_crop(height, width, size, seed):
    generator = torch.Generator().manual_seed(seed)
    clip = torch.randint(0, 256, (2, 3, height, width), generator=generator, dtype=torch.uint8)
    three = eval_transform(size, crops=3)(clip)
    assert three.shape == (3, 2, 3, size, size)
    assert torch.equal(three[1], eval_transform(size)(clip))
    if height == width:
        assert torch.equal(three, three[:1].expand_as(three))
    # The other way round, the other ends; what lies in memory channels last comes out the same.
    turned = eval_transform(size, crops=3)(clip.flip(-1, -2)).flip(-1, -2)
    torch.testing.assert_close(turned[[2, 0]], three[[0, 2]], rtol=0, atol=1.1 / 255)
    interleaved = clip.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert torch.equal(eval_transform(size, crops=3)(interleaved), three)


MAKERS = [
    eval_transform,
    partial(eval_transform, crops=3),
    partial(train_transform, erase=0.5, color_jitter=0.4),
]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("size", [(20, 36), (16, 16), (7, 9)])
def test_bytes_converted_later_are_the_same_floats(make, size):
    clip = torch.randint(0, 256, (5, 3, *size), dtype=torch.uint8)
    floats = draws(make(16), clip, number=12)
    levels = draws(make(16, dtype=torch.uint8), clip, number=12)
    assert levels.dtype == torch.uint8
    assert torch.equal(v2.functional.to_dtype(levels, torch.float32, scale=True), floats)


def test_half_precision_on_request():
    clip = torch.full((2, 3, 8, 8), 255, dtype=torch.uint8)
    out = eval_transform(4, dtype=torch.bfloat16)(clip)
    assert out.dtype == torch.bfloat16
    assert (out == 1).all()


def test_one_box_is_erased_in_all_frames():
    clip = torch.full((6, 3, 32, 32), 255, dtype=torch.uint8)
    out = draws(whole_picture(32, color_jitter=0, erase=1.0), clip, number=60)
    assert torch.equal(out, out[:, :1, :1].expand_as(out))
    black = out[:, 0, 0] == 0
    assert ((out == 0) | (out == 1)).all()
    for picture in black:  # a box: full rows times full columns
        assert torch.equal(picture, picture.any(1)[:, None] & picture.any(0))
    share = black.float().mean((1, 2))
    assert 0.01 < share.min() < 0.1
    assert 0.2 < share.max() < 0.36
    assert len(black.unique(dim=0)) > 40


@pytest.mark.parametrize("erase", [0.0, 0.25, 1.0])
def test_erasing_happens_as_often_as_said(erase):
    clip = torch.full((1, 3, 16, 16), 255, dtype=torch.uint8)
    out = draws(whole_picture(16, color_jitter=0, erase=erase), clip, number=300)
    assert float((out.amin((1, 2, 3, 4)) == 0).float().mean()) == pytest.approx(erase, abs=0.08)


@pytest.mark.parametrize("make", MAKERS)
def test_transforms_survive_the_way_to_a_worker(make):
    clip = torch.randint(0, 256, (2, 3, 20, 30), dtype=torch.uint8)
    transform = make(8)
    assert torch.equal(draws(pickle.loads(pickle.dumps(transform)), clip), draws(transform, clip))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: eval_transform(crops=2), r"^crops must be 1 or 3, got 2$"),
        (
            lambda: eval_transform(dtype=torch.int64),
            r"^dtype must be a floating type or torch.uint8, got torch.int64$",
        ),
        (
            lambda: train_transform(dtype=torch.bool),
            r"^dtype must be a floating type or torch.uint8, got torch.bool$",
        ),
        (
            lambda: train_transform(min_scale=0),
            r"^min_scale must be above 0 and at most 1, got 0$",
        ),
        (
            lambda: train_transform(min_scale=1.5),
            r"^min_scale must be above 0 and at most 1, got 1.5$",
        ),
        (lambda: train_transform(color_jitter=-1), r"^color_jitter must not be negative, got -1$"),
        (lambda: train_transform(erase=1.2), r"^erase must be between 0 and 1, got 1.2$"),
        (lambda: Mix(0, 1.0), r"^num_classes must be at least 1, got 0$"),
        (lambda: Mix(3), r"must not be negative and one of them be positive, got 0.0 and 0.0$"),
        (lambda: Mix(3, -1, 2), r"must not be negative and one of them be positive, got -1 and 2$"),
    ],
)
def test_settings_out_of_range_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# Clip i is of level i + 1 everywhere, so a mixed value tells what was mixed with what, and the
# distances differ: 1 for each but the first, whose partner is the last.
SIZE, CLASSES = 5, 7
LABELS = torch.tensor([3, 0, 6, 0, 1])


def level(*shape):
    return torch.arange(1.0, SIZE + 1).view(SIZE, *[1] * len(shape)).expand(SIZE, *shape).clone()


def clips():
    return {"clip": level(2, 3, 16, 20), "label": LABELS, "index": list("abcde")}


def features(patches=36):
    return {"semantic": level(patches, 4), "motion": level(8, 6), "label": LABELS}


def shares_of(label):
    """Lambda of a mixed batch, checked to be the same for all of it, from labels that differ."""
    own = torch.nn.functional.one_hot(LABELS, CLASSES).float()
    other = own.roll(1, 0)
    lam = float(label[0, LABELS[0]])
    torch.testing.assert_close(label, lam * own + (1 - lam) * other)
    return lam


@pytest.mark.parametrize("seed", range(8))
def test_mixup_of_clips_by_hand(seed):
    torch.manual_seed(seed)
    batch = clips()
    mixed = Mix(CLASSES, mixup_alpha=0.8)(batch)
    lam = shares_of(mixed["label"])
    values = torch.arange(1.0, SIZE + 1)
    expected = lam * values + (1 - lam) * values.roll(1)
    torch.testing.assert_close(mixed["clip"], expected.view(-1, 1, 1, 1, 1).expand(5, 2, 3, 16, 20))
    assert mixed["label"].dtype == torch.float32
    assert type(mixed["clip"]) is type(mixed["label"]) is torch.Tensor
    assert mixed["index"] == batch["index"]
    # The batch stays as it was.
    assert torch.equal(batch["clip"], clips()["clip"])
    assert torch.equal(batch["label"], LABELS)


@pytest.mark.parametrize("seed", range(8))
def test_cutmix_of_clips_pastes_one_box_in_all_frames(seed):
    torch.manual_seed(seed)
    mixed = Mix(CLASSES, cutmix_alpha=1.0)(clips())
    lam = shares_of(mixed["label"])
    values = torch.arange(1.0, SIZE + 1)
    own = mixed["clip"] == values.view(-1, 1, 1, 1, 1)
    other = mixed["clip"] == values.roll(1).view(-1, 1, 1, 1, 1)
    assert (own ^ other).all()
    assert torch.equal(other, other[:1, :1, :1].expand_as(other))
    box = other[0, 0, 0]
    assert torch.equal(box, box.any(1)[:, None] & box.any(0))
    assert float(box.float().mean()) == pytest.approx(1 - lam, abs=1e-6)


@pytest.mark.parametrize("patches", [36, 35])
@pytest.mark.parametrize("seed", range(4))
def test_mixup_gives_both_streams_one_partner_and_one_lambda(seed, patches):
    torch.manual_seed(seed)
    mixed = Mix(CLASSES, mixup_alpha=0.8)(features(patches))
    lam = shares_of(mixed["label"])
    values = torch.arange(1.0, SIZE + 1)
    expected = (lam * values + (1 - lam) * values.roll(1)).view(-1, 1, 1)
    torch.testing.assert_close(mixed["semantic"], expected.expand(SIZE, patches, 4))
    torch.testing.assert_close(mixed["motion"], expected.expand(SIZE, 8, 6))


@pytest.mark.parametrize("seed", range(8))
def test_cutmix_of_features_cuts_out_of_the_grid_and_mixes_segments_alike(seed):
    torch.manual_seed(seed)
    mixed = Mix(CLASSES, cutmix_alpha=1.0)(features())
    lam = shares_of(mixed["label"])
    values = torch.arange(1.0, SIZE + 1)
    other = mixed["semantic"] == values.roll(1).view(-1, 1, 1)
    assert (other ^ (mixed["semantic"] == values.view(-1, 1, 1))).all()
    assert torch.equal(other, other[:1, :, :1].expand_as(other))
    box = other[0, :, 0].view(6, 6)  # row-major, as patches are
    assert torch.equal(box, box.any(1)[:, None] & box.any(0))
    assert float(box.float().mean()) == pytest.approx(1 - lam, abs=1e-6)
    expected = (lam * values + (1 - lam) * values.roll(1)).view(-1, 1, 1)
    torch.testing.assert_close(mixed["motion"], expected.expand(SIZE, 8, 6))


def test_patches_keep_their_places_and_widths():
    torch.manual_seed(1)
    batch = {
        "semantic": torch.randn(SIZE, 36, 4),
        "motion": torch.randn(SIZE, 8, 6),
        "label": LABELS,
    }
    mixed = Mix(CLASSES, cutmix_alpha=1.0)(batch)
    own = (mixed["semantic"] == batch["semantic"]).all(-1)
    other = (mixed["semantic"] == batch["semantic"].roll(1, 0)).all(-1)
    assert (own ^ other).all()
    assert other.any()
    assert own.any()
    assert mixed["semantic"].is_contiguous()


def test_with_both_alphas_one_of_them_is_drawn_for_each_batch():
    torch.manual_seed(0)
    mix = Mix(CLASSES, mixup_alpha=0.8, cutmix_alpha=1.0)
    whole = []
    for _ in range(200):
        mixed = mix(clips())["clip"][1]  # of levels 2 and 1
        whole.append(not ((mixed == 1) | (mixed == 2)).all())
    assert 0.38 < sum(whole) / 200 < 0.62


def test_lambda_follows_alpha():
    torch.manual_seed(0)
    for alpha, low, high in ((0.1, 0.7, 1.0), (50.0, 0.0, 0.02)):
        mix = Mix(CLASSES, mixup_alpha=alpha)
        lams = [shares_of(mix(features())["label"]) for _ in range(200)]
        assert sum(lams) / 200 == pytest.approx(0.5, abs=0.1)
        extreme = sum(not 0.1 < lam < 0.9 for lam in lams) / 200
        assert low <= extreme <= high


def test_the_seed_decides():
    mix = Mix(CLASSES, mixup_alpha=0.8, cutmix_alpha=1.0)
    torch.manual_seed(4)
    first = [mix(clips())["label"] for _ in range(6)]
    torch.manual_seed(4)
    again = [mix(clips())["label"] for _ in range(6)]
    assert all(map(torch.equal, first, again))
    assert len({float(label[0, 3]) for label in first}) == 6


@pytest.mark.parametrize("make", [clips, features])
def test_autocast_takes_no_digits_away(make):
    mix = Mix(CLASSES, mixup_alpha=0.8, cutmix_alpha=1.0)
    for seed in range(4):
        torch.manual_seed(seed)
        expected = mix(make())
        torch.manual_seed(seed)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = mix(make())
        for name in expected.keys() - {"index"}:
            assert torch.equal(mixed[name], expected[name])


def test_a_clip_that_is_no_number_spoils_only_the_one_after_it():
    batch = features()
    batch["motion"][2] = torch.nan
    mixed = Mix(CLASSES, mixup_alpha=0.8)(batch)
    assert mixed["motion"].isnan().any((1, 2)).tolist() == [False, False, True, True, False]


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8])
def test_labels_of_any_integer_type(dtype):
    torch.manual_seed(0)
    expected = Mix(CLASSES, mixup_alpha=1.0)(clips())["label"]
    torch.manual_seed(0)
    mixed = Mix(CLASSES, mixup_alpha=1.0)({**clips(), "label": LABELS.to(dtype)})
    assert torch.equal(mixed["label"], expected)


def test_a_batch_of_one_mixes_with_itself():
    batch = {"clip": torch.rand(1, 2, 3, 8, 8), "label": torch.tensor([2])}
    for mix in (Mix(4, mixup_alpha=1.0), Mix(4, cutmix_alpha=1.0)):
        mixed = mix(batch)
        torch.testing.assert_close(mixed["clip"], batch["clip"])
        torch.testing.assert_close(mixed["label"], torch.tensor([[0.0, 0, 1, 0]]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_features_keep_their_type(dtype):
    batch = features()
    batch = {**batch, "semantic": batch["semantic"].to(dtype), "motion": batch["motion"].to(dtype)}
    mixed = Mix(CLASSES, mixup_alpha=0.8, cutmix_alpha=1.0)(batch)
    assert mixed["semantic"].dtype == mixed["motion"].dtype == dtype
    assert mixed["label"].dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clip": level(2, 3, 8, 8).byte()}, r"^clip must be floating and \[B, T, 3, H, W\] with B "
            r"= 5, as label is, got torch.uint8 \[5, 2, 3, 8, 8\]$"),
        ({"clip": level(3, 8, 8)}, r"got torch.float32 \[5, 3, 8, 8\]$"),
        ({"clip": level(2, 3, 8, 8)[:4]}, r"with B = 5, as label is, got torch.float32 \[4, "),
        ({"label": None}, r"^label must be integers of shape \[B\], got None$"),
        ({"label": torch.rand(5, 3)}, r"^label must be integers .*, got torch.float32 \[5, 3\]$"),
        ({"label": LABELS + 1}, r"^labels must be from 0 to 6, got 1 to 7$"),
        ({"label": LABELS - 1}, r"^labels must be from 0 to 6, got -1 to 5$"),
    ],
)  # fmt: skip
def test_batches_that_cannot_be_mixed(change, message):
    with pytest.raises(ValueError, match=message):
        Mix(CLASSES, mixup_alpha=1.0)({**clips(), **change})


def test_features_that_cannot_be_mixed():
    mix = Mix(CLASSES, cutmix_alpha=1.0)
    with pytest.raises(ValueError, match=r"^CutMix needs a square grid of patches, got 35 of"):
        mix(features(35))
    batch = features()
    del batch["motion"]
    with pytest.raises(ValueError, match=r"^motion must be floating and \[B, S, D\].*got None$"):
        mix(batch)
    with pytest.raises(
        ValueError, match=r"^semantic must be floating and \[B, P, D\] .*, got None$"
    ):
        mix({"label": LABELS})


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("make", [clips, features])
def test_a_batch_on_the_gpu_mixes_as_on_the_cpu(make):
    mix = Mix(CLASSES, mixup_alpha=0.8, cutmix_alpha=1.0)
    moved = {
        name: value.cuda() if isinstance(value, torch.Tensor) else value
        for name, value in make().items()
    }
    for seed in range(6):
        torch.manual_seed(seed)
        here = mix(make())
        torch.manual_seed(seed)
        there = mix(moved)
        for name, value in here.items():
            if isinstance(value, torch.Tensor):
                torch.testing.assert_close(there[name].cpu(), value)
