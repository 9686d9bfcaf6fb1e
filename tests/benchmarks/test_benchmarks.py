import pytest
import torch
from torch_geometric.utils import to_networkx as pyg_to_networkx

from benchmarks import fusion, fusion_sizes, gatv2, graph_rivals, graphs, pipeline, segments, store
from benchmarks import measure as timing
from benchmarks.fusion_rivals import AbsorbedVanilla, Vanilla
from benchmarks.measure import Effort, Measured, Way, kept_bytes, measure, peak_bytes
from benchmarks.page import table, write_section
from gasmcast.graphs import build_spatial_graph, to_networkx

TINY = Effort(seconds=0, min_rounds=1, tries=1, tiny=True)


def test_graphs_runs_and_writes_its_section(tmp_path):
    page = tmp_path / "benchmarks.md"
    page.write_text(
        "before\n\n<!-- begin: graphs -->\nlast figures\n<!-- end: graphs -->\n\nafter\n"
    )
    write_section(page, "graphs", graphs.run(TINY))  # it checks the edges of all ways by itself
    text = page.read_text()
    before, section = text.split("<!-- begin: graphs -->")
    section, after = section.split("<!-- end: graphs -->")
    assert (before, after) == ("before\n\n", "\n\nafter\n")
    assert "last figures" not in section
    for name in (graphs.EDGE_LIST, graphs.SKLEARN_EDGES, graphs.VIG, "to_networkx"):
        assert f"{name} |" in section
    for case in graphs.TINY_CASES:
        assert f"| {case.name} |" in section


def test_gatv2_runs():
    section = gatv2.run(TINY)  # it holds our layer against PyG's by itself
    for name in gatv2.WAYS:
        assert f"{name} |" in section
    assert "| 2 x 9 x 16 | 4 | 1 |" in gatv2.run_sizes(TINY)


def test_fusion_runs():
    section = fusion.run(TINY)  # it holds the stacks against each other by itself
    for name in fusion.WAYS:
        assert f"\n| {name} |" in section
    assert "| 2 clips | bottleneck, fused for inference |" in section
    assert "\n| 2 clips | " in fusion.run_head(TINY)


def test_fusion_sizes_runs_and_draws(tmp_path):
    (tmp_path / "images").mkdir()
    page = tmp_path / "benchmarks.md"
    page.write_text("<!-- begin: fusion-sizes -->\n<!-- end: fusion-sizes -->\n")
    section = fusion_sizes.run(TINY)
    assert "| bottleneck | 8 |" in section.text
    lines = section.figure.axes[0].lines
    assert [line.get_label() for line in lines] == list(fusion_sizes.WAYS)
    assert lines[0].get_xdata().tolist() == [9, 12]
    write_section(page, "fusion-sizes", section)
    assert "![Cost as the work grows](images/fusion_cost.png)" in page.read_text()
    assert (tmp_path / "images" / "fusion_cost.png").stat().st_size > 10_000


def test_store_runs():
    section = store.run(TINY)  # it holds what all ways read against each other by itself
    for name in (store.REFERENCE, "FeatureStore", "safetensors, a call for each key"):
        assert f"\n| {name} |" in section


def test_pipeline_runs():
    section = pipeline.run(TINY)
    for name in (pipeline.ALONE, pipeline.WHOLE, "resize and crop", "semantic extractor"):
        assert f"\n| {name} |" in section


def test_operations_by_hand():
    a, b = torch.randn(3, 5, requires_grad=True), torch.randn(5, 7, requires_grad=True)
    assert fusion.flops_of(lambda: a @ b) == 2 * 3 * 5 * 7
    assert fusion.flops_of(lambda: (a @ b).sum().backward()) == 3 * 2 * 3 * 5 * 7
    query, key = torch.randn(2, 4, 6, 8), torch.randn(2, 4, 5, 8)
    products = 2 * 4 * (6 * 5 * 8)
    attention = torch.nn.functional.scaled_dot_product_attention
    assert fusion.flops_of(lambda: attention(query, key, key)) == 2 * 2 * products
    query.requires_grad_()
    # Forward two products, backward four, and the scores once again.
    assert fusion.flops_of(lambda: attention(query, key, key).sum().backward()) == 7 * 2 * products


def test_rivals_are_what_they_say():
    torch.manual_seed(0)
    vanilla, absorbed = (kind(12, 10, 2) for kind in (Vanilla, AbsorbedVanilla))
    for parameter in vanilla.parameters():
        torch.nn.init.normal_(parameter)
    absorbed.load_state_dict(vanilla.state_dict())
    streams = torch.randn(3, 9, 12), torch.randn(3, 4, 10)
    torch.testing.assert_close(absorbed(*streams), vanilla(*streams), atol=1e-4, rtol=1e-4)
    bad = [torch.zeros(3)]
    with pytest.raises(RuntimeError, match=r"the stacks differ by 1\.0e\+00 of the largest output"):
        fusion.check_same(lambda: [torch.ones(3)], lambda: bad)


def test_layers_that_differ_are_noticed():
    with pytest.raises(RuntimeError, match=r"the layers differ by 1\.0e\+00 of the largest output"):
        gatv2.check_same(lambda: torch.ones(3), lambda: torch.zeros(3))
    gatv2.check_same(lambda: torch.rand(3), lambda: torch.rand(3))  # of the same seed


def test_kept_bytes_by_hand():
    x = torch.randn(5, 4, requires_grad=True)
    assert kept_bytes(lambda: x.exp()) == 5 * 4 * 4  # its own result
    assert kept_bytes(lambda: x.square()) == 0  # the input
    assert kept_bytes(lambda: x + 1) == 0


def test_sources_are_distinct_and_of_the_same_clip():
    source, target = gatv2.Case(2, 9, 4, 16).edge_index()
    assert torch.equal(source // 9, target // 9)
    assert torch.equal(target.bincount(), torch.full((18,), 4))
    key = target * 18 + source
    assert (key[1:] > key[:-1]).all()


def test_segments_runs():
    pytest.importorskip("torch_scatter")
    section = segments.run(TINY)
    assert "| maximum | torch_scatter.segment_csr |" in section


def test_segments_that_differ_are_noticed():
    ways = {"a": lambda: torch.ones(2), "b": lambda: torch.zeros(2)}
    with pytest.raises(RuntimeError, match="b gives other numbers than torch-scatter"):
        segments.check_same(ways)


@pytest.mark.parametrize("case", graphs.TINY_CASES, ids=lambda case: case.name)
def test_ways_agree_in_edges_and_order(case):
    features, positions = case.features(), case.positions()
    near = graph_rivals.sklearn_near(positions.numpy(), case.radius)
    sklearn = graph_rivals.sklearn_edges(features.numpy(), graphs.THRESHOLD, near)
    bare = graph_rivals.bare_edges(features, graphs.THRESHOLD, torch.from_numpy(near.toarray() > 0))
    assert torch.equal(sklearn, bare)
    similar = sum(matrix.nnz for matrix in graph_rivals.sklearn_similar(features.numpy(), 0.8))
    assert graph_rivals.bare(features, 0.8).sum() == similar
    assert near.nnz * case.clips < len(sklearn[0])  # similarity makes some of the edges


def test_a_wrong_edge_is_noticed():
    case = graphs.TINY_CASES[0]
    features = case.features()
    edges = graph_rivals.bare_edges(features, graphs.THRESHOLD)
    graphs.check_same_edges(edges, edges.clone(), features)
    with pytest.raises(RuntimeError, match="1 edges are in one list"):
        graphs.check_same_edges(edges, edges[:, 1:], features)
    with pytest.raises(RuntimeError, match="different orders"):
        graphs.check_same_edges(edges, edges.flip(1), features)
    neighbours = graph_rivals.vig_neighbours(features, 2)
    number = torch.arange(case.clips).view(-1, 1, 1) * features.size(1)
    edges = (neighbours + number).flatten(1)
    edges = edges[:, edges[0] != edges[1]]
    graphs.check_same_neighbours(edges, neighbours, features)
    with pytest.raises(RuntimeError, match="ViG's way has"):
        graphs.check_same_neighbours(edges[:, 1:], neighbours, features)
    farthest = (features[0, 0] @ features[0].T).argmin()
    edges[0, 0] = farthest
    with pytest.raises(RuntimeError, match="2 neighbours are in one graph"):
        graphs.check_same_neighbours(edges, neighbours, features)


def test_vig_neighbours_by_hand():
    # Angles of 0, 20, 30 and 90 degrees; lengths do not matter.
    angle = torch.tensor([0.0, 20.0, 30.0, 90.0]).deg2rad()
    features = torch.stack([angle.cos(), angle.sin()], dim=1) * torch.tensor([[1], [2], [3], [4]])
    neighbours = graph_rivals.vig_neighbours(features.unsqueeze(0), 1)
    assert neighbours.tolist() == [
        [[[0, 1], [1, 2], [2, 1], [3, 2]]],
        [[[0, 0], [1, 1], [2, 2], [3, 3]]],
    ]


def test_both_exports_to_networkx_say_the_same():
    case = graphs.TINY_CASES[0]
    graph = build_spatial_graph(case.positions(), features=case.features()[0])
    ours = to_networkx(graph)
    pyg = pyg_to_networkx(graphs.pyg_attributes(graph), ["pos"], ["rule", "distance", "similarity"])
    assert dict(ours.edges) == dict(pyg.edges)
    assert [list(pos) for pos in dict(ours.nodes(data="pos")).values()] == [
        pos for _, pos in pyg.nodes(data="pos")
    ]


def test_peak_memory_by_hand():
    def call():
        first = torch.zeros(1000)  # 4000 bytes
        second = first + 1  # 8000
        del first  # 4000
        return second.double()  # 12000

    big = torch.zeros(10_000)
    assert peak_bytes(call) == peak_bytes(call) == 12_000
    assert peak_bytes(lambda: big.view(100, 100)) == 0  # the input does not count
    assert peak_bytes(big.abs) == 40_000
    assert 10**6 <= peak_bytes(lambda: bytearray(10**6), memory="python") < 10**6 + 10_000


def test_every_way_is_timed_in_every_round(monkeypatch):
    monkeypatch.setattr(timing, "_seconds_waited", lambda: 0.0)
    calls = []
    ways = [Way(name, lambda name=name: calls.append(name)) for name in "ab"]
    measured = measure(ways, Effort(seconds=0, min_rounds=3))
    assert measured.rounds == 3
    assert measured.undisturbed == 1
    assert sorted(calls[-6:-4]) == sorted(calls[-4:-2]) == sorted(calls[-2:]) == ["a", "b"]


def test_a_disturbed_call_is_tried_again(monkeypatch):
    # Waited before and after each call: the first two of round one waited, and all of round two.
    waited = iter([0, 1, 1, 2, 2, 2, *range(2, 10)])
    monkeypatch.setattr(timing, "_seconds_waited", lambda: next(waited))
    calls = []
    way = Way("a", lambda: calls.append(0), memory="python")
    measured = measure([way], Effort(seconds=0, min_rounds=2, tries=4))
    assert len(calls) == 2 + 3 + 4  # two of them for the memory
    assert measured.undisturbed == 0.5


def test_ratios_are_taken_round_by_round():
    # The second round was slow for both.
    measured = Measured({"a": [0.2, 0.8, 0.4], "b": [0.1, 0.4, 0.1]}, {"a": 0, "b": 0})
    ratio = measured.ratio("a", "b")
    assert (ratio.low, ratio.median, ratio.high) == (2, 2, 3)
    assert str(ratio) == "2.00 (2.00 to 3.00)"
    assert measured.milliseconds("a").median == 400


def test_table():
    assert table(("a", "b"), [("x", 1.5)]) == "| a | b |\n| --- | --: |\n| x | 1.5 |"


def test_markers_must_be_there(tmp_path):
    page = tmp_path / "benchmarks.md"
    page.write_text("<!-- end: graphs -->\n<!-- begin: graphs -->\n")
    with pytest.raises(ValueError, match="must have one line '<!-- begin: graphs -->' and, below"):
        write_section(page, "graphs", "text")
