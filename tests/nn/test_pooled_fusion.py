"""Averages of a stack, made without its tokens, are the averages of its tokens."""

import pytest
import torch
from torch import nn

from gasmcast import GASMCAST, BottleneckCrossAttention, generate_spatial_positions
from gasmcast.nn import CrossAttention, pooled_fusion
from gasmcast.nn.pooled_fusion import FrozenMaps, MergedMaps, fuse_and_pool, masked_mean, merge_maps
from gasmcast.positions import generate_temporal_positions

SEM_DIM, MOT_DIM, DIM = 20, 14, 4


def stack(kind=BottleneckCrossAttention, number: int = 3, **options) -> nn.ModuleList:
    torch.manual_seed(0)
    width = {"bottleneck_dim": DIM} if kind is BottleneckCrossAttention else {}
    layers = nn.ModuleList(
        kind(SEM_DIM, MOT_DIM, **width, num_heads=2, **options) for _ in range(number)
    )
    for parameter in layers.parameters():
        nn.init.normal_(parameter, std=0.3)
    return layers.double()


def inputs(batch: int, patches: int, segments: int) -> tuple:
    torch.manual_seed(1)
    return (
        torch.randn(batch, patches, SEM_DIM, dtype=torch.float64, requires_grad=True),
        torch.randn(batch, segments, MOT_DIM, dtype=torch.float64, requires_grad=True),
        torch.rand(patches, 2) * 4,
        torch.arange(float(segments))[:, None],
    )


def token_means(layers, semantic, motion, *places, semantic_mask=None, motion_mask=None):
    torch.manual_seed(3)
    maps = []
    for layer in layers:
        semantic, motion, *weights = layer(
            semantic,
            motion,
            *places,
            semantic_mask=semantic_mask,
            motion_mask=motion_mask,
            return_attention=True,
        )
        maps += weights
    return masked_mean(semantic, semantic_mask), masked_mean(motion, motion_mask), maps


def masks(kind: str, patches: int, segments: int) -> dict:
    if kind == "none":
        return {}
    torch.manual_seed(2)
    semantic, motion = torch.rand(4, patches) > 0.4, torch.rand(4, segments) > 0.4
    semantic[1] = motion[2] = False
    return {"semantic_mask": semantic, "motion_mask": motion}


@pytest.fixture
def merged_streams(monkeypatch):
    """Which streams the last call merged."""
    found = []
    where = pooled_fusion._where_it_pays

    def note(*args):
        found[:] = [maps is not None for maps in where(*args)]
        return where(*args)

    monkeypatch.setattr(pooled_fusion, "_where_it_pays", note)
    return found


# Tokens of a batch of four, and which streams are merged for them: 4 N (D - d) > D d.
SIZES = {
    (9, 3): [True, True],
    (9, 1): [True, False],
    (1, 9): [False, True],
    (1, 1): [False, False],
}


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("mask", ["none", "some"])
@pytest.mark.parametrize("drop_path", [0.0, 0.5])
def test_the_means_of_the_tokens(size, mask, drop_path, merged_streams):
    layers, arguments = stack(drop_path=drop_path), inputs(4, *size)
    options = masks(mask, *size)
    expected = token_means(layers, *arguments, **options)
    torch.manual_seed(3)
    got = fuse_and_pool(layers, *arguments, **options, return_attention=True)
    assert merged_streams == SIZES[size]
    wanted = [*arguments[:2], *layers.parameters()]
    grads = [torch.randn_like(mean) for mean in expected[:2]]
    for a, b in zip(expected[:2], got[:2], strict=True):
        torch.testing.assert_close(b, a)
    for a, b in zip(expected[2], got[2], strict=True):
        clips = [0, 3] if mask == "some" else slice(None)
        torch.testing.assert_close(b[0][clips], a[0][clips])
        torch.testing.assert_close(b[1][clips], a[1][clips])
    for a, b in zip(
        torch.autograd.grad(expected[:2], wanted, grads, materialize_grads=True),
        torch.autograd.grad(got[:2], wanted, grads, materialize_grads=True),
        strict=True,
    ):
        torch.testing.assert_close(b, a)


@pytest.mark.parametrize("number", [1, 2, 5])
def test_any_number_of_layers(number):
    layers, arguments = stack(number=number), inputs(4, 9, 3)
    expected = token_means(layers, *arguments)
    got = fuse_and_pool(layers, *arguments)
    torch.testing.assert_close(got[:2], expected[:2])
    assert got[2] == []


def test_no_layers_and_layers_of_another_kind():
    arguments = inputs(4, 9, 3)
    means = fuse_and_pool([], *arguments)
    torch.testing.assert_close(means[0], arguments[0].mean(dim=1))
    torch.testing.assert_close(means[1], arguments[1].mean(dim=1))
    layers = stack(CrossAttention)
    expected = token_means(layers, *arguments)
    got = fuse_and_pool(layers, *arguments, return_attention=True)
    torch.testing.assert_close(got, expected)


def test_parts_that_do_more_than_multiply_are_called(merged_streams):
    layers, arguments = stack(), inputs(4, 9, 3)
    calls = []
    layers[1].sem_expand.register_forward_hook(lambda *_: calls.append(1))
    got = fuse_and_pool(layers, *arguments)
    assert merged_streams == [False, True]
    assert calls == [1]
    torch.testing.assert_close(got[:2], token_means(layers, *arguments)[:2])


def test_merged_maps_by_hand():
    compress = [nn.Linear(2, 1), nn.Linear(2, 1)]
    expand = [nn.Linear(1, 2), nn.Linear(1, 2)]
    with torch.no_grad():
        for linear, weight in zip([*compress, *expand], [2.0, 3.0, 5.0, 7.0], strict=True):
            linear.weight.fill_(weight)
            linear.bias.fill_(weight / 10)
    maps = MergedMaps.of(compress, expand)
    assert maps.compress.tolist() == [[2, 2], [3, 3]]
    torch.testing.assert_close(maps.compress_bias, torch.tensor([0.2, 0.3]))
    assert maps.through[0] == maps.through_bias[0] == []
    assert maps.through[1][0].tolist() == [[30]]  # 5 * 3 + 5 * 3
    assert maps.through_bias[1][0].tolist() == [3]  # 0.5 * 3 + 0.5 * 3
    frozen = FrozenMaps(maps)
    assert frozen.state_dict() == {}
    doubled = frozen.double()()
    assert doubled.compress.dtype is doubled.through[1][0].dtype is torch.float64
    assert doubled.through_bias[1][0].tolist() == pytest.approx([3])


def test_what_does_not_fit_gets_the_error_of_the_layers():
    layers = stack()
    semantic, motion, *places = inputs(4, 9, 3)
    with pytest.raises(ValueError, match=r"expected semantic \[B, P, 20\] and motion \[B, S, 14\]"):
        fuse_and_pool(layers, semantic, motion[..., :3], *places)
    with pytest.raises(ValueError, match=r"motion_positions must be \[3, d\] or \[4, 3, d\]"):
        fuse_and_pool(layers, semantic, motion, places[0], places[1][:2])
    with pytest.raises(ValueError, match=r"semantic_mask must be bool \[4, 9\]"):
        fuse_and_pool(layers, semantic, motion, *places, semantic_mask=torch.ones(4, 9))


def test_autocast():
    layers, arguments = stack().float(), inputs(4, 9, 3)
    semantic, motion = (tensor.float() for tensor in arguments[:2])
    expected = fuse_and_pool(layers, semantic, motion, *arguments[2:])
    with torch.autocast("cpu", torch.bfloat16):
        got = fuse_and_pool(layers, semantic, motion, *arguments[2:])
    torch.testing.assert_close(got[:2], expected[:2], atol=0.05, rtol=0.05, check_dtype=False)


POSITIONS = generate_spatial_positions((2, 3)), generate_temporal_positions(8, 4)


def gasm_cast(fusion="bottleneck", **options):
    torch.manual_seed(0)
    module = GASMCAST(16, 12, fusion=fusion, bottleneck_dim=8, num_heads=4, **options)
    for layer in module.fusion_layers:
        for parameter in layer.parameters():
            nn.init.normal_(parameter, std=0.3)
    return module


@pytest.mark.parametrize("fusion", ["bottleneck", "cross_attention", "late"])
def test_fused_for_inference(fusion):
    module = gasm_cast(fusion, drop_path=0.5)
    semantic, motion = torch.randn(1, 6, 16), torch.randn(1, 4, 12)
    fused = module.fuse_for_inference()
    assert module.training
    assert not fused.training
    assert not any(parameter.requires_grad for parameter in fused.parameters())
    assert all(parameter.requires_grad for parameter in module.parameters())
    module.eval()
    expected = module(semantic, motion, *POSITIONS, pooled=True)
    torch.testing.assert_close(fused(semantic, motion, *POSITIONS, pooled=True), expected)
    torch.testing.assert_close(
        fused(semantic, motion, *POSITIONS), module(semantic, motion, *POSITIONS)
    )
    double = fused.double()(semantic.double(), motion.double(), *POSITIONS, pooled=True)
    torch.testing.assert_close([mean.float() for mean in double], list(expected))
    with torch.no_grad():  # it is a copy
        for parameter in module.parameters():
            parameter.zero_()
    torch.testing.assert_close(fused.float()(semantic, motion, *POSITIONS, pooled=True), expected)


def test_merging_beforehand_leaves_one_compression_for_all_layers():
    module = gasm_cast().eval()
    fused = module.fuse_for_inference()
    semantic, motion = torch.randn(1, 6, 16), torch.randn(1, 4, 12)

    def products(of):
        shapes = []
        with torch.no_grad(), torch.profiler.profile(record_shapes=True) as profiler:
            of(semantic, motion, *POSITIONS, pooled=True)
        for event in profiler.events():
            if event.name in ("aten::mm", "aten::addmm", "aten::addmm_"):
                shapes.append(event.input_shapes)
        return shapes

    assert sum([16, 24] in shapes for shapes in products(fused)) == 1
    assert sum([16, 8] in shapes for shapes in products(fused)) == 0
    assert sum([16, 24] in shapes for shapes in products(module)) == 0


@pytest.mark.parametrize("fusion", ["bottleneck", "cross_attention", "late"])
@pytest.mark.parametrize("batch", [1, 40])
def test_pooled_is_the_mean_of_forward(fusion, batch):
    module = gasm_cast(fusion)
    semantic, motion = torch.randn(batch, 6, 16), torch.randn(batch, 4, 12)
    masks = {"semantic_mask": torch.rand(batch, 6) > 0.3, "motion_mask": torch.rand(batch, 4) > 0.3}
    *expected, maps = module(semantic, motion, *POSITIONS, **masks, return_attention=True)
    *got, pooled_maps = module(
        semantic, motion, *POSITIONS, **masks, return_attention=True, pooled=True
    )
    for mean, tokens, mask in zip(got, expected, masks.values(), strict=True):
        torch.testing.assert_close(mean, masked_mean(tokens, mask), atol=1e-4, rtol=1e-4)
    assert torch.equal(maps.semantic_graph.attention, pooled_maps.semantic_graph.attention)
    if fusion == "late":
        assert maps.basic is maps.pattern is maps.action is None
        return
    heard = masks["motion_mask"].any(dim=1)
    torch.testing.assert_close(
        maps.action.semantic_to_motion[heard], pooled_maps.action.semantic_to_motion[heard]
    )
    assert module(semantic, motion, *POSITIONS, **masks, pooled=True)[0].shape == (batch, 16)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("masked", [False, True])
def test_fused_for_inference_under_autocast(dtype, masked):
    torch.manual_seed(0)
    module = GASMCAST(64, 32, bottleneck_dim=32, num_heads=4).eval()
    for layer in module.fusion_layers:
        nn.init.normal_(layer.sem_expand.weight, std=0.1)
        nn.init.normal_(layer.mot_expand.weight, std=0.1)
    fused = module.fuse_for_inference()
    streams = torch.randn(2, 49, 64), torch.randn(2, 3, 32)  # so many that they are absorbed
    places = generate_spatial_positions(7), generate_temporal_positions(6, 3)
    masks = {"semantic_mask": torch.rand(2, 49) > 0.3} if masked else {}
    expected = module(*streams, *places, **masks, pooled=True)
    with torch.autocast("cpu", dtype):
        found = fused(*streams, *places, **masks, pooled=True)
    for mine, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(mine.float(), reference, atol=0.02, rtol=0.02)


def test_a_fused_copy_notices_what_changes_it():
    module, other = gasm_cast().eval(), gasm_cast().eval()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.5)
    streams = torch.randn(40, 6, 16), torch.randn(40, 4, 12)

    def means(of):
        return list(of(*streams, *POSITIONS, pooled=True))

    fused = module.fuse_for_inference()
    fused.load_state_dict(other.state_dict())
    torch.testing.assert_close(means(fused), means(other))
    fused = nn.ModuleDict({"inside": module.fuse_for_inference()})
    fused.load_state_dict({f"inside.{name}": p for name, p in other.state_dict().items()})
    torch.testing.assert_close(means(fused["inside"]), means(other))

    fused = module.fuse_for_inference().requires_grad_(True)
    sum(mean.square().sum() for mean in means(fused)).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in fused.parameters())

    fused, called = module.fuse_for_inference(), []
    fused.layer2_pattern.sem_compress.register_forward_hook(lambda *_: called.append(1))
    torch.testing.assert_close(means(fused), means(module))
    assert called == [1]


def test_means_are_exact_in_half_precision():
    for number in (196, 300):
        for mask in (None, torch.ones(2, number, dtype=torch.bool)):
            ones = torch.ones(2, number, 3, dtype=torch.bfloat16)
            assert torch.equal(masked_mean(ones, mask), torch.ones(2, 3, dtype=torch.bfloat16))
            with torch.autocast("cpu", torch.bfloat16):
                mean = masked_mean(ones.float(), mask)
            assert torch.equal(mean, torch.ones(2, 3))


def test_adapters_are_not_merged_away():
    class Doubling(nn.Linear):
        def forward(self, tokens):
            return 2 * super().forward(tokens)

    module = gasm_cast().eval()
    adapter = Doubling(16, 8)
    adapter.load_state_dict(module.layer2_pattern.sem_compress.state_dict())
    module.layer2_pattern.sem_compress = adapter
    semantic, motion = merge_maps(module.fusion_layers)
    assert semantic is None
    assert motion is not None
    streams = torch.randn(40, 6, 16), torch.randn(40, 4, 12)
    expected = module.fuse_for_inference()(*streams, *POSITIONS, pooled=True)
    torch.testing.assert_close(expected, module(*streams, *POSITIONS, pooled=True))
    tokens = module(*streams, *POSITIONS)
    torch.testing.assert_close(list(expected), [masked_mean(stream, None) for stream in tokens])


def test_maps_of_other_layers():
    merged = merge_maps(stack())
    message = r"of these 2 layers, with a compression \[8, 20\], got maps of 3 layers, \[12, 20\]"
    with pytest.raises(ValueError, match=message):
        fuse_and_pool(stack(number=2), *inputs(4, 9, 3), merged=merged)
    for others in ([], stack(CrossAttention)):  # that have no such maps: they are passed over
        expected = token_means(others, *inputs(4, 9, 3))[:2]
        torch.testing.assert_close(
            fuse_and_pool(others, *inputs(4, 9, 3), merged=merged)[:2], expected
        )
    wider = [BottleneckCrossAttention(SEM_DIM, MOT_DIM, 6, num_heads=2).double() for _ in range(3)]
    with pytest.raises(ValueError, match=r"\[18, 20\], got maps of 3 layers, \[12, 20\]"):
        fuse_and_pool(wider, *inputs(4, 9, 3), merged=merged)


def test_merge_is_of_both_streams():
    layers = stack()
    semantic, motion = merge_maps(layers)
    assert semantic.compress.shape == (3 * DIM, SEM_DIM)
    assert motion.compress.shape == (3 * DIM, MOT_DIM)
    arguments = inputs(1, 1, 1)  # too few tokens for it to pay: but it is made already
    torch.testing.assert_close(
        fuse_and_pool(layers, *arguments, merged=(semantic, motion))[:2],
        token_means(layers, *arguments)[:2],
    )
