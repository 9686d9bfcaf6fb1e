"""The maximum spanning tree of each clip: the fewest edges that connect all of its nodes."""

from collections.abc import Callable

import torch
from torch import Tensor

from gasmcast.graphs.pairs import Pairs


def maximum_spanning_tree(pairs: Pairs) -> tuple[Tensor, Tensor, Tensor]:
    """Edges of the tree with the largest sum of similarities over all pairs of a clip's nodes.

    Without features, the smallest sum of distances. Prim's algorithm on all clips at once: a clip
    needs one row of similarities for each of its nodes, so memory stays linear in the nodes where
    the matrix does not fit. Of equally close nodes the one with the smaller index comes first.

    Args:
        pairs: Pairs of the clips; the tree is that of whole clips.

    Returns:
        Clip, child and parent of each edge, one direction only, [sum (N - 1)] each.

    Source: R. C. Prim, *Shortest connection networks and some generalizations*, 1957.
    """
    clips = pairs.clips
    num_clips, num_nodes, device = len(clips.sizes), clips.num_nodes, clips.device
    everyone = torch.arange(num_clips, device=device)
    if clips.present is None:
        joined = torch.zeros(num_clips, num_nodes, dtype=torch.bool, device=device)
    else:
        joined = ~clips.present
    closeness = _rows(pairs)
    best = torch.full((num_clips, num_nodes), -torch.inf, device=device, dtype=torch.float64)
    parent = torch.zeros(num_clips, num_nodes, dtype=torch.long, device=device)
    newest = torch.zeros(num_clips, dtype=torch.long, device=device)
    children = []
    for _ in range(num_nodes - 1):
        joined[everyone, newest] = True
        row = closeness(newest)
        closer = row > best
        best = torch.where(closer, row, best)
        parent = torch.where(closer & ~joined, newest.unsqueeze(1), parent)
        newest = best.masked_fill(joined, -torch.inf).argmax(dim=1)
        children.append(newest)
    if not children:
        return everyone[:0], everyone[:0], everyone[:0]
    child = torch.stack(children, dim=1)
    sizes = torch.tensor(clips.sizes, device=device).unsqueeze(1)
    real = torch.arange(num_nodes - 1, device=device) < sizes - 1
    clip, _ = real.nonzero(as_tuple=True)
    child = child[real]
    return clip, child, parent[clip, child]


def _rows(pairs: Pairs) -> Callable[[Tensor], Tensor]:
    """A function that gives the closeness of one node a clip to all nodes of its clip, [b, n]."""
    if pairs.whole:
        matrix = pairs.closeness()
        clip = torch.arange(len(matrix), device=matrix.device)
        return lambda node: matrix[clip, node[: len(matrix)]]
    clips = pairs.clips

    def row(node: Tensor) -> Tensor:
        target = int(node)
        return Pairs(clips, range(target, target + 1), tile=clips.num_nodes).closeness().squeeze(1)

    return row
