"""Graphs of grids and sequences that have a name: networkx makes them too."""

import networkx as nx
import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from gasmcast import generate_spatial_positions, generate_temporal_positions
from gasmcast.graphs import (
    Adjacent,
    Nearest,
    Window,
    build_graph,
    build_temporal_graph,
)
from graphs.oracles import adjacency, few_examples

sides = st.integers(1, 6)


def matrix(graph: nx.Graph) -> np.ndarray:
    """Rows in the order of the node names: row by row for a grid."""
    return nx.to_numpy_array(graph, nodelist=sorted(graph)) != 0


@few_examples
@given(sides, sides)
def test_king_moves(rows, columns):
    graph = build_graph(Adjacent(), generate_spatial_positions((rows, columns)))
    king = nx.strong_product(nx.path_graph(rows), nx.path_graph(columns))
    assert (adjacency(graph) == matrix(king)).all()


@few_examples
@given(sides, sides, st.sampled_from(["euclidean", "manhattan"]))
def test_rook_steps(rows, columns, metric):
    graph = build_graph(Adjacent(1, metric), generate_spatial_positions((rows, columns)))
    assert (adjacency(graph) == matrix(nx.grid_2d_graph(rows, columns))).all()


@few_examples
@given(sides, sides, st.integers(1, 8))
def test_several_steps_of_a_rook(rows, columns, radius):
    graph = build_graph(Adjacent(radius, "manhattan"), generate_spatial_positions((rows, columns)))
    power = nx.power(nx.grid_2d_graph(rows, columns), radius)
    assert (adjacency(graph) == matrix(power)).all()


@few_examples
@given(st.integers(1, 12), st.integers(1, 12))
def test_windows(segments, size):
    positions = generate_temporal_positions(segments, segments)
    power = matrix(nx.power(nx.path_graph(segments), size))
    assert (adjacency(build_graph(Window(size), positions)) == power).all()
    assert (adjacency(build_temporal_graph(positions, size)) == power).all()
    # Targets are rows: an edge from the past is below the diagonal.
    causal = np.tril(power)
    assert (adjacency(build_graph(Window(size, causal=True), positions)) == causal).all()
    assert (adjacency(build_temporal_graph(positions, size, causal=True)) == causal).all()


@few_examples
@given(st.integers(2, 12))
def test_nearest_of_a_ring_is_the_ring(segments):
    angle = generate_temporal_positions(segments, segments).double() * (2 * np.pi / segments)
    positions = torch.cat([angle.cos(), angle.sin()], dim=1)
    graph = build_graph(Nearest(2), positions)
    assert (adjacency(graph) == matrix(nx.cycle_graph(segments))).all()


@few_examples
@given(sides, sides)
def test_a_grid_is_connected_by_its_steps(rows, columns):
    positions = generate_spatial_positions((rows, columns))
    graph = build_graph(Adjacent(0), positions, connected=True)
    tree = nx.from_numpy_array(adjacency(graph))
    assert nx.is_tree(tree)
    assert all((positions[a] - positions[b]).abs().sum() == 1 for a, b in tree.edges)
