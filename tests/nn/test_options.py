"""What is handed in arrives where it acts: options, masks and prepared batches."""

import inspect

import pytest
import torch
from torch_geometric.data import Batch

from gasmcast import (
    GASMCAST,
    MotionGraphAttention,
    SemanticGraphAttention,
    TemporalCrossAttentionModel,
    build_spatial_graph,
    build_temporal_graph,
    generate_spatial_positions,
    generate_temporal_positions,
)
from gasmcast.nn import CrossAttention, GraphAttentionLayer
from gasmcast.nn.pooled_fusion import masked_mean
from small import IMAGE_SIZE, small_model

# None of them the default; small_model has the widths and heads of WIDTHS.
OPTIONS = {
    "similarity_threshold": 0.7,
    "adjacency_window": 1,
    "max_similar": 3,
    "dropout": 0.15,
    "drop_path": 0.35,
}
WIDTHS = {"bottleneck_dim": 16, "num_heads": 4}
SEM_DIM, MOT_DIM = 24, 32  # of small_model


def alone(folder):
    return GASMCAST(SEM_DIM, MOT_DIM, **WIDTHS, **OPTIONS)


def in_the_model(folder):
    return small_model(**OPTIONS).gasm_cast


def saved_and_loaded(folder):
    small_model(**OPTIONS).save_pretrained(folder)
    return TemporalCrossAttentionModel.from_pretrained(folder).gasm_cast


FUSES = [alone, in_the_model, saved_and_loaded]


@pytest.mark.parametrize("make", FUSES)
def test_options_arrive_in_the_layers(make, tmp_path):
    fuse = make(tmp_path)
    for layer in (fuse.layer1_basic, fuse.layer2_pattern, fuse.layer3_action):
        assert layer.drop_path.p == OPTIONS["drop_path"]
        assert layer.cross_attention.num_heads == WIDTHS["num_heads"]
        assert layer.sem_compress.out_features == WIDTHS["bottleneck_dim"]
        assert layer.mot_compress.out_features == WIDTHS["bottleneck_dim"]
    for stream in (fuse.semantic_graph, fuse.motion_graph):
        assert stream.graph_attention.attention.dropout == OPTIONS["dropout"]
        assert stream.graph_attention.attention.heads == WIDTHS["num_heads"]


@pytest.mark.parametrize("make", FUSES)
def test_options_arrive_in_the_graphs(make, tmp_path):
    torch.manual_seed(0)
    # Values of one sign: similarities lie about both thresholds, the default 0.8 and ours.
    semantic, motion = torch.rand(2, 30, SEM_DIM), torch.rand(2, 9, MOT_DIM)
    space, time = generate_spatial_positions((5, 6)), generate_temporal_positions(9, 9)
    *_, maps = make(tmp_path)(semantic, motion, space, time, return_attention=True)

    def spatial(**options):
        return build_spatial_graph(space, features=semantic, **options).edge_index

    def temporal(**options):
        return build_temporal_graph(time, features=motion, **options).edge_index

    common = {name: OPTIONS[name] for name in ("similarity_threshold", "max_similar")}
    window = {"adjacency_window": OPTIONS["adjacency_window"]}
    assert torch.equal(maps.semantic_graph.edge_index, spatial(**common))
    assert torch.equal(maps.motion_graph.edge_index, temporal(**common, **window))
    # and a default in the place of any of them would have given other edges
    defaults = {"similarity_threshold": 0.8, "max_similar": 16, "adjacency_window": 2}
    for name in common:
        changed = common | {name: defaults[name]}
        assert not torch.equal(maps.semantic_graph.edge_index, spatial(**changed))
    for name in (*common, *window):
        changed = common | window | {name: defaults[name]}
        assert not torch.equal(maps.motion_graph.edge_index, temporal(**changed))


def test_every_option_is_saved_and_loaded(tmp_path):
    options = OPTIONS | WIDTHS | {"num_frames": 24, "class_names": ["lift", "drop", "turn"]}
    model = small_model(3, **OPTIONS, num_frames=24, class_names=options["class_names"])
    config = model.config()
    assert config.items() >= options.items()
    signature = inspect.signature(TemporalCrossAttentionModel.__init__).parameters
    assert config.keys() == signature.keys() - {"self"}
    for name in config:  # else loading could have made it up
        if name != "fusion":  # without the default there are no bottlenecks; tested below
            assert config[name] != signature[name].default, name
    model.save_pretrained(tmp_path)
    loaded = TemporalCrossAttentionModel.from_pretrained(tmp_path)
    assert loaded.config() == config
    assert (loaded.num_frames, loaded.image_size) == (24, IMAGE_SIZE)


@pytest.mark.parametrize("fusion", ["cross_attention", "late"])
def test_fusion_is_saved_and_loaded(fusion, tmp_path):
    model = small_model(fusion=fusion, drop_path=0.35).eval()
    model.save_pretrained(tmp_path)
    loaded = TemporalCrossAttentionModel.from_pretrained(tmp_path)
    assert loaded.config()["fusion"] == fusion
    layers = loaded.gasm_cast.fusion_layers
    assert [type(layer) for layer in layers] == [CrossAttention] * (3 if layers else 0)
    assert bool(layers) == (fusion == "cross_attention")
    for layer in layers:
        assert layer.drop_path.p == 0.35
        assert layer.sem_attention.num_heads == layer.mot_attention.num_heads == WIDTHS["num_heads"]
    features = torch.randn(2, 16, SEM_DIM), torch.randn(2, 8, MOT_DIM)
    torch.testing.assert_close(
        loaded.forward_features(*features), model.forward_features(*features)
    )


def test_radius_of_the_spatial_graph():
    module = SemanticGraphAttention(4, 2, radius=2, similarity_threshold=1.5)
    positions = torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 2.0], [5.0, 0.0]])
    _, graph = module(torch.randn(1, 4, 4), positions, return_attention=True)
    within_two = {(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)}
    loops = {(i, i) for i in range(4)}
    assert set(map(tuple, graph.edge_index.t().tolist())) == within_two | loops


@pytest.mark.parametrize(
    "make",
    [
        lambda dropout: GraphAttentionLayer(8, 2, dropout=dropout),
        lambda dropout: SemanticGraphAttention(8, 2, dropout=dropout).graph_attention,
        lambda dropout: MotionGraphAttention(8, 2, dropout=dropout).graph_attention,
    ],
)
def test_dropout_drops_attention_in_training_only(make):
    torch.manual_seed(0)
    layer = make(0.75)
    edge_index = torch.cartesian_prod(torch.arange(20), torch.arange(20)).t()
    edges = (edge_index, torch.rand(400, layer.attention.edge_dim or 1))
    edges = edges[:1] if layer.attention.edge_dim is None else edges
    x = torch.randn(20, 8)
    _, dropped = layer(x, *edges, return_attention=True)
    layer.eval()
    _, weights = layer(x, *edges, return_attention=True)
    kept = dropped != 0
    assert 0.65 < 1 - kept.float().mean() < 0.85
    torch.testing.assert_close(dropped[kept], 4 * weights[kept])  # 1 / (1 - 0.75)
    assert (weights > 0).all()


def test_mean_over_existing_tokens_by_hand():
    tokens = torch.tensor(
        [
            [[1.0, 10.0], [3.0, 20.0], [99.0, torch.nan]],
            [[torch.inf, 0.0], [4.0, -6.0], [8.0, -8.0]],
            [[5.0, 5.0], [7.0, 7.0], [9.0, 9.0]],
        ]
    )
    mask = torch.tensor([[True, True, False], [False, True, True], [False, False, False]])
    expected = torch.tensor([[2.0, 15.0], [6.0, -7.0], [0.0, 0.0]])
    assert torch.equal(masked_mean(tokens, mask), expected)
    assert torch.equal(masked_mean(tokens[2:], None), torch.tensor([[7.0, 7.0]]))


def test_the_classifier_sees_the_means_of_existing_tokens():
    torch.manual_seed(0)
    model = small_model().eval()  # fresh fusion layers add nothing: only the graphs act
    semantic, motion = torch.randn(2, 16, SEM_DIM), torch.randn(2, 8, MOT_DIM)
    semantic_mask, motion_mask = torch.ones(2, 16).bool(), torch.ones(2, 8).bool()
    semantic_mask[0, 5:] = motion_mask[0, 3:] = motion_mask[1] = False
    masks = {"semantic_mask": semantic_mask, "motion_mask": motion_mask}
    logits = model.forward_features(semantic, motion, **masks)
    space, time = generate_spatial_positions(4), generate_temporal_positions(16, 8)
    semantic = model.gasm_cast.semantic_graph(semantic, space, semantic_mask)
    motion = model.gasm_cast.motion_graph(motion, time, motion_mask)
    pooled = [
        torch.cat([semantic[0, :5].mean(0), motion[0, :3].mean(0)]),
        torch.cat([semantic[1].mean(0), torch.zeros(MOT_DIM)]),
    ]
    torch.testing.assert_close(logits, model.classifier(torch.stack(pooled)))


@pytest.mark.parametrize("nodes", [(3, 2, 0), (0, 3, 0, 0), (0, 0)])
@pytest.mark.parametrize(
    ("module", "build", "position_dim"),
    [
        (SemanticGraphAttention, build_spatial_graph, 2),
        (MotionGraphAttention, build_temporal_graph, 1),
    ],
)
def test_empty_graphs_of_a_prepared_batch_keep_their_rows(module, build, position_dim, nodes):
    torch.manual_seed(0)
    module = module(8, 2)
    graphs = [build(torch.rand(n, position_dim) * 4, features=torch.randn(n, 8)) for n in nodes]
    dense, mask, batch = module(Batch.from_data_list(graphs), return_attention=True)
    assert dense.shape == (len(nodes), max(nodes), 8)
    assert mask.sum(dim=1).tolist() == list(nodes)
    assert not dense[~mask].any()
    for row, graph in zip(dense, graphs, strict=True):
        alone = module.graph_attention(graph.x, graph.edge_index, graph.edge_attr)
        torch.testing.assert_close(row[: graph.num_nodes], alone)
    assert [len(graph.attention) for graph in batch.to_data_list()] == [
        graph.num_edges for graph in graphs
    ]
