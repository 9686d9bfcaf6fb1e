import math

import pytest
import torch
from torch import nn

from gasmcast import BottleneckCrossAttention
from gasmcast.nn import CrossAttention, MultiHeadAttention, absorbed_attention
from gasmcast.nn.position_encoding import FourierPositionEncoding


@pytest.fixture(params=["bottleneck", "full width"])
def any_layer(request):
    if request.param == "bottleneck":
        return small_layer()
    return CrossAttention(12, 10, num_heads=2)


def small_layer(fresh: bool = False) -> BottleneckCrossAttention:
    layer = BottleneckCrossAttention(12, 10, bottleneck_dim=8, num_heads=2)
    if not fresh:  # up-projections start at zero: give them something to say
        for expand in (layer.sem_expand, layer.mot_expand):
            nn.init.normal_(expand.weight)
            nn.init.normal_(expand.bias)
    return layer


def inputs(batch=3, patches=6, segments=4):
    return (
        torch.randn(batch, patches, 12),
        torch.randn(batch, segments, 10),
        torch.rand(patches, 2) * 5,
        torch.arange(float(segments))[:, None],
    )


def test_two_tokens_by_hand():
    attention = MultiHeadAttention(1, 1).double()
    with torch.no_grad():
        for linear in (attention.query, attention.key, attention.value, attention.output):
            linear.weight.fill_(1.0)
        attention.query.bias.fill_(1.0)
        attention.output.bias.fill_(0.25)
    query = torch.tensor([[[0.0], [1.0]]], dtype=torch.float64)
    keys = torch.tensor([[[0.0], [2.0]]], dtype=torch.float64)
    out, weights = attention(query, keys, return_attention=True)
    # scores (q + 1) k: [0, 2] and [0, 4]
    second = [math.exp(2) / (1 + math.exp(2)), math.exp(4) / (1 + math.exp(4))]
    expected = torch.tensor(second, dtype=torch.float64)
    torch.testing.assert_close(weights[0, 0, :, 1], expected)
    torch.testing.assert_close(out.flatten(), 2 * expected + 0.25)


def test_equals_torch_multihead_attention():
    ours = MultiHeadAttention(12, 3).double()
    theirs = nn.MultiheadAttention(12, 3, batch_first=True).double()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(
            torch.cat([ours.query.weight, ours.key.weight, ours.value.weight])
        )
        theirs.in_proj_bias.zero_()
        theirs.in_proj_bias[:12].copy_(ours.query.bias)
        theirs.out_proj.load_state_dict(ours.output.state_dict())
    query, keys = torch.randn(2, 5, 12).double(), torch.randn(2, 7, 12).double()
    mask = torch.ones(2, 7, dtype=torch.bool)
    mask[1, 4:] = False
    out, weights = ours(query, keys, mask, return_attention=True)
    expected, expected_weights = theirs(
        query, keys, keys, key_padding_mask=~mask, average_attn_weights=False
    )
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(weights, expected_weights)
    torch.testing.assert_close(ours(query, keys, mask), expected)  # the fused kernel


def test_full_width_is_torch_multihead_attention_with_norm_positions_and_residual():
    torch.manual_seed(0)
    layer = CrossAttention(12, 10, num_heads=2).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    semantic, motion, *places = (tensor.double() for tensor in inputs())
    mask = torch.rand(3, 6) > 0.3
    mask[:, 0] = True
    sem = layer.sem_norm(semantic) + layer.sem_position(places[0])
    mot = layer.mot_norm(motion) + layer.mot_position(places[1])
    got = layer(semantic, motion, *places, semantic_mask=mask)
    for ours, query, keys, x, out, hidden in (
        (layer.sem_attention, sem, mot, semantic, got[0][mask], None),
        (layer.mot_attention, mot, sem, motion, got[1], ~mask),
    ):
        dim, kv_dim = query.size(-1), keys.size(-1)
        theirs = nn.MultiheadAttention(dim, 2, kdim=kv_dim, vdim=kv_dim, batch_first=True).double()
        with torch.no_grad():
            theirs.q_proj_weight.copy_(ours.query.weight)
            theirs.k_proj_weight.copy_(ours.key.weight)
            theirs.v_proj_weight.copy_(ours.value.weight)
            theirs.in_proj_bias.zero_()
            theirs.in_proj_bias[:dim].copy_(ours.query.bias)
            theirs.out_proj.load_state_dict(ours.output.state_dict())
        expected = x + theirs(query, keys, keys, key_padding_mask=hidden)[0]
        torch.testing.assert_close(out, expected[mask] if hidden is None else expected)


@pytest.mark.parametrize("kind", [BottleneckCrossAttention, CrossAttention])
def test_default_shapes(kind):
    semantic, motion = kind()(torch.randn(2, 196, 768), torch.randn(2, 8, 512))
    assert (semantic.shape, motion.shape) == ((2, 196, 768), (2, 8, 512))
    layer = BottleneckCrossAttention()
    assert layer.sem_compress.out_features == layer.mot_compress.out_features == 256


def test_a_fresh_layer_is_the_identity():
    semantic, motion, *positions = inputs()
    out = small_layer(fresh=True)(semantic, motion, *positions)
    assert torch.equal(out[0], semantic)
    assert torch.equal(out[1], motion)


def test_weights_of_both_directions(any_layer):
    out = any_layer(*inputs(), return_attention=True)
    assert out[2].semantic_to_motion.shape == (3, 2, 6, 4)
    assert out[2].motion_to_semantic.shape == (3, 2, 4, 6)
    for weights in out[2]:
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))


@pytest.mark.parametrize("return_attention", [False, True])
@pytest.mark.parametrize("segments", [2, 6])  # absorbed and projected
def test_one_layer_by_the_equations(return_attention, segments):
    """Both outputs again from the weights, in plain arithmetic."""
    torch.manual_seed(0)
    layer = small_layer().double()
    for parameter in layer.parameters():  # norms and biases too must not be what they start as
        nn.init.normal_(parameter)
    w = {name: value.detach() for name, value in layer.state_dict().items()}
    semantic, motion, sem_pos, mot_pos = (t.double() for t in inputs(segments=segments))
    absorbed = absorbed_attention.is_worthwhile(6, segments, 8, 2)
    assert absorbed == (segments == 2)

    def compress(x, stream):
        y = x @ w[f"{stream}_compress.weight"].T + w[f"{stream}_compress.bias"]
        y = y - y.mean(-1, keepdim=True)
        y = y / (y.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
        return y * w[f"{stream}_norm.weight"] + w[f"{stream}_norm.bias"]

    def encode(positions, name):
        angles = [column / 2**k for column in positions.T for k in range(6)]
        waves = [angle.sin() for angle in angles] + [angle.cos() for angle in angles]
        return torch.stack(waves, dim=-1) @ w[f"{name}_position.mix.weight"].T

    def attend(queries, keys):
        q, k, v = (
            tokens @ w[f"cross_attention.{name}.weight"].T
            for name, tokens in (("query", queries), ("key", keys), ("value", keys))
        )
        q = q + w["cross_attention.query.bias"]
        heads = []
        for head in (slice(0, 4), slice(4, 8)):
            weights = (q[..., head] @ k[..., head].mT / 4**0.5).exp()
            heads.append(weights / weights.sum(-1, keepdim=True) @ v[..., head])
        heads = torch.cat(heads, dim=-1)
        return heads @ w["cross_attention.output.weight"].T + w["cross_attention.output.bias"]

    def expand(y, stream):
        y = y * (1 + torch.erf(y / 2**0.5)) / 2
        return y @ w[f"{stream}_expand.weight"].T + w[f"{stream}_expand.bias"]

    sem, mot = compress(semantic, "sem"), compress(motion, "mot")
    sem_update = attend(sem + encode(sem_pos, "sem_query"), mot + encode(mot_pos, "mot_key"))
    mot_update = attend(mot + encode(mot_pos, "mot_query"), sem + encode(sem_pos, "sem_key"))
    out = layer(semantic, motion, sem_pos, mot_pos, return_attention=return_attention)
    torch.testing.assert_close(out[0], semantic + expand(sem_update, "sem"))
    torch.testing.assert_close(out[1], motion + expand(mot_update, "mot"))


def test_returning_attention_changes_nothing(any_layer):
    layer, arguments = any_layer, inputs()
    for a, b in zip(layer(*arguments), layer(*arguments, return_attention=True), strict=False):
        torch.testing.assert_close(a, b)


def test_masked_tokens_change_nothing(any_layer):
    layer, (semantic, motion, sem_pos, mot_pos) = any_layer, inputs()
    semantic_mask, motion_mask = torch.ones(3, 6).bool(), torch.ones(3, 4).bool()
    semantic_mask[0, 4:] = motion_mask[1, 0] = False
    masks = {"semantic_mask": semantic_mask, "motion_mask": motion_mask}
    out = layer(semantic, motion, sem_pos, mot_pos, **masks)
    semantic, motion = semantic.clone(), motion.clone()
    semantic[~semantic_mask], motion[~motion_mask] = torch.nan, -99.0
    changed = layer(semantic, motion, sem_pos, mot_pos, **masks)
    assert torch.equal(out[0], changed[0])
    assert torch.equal(out[1], changed[1])
    assert not out[0][~semantic_mask].any()
    assert not out[1][~motion_mask].any()
    (changed[0].square().sum() + changed[1].square().sum()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())
    # and equal the clip without them
    alone = layer(semantic[:1, :4], motion[:1], sem_pos[:4], mot_pos)
    torch.testing.assert_close(out[0][:1, :4], alone[0])
    torch.testing.assert_close(out[1][:1], alone[1])


def test_places_of_tokens_that_do_not_exist_change_nothing(any_layer):
    semantic, motion, *_ = inputs()
    mask = torch.tensor([[True] * 6, [True] * 3 + [False] * 3, [True] * 6])
    places, others = torch.rand(3, 6, 2), torch.arange(4.0)[:, None]
    out = any_layer(semantic, motion, places, others, semantic_mask=mask)
    places = places.masked_fill(~mask.unsqueeze(-1), torch.nan)
    for a, b in zip(
        out, any_layer(semantic, motion, places, others, semantic_mask=mask), strict=True
    ):
        assert torch.equal(a, b)


@pytest.mark.parametrize("return_attention", [False, True])
def test_a_stream_without_tokens_adds_nothing_but_biases(return_attention):
    layer, (semantic, motion, *positions) = small_layer(), inputs()
    empty = torch.zeros(3, 4, dtype=torch.bool)
    out = layer(semantic, motion, *positions, motion_mask=empty, return_attention=return_attention)
    # zero attention, GELU(0) = 0, so only the bias of the up-projection is added
    torch.testing.assert_close(out[0], semantic + layer.sem_expand.bias)


def test_permuting_tokens_with_their_positions_permutes_the_result(any_layer):
    layer, (semantic, motion, sem_pos, mot_pos) = any_layer, inputs()
    order = torch.randperm(6)
    out = layer(semantic, motion, sem_pos, mot_pos)
    permuted = layer(semantic[:, order], motion, sem_pos[order], mot_pos)
    torch.testing.assert_close(permuted[0], out[0][:, order])
    torch.testing.assert_close(permuted[1], out[1])


def test_positions_matter(any_layer):
    layer, (semantic, motion, sem_pos, mot_pos) = any_layer, inputs()
    out = layer(semantic, motion, sem_pos, mot_pos)
    assert not torch.allclose(layer(semantic, motion, sem_pos.flip(0), mot_pos)[1], out[1])
    assert not torch.allclose(layer(semantic, motion, sem_pos, mot_pos.flip(0))[0], out[0])


def test_every_parameter_gets_a_gradient(any_layer):
    layer = any_layer
    semantic, motion = layer(*inputs())
    (semantic.pow(2).sum() + motion.pow(2).sum()).backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_position_encoding_by_hand():
    encoding = FourierPositionEncoding(1, 4, num_bands=2)
    with torch.no_grad():
        encoding.mix.weight.copy_(torch.eye(4))
    expected = [math.sin(3), math.sin(1.5), math.cos(3), math.cos(1.5)]
    torch.testing.assert_close(encoding(torch.tensor([[3.0]]))[0], torch.tensor(expected))
    assert encoding(None) == 0.0


@pytest.mark.parametrize("kind", [BottleneckCrossAttention, CrossAttention])
def test_drop_path_skips_clips_in_training_only(kind):
    torch.manual_seed(0)
    layer = kind(12, 10, num_heads=2, drop_path=0.5)
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    semantic, motion, *positions = inputs(batch=64)
    skipped = (layer(semantic, motion, *positions)[0] == semantic).all(dim=(1, 2))
    assert 10 < int(skipped.sum()) < 54
    layer.eval()
    assert not (layer(semantic, motion, *positions)[0] == semantic).all(dim=(1, 2)).any()


@pytest.mark.parametrize(
    ("semantic", "motion", "shown"),
    [
        ((3, 6, 11), (3, 4, 10), r"\[3, 6, 11\] and \[3, 4, 10\]"),
        ((3, 6, 12), (2, 4, 10), r"\[3, 6, 12\] and \[2, 4, 10\]"),
        ((6, 12), (3, 4, 10), r"\[6, 12\] and \[3, 4, 10\]"),
    ],
)
def test_shapes_that_do_not_fit(any_layer, semantic, motion, shown):
    message = r"expected semantic \[B, P, 12\] and motion \[B, S, 10\], got " + shown
    with pytest.raises(ValueError, match=message):
        any_layer(torch.zeros(semantic), torch.zeros(motion))


def test_masks_and_positions_that_do_not_fit(any_layer):
    layer, (semantic, motion, sem_pos, mot_pos) = any_layer, inputs()
    with pytest.raises(ValueError, match=r"motion_mask must be bool \[3, 4\], got torch.bool"):
        layer(semantic, motion, motion_mask=torch.ones(4).bool())
    with pytest.raises(ValueError, match=r"semantic_mask must be bool \[3, 6\], got torch.float32"):
        layer(semantic, motion, semantic_mask=torch.ones(3, 6))
    message = r"motion_positions must be \[4, d\] or \[3, 4, d\], one a token, got \[1, 1\]"
    with pytest.raises(ValueError, match=message):
        layer(semantic, motion, sem_pos, mot_pos[:1])


def test_other_errors_say_what_came():
    with pytest.raises(ValueError, match="num_heads must divide dim, got num_heads=3 and dim=8"):
        BottleneckCrossAttention(12, 10, 8, num_heads=3)
    with pytest.raises(ValueError, match="num_heads must divide dim, got num_heads=4 and dim=10"):
        CrossAttention(12, 10, num_heads=4)
    for kind in (BottleneckCrossAttention, CrossAttention):
        with pytest.raises(ValueError, match="drop_path must be between 0 and 1, got 1.5"):
            kind(12, 10, num_heads=2, drop_path=1.5)
    semantic, motion, *_ = inputs()
    for layer in (small_layer(), CrossAttention(12, 10, num_heads=2)):
        with pytest.raises(ValueError, match=r"positions must be \[..., 2\], got \[6, 3\]"):
            layer(semantic, motion, torch.zeros(6, 3))
