import pytest
import torch

from gasmcast import eval_transform, train_transform


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
