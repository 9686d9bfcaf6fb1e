"""Edges read off the pairs of nodes: one sorted list for all clips."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gasmcast.graphs.nodes import Nodes
from gasmcast.graphs.pairs import Pairs
from gasmcast.graphs.rules import EdgeRule, Rule


@dataclass(frozen=True)
class Edges:
    """Edges sorted by target, then source.

    Attributes:
        index: Source and target among the nodes of all clips, [2, E].
        rule: Bits of :class:`EdgeRule`, [E]; None where no attributes are wanted.
        similarity: Cosine similarity, [E]; None without features or attributes.
    """

    index: Tensor
    rule: Tensor | None
    similarity: Tensor | None


def edges_of(
    pairs: Pairs,
    rule: Rule,
    tree: tuple[Tensor, Tensor, Tensor] | None,
    self_loops: bool,
    attributes: bool,
) -> Edges:
    """The edges that enter the targets of ``pairs``."""
    clips, first = pairs.clips, pairs.rows.start
    num_targets, num_sources = len(pairs.rows), clips.num_nodes
    bits = pairs.bits(rule).expand(len(clips.sizes), -1, -1)
    bits = bits.clone() if clips.present is None else bits * pairs.others
    if tree is not None:
        clip, child, parent = tree
        for target, source in ((child, parent), (parent, child)):
            here = (target >= first) & (target < pairs.rows.stop)
            place = clip[here], target[here] - first, source[here]
            bits[place] = bits[place] | int(EdgeRule.TREE)
    loops = bits.diagonal(first, dim1=1, dim2=2)
    loops.fill_(int(EdgeRule.SELF_LOOP) * self_loops)
    if clips.present is not None:
        loops.mul_(clips.present[:, first : pairs.rows.stop])

    # Row-major order of (clip, target, source) is the promised order of the edges.
    bits = bits.reshape(-1, num_sources)
    row, column = bits.nonzero(as_tuple=True)
    first_node = clips.first_nodes.unsqueeze(1).expand(-1, num_targets)
    target_of_row = first_node + torch.arange(first, pairs.rows.stop, device=clips.device)
    index = torch.stack(
        [
            first_node.reshape(-1).index_select(0, row) + column,
            target_of_row.view(-1).index_select(0, row),
        ]
    )
    if not attributes:
        return Edges(index, None, None)
    similarity = None
    if clips.features is not None:
        similarity = pairs.cosine.view(-1, num_sources)[row, column].clamp_(-1.0, 1.0)
    return Edges(index, bits[row, column], similarity)


def join(parts: list[Edges]) -> Edges:
    """Edges of one block after another, as one list."""
    if len(parts) == 1:
        return parts[0]
    columns = [[part.rule for part in parts], [part.similarity for part in parts]]
    return Edges(
        torch.cat([part.index for part in parts], dim=1),
        *(None if column[0] is None else torch.cat(column) for column in columns),
    )


def no_edges(nodes: Nodes, attributes: bool) -> Edges:
    """The edges of clips without nodes."""
    none = torch.zeros(0, dtype=torch.long, device=nodes.device)
    return Edges(
        none.expand(2, 0),
        none.to(torch.uint8) if attributes else None,
        none.to(nodes.norms.dtype) if attributes and nodes.norms is not None else None,
    )


def make_undirected(edges: Edges, num_nodes: int) -> Edges:
    """Add the reverse of every edge; the rules of both directions stay known."""
    source, target = edges.index
    key = torch.cat([target * num_nodes + source, source * num_nodes + target])
    key, order = key.sort(stable=True)
    again = key[1:] == key[:-1]  # an edge and the reverse of its reverse: at most two are equal
    first = torch.nn.functional.pad(~again, (1, 0), value=True)[: len(key)]
    index = torch.stack([key % max(num_nodes, 1), key // max(num_nodes, 1)])[:, first]
    rule = similarity = None
    if edges.rule is not None:
        doubled = edges.rule.repeat(2)[order]
        doubled[:-1] |= doubled[1:] * again
        rule = doubled[first]
    if edges.similarity is not None:
        similarity = edges.similarity.repeat(2)[order][first]
    return Edges(index, rule, similarity)
