import pytest
import torch
from torch import nn

from gasmcast import GASMCAST, generate_spatial_positions, generate_temporal_positions
from gasmcast.nn import CrossAttention


@pytest.fixture
def fuse():
    torch.manual_seed(0)
    module = GASMCAST(16, 12, bottleneck_dim=8, num_heads=4)
    for layer in (module.layer1_basic, module.layer2_pattern, module.layer3_action):
        nn.init.normal_(layer.sem_expand.weight)
        nn.init.normal_(layer.mot_expand.weight)
    return module


POSITIONS = (generate_spatial_positions((2, 3)), generate_temporal_positions(8, 4))


def test_the_specification_s_names_and_shapes():
    fuse = GASMCAST()
    for name in (
        "semantic_graph",
        "motion_graph",
        "layer1_basic",
        "layer2_pattern",
        "layer3_action",
    ):
        assert hasattr(fuse, name)
    for name in ("sem_compress", "mot_compress", "cross_attention", "sem_expand", "mot_expand"):
        assert hasattr(fuse.layer1_basic, name)
    assert sum(p.numel() for p in fuse.parameters()) < 20_000_000


def test_batch_equals_clips_one_by_one(fuse):
    semantic, motion = torch.randn(3, 6, 16), torch.randn(3, 4, 12)
    out = fuse(semantic, motion, *POSITIONS)
    for clip in range(3):
        alone = fuse(semantic[clip : clip + 1], motion[clip : clip + 1], *POSITIONS)
        for a, b in zip(out, alone, strict=True):
            torch.testing.assert_close(a[clip : clip + 1], b)


def test_is_the_layers_one_after_the_other(fuse):
    semantic, motion = torch.randn(2, 6, 16), torch.randn(2, 4, 12)
    out = fuse(semantic, motion, *POSITIONS)
    semantic = fuse.semantic_graph(semantic, POSITIONS[0])
    motion = fuse.motion_graph(motion, POSITIONS[1])
    for layer in (fuse.layer1_basic, fuse.layer2_pattern, fuse.layer3_action):
        semantic, motion = layer(semantic, motion, *POSITIONS)
    assert torch.equal(out[0], semantic)
    assert torch.equal(out[1], motion)


def test_masked_tokens_change_nothing(fuse):
    semantic, motion = torch.randn(2, 6, 16), torch.randn(2, 4, 12)
    masks = {"semantic_mask": torch.ones(2, 6).bool(), "motion_mask": torch.ones(2, 4).bool()}
    masks["semantic_mask"][0, 3:] = masks["motion_mask"][1, 2:] = False
    out = fuse(semantic, motion, *POSITIONS, **masks)
    semantic[~masks["semantic_mask"]], motion[~masks["motion_mask"]] = 50.0, -50.0
    changed = fuse(semantic, motion, *POSITIONS, **masks)
    for a, b, mask in zip(out, changed, masks.values(), strict=True):
        assert torch.equal(a[mask], b[mask])


def test_all_attention_comes_back(fuse):
    semantic, motion = torch.randn(2, 6, 16), torch.randn(2, 4, 12)
    *out, maps = fuse(semantic, motion, *POSITIONS, return_attention=True)
    for a, b in zip(out, fuse(semantic, motion, *POSITIONS), strict=True):
        torch.testing.assert_close(a, b)
    assert maps.semantic_graph.num_graphs == maps.motion_graph.num_graphs == 2
    for layer in (maps.basic, maps.pattern, maps.action):
        assert layer.semantic_to_motion.shape == (2, 4, 6, 4)
        assert layer.motion_to_semantic.shape == (2, 4, 4, 6)
    # The maps belong to different layers: the first is made before any fusion.
    assert not torch.equal(maps.basic.semantic_to_motion, maps.action.semantic_to_motion)


@pytest.mark.parametrize("fusion", ["cross_attention", "late"])
def test_other_fusions(fusion):
    torch.manual_seed(0)
    fuse = GASMCAST(16, 12, fusion=fusion, num_heads=4)
    semantic, motion = torch.randn(2, 6, 16), torch.randn(2, 4, 12)
    *out, maps = fuse(semantic, motion, *POSITIONS, return_attention=True)
    refined = fuse.semantic_graph(semantic, POSITIONS[0]), fuse.motion_graph(motion, POSITIONS[1])
    if fusion == "late":
        assert fuse.fusion_layers == []
        assert not any(name.startswith("layer") for name, _ in fuse.named_parameters())
        assert torch.equal(out[0], refined[0])
        assert torch.equal(out[1], refined[1])
    else:
        assert [type(layer) for layer in fuse.fusion_layers] == [CrossAttention] * 3
        assert maps.action.semantic_to_motion.shape == (2, 4, 6, 4)
        for layer in fuse.fusion_layers:
            refined = layer(*refined, *POSITIONS)
        torch.testing.assert_close(out, list(refined))
    sum(tokens.square().sum() for tokens in out).backward()
    for name, parameter in fuse.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


def test_a_fusion_that_is_not_there():
    message = 'fusion must be "bottleneck", "cross_attention" or "late", got \'early\''
    with pytest.raises(ValueError, match=message):
        GASMCAST(fusion="early")


def test_every_parameter_gets_a_gradient(fuse):
    semantic, motion = fuse(torch.randn(2, 6, 16), torch.randn(2, 4, 12), *POSITIONS)
    (semantic.pow(2).sum() + motion.pow(2).sum()).backward()
    for name, parameter in fuse.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
