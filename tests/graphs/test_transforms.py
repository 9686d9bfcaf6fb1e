import copy
import inspect
import pickle
import runpy

import pytest
import torch
from torch.utils.data import IterDataPipe
from torch.utils.data.datapipes.iter import IterableWrapper
from torch_geometric import EdgeIndex
from torch_geometric.data import Batch, Data, HeteroData, InMemoryDataset
from torch_geometric.loader import DataLoader
from torch_geometric.transforms import Compose, NormalizeFeatures

from gasmcast import (
    generate_spatial_positions,
    generate_spatiotemporal_positions,
    generate_temporal_positions,
)
from gasmcast.graphs import (
    Adjacent,
    EdgeRule,
    Nearest,
    Quantile,
    RuleGraph,
    Similar,
    SpatialGraph,
    SpatiotemporalGraph,
    TemporalGraph,
    build_graph,
    build_spatial_graph,
    build_spatiotemporal_graph,
    build_temporal_graph,
    check_graph,
)

RULE = Adjacent(1.0) | Similar(0.5) - Adjacent(2.0)
INPUTS = {"positions", "features", "batch", "ptr", "mask"}
# Transform, the builder it stands for, and positions that it takes.
NAMED = {
    "spatial": (SpatialGraph, build_spatial_graph, generate_spatial_positions((2, 4))),
    "temporal": (TemporalGraph, build_temporal_graph, generate_temporal_positions()),
    "spatiotemporal": (
        SpatiotemporalGraph,
        build_spatiotemporal_graph,
        generate_spatiotemporal_positions(2, 2),
    ),
}


def node_data(pos, seed=0, **attributes):
    generator = torch.Generator().manual_seed(seed)
    return Data(pos=pos, x=torch.randn(len(pos), 3, generator=generator), **attributes)


def clips():
    """Four clips of different sizes, the second and the last without nodes."""
    data = [
        node_data(
            generate_spatial_positions(size), seed, y=torch.tensor([seed]), name=f"clip {seed}"
        )
        for seed, size in enumerate([(2, 3), (1, 1), (2, 2), (1, 1)])
    ]
    for empty in (data[1], data[3]):
        empty.x, empty.pos = empty.x[:0], empty.pos[:0]
    return data


def same_edges(data, graph, names=("edge_index", "edge_attr", "edge_rule")):
    # Similarities of one clip and of a batch can differ in the last bit.
    return all(
        torch.allclose(data[name], graph[name], atol=1e-6)
        if name == "edge_attr"
        else torch.equal(data[name], graph[name])
        for name in names
    )


@pytest.mark.parametrize("kind", NAMED)
def test_named_transform_makes_the_edges_of_its_builder(kind):
    transform, builder, pos = NAMED[kind]
    data = node_data(pos, y=torch.tensor([3]), name="clip")
    for features in (data.x, None):
        data.x = features
        if features is None:
            del data.x
        made = transform(similarity_threshold=0.3)(data)
        graph = builder(pos, features=features, similarity_threshold=0.3)
        assert same_edges(made, graph)
        assert (int(made.y), made.name) == (3, "clip")
        check_graph(made)


def test_rule_transform_takes_what_the_rule_needs():
    data = node_data(generate_spatial_positions(3))
    made = RuleGraph(RULE)(data)
    assert same_edges(made, build_graph(RULE, data.pos, features=data.x))
    assert same_edges(
        RuleGraph(Similar(0.5))(Data(x=data.x)), build_graph(Similar(0.5), features=data.x)
    )
    assert same_edges(RuleGraph(Adjacent())(Data(pos=data.pos)), build_graph(Adjacent(), data.pos))


def test_every_parameter_reaches_the_builder():
    data = node_data(generate_spatial_positions((3, 4)))
    plain = SpatialGraph(0.5)(data)
    for option in (
        {"similarity_threshold": Quantile(0.9)},
        {"radius": 2},
        {"metric": "manhattan"},
        {"max_similar": 1},
        {"min_neighbors": 6},
        {"max_neighbors": 2},
        {"self_loops": False},
    ):
        parameters = {"similarity_threshold": 0.5} | option
        made = SpatialGraph(**parameters)(data)
        assert same_edges(made, build_spatial_graph(data.pos, features=data.x, **parameters))
        assert not torch.equal(made.edge_index, plain.edge_index), option
    alone = data.pos * 3
    tied = SpatialGraph(2.0, connected=True)(Data(pos=alone, x=data.x))
    assert int((tied.edge_rule == EdgeRule.TREE).sum()) == 2 * 11
    one_way = RuleGraph(Nearest(1))(Data(pos=alone)).num_edges
    assert RuleGraph(Nearest(1), undirected=True)(Data(pos=alone)).num_edges > one_way
    data.x.requires_grad_()
    made = SpatialGraph(0.5, edge_weight=True, edge_attr=False, as_edge_index=True)(data)
    assert sorted(made.keys()) == ["edge_index", "edge_weight", "pos", "x"]
    assert isinstance(made.edge_index, EdgeIndex)
    made.edge_weight.sum().backward()
    assert bool((data.x.grad != 0).any(dim=1).all())
    with pytest.raises(ValueError, match=r"max_bytes must be at least \d+ .* got 8"):
        SpatialGraph(max_bytes=8)(data)


def test_what_an_older_graph_left_is_removed():
    data = SpatialGraph(edge_weight=True)(node_data(generate_spatial_positions(3)))
    data.attention = torch.rand(data.num_edges, 2)
    data.edge_type = torch.zeros(data.num_edges, dtype=torch.long)
    data.edge_label = torch.zeros(4)  # of pairs of nodes, not of the edges
    data.y = torch.rand(data.num_edges)  # as many by chance: no edge in its name
    made = RuleGraph(Nearest(2), edge_attr=False)(data)
    assert sorted(made.keys()) == ["edge_index", "edge_label", "pos", "x", "y"]
    assert made.num_edges == 27
    # and nothing of it is kept in the caches of PyG
    assert made.subgraph(torch.tensor([0, 1])).edge_index.tolist() == [[0, 1, 0, 1], [0, 0, 1, 1]]


def test_input_stays_untouched():
    batch = Batch.from_data_list([RuleGraph(Nearest(1))(data) for data in clips()])
    keys, edge_index = batch.keys(), batch.edge_index
    before = copy.deepcopy(batch)
    SpatialGraph(edge_weight=True, edge_attr=False)(batch)
    assert batch.keys() == keys
    assert batch.edge_index is edge_index
    for given, kept in zip(batch.to_data_list(), before.to_data_list(), strict=True):
        assert given.keys() == kept.keys()
        assert same_edges(given, kept, [*("x", "pos", "y"), *Data.edge_attrs(kept)])


@pytest.mark.parametrize("as_edge_index", [False, True])
@pytest.mark.parametrize("old_edges", [False, True])
def test_a_batch_equals_its_clips_one_by_one(as_edge_index, old_edges):
    transform = SpatialGraph(0.2, as_edge_index=as_edge_index)
    data = clips()
    if old_edges:
        data = [RuleGraph(Nearest(1), edge_weight=True)(clip) for clip in data]
    made = transform(Batch.from_data_list(data, follow_batch=["edge_index", "x"]))
    apart = made.to_data_list()
    assert len(apart) == made.num_graphs == 4
    followed = {name for name in made.keys() if name.endswith(("_batch", "_ptr"))}  # noqa: SIM118
    assert followed == {"x_batch", "x_ptr"}
    assert set(made._slice_dict) == set(made._inc_dict) <= set(made.keys())
    for clip, single in zip(apart, map(transform, data), strict=True):
        assert sorted(clip.keys()) == sorted(single.keys())
        assert same_edges(clip, single, ("x", "pos", "y", "edge_index", "edge_attr", "edge_rule"))
        assert clip.name == single.name
        assert type(clip.edge_index) is type(single.edge_index)
    again = Batch.from_data_list(apart)
    assert same_edges(again, made)
    check_graph(made)


def test_no_edges_between_the_clips_of_data_with_batch():
    data = node_data(generate_spatial_positions(2), batch=torch.tensor([0, 0, 1, 1]))
    made = SpatialGraph()(data)
    assert type(made) is Data
    assert (data.batch[made.edge_index[0]] == data.batch[made.edge_index[1]]).all()


class PatternDataset(InMemoryDataset):
    """Five clips of random sizes, made when first asked for."""

    processed_file_names = "patterns.pt"
    processings = 0

    def __init__(self, root, **options):
        super().__init__(root, **options)
        self.load(self.processed_paths[0])

    def process(self):
        type(self).processings += 1
        data = [
            node_data(generate_spatial_positions((2, size + 1)), size, y=torch.tensor([size]))
            for size in range(5)
        ]
        if self.pre_transform is not None:
            data = [self.pre_transform(clip) for clip in data]
        self.save(data, self.processed_paths[0])


def test_transform_and_pre_transform_of_a_dataset(tmp_path, recwarn):
    transform = RuleGraph(RULE, min_neighbors=2)
    stored = PatternDataset(tmp_path / "pre", pre_transform=transform)
    processings = PatternDataset.processings
    reloaded = PatternDataset(tmp_path / "pre", pre_transform=RuleGraph(RULE, min_neighbors=2))
    assert PatternDataset.processings == processings
    live = PatternDataset(tmp_path / "live", transform=transform)
    assert not [w for w in recwarn if "pre_transform" in str(w.message)]
    for one, two, three in zip(stored, reloaded, live, strict=True):
        assert same_edges(one, two)
        assert same_edges(one, three)
        assert int(one.y) == int(three.y)
    # PyG tells two transforms apart by their repr.
    with pytest.warns(UserWarning, match="`pre_transform` argument differs"):
        PatternDataset(tmp_path / "pre", pre_transform=RuleGraph(RULE, min_neighbors=3))


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.filterwarnings("ignore:.*use of fork.*")
def test_loader_batches_the_output(num_workers, tmp_path):
    transform = SpatialGraph(0.2, as_edge_index=True)
    dataset = PatternDataset(tmp_path, transform=transform)
    loader = DataLoader(dataset, batch_size=3, num_workers=num_workers)
    sizes = [batch.num_graphs for batch in loader]
    assert sizes == [3, 2]
    for first, batch in zip((0, 3), loader, strict=True):
        check_graph(batch)
        expected = transform(Batch.from_data_list([dataset[i] for i in range(first, 5)][:3]))
        assert same_edges(batch, expected)


@pytest.mark.parametrize(
    ("transform", "text"),
    [
        (SpatialGraph(), "SpatialGraph()"),
        (SpatialGraph(0.9, radius=1), "SpatialGraph(similarity_threshold=0.9)"),
        (
            TemporalGraph(3, causal=True, max_neighbors=None, connected=True),
            "TemporalGraph(adjacency_window=3, causal=True, connected=True)",
        ),
        (SpatiotemporalGraph(window=2.5), "SpatiotemporalGraph(window=2.5)"),
        (RuleGraph(RULE, max_neighbors=4), f"RuleGraph(rule={RULE!r}, max_neighbors=4)"),
    ],
)
def test_repr_shows_what_is_not_the_default_and_pickling_keeps_it(transform, text):
    assert repr(transform) == text
    data = node_data(generate_spatiotemporal_positions(2, 2)[:, : transform.num_coordinates])
    for copied in (pickle.loads(pickle.dumps(transform)), copy.deepcopy(transform)):
        assert repr(copied) == text
        assert same_edges(copied(data), transform(data))


@pytest.mark.parametrize("kind", NAMED)
def test_parameters_are_those_of_the_builder(kind):
    transform, builder, _ = NAMED[kind]
    own = [
        (name, parameter.kind, parameter.default)
        for name, parameter in inspect.signature(transform).parameters.items()
    ]
    expected = [
        (name, parameter.kind, parameter.default)
        for name, parameter in inspect.signature(builder).parameters.items()
        if name not in INPUTS
    ]
    assert own == expected


def test_module_can_be_loaded_again(monkeypatch):
    # As importlib.reload does: torch refuses a functional name that is taken.
    monkeypatch.setattr(IterDataPipe, "functions", dict(IterDataPipe.functions))
    again = runpy.run_path(inspect.getfile(SpatialGraph))
    (piped,) = IterableWrapper([node_data(generate_spatial_positions(3))]).spatial_graph(0.9)
    assert "edge_index" in piped
    assert again["SpatialGraph"] is not SpatialGraph


def test_functional_names_and_compose():
    data = node_data(generate_spatial_positions(3))
    data.x = data.x.abs()
    composed = Compose([NormalizeFeatures(), SpatialGraph(0.9)])
    assert same_edges(composed(data), SpatialGraph(0.9)(NormalizeFeatures()(data)))
    (piped,) = IterableWrapper([data]).spatial_graph(0.9)
    assert same_edges(piped, SpatialGraph(0.9)(data))
    (piped,) = IterableWrapper([data]).rule_graph(RULE)
    assert same_edges(piped, RuleGraph(RULE)(data))
    (piped,) = IterableWrapper([Data(pos=data.pos[:, :1])]).temporal_graph(1)
    assert same_edges(piped, TemporalGraph(1)(Data(pos=data.pos[:, :1])))
    frames = Data(pos=generate_spatiotemporal_positions(2, 2))
    (piped,) = IterableWrapper([frames]).spatiotemporal_graph(causal=True)
    assert same_edges(piped, SpatiotemporalGraph(causal=True)(frames))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: SpatialGraph(radus=1),
            TypeError,
            r"SpatialGraph has no option 'radus', only similarity_threshold, radius, metric, ",
        ),
        (lambda: RuleGraph(RULE, radius=1), TypeError, "RuleGraph has no option 'radius', only"),
        (
            lambda: TemporalGraph(mask=None),
            TypeError,
            "TemporalGraph takes no 'mask': nodes and clips come from the data",
        ),
        (lambda: RuleGraph(3), ValueError, r"rule must be a Rule, such as .*, got 3"),
        (
            lambda: SpatialGraph(radius=-1),
            ValueError,
            "radius must be a number of at least 0, got -1",
        ),
        (lambda: SpatialGraph(metric="cosine"), ValueError, "metric must be one of .* 'cosine'"),
        (lambda: SpatialGraph(torch.rand(9, 2)), ValueError, r"threshold must be .* \[9, 2\]"),
        (lambda: SpatialGraph(max_similar=-2), ValueError, "must be .* at least 0, got -2"),
        (lambda: TemporalGraph(-1), ValueError, "window must be a number of at least 0, got -1"),
        (lambda: SpatiotemporalGraph(temporal_threshold="0.8"), ValueError, "got '0.8'"),
        (
            lambda: RuleGraph(RULE, min_neighbors=3, max_neighbors=2),
            ValueError,
            "min_neighbors must be at most max_neighbors=2, got 3",
        ),
    ],
)
def test_wrong_parameters_are_refused_at_once(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("transform", "data", "message"),
    [
        (
            SpatialGraph(),
            Data(x=torch.rand(4, 3)),
            r"SpatialGraph found no pos in Data\(x=\[4, 3\]",
        ),
        (SpatialGraph(), Data(y=1), r"SpatialGraph found neither pos nor x in Data\(y=1\)"),
        (RuleGraph(RULE), Data(y=1), r"RuleGraph found neither pos nor x in Data\(y=1\)"),
        (RuleGraph(RULE), Data(x=torch.rand(4, 3)), "Adjacent needs positions"),
        (RuleGraph(RULE), Data(pos=torch.rand(4, 3)), "Similar needs features"),
        (
            SpatialGraph(),
            HeteroData(),
            "SpatialGraph takes a Data or a Batch of them, got HeteroData: of a HeteroData, give",
        ),
        (RuleGraph(RULE), [Data()], "RuleGraph takes a Data or a Batch of them, got list"),
        (TemporalGraph(), Data(pos=torch.rand(4, 2)), r"temporal positions must be \[N, 1\]"),
        (
            SpatialGraph(),
            Data(pos=torch.rand(4, 2), x=torch.rand(3, 2)),
            r"positions float32 \[4, 2\] do not fit features float32 \[3, 2\]",
        ),
    ],
)
def test_data_that_cannot_be_used_is_named(transform, data, message):
    with pytest.raises(ValueError, match=message):
        transform(data)
    if isinstance(data, HeteroData):
        data["patch"].x = torch.rand(2, 2)
        with pytest.raises(ValueError, match="got HeteroDataBatch"):
            transform(Batch.from_data_list([data]))
