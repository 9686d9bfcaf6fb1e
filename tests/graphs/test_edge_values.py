"""draw_graph by a value per edge."""

import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from torch_geometric.data import Data

from gasmcast import (
    build_spatial_graph,
    build_spatiotemporal_graph,
    build_temporal_graph,
    draw_graph,
    generate_spatial_positions,
    generate_spatiotemporal_positions,
    generate_temporal_positions,
)
from gasmcast.graphs.edge_values import MOST_WIDTH, value_colors


def attention_on(graph) -> torch.Tensor:
    """Some values that sum to 1 over the edges that enter a node, self-loops included."""
    torch.manual_seed(3)
    weights = torch.rand(graph.num_edges).exp()
    sums = torch.zeros(graph.num_nodes).index_add_(0, graph.edge_index[1], weights)
    return weights / sums[graph.edge_index[1]]


def of_edges(graph, values) -> dict:
    return dict(zip(map(tuple, graph.edge_index.t().tolist()), values.tolist(), strict=True))


@pytest.fixture
def spatial():
    torch.manual_seed(0)
    return build_spatial_graph(generate_spatial_positions((3, 4)), 0.5, features=torch.randn(12, 3))


@pytest.fixture
def temporal():
    return build_temporal_graph(generate_temporal_positions(), 3)


def draw(graph, **options):
    ax = draw_graph(graph, ax=Figure().add_subplot(), **options)
    lines, nodes = ax.collections
    return ax, lines, nodes


def drawn(graph, lines) -> dict:
    """Value, width and colour of each line, by the nodes at its ends."""
    places = {tuple(place): i for i, place in enumerate(graph.pos[:, :2].round().int().tolist())}
    if graph.pos.size(1) == 1:
        places = {(int(i), 0): i for i in range(graph.num_nodes)}
    return {
        tuple(places[tuple(round(float(x)) for x in line[end])] for end in (0, -1)): (
            float(value),
            float(width),
            to_hex(color),
        )
        for line, value, width, color in zip(
            lines.get_segments(),
            lines.get_array(),
            lines.get_linewidths(),
            lines.to_rgba(lines.get_array()),
            strict=True,
        )
    }


def test_a_line_shows_the_larger_of_its_directions(spatial):
    values = attention_on(spatial)
    _, lines, nodes = draw(spatial, edge_values=values, top_k=None)
    value_of = of_edges(spatial, values)
    expected = {(i, j): max(value, value_of[j, i]) for (i, j), value in value_of.items() if i < j}
    found = drawn(spatial, lines)
    assert {pair: value for pair, (value, *_) in found.items()} == pytest.approx(expected)
    most = float(values.max())
    for value, width, color in found.values():
        assert width == pytest.approx(MOST_WIDTH * value / most)
        assert color == to_hex(value_colors(signed=False)(value / most))
    loops = [value_of[i, i] for i in range(12)]
    assert nodes.get_array().tolist() == pytest.approx(loops)
    assert lines.get_clim() == nodes.get_clim() == pytest.approx((0, most))


def test_what_a_node_takes(spatial):
    values = attention_on(spatial)
    value_of = of_edges(spatial, values)
    _, lines, nodes = draw(spatial, edge_values=values, node=5, top_k=0)
    found = {pair: value for pair, (value, *_) in drawn(spatial, lines).items()}
    assert found == pytest.approx({(j, i): v for (j, i), v in value_of.items() if i == 5 != j})
    assert float(nodes.get_array()[5]) == pytest.approx(value_of[5, 5])
    assert sum(found.values()) + float(nodes.get_array()[5]) == pytest.approx(1)
    assert nodes.get_array().mask.tolist() == [i != 5 for i in range(12)]
    sizes = nodes.get_sizes().tolist()
    sources = {j for j, _ in found}
    assert all(
        (sizes[i] > sizes[5] / 5) == (i in sources or i == 5) for i in range(12)
    )  # others stand back
    assert max(sizes) == sizes[5]


@pytest.mark.parametrize("node", [None, 5])
def test_even_values_are_in_the_middle_of_the_scale_and_marked(node, temporal):
    values = torch.full((temporal.num_edges,), 0.125)
    values[0] = 0.13
    figure = Figure()
    ax = draw_graph(
        temporal, ax=figure.add_subplot(), edge_values=values, node=node, colorbar="attention"
    )
    entering = values if node is None else values[temporal.edge_index[1] == node]
    mean = float(entering.mean())
    assert ax.collections[0].get_clim() == pytest.approx((0, 2 * mean))
    assert max(ax.collections[0].get_linewidths()) < 0.53 * MOST_WIDTH
    assert figure.axes[-1].lines[-1].get_ydata()[0] == pytest.approx(mean)


def test_the_scale_is_that_of_all_edges_whatever_is_left_out(spatial):
    values = attention_on(spatial)
    scales = {draw(spatial, edge_values=values, top_k=k)[1].get_clim() for k in (0, 1, None)}
    assert len(scales) == 1


def test_limits_put_several_on_one_scale(temporal):
    values = attention_on(temporal)
    most = float(values.max())
    _, lines, nodes = draw(temporal, edge_values=values, limits=(0, most / 2))
    assert lines.get_clim() == nodes.get_clim() == pytest.approx((0, most / 2))
    for value, width, _ in drawn(temporal, lines).values():
        assert width == pytest.approx(MOST_WIDTH * min(value / (most / 2), 1))
    _, lines, _ = draw(temporal, edge_values=values, limits=(-1.0, 1.0))  # 0 in the middle
    for value, _, color in drawn(temporal, lines).values():
        assert color == to_hex(value_colors(signed=True)((value + 1) / 2))


def test_over_time_few_nodes_show_all_their_edges_and_say_which_side_is_which():
    for count, lines in ((16, 16 * 15), (17, 17 * 3)):
        ends = torch.cartesian_prod(torch.arange(count), torch.arange(count)).t()
        graph = Data(edge_index=ends, pos=torch.arange(float(count))[:, None])
        ax, found, _ = draw(graph, edge_values=attention_on(graph))
        assert len(found.get_segments()) == lines
        earlier, later = ax.texts
        assert (earlier.get_text(), later.get_text()) == ("from earlier", "from later")
        assert earlier.get_position()[1] > later.get_position()[1]
        _, found, _ = draw(graph, edge_values=attention_on(graph), top_k=2)
        assert len(found.get_segments()) == count * 2


def test_each_node_keeps_its_strongest(spatial):
    values = attention_on(spatial)
    value_of = of_edges(spatial, values)
    strongest = set()
    for node in range(12):
        entering = {j: value for (j, i), value in value_of.items() if i == node != j}
        strongest |= {frozenset((node, j)) for j in sorted(entering, key=entering.get)[-2:]}
    _, lines, _ = draw(spatial, edge_values=values, top_k=2)
    assert {frozenset(pair) for pair in drawn(spatial, lines)} == strongest
    order = lines.get_array().tolist()
    assert order == sorted(order)  # the strongest on top


def test_over_time_the_directions_are_apart(temporal):
    values = attention_on(temporal)
    value_of = of_edges(temporal, values)
    ax, lines, nodes = draw(temporal, edge_values=values, top_k=None)
    found = {pair: value for pair, (value, *_) in drawn(temporal, lines).items()}
    assert found == pytest.approx({(j, i): v for (j, i), v in value_of.items() if i != j})
    for line in lines.get_segments():
        start, end = line[0, 0], line[-1, 0]
        top = line[:, 1].max() if start < end else -line[:, 1].min()
        assert top == pytest.approx(abs(end - start) / 2, rel=0.01)
        assert ax.get_ylim()[0] < line[:, 1].min()
        assert ax.get_ylim()[1] > line[:, 1].max()
    assert nodes.get_array().tolist() == pytest.approx([value_of[i, i] for i in range(8)])
    assert ax.get_xlim() == (-0.5, 7.5)  # as a film strip of eight


def test_negative_values_have_zero_in_the_middle(temporal):
    values = attention_on(temporal)
    values[::3] *= -1
    _, lines, nodes = draw(temporal, edge_values=values, top_k=None)
    most = float(values.abs().max())
    assert lines.get_clim() == nodes.get_clim() == pytest.approx((-most, most))
    for value, width, color in drawn(temporal, lines).values():
        assert width == pytest.approx(MOST_WIDTH * abs(value) / most)
        assert color == to_hex(value_colors(signed=True)((value / most + 1) / 2))


def test_frames_side_by_side():
    torch.manual_seed(0)
    graph = build_spatiotemporal_graph(
        generate_spatiotemporal_positions(3, 2), 0.0, features=torch.randn(12, 3)
    )
    values = attention_on(graph)
    _, lines, nodes = draw(graph, edge_values=values, top_k=None)
    larger = {}
    for (i, j), value in of_edges(graph, values).items():
        if i != j:
            larger[frozenset((i, j))] = max(value, larger.get(frozenset((i, j)), 0))
    assert sorted(lines.get_array().tolist()) == pytest.approx(sorted(larger.values()))
    number = {tuple(place.tolist()): i for i, place in enumerate(nodes.get_offsets().data)}
    for line, value in zip(lines.get_segments(), lines.get_array(), strict=True):
        ends = frozenset(number[tuple(line[end].tolist())] for end in (0, -1))
        assert larger[ends] == pytest.approx(float(value))


def test_a_colour_bar_and_a_grey_image(spatial):
    figure = Figure()
    pixels = torch.randint(0, 256, (3, 6, 8), dtype=torch.uint8)
    options = {"edge_values": attention_on(spatial), "colorbar": "attention"}
    for image in (pixels, pixels / 255):
        ax = draw_graph(spatial, image, figure.add_subplot(), **options)
        (shown,) = ax.images
        assert shown.get_clim() == (0, 1)
        expected = pixels.float().mean(dim=0) / 255
        assert torch.allclose(torch.from_numpy(shown.get_array().data).float(), expected)
        assert figure.axes[-1].get_ylabel() == "attention"
        assert figure.axes[-1].get_ylim() == pytest.approx(ax.collections[0].get_clim())


def test_inputs_stay_as_they_were(spatial):
    values = attention_on(spatial).requires_grad_()
    before = values.detach().clone()
    draw(spatial, edge_values=values, top_k=1)
    assert torch.equal(values.detach(), before)


def test_graphs_without_self_loops_or_edges():
    path = Data(edge_index=torch.tensor([[0, 1], [1, 0]]), pos=torch.tensor([[0.0], [1.0]]))
    _, lines, nodes = draw(path, edge_values=torch.tensor([0.2, 0.4]))
    assert lines.get_clim() == pytest.approx((0, 0.6))  # twice the mean
    assert nodes.get_array().mask.all()
    assert to_hex(nodes.to_rgba(nodes.get_array())[0]) == "#ffffff"
    empty = Data(edge_index=torch.empty(2, 0, dtype=torch.long), pos=torch.zeros(3, 2))
    _, lines, _ = draw(empty, edge_values=torch.empty(0))
    assert lines.get_segments() == []
    draw(path, edge_values=torch.zeros(2))


def test_by_rule_a_node_has_the_edges_that_enter_it(spatial):
    ax = draw_graph(spatial, ax=Figure().add_subplot(), node=5, top_k=0)
    ends = {
        tuple(sorted(tuple(map(float, line[end])) for end in (0, -1)))
        for collection in ax.collections[:-1]
        for line in collection.get_segments()
    }
    source = spatial.edge_index[0, spatial.edge_index[1] == 5]
    here = tuple(spatial.pos[5].tolist())
    assert ends == {
        tuple(sorted((here, tuple(spatial.pos[j].tolist())))) for j in source.tolist() if j != 5
    }


def test_wrong_values_are_named(spatial):
    edges = spatial.num_edges
    for options, message in [
        ({"edge_values": torch.rand(3)}, rf"must be a tensor \[{edges}\], one an edge, got \[3\]"),
        ({"edge_values": torch.rand(edges, 2)}, rf"one an edge, got \[{edges}, 2\]"),
        ({"edge_values": [0.1]}, "one an edge, got list"),
        ({"edge_values": torch.full((edges,), torch.inf)}, "edge_values must be finite, got inf"),
        ({"node": 12}, "node must be None or 0 to 11, got 12"),
        ({"node": 1.5}, "node must be None or 0 to 11, got 1.5"),
        ({"node": -1}, "node must be None or 0 to 11, got -1"),
        ({"colorbar": "attention"}, "a colour bar is of edge_values, got colorbar='attention'"),
        ({"limits": (0, 1)}, r"limits are of edge_values, got limits=\(0, 1\) without them"),
        ({"limits": (1, 0)}, r"limits must be the lower and the higher end, got \(1, 0\)"),
        (
            {"limits": (-1, 2), "edge_values": torch.rand(edges)},
            r"limits of edges must be \(0, high\) or \(-high, high\), got \(-1, 2\)",
        ),
        (
            {"limits": (0, 2), "edge_values": -torch.ones(edges)},
            "limits from 0 up need values from 0 up, got -1",
        ),
    ]:
        figure = Figure()
        with pytest.raises(ValueError, match=message):
            draw_graph(spatial, ax=figure.add_subplot(), **options)
        assert not figure.axes[0].collections
