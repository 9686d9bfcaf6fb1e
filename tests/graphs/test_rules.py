from dataclasses import dataclass

import pytest
import torch

from gasmcast import graphs
from gasmcast.graphs import (
    Adjacent,
    EdgeRule,
    Nearest,
    Quantile,
    Rule,
    Similar,
    TargetDegree,
    Window,
    build_graph,
)
from gasmcast.graphs.closest import closest
from gasmcast.graphs.nodes import read_nodes
from gasmcast.graphs.pairs import clips_within


def cosine_similarity(features):
    nodes = read_nodes(None, features, None, None, None)
    (clips,) = clips_within(nodes, 2**30)
    (pairs,) = clips.blocks()
    return pairs.cosine


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(2, 3, 67), (2, 5, 768), (2, 31, 1333), (2, 203, 67)])
def test_similarity_is_symmetric_to_the_last_bit(shape, dtype):
    # At such sizes a matrix product need not be: its kernels add up in an order of their own.
    torch.manual_seed(0)
    similarity = cosine_similarity(torch.randn(shape, dtype=dtype))
    assert similarity.dtype == dtype
    assert torch.equal(similarity, similarity.transpose(1, 2))
    diagonal = similarity.diagonal(dim1=1, dim2=2)
    assert torch.equal(diagonal, torch.ones_like(diagonal))


def test_similarity_by_hand():
    features = torch.tensor([[[3.0, 4.0], [-4.0, 3.0], [6.0, 8.0], [0.0, 2.0], [0.0, 0.0]]])
    expected = torch.tensor(
        [
            [1.0, 0.0, 1.0, 0.8, 0.0],
            [0.0, 1.0, 0.0, 0.6, 0.0],
            [1.0, 0.0, 1.0, 0.8, 0.0],
            [0.8, 0.6, 0.8, 1.0, 0.0],
            [0.0, 0.0, 0.0, 0.0, 1.0],
        ]
    )
    torch.testing.assert_close(cosine_similarity(features)[0], expected)


def test_ties_over_hundreds_of_nodes_go_to_the_smaller_index():
    similarity = torch.ones(2, 300, 300)
    candidates = torch.ones(2, 300, 300, dtype=torch.bool)
    candidates[1, :, :7] = False
    kept = closest(candidates, similarity, 5)
    expected = torch.zeros(2, 300, 300, dtype=torch.bool)
    expected[0, :, :5] = expected[1, :, 7:12] = True
    assert torch.equal(kept, expected)


def test_fewer_candidates_than_places_are_all_kept():
    torch.manual_seed(0)
    candidates = torch.rand(2, 6, 6) < 0.4
    similarity = torch.rand(2, 6, 6)
    for places in (6, 10):
        assert torch.equal(closest(candidates, similarity, places), candidates)
    assert not closest(candidates, similarity, 0).any()


def test_each_target_has_room_for_its_own_number():
    closeness = torch.tensor([[[0.1, 0.5, 0.5, 0.9], [0.3, 0.3, 0.3, 0.3], [0.4, 0.2, 0.1, 0.0]]])
    candidates = torch.ones(1, 3, 4, dtype=torch.bool)
    kept = closest(candidates, closeness, torch.tensor([[2, 0, 7]]))
    assert kept.int().tolist() == [[[0, 1, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]]]


# Four nodes in a row; what each pair of rules gives is written out by hand.
ROW = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
NEAR, FAR = Adjacent(1), Adjacent(2) - Adjacent(1)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (NEAR, {(0, 1): 2, (1, 2): 2, (2, 3): 2}),
        (NEAR | Window(2), {(0, 1): 10, (1, 2): 10, (2, 3): 10, (0, 2): 8, (1, 3): 8}),
        (NEAR & Window(2), {(0, 1): 10, (1, 2): 10, (2, 3): 10}),
        (Window(2) - NEAR, {(0, 2): 8, (1, 3): 8}),
        (~Adjacent(2), {(0, 3): 128}),
        (FAR | ~Adjacent(2), {(0, 2): 2, (1, 3): 2, (0, 3): 128}),
        (NEAR & ~Adjacent(2), {}),
    ],
)
def test_rules_compose(rule, expected):
    graph = build_graph(rule, ROW, self_loops=False)
    both = {**expected, **{(b, a): bit for (a, b), bit in expected.items()}}
    pairs = [tuple(pair) for pair in graph.edge_index.t().tolist()]
    assert dict(zip(pairs, graph.edge_rule.tolist(), strict=True)) == both


def test_a_causal_window_looks_back():
    graph = build_graph(Window(2, causal=True), ROW, self_loops=False)
    assert graph.edge_index.t().tolist() == [[0, 1], [0, 2], [1, 2], [1, 3], [2, 3]]


def test_nearest_in_positions_by_hand():
    graph = build_graph(Nearest(1), torch.tensor([[0.0], [1.0], [1.5], [9.0]]), self_loops=False)
    assert graph.edge_index.tolist() == [[1, 2, 1, 2], [0, 1, 2, 3]]
    assert graph.edge_rule.tolist() == [EdgeRule.NEAREST] * 4


def test_gaussian_similarity_by_hand():
    # exp(-1 / 2) = 0.607 one apart, exp(-4 / 2) = 0.135 two apart
    for threshold, count in ((0.61, 0), (0.60, 6), (0.14, 6), (0.13, 10)):
        rule = Similar(threshold, sigma=1.0, space="positions")
        assert build_graph(rule, ROW, self_loops=False).num_edges == count


def test_a_rule_of_ones_own():
    class SameParity(Rule):
        def holds(self, pairs):
            return pairs.displacement(0) % 2 == 0

    graph = build_graph(SameParity() - Adjacent(0), ROW, self_loops=False)
    assert graph.edge_index.t().tolist() == [[2, 0], [3, 1], [0, 2], [1, 3]]
    assert graph.edge_rule.tolist() == [EdgeRule.OTHER] * 4


def test_a_rule_of_ones_own_must_return_a_matrix_of_bools():
    class Wrong(Rule):
        def holds(self, pairs):
            return pairs.displacement(0)

    message = r"Wrong.holds must return bool \[1, 4, 4\], got float32 \[1, 4, 4\]"
    with pytest.raises(ValueError, match=message):
        build_graph(Wrong(), ROW)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Adjacent(-1), "radius must be a number of at least 0, got -1"),
        (lambda: Adjacent(float("nan")), "radius must be a number of at least 0, got nan"),
        (lambda: Adjacent(metric="cosine"), "metric must be one of chebyshev, .* got 'cosine'"),
        (lambda: Window(-2), "size of a window must be a number of at least 0, got -2"),
        (lambda: Similar("high"), "number, Quantile or TargetDegree, got 'high'"),
        (lambda: Similar(sigma=0), "sigma must be a positive number, got 0"),
        (lambda: Similar(space="time"), "space must be one of features, positions, got 'time'"),
        (lambda: Similar(space="positions"), "similar positions need sigma"),
        (lambda: Adjacent(axes=0), "axes must be a tuple of coordinates or None, got 0"),
        (lambda: Similar(sigma="a"), "sigma must be a positive number, got 'a'"),
        (lambda: Quantile("a"), "quantile must be a number between 0 and 1, got 'a'"),
        (lambda: Quantile(1.5), "quantile must be a number between 0 and 1, got 1.5"),
        (lambda: TargetDegree(-1), "target degree must be finite and at least 0, got -1"),
        (lambda: Nearest(-1), "k must be an integer of at least 0, got -1"),
        (lambda: Nearest(2.5), "k must be an integer of at least 0, got 2.5"),
        (lambda: Nearest(2, metric="cosine"), "the cosine is for features"),
        (lambda: Nearest(2).at_most(-1), "largest number of neighbours .* got -1"),
        (lambda: Nearest(2).at_least(None), "smallest number of neighbours .* got None"),
    ],
)
def test_what_makes_no_rule_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("rule", "inputs", "message"),
    [
        (NEAR | Similar(), {"positions": ROW}, "Similar needs features, got none"),
        (~NEAR, {"features": ROW}, "Adjacent needs positions, got none"),
        (Nearest(1, "features").at_most(2), {"positions": ROW}, "Nearest needs features, got none"),
        (NEAR, {}, "Adjacent needs positions"),
        ("grid", {"positions": ROW}, r"rule must be a Rule, such as .* got 'grid'"),
    ],
)
def test_what_a_rule_lacks_is_named(rule, inputs, message):
    with pytest.raises(ValueError, match=message):
        build_graph(rule, **inputs)


def test_only_rules_combine():
    with pytest.raises(TypeError, match="unsupported operand"):
        NEAR | 3


@pytest.mark.parametrize("rule", [Adjacent(axes=(0, 1)), Window(axis=-2)])
def test_axes_that_do_not_exist_are_named(rule):
    with pytest.raises(ValueError, match=r"positions have 1 coordinates, got axes \("):
        build_graph(rule, ROW)


def test_a_rule_of_ones_own_need_not_be_hashable():
    @dataclass
    class Times(Rule):
        numbers: list[int]

        def holds(self, pairs):
            return torch.isin(pairs.displacement(0), torch.tensor(self.numbers))

    graph = build_graph(Times([2.0, 3.0]) - Times([3.0]), ROW, self_loops=False)
    assert graph.edge_index.t().tolist() == [[2, 0], [3, 1]]


@pytest.mark.parametrize(
    "text",
    [
        "(Adjacent() | (Similar(threshold=0.9) - Adjacent(radius=3)))",
        "~(Window(causal=True) & Nearest(3, space='features'))",
        "(Adjacent() | Similar(threshold=TargetDegree(k=4))).at_most(8).at_least(1)",
    ],
)
def test_a_rule_shows_how_to_write_it(text):
    assert repr(eval(text, vars(graphs))) == text


@pytest.mark.parametrize("max_bytes", [0, -1, 2.5e9])
def test_working_memory_is_a_number_of_bytes(max_bytes):
    with pytest.raises(ValueError, match=f"max_bytes must be a positive integer, got {max_bytes}"):
        build_graph(NEAR, ROW, max_bytes=max_bytes)


def test_what_a_rule_of_ones_own_asks_for_must_be_there():
    class Steep(Rule):
        def holds(self, pairs):
            return pairs.cosine > 0

    with pytest.raises(ValueError, match="a rule asks for features, got none"):
        build_graph(Steep(), ROW)
    with pytest.raises(
        ValueError, match=r"Nothing.holds must return bool \[1, 4, 4\], got NoneType"
    ):
        build_graph(type("Nothing", (Rule,), {"holds": lambda self, pairs: None})(), ROW)


def test_rules_do_not_combine_by_words():
    with pytest.raises(TypeError, match="rules combine with |, &, - and ~, not with or, and, not"):
        NEAR and FAR  # noqa: B018


def test_what_is_known_of_the_nodes_reaches_a_rule_in_blocks_too():
    class Same(Rule):
        def __init__(self, label):
            self.label = label

        def holds(self, pairs):
            target, source = pairs.of_nodes(self.label)
            return target == source

    sizes = [70, 0, 3, 130]
    ptr = torch.tensor([0, *torch.tensor(sizes).cumsum(0).tolist()])
    label = torch.randint(3, (sum(sizes),))
    positions = torch.rand(sum(sizes), 2)
    clip = torch.repeat_interleave(torch.tensor(sizes))
    expected = (label[:, None] == label) & (clip[:, None] == clip)
    for max_bytes in (2**30, 130 * 64 * 64):
        graph = build_graph(Same(label), positions, ptr=ptr, max_bytes=max_bytes)
        target, source = expected.nonzero(as_tuple=True)
        assert torch.equal(graph.edge_index, torch.stack([source, target]))


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda pairs: pairs.distance("pos"), "space must be positions or features, got 'pos'"),
        (lambda pairs: pairs.distance(metric="cosine"), "metric must be one of .* got 'cosine'"),
    ],
)
def test_what_pairs_do_not_know_is_named(ask, message):
    rule = type("Asking", (Rule,), {"holds": lambda self, pairs: ask(pairs) < 1})()
    with pytest.raises(ValueError, match=message):
        build_graph(rule, ROW, features=ROW)
