"""The semantic extractor: frames, normalisation, pooling, prefix tokens, and weights from afar."""

import json
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from gasmcast.extractors import DINOv3SemanticExtractor, WeightsNotFoundError, semantic

TINY = {
    "model_name": "vit_tiny_patch16_224",
    "pretrained": False,
    "image_size": 32,
    "model_kwargs": {"patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3},
}


def tiny(**kwargs):
    torch.manual_seed(0)
    return DINOv3SemanticExtractor(**{**TINY, **kwargs})


class StandIn(nn.Module):
    """Gives each 2 x 2 patch of a 4 x 6 image its mean colour, after two prefix tokens of 99."""

    num_prefix_tokens = 2
    num_features = 3
    grid_size = (2, 2)

    def __init__(self, pretrained_cfg=None):
        super().__init__()
        if pretrained_cfg is not None:
            self.pretrained_cfg = pretrained_cfg

    def forward_features(self, frames):
        self.seen = frames
        patches = nn.functional.avg_pool2d(frames, 2).flatten(2).transpose(1, 2)
        return torch.cat([frames.new_full((len(frames), 2, 3), 99.0), patches], dim=1)


PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


class TestFeatures:
    def test_default_shape(self):
        with torch.device("meta"):
            extractor = DINOv3SemanticExtractor(pretrained=False)
            features = extractor(torch.empty(1, 16, 3, 224, 224))
        assert features.shape == (1, 196, 768)
        assert (extractor.feature_dim, extractor.grid_size) == (768, (14, 14))
        assert extractor.backbone.num_prefix_tokens == 5

    def test_small_model_by_its_arguments(self):
        kwargs = {"patch_size": 8, "embed_dim": 96, "depth": 3, "num_heads": 3}
        extractor = tiny(image_size=64, model_kwargs=kwargs)
        assert (extractor.feature_dim, extractor.grid_size) == (96, (8, 8))
        assert len(extractor.backbone.blocks) == 3
        assert extractor(torch.rand(2, 4, 3, 64, 64)).shape == (2, 64, 96)

    @pytest.mark.parametrize(
        ("model_name", "extra", "prefix"),
        [
            ("vit_tiny_patch16_224", {"patch_size": 8}, 1),
            ("vit_tiny_patch16_224", {"patch_size": 8, "reg_tokens": 4}, 5),
            ("vit_small_patch16_dinov3.lvd1689m", {"patch_size": 8}, 5),
        ],
    )
    def test_are_the_patch_tokens_of_timm_without_the_prefix(self, model_name, extra, prefix):
        kwargs = {"embed_dim": 48, "depth": 2, "num_heads": 3, **extra}
        extractor = tiny(model_name=model_name, model_kwargs=kwargs, num_frames=1)
        clip = torch.rand(2, 1, 3, 32, 32)
        model = extractor.backbone
        mean = torch.tensor(model.pretrained_cfg["mean"]).view(3, 1, 1)
        std = torch.tensor(model.pretrained_cfg["std"]).view(3, 1, 1)
        with torch.no_grad():
            tokens = model.forward_features((clip[:, 0] - mean) / std)
        assert tokens.shape == (2, prefix + 16, 48)
        torch.testing.assert_close(extractor(clip), tokens[:, prefix:])

    def test_model_that_says_only_its_patch_size(self):
        extractor = tiny(model_name="xcit_nano_12_p8_224", model_kwargs={"depth": 1})
        assert extractor.grid_size == (4, 4)
        assert extractor(torch.rand(1, 4, 3, 32, 32)).shape == (1, 16, 128)

    def test_a_batch_equals_its_clips_one_by_one_and_stays_untouched(self):
        extractor = tiny()
        clip = torch.rand(3, 8, 3, 32, 32)
        before = clip.clone()
        one_by_one = torch.cat([extractor(c[None]) for c in clip])
        torch.testing.assert_close(extractor(clip), one_by_one, rtol=1e-4, atol=1e-5)
        assert torch.equal(clip, before)


class TestFrames:
    @pytest.mark.parametrize(
        ("frames", "num_frames", "chosen"),
        [
            (16, 4, [2, 6, 10, 14]),
            (16, 1, [8]),
            (8, 4, [1, 3, 5, 7]),
            (5, 3, [0, 2, 4]),
            (4, 4, [0, 1, 2, 3]),
        ],
    )
    def test_are_the_bin_centres(self, frames, num_frames, chosen):
        backbone = StandIn(PLAIN)
        extractor = DINOv3SemanticExtractor(backbone=backbone, image_size=4, num_frames=num_frames)
        times = torch.arange(frames, dtype=torch.float32)
        clip = torch.stack([times, times + 100]).view(2, frames, 1, 1, 1).expand(-1, -1, 3, 4, 4)
        extractor(clip)
        # one batch, all frames of the first clip first
        assert backbone.seen[:, 0, 0, 0].tolist() == chosen + [t + 100 for t in chosen]

    @pytest.mark.parametrize(("pooling", "expected"), [("mean", 2.0), ("max", 5.0)])
    def test_are_pooled(self, pooling, expected):
        extractor = DINOv3SemanticExtractor(
            backbone=StandIn(PLAIN), image_size=4, num_frames=3, pooling=pooling
        )
        clip = torch.tensor([0.0, 1.0, 5.0]).view(1, 3, 1, 1, 1).expand(-1, -1, 3, 4, 4)
        assert extractor(clip).tolist() == [[[expected] * 3] * 4]

    def test_patches_come_row_by_row(self):
        extractor = DINOv3SemanticExtractor(backbone=StandIn(PLAIN), image_size=4, num_frames=1)
        image = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).repeat_interleave(2, 0)
        image = image.repeat_interleave(2, 1)
        features = extractor(image.expand(1, 1, 3, 4, 4))
        assert features[0, :, 0].tolist() == [1.0, 2.0, 3.0, 4.0]


class TestNormalisation:
    def test_by_hand(self):
        config = {"mean": (0.5, 0.25, 0.0), "std": (0.5, 0.25, 2.0)}
        extractor = DINOv3SemanticExtractor(backbone=StandIn(config), image_size=4)
        clip = torch.ones(1, 4, 3, 4, 4)
        assert extractor(clip).tolist() == [[[1.0, 3.0, 0.5]] * 4]

    def test_of_a_module_without_configuration_is_that_of_imagenet(self):
        extractor = DINOv3SemanticExtractor(backbone=StandIn(), image_size=4)
        clip = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1).expand(1, 4, 3, 4, 4)
        assert extractor(clip).abs().max() == 0
        clip = clip + torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
        torch.testing.assert_close(extractor(clip), torch.ones(1, 4, 3))

    def test_of_a_timm_model_is_its_own(self):
        assert tiny().mean.flatten().tolist() == [0.5, 0.5, 0.5]
        assert tiny().std.flatten().tolist() == [0.5, 0.5, 0.5]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_gives_the_same_and_never_waits():
    extractor = DINOv3SemanticExtractor(backbone=StandIn(), image_size=4)
    clip = torch.rand(2, 16, 3, 4, 4)
    expected = extractor(clip)
    extractor, clip = extractor.cuda(), clip.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        features = extractor(clip)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(features.cpu(), expected)


class TestFrozen:
    def test_stays_as_it_is_in_training(self):
        kwargs = {**TINY["model_kwargs"], "drop_path_rate": 0.9, "proj_drop_rate": 0.9}
        extractor = tiny(model_kwargs=kwargs)
        outer = nn.Sequential(extractor).train()
        clip = torch.rand(1, 4, 3, 32, 32, requires_grad=True)
        features = outer(clip)
        assert outer.training
        assert not any(m.training for m in extractor.modules())
        assert not features.requires_grad
        assert not any(p.requires_grad for p in extractor.parameters())
        assert torch.equal(features, outer(clip))

    def test_trainable_is_an_ordinary_module(self):
        extractor = tiny(trainable=True).train()
        extractor(torch.rand(2, 4, 3, 32, 32)).square().sum().backward()
        assert all(m.training for m in extractor.modules())
        assert all(p.grad.abs().sum() > 0 for p in extractor.parameters())

    def test_mean_and_std_are_no_weights(self):
        assert all(key.startswith("backbone.") for key in tiny().state_dict())


class TestConfig:
    def test_builds_the_same_architecture(self):
        extractor = tiny(num_frames=2, pooling="max", trainable=True)
        config = json.loads(json.dumps(extractor.config()))
        again = DINOv3SemanticExtractor(**config)
        again.load_state_dict(extractor.state_dict())
        assert again.config() == config
        assert config == {**TINY, "num_frames": 2, "pooling": "max", "trainable": True}
        clip = torch.rand(1, 4, 3, 32, 32)
        assert torch.equal(extractor.eval()(clip), again.eval()(clip))

    def test_is_a_copy(self):
        extractor = tiny()
        extractor.config()["model_kwargs"]["depth"] = 99
        assert extractor.config()["model_kwargs"]["depth"] == 2

    def test_cannot_describe_a_module(self):
        extractor = DINOv3SemanticExtractor(backbone=StandIn(), image_size=4)
        with pytest.raises(ValueError, match="passed in as a module, got StandIn"):
            extractor.config()

    def test_cannot_describe_what_json_cannot(self):
        kwargs = {**TINY["model_kwargs"], "norm_layer": nn.LayerNorm}
        with pytest.raises(ValueError, match=r"must be JSON-able, got .*LayerNorm"):
            tiny(model_kwargs=kwargs).config()


class TestErrors:
    @pytest.mark.parametrize(
        ("kwargs", "text"),
        [
            ({"image_size": 0}, "image_size must be at least 1, got 0"),
            ({"num_frames": 0}, "num_frames must be at least 1, got 0"),
            ({"pooling": "median"}, "pooling must be one of mean, max, got 'median'"),
            ({"model_kwargs": {"img_size": 8}}, "model_kwargs must not hold img_size"),
            (
                {"model_kwargs": {"checkpoint_path": "a.pth"}},
                "must not hold checkpoint_path: a saved model has to depend on no file",
            ),
            ({"model_kwargs": {"nonsense": 1}}, "timm cannot build .* argument 'nonsense'"),
            ({"model_name": "no_such_vit"}, "timm's registry, got 'no_such_vit'"),
            ({"model_name": "hf-hub:timm/x"}, "timm's registry, got 'hf-hub:timm/x'"),
            ({"model_name": "resnet18", "model_kwargs": {}}, "timm cannot build 'resnet18'"),
            (
                {"model_name": "swin_tiny_patch4_window7_224", "model_kwargs": {"depths": [1]}},
                "gives patch tokens, got SwinTransformer without num_prefix_tokens",
            ),
            (
                {"image_size": 36},
                r"image_size must be a multiple of the patch size \(8, 8\), got 36",
            ),
        ],
    )
    def test_arguments(self, kwargs, text):
        with pytest.raises(ValueError, match=text):
            tiny(**kwargs)

    def test_backbone_without_the_protocol(self):
        text = (
            "got Identity without forward_features, num_prefix_tokens, num_features or embed_dim, "
            "patch_embed.grid_size or grid_size"
        )
        with pytest.raises(ValueError, match=text):
            DINOv3SemanticExtractor(backbone=nn.Identity())

    def test_backbone_with_arguments_for_timm(self):
        with pytest.raises(ValueError, match=r"cannot go with a backbone, got \{'depth': 1\}"):
            DINOv3SemanticExtractor(backbone=StandIn(), model_kwargs={"depth": 1})

    def test_backbone_that_gives_other_tokens(self):
        backbone = StandIn()
        backbone.grid_size = (3, 3)
        extractor = DINOv3SemanticExtractor(backbone=backbone, image_size=4)
        text = r"2 prefix and 9 patch tokens, \[4, 11, 3\], got float32 \[4, 6, 3\]"
        with pytest.raises(ValueError, match=text):
            extractor(torch.rand(1, 4, 3, 4, 4))

    @pytest.mark.parametrize(
        ("clip", "text"),
        [
            (
                torch.zeros(2, 16, 3, 32, 32, dtype=torch.uint8),
                r"clip must be float \[B, T, 3, H, W\] with values in \[0, 1\], "
                r"got uint8 \[2, 16, 3, 32, 32\]",
            ),
            (torch.zeros(1, 4, 3, 32, 48), r"32 x 32 pixels .* got float32 \[1, 4, 3, 32, 48\]"),
            (torch.zeros(1, 3, 3, 32, 32), "at least 4 frames for this extractor, got 3"),
        ],
    )
    def test_clip(self, clip, text):
        with pytest.raises(ValueError, match=text):
            tiny()(clip)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub that cannot be reached, and an empty cache."""
    import huggingface_hub
    import huggingface_hub.utils

    calls = SimpleNamespace(asked=[], cached=None, downloaded=[], answer=None, file=None)

    def head(url, timeout):
        calls.asked.append(url)
        if calls.answer is None:
            raise ConnectionError("[Errno -2] Name or service not known\nfor a second line")
        return calls.answer

    def download(repository, filename, revision=None):
        calls.downloaded.append((repository, filename, revision))
        if calls.file is None:
            raise OSError("401 Client Error: access to this repository is restricted")
        return str(calls.file)

    monkeypatch.setattr(
        huggingface_hub, "try_to_load_from_cache", lambda *args, **kwargs: calls.cached
    )
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(huggingface_hub.utils, "get_session", lambda: SimpleNamespace(head=head))
    return calls


class TestPretrainedWeights:
    def test_without_a_network_the_error_says_what_to_do_after_one_question(self, hub):
        with pytest.raises(WeightsNotFoundError) as error:
            DINOv3SemanticExtractor()
        text = str(error.value)
        for part in (
            "'model.safetensors' of the Hugging Face repository "
            "'timm/vit_base_patch16_dinov3.lvd1689m' is not in the cache",
            "(ConnectionError: [Errno -2] Name or service not known).",
            "`hf download timm/vit_base_patch16_dinov3.lvd1689m model.safetensors`",
            "HF_HUB_OFFLINE=1",
            "licence 'dinov3-license'",
            "https://huggingface.co/timm/vit_base_patch16_dinov3.lvd1689m",
            "pretrained=False",
        ):
            assert part in text
        assert len(hub.asked) == 1  # a repeated question would take most of a minute
        assert hub.downloaded == []

    def test_refused_download_is_the_same_error(self, hub):
        hub.answer = object()
        with pytest.raises(WeightsNotFoundError, match=r"\(OSError: 401 Client Error: access"):
            DINOv3SemanticExtractor()
        repository = "timm/vit_base_patch16_dinov3.lvd1689m"
        assert hub.downloaded == [(repository, "model.safetensors", None)]

    def test_model_without_pretrained_weights(self, hub):
        text = "timm has no pretrained weights for 'vit_base_patch16_gap_224'.*pretrained=False"
        with pytest.raises(WeightsNotFoundError, match=text):
            DINOv3SemanticExtractor("vit_base_patch16_gap_224")
        assert hub.asked == []

    @pytest.mark.parametrize("where", ["cached", "file"])
    def test_are_loaded_from_the_cache_or_the_download(self, hub, tmp_path, where):
        import timm
        from safetensors.torch import save_file

        torch.manual_seed(3)
        source = timm.create_model("test_vit.r160_in1k")  # with its classifier, as on the hub
        path = tmp_path / "model.safetensors"
        save_file(source.state_dict(), path)
        setattr(hub, where, str(path))
        hub.answer = object()
        extractor = DINOv3SemanticExtractor("test_vit.r160_in1k", image_size=160)
        own = extractor.backbone.state_dict()
        assert all(torch.equal(value, source.state_dict()[key]) for key, value in own.items())
        assert bool(hub.asked) == bool(hub.downloaded) == (where == "file")
        assert extractor.config()["pretrained"] is False

    def test_from_the_hub_are_read_as_such_where_timm_has_another_format_elsewhere(
        self, hub, tmp_path
    ):
        import timm
        from safetensors.torch import save_file

        assert timm.get_pretrained_cfg(TINY["model_name"]).custom_load
        source = timm.create_model(TINY["model_name"], img_size=32, **TINY["model_kwargs"])
        hub.cached = str(tmp_path / "model.safetensors")
        save_file(source.state_dict(), hub.cached)
        weight = tiny(pretrained=True).backbone.blocks[1].mlp.fc1.weight
        assert torch.equal(weight, source.blocks[1].mlp.fc1.weight)

    def test_are_not_asked_for_without_need(self, hub):
        tiny()
        assert hub.asked == hub.downloaded == []

    def test_cache_of_this_library_is_asked_by_its_real_interface(self, monkeypatch, tmp_path):
        import huggingface_hub.utils

        def unreachable():
            raise ConnectionError("no network")

        monkeypatch.setattr(huggingface_hub.utils, "get_session", unreachable)
        with pytest.raises(WeightsNotFoundError, match="no network"):
            semantic._hub_file("nobody/has-this-one", "model.safetensors")
