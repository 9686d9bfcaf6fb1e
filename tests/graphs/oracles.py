"""Random clips for the graph builders, and what says from outside how their graphs must look.

Matrices are [N, N] numpy arrays over all nodes of all clips, row target, column source.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric.data import Data

HALF = (torch.float16, torch.bfloat16)
DTYPES = (*HALF, torch.float32, torch.float64)

# The same examples in every run, on slow machines too.
some_examples = settings(derandomize=True, deadline=None, max_examples=40)
few_examples = settings(derandomize=True, deadline=None, max_examples=20)


@dataclass(frozen=True)
class Clips:
    """Nodes of clips of any size, 0 too, one clip after the other.

    ``exact`` ones have many ties, duplicates and zero vectors, and numbers of which every dtype of
    torch computes all similarities and squared distances without rounding.
    """

    sizes: list[int]
    positions: Tensor
    features: Tensor
    exact: bool

    @property
    def ptr(self) -> Tensor:
        return torch.tensor([0, *accumulate(self.sizes)])

    @property
    def both(self) -> dict[str, Tensor]:
        return {"positions": self.positions, "features": self.features}

    def one_by_one(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield from zip(
            self.positions.split(self.sizes), self.features.split(self.sizes), strict=True
        )

    def nodes_of_clips(self) -> list[slice]:
        ptr = self.ptr.tolist()
        return [slice(first, last) for first, last in pairwise(ptr)]

    def similarity(self) -> np.ndarray:
        """Cosines in float64, -inf between clips; 0 for zero vectors, 1 of a node with itself."""
        x = self.features.double().numpy()
        norm = np.linalg.norm(x, axis=1)
        product = np.outer(norm, norm)
        cosine = np.divide(x @ x.T, product, out=np.zeros_like(product), where=product > 0)
        np.fill_diagonal(cosine, 1.0)
        return self.within_clips(cosine, -np.inf)

    def distance(self, space: str = "positions", p: float = 2) -> np.ndarray:
        """Distances in float64, infinite between clips."""
        x = getattr(self, space).double().numpy()
        difference = x[:, None] - x[None]
        return self.within_clips(np.linalg.norm(difference, ord=p, axis=2), np.inf)

    def within_clips(self, matrix: np.ndarray, elsewhere: float) -> np.ndarray:
        clip = np.repeat(np.arange(len(self.sizes)), self.sizes)
        return np.where(clip[:, None] == clip, matrix, elsewhere)


def make_clips(
    sizes: list[int],
    *,
    exact: bool = False,
    dtype: torch.dtype = torch.float32,
    coordinates: int = 2,
    channels: int = 4,
    seed: int = 0,
) -> Clips:
    generator = torch.Generator().manual_seed(seed)
    nodes = sum(sizes)
    if exact:
        positions = torch.randint(0, 4, (nodes, coordinates), generator=generator)
        # Lengths are powers of two: cosines are multiples of 1/4.
        signs = torch.randint(0, 2, (nodes, 4), generator=generator) * 2 - 1
        scale = torch.tensor([0.0, 1.0, 1.0, 2.0, 0.5])
        features = signs * scale[torch.randint(0, 5, (nodes, 1), generator=generator)]
    else:
        positions = torch.rand(nodes, coordinates, generator=generator, dtype=torch.float64) * 4
        features = torch.randn(nodes, channels, generator=generator, dtype=torch.float64)
    return Clips(sizes, positions.to(dtype), features.to(dtype), exact)


@st.composite
def clips(draw, *, dtypes=(torch.float64,), exact=None, num_clips=(0, 4), max_nodes=9, **options):
    sizes = draw(st.lists(st.integers(0, max_nodes), min_size=num_clips[0], max_size=num_clips[1]))
    return make_clips(
        sizes,
        exact=draw(st.booleans()) if exact is None else exact,
        dtype=draw(st.sampled_from(dtypes)),
        coordinates=draw(st.integers(1, 3)),
        channels=draw(st.integers(2, 5)),
        seed=draw(st.integers(0, 2**20)),
        **options,
    )


def away_from(values: np.ndarray, threshold: float, margin: float = 1e-6) -> float:
    """The threshold, or one a little above that no value lies within rounding of."""
    values = values[np.isfinite(values)]
    while (np.abs(values - threshold) <= margin).any():
        threshold += 3 * margin
    return threshold


def rules(graph: Data) -> np.ndarray:
    """``edge_rule`` as a matrix, 0 where there is no edge."""
    matrix = np.zeros((graph.num_nodes, graph.num_nodes), dtype=np.uint8)
    source, target = graph.edge_index.numpy()
    assert not matrix[target, source].any()
    matrix[target, source] = graph.edge_rule.numpy()
    assert (matrix != 0).sum() == graph.num_edges, "an edge is there twice, or has no rule"
    return matrix


def adjacency(graph: Data) -> np.ndarray:
    """The edges between different nodes; the self-loops must be there, one a node."""
    matrix = rules(graph)
    assert (matrix.diagonal() == 1).all()
    assert not (matrix[~np.eye(len(matrix), dtype=bool)] & 1).any()
    return off_diagonal(matrix != 0)


def off_diagonal(matrix: np.ndarray) -> np.ndarray:
    return matrix & ~np.eye(len(matrix), dtype=bool)


def closest(distance: np.ndarray, count, candidates: np.ndarray | None = None) -> np.ndarray:
    """Of each target's candidates, the ``count`` nearest; of ties those with the smaller index.

    In the plainest Python. The nodes of other clips are infinitely far away.
    """
    nodes = len(distance)
    count = np.broadcast_to(count, nodes)
    chosen = np.zeros((nodes, nodes), dtype=bool)
    for target in range(nodes):
        sources = [
            source
            for source in range(nodes)
            if source != target
            and distance[target, source] < np.inf
            and (candidates is None or candidates[target, source])
        ]
        sources.sort(key=lambda source: (distance[target, source], source))
        chosen[target, sources[: count[target]]] = True
    return chosen


def assert_same_graph(graph: Data, expected: Data, tolerance: float | None = None) -> None:
    """The same attributes with the same values, in the same order of nodes and edges.

    Numbers on the edges may differ by ``tolerance``.
    """
    assert set(graph.keys()) == set(expected.keys())
    for name in expected.keys():  # noqa: SIM118 - Data is no dict
        value, wanted = graph[name], expected[name]
        if tolerance and name in ("edge_attr", "edge_weight"):
            torch.testing.assert_close(value, wanted, rtol=tolerance, atol=tolerance)
        else:
            assert value.dtype == wanted.dtype, name
            assert torch.equal(value, wanted), name
