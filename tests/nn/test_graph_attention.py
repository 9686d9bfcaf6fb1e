import math

import pytest
import torch
from torch_geometric.data import Batch
from torch_geometric.nn import GATv2Conv

from gasmcast import (
    GraphAttentionLayer,
    MotionGraphAttention,
    SemanticGraphAttention,
    build_spatial_graph,
    build_temporal_graph,
    generate_spatial_positions,
    generate_temporal_positions,
)


def test_three_nodes_by_hand():
    layer = GraphAttentionLayer(2, num_heads=1).double().eval()
    layer.norm = torch.nn.Identity()
    conv = layer.attention
    with torch.no_grad():
        conv.lin_l.weight.copy_(torch.eye(2))
        conv.lin_r.weight.copy_(torch.eye(2))
        conv.lin_l.bias.zero_()
        conv.lin_r.bias.zero_()
        conv.att.copy_(torch.tensor([[[1.0, 1.0]]]))
        conv.bias.copy_(torch.tensor([0.5, 0.0]))
        layer.scale.copy_(torch.tensor([2.0, 0.5]))
    x = torch.tensor([[1.0, 0.0], [0.0, -2.0], [3.0, 1.0]], dtype=torch.float64)
    edge_index = torch.tensor([[0, 1, 1, 2], [0, 0, 1, 2]])
    out, weights = layer(x, edge_index, return_attention=True)
    # Node 0 hears itself, LeakyReLU([2, 0]) -> 2, and node 1, LeakyReLU([1, -2]) -> 1 - 0.4 = 0.6.
    own = math.exp(2.0) / (math.exp(2.0) + math.exp(0.6))
    torch.testing.assert_close(
        weights.flatten(), torch.tensor([own, 1 - own, 1, 1], dtype=torch.float64)
    )
    # residual + scale * (attention-weighted rows + bias); nodes 1 and 2 hear only themselves
    expected = [[1 + 2 * (own + 0.5), -(1 - own)], [1.0, -3.0], [10.0, 1.5]]
    torch.testing.assert_close(out, torch.tensor(expected, dtype=torch.float64))


def test_equals_pyg_after_the_norm():
    layer = GraphAttentionLayer(12, 3, edge_dim=4)
    reference = GATv2Conv(12, 4, heads=3, edge_dim=4, add_self_loops=False)
    reference.load_state_dict(layer.attention.state_dict())
    graph = build_spatial_graph(generate_spatial_positions(3), features=torch.randn(9, 12))
    out = layer(graph.x, graph.edge_index, graph.edge_attr)
    update = reference(layer.norm(graph.x), graph.edge_index, graph.edge_attr)
    torch.testing.assert_close(out, graph.x + 0.1 * update)


def test_attention_sums_to_one_over_incoming_edges():
    layer = GraphAttentionLayer(8, 4, edge_dim=4)
    graph = build_spatial_graph(generate_spatial_positions(3), features=torch.randn(9, 8))
    _, weights = layer(graph.x, graph.edge_index, graph.edge_attr, return_attention=True)
    total = torch.zeros(9, 4).index_add_(0, graph.edge_index[1], weights)
    torch.testing.assert_close(total, torch.ones(9, 4))


@pytest.mark.parametrize("heads", [0, 5, -1])
def test_heads_that_do_not_divide(heads):
    message = f"num_heads must divide input_dim, got num_heads={heads} and input_dim=8"
    with pytest.raises(ValueError, match=message):
        GraphAttentionLayer(8, heads)


def test_default_shapes():
    semantic = SemanticGraphAttention()(torch.randn(1, 196, 768), generate_spatial_positions())
    assert semantic.shape == (1, 196, 768)
    motion = MotionGraphAttention()(torch.randn(2, 8, 512), generate_temporal_positions())
    assert motion.shape == (2, 8, 512)


SMALL = [
    (SemanticGraphAttention(16, 4), generate_spatial_positions((2, 3)), build_spatial_graph),
    (MotionGraphAttention(16, 4), generate_temporal_positions(12, 6), build_temporal_graph),
]


@pytest.mark.parametrize(("module", "positions", "build"), SMALL)
def test_batch_equals_clips_one_by_one(module, positions, build):
    features = torch.randn(3, 6, 16)
    out = module(features, positions)
    for clip in range(3):
        torch.testing.assert_close(
            out[clip : clip + 1], module(features[clip : clip + 1], positions)
        )


@pytest.mark.parametrize(("module", "positions", "build"), SMALL)
def test_permuting_nodes_permutes_the_result(module, positions, build):
    features, order = torch.randn(2, 6, 16), torch.randperm(6)
    out = module(features, positions)
    torch.testing.assert_close(module(features[:, order], positions[order]), out[:, order])


@pytest.mark.parametrize(("module", "positions", "build"), SMALL)
def test_prepared_batch_equals_dense(module, positions, build):
    features = torch.randn(3, 6, 16)
    graph = build(positions, features=features, max_similar=16)
    out, mask = module(graph)
    torch.testing.assert_close(out, module(features, positions))
    assert mask.all()


def test_ragged_batch_comes_back_padded():
    module = MotionGraphAttention(16, 4)
    features = [torch.randn(size, 16) for size in (2, 5)]
    graphs = [
        build_temporal_graph(torch.arange(float(len(x)))[:, None], features=x) for x in features
    ]
    out, mask = module(Batch.from_data_list(graphs))
    assert mask.tolist() == [[True] * 2 + [False] * 3, [True] * 5]
    assert not out[~mask].any()
    for clip, x in enumerate(features):
        alone = module(x[None], torch.arange(float(len(x)))[:, None])[0]
        torch.testing.assert_close(out[clip, mask[clip]], alone)


def test_masked_tokens_change_nothing_and_stay_where_they_are():
    module = SemanticGraphAttention(16, 4)
    positions = generate_spatial_positions((2, 3))
    features, mask = torch.randn(2, 6, 16), torch.ones(2, 6, dtype=torch.bool)
    mask[0, 2] = mask[1, 0] = False  # holes, not only at the end
    out = module(features, positions, mask)
    changed = features.clone()
    changed[~mask] = 1e3
    assert torch.equal(module(changed, positions, mask), out)
    assert not out[~mask].any()
    alone = module(features[:1, mask[0]], positions[mask[0]])
    torch.testing.assert_close(out[:1, mask[0]], alone)


def test_returned_graph_carries_attention_clip_by_clip():
    module = SemanticGraphAttention(16, 4)
    features = torch.randn(2, 6, 16)
    _, graph = module(features, generate_spatial_positions((2, 3)), return_attention=True)
    assert graph.attention.shape == (graph.num_edges, 4)
    second = graph[1]
    assert second.attention.shape == (second.num_edges, 4)
    assert torch.equal(second.attention, graph.attention[-second.num_edges :])


@pytest.mark.parametrize(("module", "positions", "build"), SMALL)
def test_every_parameter_gets_a_gradient(module, positions, build):
    module.zero_grad()
    module(torch.randn(2, 6, 16), positions).pow(2).sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(
    ("features", "positions", "message"),
    [
        (torch.zeros(6, 16), generate_spatial_positions((2, 3)), r"must be \[B, N, D\].*\[6, 16\]"),
        (torch.zeros(1, 6, 16), None, "dense features need positions"),
        (build_spatial_graph(generate_spatial_positions(2)), None, r"or a PyG Batch, got Data\("),
        (torch.zeros(1, 5, 16), generate_spatial_positions((2, 3)), "do not fit features"),
        (
            torch.full((1, 6, 16), torch.nan),
            generate_spatial_positions((2, 3)),
            "NaN or infinite values at node 0 of clip 0",
        ),
        (
            build_spatial_graph(generate_spatial_positions(2), batch=torch.zeros(4).long()),
            None,
            r"a prepared Batch must hold x \[N, D\] and edge_attr \[E, 4\]",
        ),
    ],
)
def test_what_does_not_fit_is_named(features, positions, message):
    with pytest.raises(ValueError, match=message):
        SemanticGraphAttention(16, 4)(features, positions)
