import json
import warnings

import pytest
import torch
from safetensors.torch import load, save_file
from torch import nn

from gasmcast import (
    DINOv3SemanticExtractor,
    I3DMotionExtractor,
    TemporalCrossAttentionModel,
)
from small import IMAGE_SIZE, small_model


@pytest.fixture
def model():
    torch.manual_seed(0)
    return small_model(class_names=["lift", "drop", "<b>turn</b>"]).eval()


@pytest.fixture
def clip():
    return torch.rand(2, 16, 3, IMAGE_SIZE, IMAGE_SIZE)


class OwnMotion(nn.Module):
    feature_dim = 5

    def forward(self, clip):
        return clip.mean(dim=(3, 4)).repeat(1, 1, 2)[:, ::2, :5]


def test_full_size_default():
    """The default architecture, without weights, end to end on one clip."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = TemporalCrossAttentionModel(
            semantic_extractor={"pretrained": False, "num_frames": 1},
            motion_extractor={"allow_random_weights": True},
        ).eval()
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trainable == sum(
        p.numel() for part in (model.gasm_cast, model.classifier) for p in part.parameters()
    )
    assert trainable < 20_000_000
    assert model.classifier.in_features == 768 + 512
    with torch.no_grad():
        assert model(torch.rand(1, 16, 3, 224, 224)).shape == (1, 174)


def test_is_pooling_and_a_linear_layer_over_gasm_cast(model, clip):
    semantic, motion = model.semantic_extractor(clip), model.motion_extractor(clip)
    logits, maps = model(clip, return_attention=True)
    fused = model.gasm_cast(semantic, motion, maps.semantic_graph[0].pos, maps.motion_graph[0].pos)
    pooled = torch.cat([stream.mean(dim=1) for stream in fused], dim=1)
    torch.testing.assert_close(logits, model.classifier(pooled))
    torch.testing.assert_close(model.forward_features(semantic, motion), logits)
    torch.testing.assert_close(model(clip), logits)


def test_batch_equals_clips_one_by_one(model, clip):
    logits = model(clip)
    for index in range(2):
        torch.testing.assert_close(model(clip[index : index + 1])[0], logits[index])


def test_masked_features_change_nothing(model):
    semantic, motion = torch.randn(2, 16, 24), torch.randn(2, 8, 32)
    masks = {"semantic_mask": torch.ones(2, 16).bool(), "motion_mask": torch.ones(2, 8).bool()}
    masks["semantic_mask"][0, 10:] = masks["motion_mask"][1, :3] = False
    logits = model.forward_features(semantic, motion, **masks)
    semantic[~masks["semantic_mask"]], motion[~masks["motion_mask"]] = torch.nan, torch.inf
    torch.testing.assert_close(model.forward_features(semantic, motion, **masks), logits)


def test_every_trainable_parameter_gets_a_gradient(clip):
    torch.manual_seed(0)
    model = small_model()
    for layer in (
        model.gasm_cast.layer1_basic,
        model.gasm_cast.layer2_pattern,
        model.gasm_cast.layer3_action,
    ):
        nn.init.normal_(layer.sem_expand.weight)
        nn.init.normal_(layer.mot_expand.weight)
    model(clip).pow(2).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_frozen_extractors_stay_as_they_are(clip):
    model = small_model(trainable=False).train()
    assert not model.semantic_extractor.training
    assert not model.motion_extractor.backbone.training
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model(clip).sum().backward()
    for name, parameter in model.named_parameters():
        frozen = name.split(".")[0].endswith("extractor")
        assert parameter.requires_grad is not frozen
        assert (parameter.grad is None) is frozen, name
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)  # BatchNorm included


def test_saved_and_loaded_is_the_same(model, clip, tmp_path):
    model.save_pretrained(tmp_path / "model")
    written = {path.name for path in (tmp_path / "model").iterdir()}
    assert {"config.json", "model.safetensors"} <= written
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "model").iterdir()}
    assert len(modes) == 1  # who may read one file may read all
    assert "from_pretrained" in (tmp_path / "model" / "README.md").read_text()
    assert not {name for name in written if name.endswith((".bin", ".pt", ".pkl", ".part"))}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = TemporalCrossAttentionModel.from_pretrained(tmp_path / "model")
    assert not loaded.training
    assert loaded.class_names == ["lift", "drop", "<b>turn</b>"]
    assert loaded.config() == model.config()
    assert torch.equal(loaded(clip), model(clip))


def test_the_configuration_asks_for_no_download():
    """What was saved with hub weights holds them: loading asks nobody for them."""
    model = small_model()
    config = model.config()
    assert config["semantic_extractor"]["pretrained"] is False
    assert config["motion_extractor"]["checkpoint"] is None
    assert json.loads(json.dumps(config)) == config


def test_extractors_of_one_s_own(clip, tmp_path):
    model = small_model(3)
    own = TemporalCrossAttentionModel(3, model.semantic_extractor, OwnMotion(), num_heads=1).eval()
    logits = own(clip)
    own.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"saved with a motion_extractor of its own .* pass it"):
        TemporalCrossAttentionModel.from_pretrained(tmp_path)
    loaded = TemporalCrossAttentionModel.from_pretrained(tmp_path, motion_extractor=OwnMotion())
    assert torch.equal(loaded(clip), logits)


def test_a_pickle_in_the_folder_is_not_read(model, tmp_path):
    model.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match=r"holds no model\.safetensors"):
        TemporalCrossAttentionModel.from_pretrained(tmp_path)


def test_damaged_folders_are_named(model, tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    for missing in (tmp_path / "nothing", "./nothing", "../nothing", "runs/nothing", "runs/a/b"):
        with pytest.raises(FileNotFoundError, match="is no folder: expected one written by save"):
            TemporalCrossAttentionModel.from_pretrained(missing)
    (tmp_path / "runs").rmdir()
    model.save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    state = load(weights.read_bytes())  # load_file would map the file that is cut below
    whole = weights.read_bytes()

    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"model\.safetensors does not fit its configuration"):
        TemporalCrossAttentionModel.from_pretrained(tmp_path)
    state["classifier.bias"] = torch.zeros(7)
    save_file(state, weights)
    with pytest.raises(ValueError, match=r"size mismatch for classifier\.bias"):
        TemporalCrossAttentionModel.from_pretrained(tmp_path)
    del state["classifier.bias"]
    save_file(state, weights)
    with pytest.raises(ValueError, match=r"Missing key.*classifier\.bias"):
        TemporalCrossAttentionModel.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is not JSON"):
        TemporalCrossAttentionModel.from_pretrained(tmp_path)


def test_an_interrupted_save_leaves_the_old_weights(model, clip, tmp_path, monkeypatch):
    model.save_pretrained(tmp_path)
    logits = model(clip)

    def interrupted(module, path):
        with open(path, "wb") as file:
            file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("safetensors.torch.save_model", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.save_pretrained(tmp_path)
    loaded = TemporalCrossAttentionModel.from_pretrained(tmp_path)
    assert torch.equal(loaded(clip), logits)
    monkeypatch.undo()
    model.save_pretrained(tmp_path)
    assert not (tmp_path / ".unfinished").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "num_classes must be at least 1, got 0"),
        ({"class_names": ["one"]}, "class_names must name each of the 174 classes, got 1"),
        ({"num_classes": 2, "class_names": ["x", "x"]}, r"a name of its own, got \['x', 'x'\]"),
        (
            {"semantic_extractor": {"pretrained": False}, "motion_extractor": {"image_size": 64}},
            r"expected one image_size, got 224 \(semantic\) and 64 \(motion\)",
        ),
        (
            {"semantic_extractor": {"pretrained": False}, "num_frames": 3},
            "num_frames must be at least the semantic 4, got 3",
        ),
        (
            {"semantic_extractor": nn.Identity()},
            "Identity lacks feature_dim, grid_size, image_size",
        ),
        (
            {
                "semantic_extractor": {
                    "model_name": "vit_tiny_patch16_224",
                    "pretrained": False,
                    "model_kwargs": {"num_heads": 7},
                }
            },
            "timm cannot build",
        ),
        ({"semantic_extractor": 7}, "must be a module, a mapping .* or None, got 7"),
        (
            {"semantic_extractor": {"pretrained": False, "colour": 1}},
            "DINOv3SemanticExtractor: .*'colour'",
        ),
    ],
)
def test_arguments_that_do_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        TemporalCrossAttentionModel(**arguments)


def test_input_that_does_not_fit(model):
    with pytest.raises(ValueError, match=r"clip must be float \[B, T, 3, H, W\].*uint8"):
        model(torch.zeros(1, 16, 3, 32, 32, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"must be \[B, 16, 24\].* 4 x 4 grid, got \[1, 9, 24\]"):
        model.forward_features(torch.zeros(1, 9, 24), torch.zeros(1, 8, 32))
    for shape in ((8, 32), (1, 8, 31)):
        message = rf"motion features must be \[B, S, 32\], got \[{', '.join(map(str, shape))}\]"
        with pytest.raises(ValueError, match=message):
            model.forward_features(torch.zeros(1, 16, 24), torch.zeros(shape))


def test_default_extractors_have_the_specified_widths():
    semantic = DINOv3SemanticExtractor(pretrained=False)
    motion = I3DMotionExtractor(allow_random_weights=True)
    assert (semantic.feature_dim, semantic.grid_size) == (768, (14, 14))
    assert (motion.feature_dim, motion.num_segments(16)) == (512, 8)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes(model, clip, dtype):
    logits = model(clip)
    other = model.to(dtype)(clip.to(dtype))
    assert other.dtype == dtype
    torch.testing.assert_close(other.float(), logits, rtol=0.1, atol=0.05)


def test_mixed_precision_trains(clip):
    torch.manual_seed(0)
    model = small_model()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(clip).float().pow(2).sum()
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_compiles(model, clip):
    compiled = torch.compile(model, backend="eager")
    torch.testing.assert_close(compiled(clip), model(clip))


@pytest.mark.parametrize("fusion", ["bottleneck", "cross_attention", "late"])
def test_fused_for_inference(fusion, tmp_path):
    torch.manual_seed(0)
    model = small_model(fusion=fusion)
    for layer in model.gasm_cast.fusion_layers:
        for parameter in layer.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    clip = torch.rand(1, 16, 3, IMAGE_SIZE, IMAGE_SIZE)
    fused = model.fuse_for_inference()
    model.eval()
    expected, maps = model(clip, return_attention=True)
    logits, fused_maps = fused(clip, return_attention=True)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(fused_maps.semantic_graph.attention, maps.semantic_graph.attention)
    assert not any(parameter.requires_grad for parameter in fused.parameters())
    fused.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    torch.testing.assert_close(loaded(clip), expected)


def test_hooks_on_gasm_cast_and_its_layers_are_called():
    model = small_model().eval()
    clips = torch.rand(8, 16, 3, IMAGE_SIZE, IMAGE_SIZE)
    called = []
    model.gasm_cast.register_forward_hook(lambda *_: called.append("gasm_cast"))
    expected = model(clips)
    model.gasm_cast.layer2_pattern.register_forward_hook(lambda *_: called.append("layer"))
    torch.testing.assert_close(model(clips), expected)
    assert called == ["gasm_cast", "layer", "gasm_cast"]


def test_a_fusion_that_is_not_there_is_refused_before_any_download():
    with pytest.raises(ValueError, match="fusion must be .*, got 'early'"):
        TemporalCrossAttentionModel(fusion="early")
