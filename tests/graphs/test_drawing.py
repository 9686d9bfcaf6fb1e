import matplotlib as mpl
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from torch_geometric.data import Data

from gasmcast import (
    build_spatial_graph,
    build_temporal_graph,
    draw_graph,
    generate_spatial_positions,
    generate_spatiotemporal_positions,
    generate_temporal_positions,
    graph_report,
)
from gasmcast.graphs import EdgeRule, build_graph, build_spatiotemporal_graph
from gasmcast.graphs import Nearest as Neighbours
from gasmcast.graphs.drawing import NO_RULE_COLOR, RULE_COLORS

# What is left of linear red, green and blue at severity 1: Machado, Oliveira and Fernandes, A
# Physiologically-based Model for Simulation of Color Vision Deficiency, 2009.
COLOUR_BLIND = {
    "protanope": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranope": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
}


@pytest.fixture
def graph():
    torch.manual_seed(0)
    return build_spatial_graph(generate_spatial_positions((3, 4)), 0.5, features=torch.randn(12, 3))


def strokes(ax) -> list:
    return [collection for collection in ax.collections if hasattr(collection, "get_segments")]


def drawn_pairs(ax) -> set:
    """Both ends of every line."""
    return {
        tuple(sorted(tuple(round(float(x), 4) for x in line[end]) for end in (0, -1)))
        for collection in strokes(ax)
        for line in collection.get_segments()
    }


def labels(ax) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def hand_made(rules: list[int], d: int = 2) -> Data:
    """A path of nodes, the k-th edge by the k-th rule, in both directions."""
    first = torch.arange(len(rules))
    edge_index = torch.stack([torch.cat([first, first + 1]), torch.cat([first + 1, first])])
    pos = torch.zeros(len(rules) + 1, d)
    pos[:, 0] = torch.arange(len(pos))
    rule = torch.tensor(rules, dtype=torch.uint8).repeat(2)
    return Data(edge_index=edge_index, edge_rule=rule, pos=pos)


def test_drawn_lines_are_the_edges(graph):
    ax = draw_graph(graph, torch.rand(3, 30, 40), Figure().add_subplot(), top_k=None)
    expected = {
        tuple(sorted((tuple(graph.pos[i].tolist()), tuple(graph.pos[j].tolist()))))
        for i, j in graph.edge_index.t().tolist()
        if i != j
    }
    assert drawn_pairs(ax) == expected
    assert set(labels(ax)) == set(graph_report(graph).edges_by_rule) - {"self-loop"}
    (image,) = ax.images
    assert tuple(image.get_extent()) == (-0.5, 3.5, 2.5, -0.5)


def test_the_graph_stays_as_it_was(graph):
    graph.pos.requires_grad_()
    before = graph.clone()
    draw_graph(graph, ax=Figure().add_subplot(), top_k=1)
    assert all(torch.equal(graph[name], before[name]) for name in before.keys())  # noqa: SIM118


def test_a_new_figure_is_made_where_no_axes_are_given(graph):
    import matplotlib.pyplot as plt

    with mpl.rc_context({"backend": "agg"}):
        ax = draw_graph(graph)
        assert ax.figure.number in plt.get_fignums()
        plt.close(ax.figure)


def test_top_k_thins_far_edges_to_the_most_similar():
    angle = torch.tensor([0.0, 0.1, 0.3, 0.6])
    features = torch.stack([angle.cos(), angle.sin()], dim=1)
    positions = torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0], [5.0, 5.0]])
    graph = build_spatial_graph(positions, 0.5, features=features)
    for top_k, lines in ((0, 0), (1, 3), (2, 5), (3, 6), (None, 6)):
        # the most similar of 0 is 1, of 1 is 0, of 2 is 1, of 3 is 2
        assert len(drawn_pairs(draw_graph(graph, ax=Figure().add_subplot(), top_k=top_k))) == lines
    del graph.edge_attr
    ax = draw_graph(graph, ax=Figure().add_subplot(), top_k=1)
    # now the shortest, of equals the first: 1 -> 0, 0 -> 1, 0 -> 2, 1 -> 3
    assert drawn_pairs(ax) == {
        ((0.0, 0.0), (5.0, 0.0)),
        ((0.0, 0.0), (0.0, 5.0)),
        ((5.0, 0.0), (5.0, 5.0)),
    }


@pytest.mark.parametrize(
    "rule",
    [
        EdgeRule.ADJACENT,
        EdgeRule.WINDOW,
        EdgeRule.NEAREST,
        EdgeRule.FILLED,
        EdgeRule.TREE,
        EdgeRule.SIMILAR | EdgeRule.NEAREST,
        EdgeRule.OTHER | EdgeRule.ADJACENT,
    ],
)
def test_top_k_leaves_bounded_rules_alone(rule):
    assert (
        len(drawn_pairs(draw_graph(hand_made([rule] * 4), ax=Figure().add_subplot(), top_k=0))) == 4
    )


@pytest.mark.parametrize("rule", [EdgeRule.OTHER, EdgeRule.SIMILAR | EdgeRule.OTHER])
def test_top_k_thins_unbounded_rules(rule):
    ax = draw_graph(hand_made([rule] * 4), ax=Figure().add_subplot(), top_k=0)
    assert drawn_pairs(ax) == set()
    assert ax.get_legend() is None


def test_each_rule_has_a_colour_of_its_own():
    rules = [rule for rule in EdgeRule if rule != EdgeRule.SELF_LOOP]
    assert set(RULE_COLORS) == set(rules)
    ax = draw_graph(hand_made(rules), ax=Figure().add_subplot())
    assert labels(ax) == [rule.label for rule in rules]
    drawn = {
        int(stroke.get_segments()[0][0, 0]): to_hex(stroke.get_colors()[0])
        for stroke in strokes(ax)
    }
    assert drawn == dict(enumerate(RULE_COLORS[rule] for rule in rules))
    shown = [to_hex(line.get_color()) for line in ax.get_legend().get_lines()]
    assert shown == [RULE_COLORS[rule] for rule in rules]


@pytest.mark.parametrize("seen_by", COLOUR_BLIND)
def test_colour_blind_readers_tell_the_rules_apart(seen_by):
    colors = torch.tensor([to_rgb(color) for color in RULE_COLORS.values()])
    light = torch.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
    light = (light @ torch.tensor(COLOUR_BLIND[seen_by]).T).clamp(0, 1)
    seen = torch.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    assert torch.pdist(seen).min() > 0.15  # blue and purple of the same lightness: below 0.1


@pytest.mark.parametrize(
    "rule",
    [
        EdgeRule.ADJACENT | EdgeRule.SIMILAR,
        EdgeRule.SIMILAR | EdgeRule.WINDOW,
        EdgeRule.ADJACENT | EdgeRule.NEAREST | EdgeRule.TREE,
    ],
)
def test_several_rules_are_stripes_that_fill_each_other(rule):
    ax = draw_graph(hand_made([rule]), ax=Figure().add_subplot())
    assert labels(ax) == [rule.label]
    assert [to_hex(stroke.get_colors()[0]) for stroke in strokes(ax)] == [
        RULE_COLORS[bit] for bit in rule
    ]
    covered = torch.zeros(len(rule) * 40, dtype=torch.long)
    for stroke in strokes(ax):
        ((offset, (on, off)),) = stroke.get_linestyles()
        at = (torch.arange(len(covered)) + 0.5) / 40 * (on + off) / len(rule) + offset
        covered += at % (on + off) < on
    assert (covered == 1).all()


def test_where_directions_differ_the_first_rule_counts():
    graph = hand_made([EdgeRule.ADJACENT])
    graph.edge_rule = torch.tensor([EdgeRule.FILLED, EdgeRule.SIMILAR], dtype=torch.uint8)
    for _ in range(2):
        assert labels(draw_graph(graph, ax=Figure().add_subplot())) == ["similar"]
        graph.edge_rule = graph.edge_rule.flip(0)


def test_without_rules_all_edges_have_one_colour():
    graph = build_spatial_graph(generate_spatial_positions(3), edge_attr=False)
    ax = draw_graph(graph, ax=Figure().add_subplot())
    assert len(drawn_pairs(ax)) == 20
    (lines,) = strokes(ax)
    assert to_hex(lines.get_colors()[0]) == NO_RULE_COLOR
    assert ax.get_legend() is None


def test_an_edge_index_of_pyg_is_drawn(graph):
    kept = build_spatial_graph(graph.pos, 0.5, features=graph.x, as_edge_index=True)
    assert drawn_pairs(draw_graph(kept, ax=Figure().add_subplot())) == drawn_pairs(
        draw_graph(graph, ax=Figure().add_subplot())
    )


def test_temporal_graph_is_drawn_as_arcs():
    graph = build_temporal_graph(generate_temporal_positions(), 1)
    ax = draw_graph(graph, ax=Figure().add_subplot())
    (arcs,) = strokes(ax)
    assert len(arcs.get_segments()) == 7
    for arc in arcs.get_segments():
        assert arc[0, 0] == pytest.approx(arc[-1, 0] - 1)
        assert arc[:, 1].max() == pytest.approx(0.5, abs=0.01)
    assert labels(ax) == ["window"]


def test_frames_stand_side_by_side():
    torch.manual_seed(0)
    graph = build_spatiotemporal_graph(
        generate_spatiotemporal_positions(3, (2, 4)), 0.0, features=torch.randn(24, 3)
    )
    pictures = torch.rand(3, 3, 20, 40)
    ax = draw_graph(graph, pictures, Figure().add_subplot(), top_k=None)
    step = 4 + 1.5
    where = torch.stack([graph.pos[:, 0] + graph.pos[:, 2] * step, graph.pos[:, 1]], dim=1)
    (nodes,) = (c for c in ax.collections if c not in strokes(ax))
    assert torch.allclose(torch.as_tensor(nodes.get_offsets().data).float(), where)
    expected = {
        tuple(sorted(tuple(round(x, 4) for x in where[node].tolist()) for node in edge))
        for edge in graph.edge_index.t().tolist()
        if edge[0] != edge[1]
    }
    assert drawn_pairs(ax) == expected
    assert [text.get_text() for text in ax.get_xticklabels()] == ["t = 0", "t = 1", "t = 2"]
    assert [tuple(image.get_extent()) for image in ax.images] == [
        (t * step - 0.5, t * step + 3.5, 1.5, -0.5) for t in range(3)
    ]
    for t, image in enumerate(ax.images):
        assert torch.equal(torch.as_tensor(image.get_array()), pictures[t].permute(1, 2, 0))
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    for stroke in strokes(ax):
        for line in stroke.get_segments():
            assert line[:, 0].min() > left
            assert line[:, 0].max() < right
            assert line[:, 1].min() > top
            assert line[:, 1].max() < bottom


def test_edges_between_frames_are_bows_and_thinned():
    positions = generate_spatiotemporal_positions(2, 1)  # one patch, two frames
    graph = build_spatiotemporal_graph(positions, features=torch.ones(2, 3))
    ax = draw_graph(graph, ax=Figure().add_subplot())
    assert labels(ax) == ["similar + window"]
    (bow, _) = (stroke.get_segments()[0] for stroke in strokes(ax))
    assert bow[0].tolist() == [0.0, 0.0]
    assert bow[-1].tolist() == [2.5, 0.0]
    assert bow[:, 1].min() == pytest.approx(-0.12 * 2.5, abs=0.01)  # upwards

    torch.manual_seed(0)
    positions = generate_spatiotemporal_positions(3, 3)
    graph = build_spatiotemporal_graph(positions, -1.0, features=torch.randn(27, 3))
    between = graph.pos[graph.edge_index[0], 2] != graph.pos[graph.edge_index[1], 2]
    similarity = graph.edge_attr[:, 4]
    expected = set()
    for node in range(27):
        mine = (between & (graph.edge_index[1] == node)).nonzero().squeeze(1)
        best = mine[similarity[mine].argsort(descending=True, stable=True)[:2]]
        expected |= {frozenset((node, int(graph.edge_index[0, edge]))) for edge in best}
    ax = draw_graph(graph, ax=Figure().add_subplot(), top_k=2)
    step = 3 + 1.5
    crossing = {(a, b) for a, b in drawn_pairs(ax) if abs(a[0] - b[0]) > 2}
    assert len(crossing) == len(expected)
    number = {(float(x + t * step), float(y)): i for i, (x, y, t) in enumerate(positions.tolist())}
    assert {frozenset((number[a], number[b])) for a, b in crossing} == expected


@pytest.mark.parametrize("width", [4, 6, 10])
@pytest.mark.parametrize("kind", ["spatial", "temporal", "frames", "many rules"])
def test_the_legend_keeps_clear_of_the_drawing(kind, width):
    torch.manual_seed(0)
    graph = {
        "spatial": lambda: build_spatial_graph(
            generate_spatial_positions(6), 0.3, features=torch.randn(36, 3)
        ),
        "temporal": lambda: build_temporal_graph(
            generate_temporal_positions(), features=torch.randn(8, 2)
        ),
        "frames": lambda: build_spatiotemporal_graph(
            generate_spatiotemporal_positions(3, 6), 0.5, features=torch.randn(108, 3)
        ),
        "many rules": lambda: hand_made([2, 4, 8, 16, 2 | 4, 4 | 8, 16 | 32, 64 | 128, 2 | 4 | 16]),
    }[kind]()
    figure = Figure(figsize=(width, width), layout="constrained")
    ax = draw_graph(graph, ax=figure.add_subplot())
    figure.draw_without_rendering()
    renderer = FigureCanvasAgg(figure).get_renderer()
    legend = ax.get_legend().get_window_extent(renderer)
    assert legend.y1 <= ax.get_window_extent(renderer).y0
    for axis_label in (ax.xaxis.label, *ax.get_xticklabels()):
        if axis_label.get_text():
            assert not legend.overlaps(axis_label.get_window_extent(renderer))
    assert legend.x0 >= 0
    assert legend.x1 <= figure.bbox.width
    assert legend.y0 >= 0


def test_nearest_neighbours_and_empty_graphs_are_drawn():
    ax = draw_graph(build_graph(Neighbours(2), torch.rand(9, 2)), ax=Figure().add_subplot())
    assert labels(ax) == ["nearest"]
    for d in (1, 2, 3):
        empty = build_graph(Neighbours(2), torch.empty(0, d))
        assert drawn_pairs(draw_graph(empty, ax=Figure().add_subplot())) == set()
    draw_graph(build_spatial_graph(torch.empty(0, 2)), torch.rand(3, 4, 4), Figure().add_subplot())


def test_what_cannot_be_drawn(graph):
    with pytest.raises(ValueError, match=r"image must be a tensor \[3, H, W\], got \[8, 8\]"):
        draw_graph(graph, torch.zeros(8, 8))
    with pytest.raises(ValueError, match=r"image must be a tensor .* got ndarray"):
        draw_graph(graph, torch.zeros(3, 8, 8).numpy())
    with pytest.raises(ValueError, match=r"image must be a tensor \[3, H, W\], got \[3\]"):
        draw_graph(graph, torch.zeros(3))
    frames = build_spatial_graph(generate_spatiotemporal_positions(2, 2))
    with pytest.raises(ValueError, match=r"image must be a tensor \[2, 3, H, W\], got \[3, 8, 8\]"):
        draw_graph(frames, torch.zeros(3, 8, 8))
    with pytest.raises(
        ValueError, match=r"only positions .* or \[N, 3\] can be drawn, got \[5, 4\]"
    ):
        draw_graph(build_spatial_graph(torch.rand(5, 4)))
    with pytest.raises(ValueError, match=r"a drawing needs positions, got Data\(.*\) without pos"):
        draw_graph(Data(edge_index=torch.tensor([[0], [1]])))
    for top_k in (-1, "all"):
        with pytest.raises(
            ValueError, match=f'^top_k must be at least 0, None or "auto", got {top_k!r}$'
        ):
            draw_graph(graph, top_k=top_k)


def test_points_in_space_are_not_taken_for_frames():
    graph = build_graph(Neighbours(2), torch.rand(100, 3))
    with pytest.raises(ValueError, match="at most 64 frames, got 100 different times"):
        draw_graph(graph)


def test_close_points_fill_the_axes_and_a_long_signal_has_few_ticks():
    ax = draw_graph(build_graph(Neighbours(2), torch.rand(30, 2) / 100))
    assert ax.get_xlim()[1] - ax.get_xlim()[0] < 0.02
    ax = draw_graph(build_temporal_graph(torch.arange(397.0).unsqueeze(1)))
    assert len(ax.get_xticks()) <= 16
