"""Which edges of a model's graph an answer rests on, by the explainers of PyG.

    python examples/explain_graph.py VIDEO --checkpoint runs/quickstart/run/model --algorithm gnn

prints the most important edges (rule, similarity, value) and nodes of the graph of the patches, or
with `--stream temporal` of the segments, and what the class's logit loses without these edges and
without as many others. It writes a picture, the edges as CSV, and the graph with all values as
node-link JSON of networkx. The algorithms:

- attention: the mean over heads of the attention (`AttentionExplainer`);
- gnn: masks from 0 to 1 that keep the answer with as little as possible (`GNNExplainer`);
- captum: integrated gradients (`CaptumExplainer`; needs `pip install captum`). Values of edges sum
  to what all messages add to the logit; values of nodes sum to what tells the nodes' features from
  their mean. They can be negative.

Printed with `--algorithm captum --stream temporal --top 2` for the quickstart's model and its test
clip test_01_00002.mp4:

    moving a checked object from left to right (94%)

     segment takes from  rule                      similarity     value
           1 <- 4         similar                        0.852    0.1022
           0 <- 4         similar                        0.823    0.1019

     segment     value
           7   -0.0735
           6   -0.0372

    logit 4.304; without these 2 edges 4.298; without 2 of the other 46, at random, 4.303

docs/explainers.md shows more, and the pictures.
"""

import csv
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple

import networkx as nx
import torch
from jsonargparse import auto_cli
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch
from torch import Tensor
from torch_geometric.explain import (
    AttentionExplainer,
    CaptumExplainer,
    Explainer,
    ExplainerAlgorithm,
    Explanation,
    GNNExplainer,
)

from gasmcast import TemporalCrossAttentionModel, VideoReadError, to_networkx
from gasmcast.explanation import ClipInspection, GraphPart, inspect_clip
from gasmcast.visualization import draw_film_strip

FOR, AGAINST = "#d55e00", "#5e3c99"  # told apart by colour-blind readers too


class Values(NamedTuple):
    """What an explainer says: of each edge [E] and each node [N]."""

    edges: Tensor
    nodes: Tensor


def main(
    video: Path,
    checkpoint: Path = Path("runs/quickstart/run/model"),
    algorithm: Literal["attention", "gnn", "captum"] = "attention",
    stream: Literal["spatial", "temporal"] = "spatial",
    output: Path = Path("explanations"),
    top: int = 10,
    seed: int = 0,
) -> None:
    """Which edges of a model's graph an answer rests on, by the explainers of PyG.

    Args:
        video: The video file.
        checkpoint: Folder of a saved model (config.json and model.safetensors).
        algorithm: Which explainer.
        stream: The graph of the patches (spatial) or of the segments (temporal).
        output: Folder for the picture and the tables, made if need be.
        top: How many edges to print, draw and take away; self-loops are left out.
        seed: Of the masks that gnn starts from, and of the other edges to take away.
    """
    if not checkpoint.is_dir():
        raise FileNotFoundError(f"{checkpoint} is no folder: expected a saved model")
    if top < 1:
        raise ValueError(f"top must be at least 1, got {top}")
    if algorithm == "captum" and find_spec("captum") is None:
        raise ImportError("captum is missing: pip install captum")
    output.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    model = TemporalCrossAttentionModel.from_pretrained(checkpoint)
    inspection = inspect_clip(model, video)
    part = GraphPart(model, inspection, stream)
    values = explain(part, algorithm)
    label, probability = inspection.top(1)[0]
    print(f"{inspection.class_names[label]} ({probability:.0%})")

    chosen = strongest(part, values.edges, top)
    print_edges(part, values, chosen)
    print_faithfulness(part, inspection, chosen)

    path = output / f"{video.stem}_{stream}_{algorithm}.json"
    write_tables(part, inspection, values, path)
    figure = Figure(figsize=(6.4, 5.6) if stream == "spatial" else (8, 5), layout="constrained")
    draw = draw_patches if stream == "spatial" else draw_segments
    draw(figure, part, inspection, values, chosen)
    figure.suptitle(f"{inspection.class_names[label]} ({probability:.0%}): {algorithm}")
    figure.savefig(path.with_suffix(".png"), dpi=150)
    print(f"written: {path}, {path.with_suffix('.csv').name} and {path.with_suffix('.png').name}")


def explain(part: GraphPart, algorithm: str) -> Values:
    """Values of edges and nodes for the class that the model names."""
    if algorithm == "attention":
        edges = run(part, AttentionExplainer("mean"), edge_mask_type="object").edge_mask
        # The explainer says nothing of nodes; this is what the others take from each.
        source, target = part.graph.edge_index
        others = edges.masked_fill(source == target, 0.0)
        return Values(edges, edges.new_zeros(part.graph.num_nodes).index_add_(0, source, others))
    if algorithm == "gnn":
        # PyG's entropy term would send each edge that does not matter to 0 or to 1 by its start.
        gnn = GNNExplainer(epochs=200, lr=0.05, edge_ent=0.0, node_feat_ent=0.0)
        found = run(part, gnn, edge_mask_type="object", node_mask_type="object")
        return Values(found.edge_mask, found.node_mask[:, 0])
    edges = run(part, CaptumExplainer("IntegratedGradients"), edge_mask_type="object").edge_mask
    # From the mean of the nodes: from zero, LayerNorm would jump at once to where it stays.
    mean = part.graph.x.mean(dim=0).expand_as(part.graph.x).unsqueeze(0)
    from_mean = CaptumExplainer("IntegratedGradients", baselines=mean)
    nodes = run(part, from_mean, node_mask_type="attributes").node_mask.sum(dim=1)
    return Values(edges.detach().float(), nodes.detach().float())


def run(part: GraphPart, algorithm: ExplainerAlgorithm, **mask_types: str) -> Explanation:
    """One algorithm on the graph that the model made."""
    explainer = Explainer(
        part,
        algorithm,
        explanation_type="model",
        model_config={
            "mode": "multiclass_classification",
            "task_level": "graph",
            "return_type": "raw",
        },
        **mask_types,
    )
    graph = part.graph
    return explainer(graph.x, graph.edge_index, edge_attr=graph.edge_attr)


def strongest(part: GraphPart, edges: Tensor, top: int) -> Tensor:
    """The edges of the largest values, whatever their sign, self-loops left out: numbers [top]."""
    source, target = part.graph.edge_index
    between = (source != target).nonzero().squeeze(1)
    order = edges[between].abs().argsort(descending=True, stable=True)
    return between[order[:top]]


def print_edges(part: GraphPart, values: Values, chosen: Tensor) -> None:
    """The chosen edges and as many nodes, as tables."""
    exported = to_networkx(part.graph)
    kind = "patch" if part.stream == "spatial" else "segment"
    print(f"\n{kind:>8} takes from  rule{'':<22}similarity     value")
    for edge in chosen.tolist():
        source, target = part.graph.edge_index[:, edge].tolist()
        known = exported.edges[source, target]
        print(
            f"{target:>8} <- {source:<8}  {known['rule']:<26}{known['similarity']:>10.3f}"
            f"{values.edges[edge]:>10.4f}"
        )
    print(f"\n{kind:>8}     value")
    for node in values.nodes.abs().argsort(descending=True, stable=True)[: len(chosen)].tolist():
        print(f"{node:>8}{values.nodes[node]:>10.4f}")


def print_faithfulness(part: GraphPart, inspection: ClipInspection, chosen: Tensor) -> None:
    """What the logit loses without the chosen edges, and without as many others."""
    source, target = part.graph.edge_index
    others = torch.ones_like(source, dtype=torch.bool)
    others[chosen] = False
    others = (others & (source != target)).nonzero().squeeze(1)
    with torch.no_grad():
        whole = float(inspection.logits.max())
        without = logit_without(part, chosen, inspection.label())
        draws = [others[torch.randperm(len(others))[: len(chosen)]] for _ in range(20)]
        random = [logit_without(part, edges, inspection.label()) for edges in draws]
    print(
        f"\nlogit {whole:.3f}; without these {len(chosen)} edges {without:.3f}; without "
        f"{len(draws[0])} of the other {len(others)}, at random, {sum(random) / len(random):.3f}"
    )


def logit_without(part: GraphPart, edges: Tensor, label: int) -> float:
    """The logit of a class when these edges are not there."""
    graph = part.graph
    keep = torch.ones(graph.num_edges, dtype=torch.bool)
    keep[edges] = False
    return float(part(graph.x, graph.edge_index[:, keep], graph.edge_attr[keep])[0, label])


def write_tables(part: GraphPart, inspection: ClipInspection, values: Values, path: Path) -> None:
    """All values: the graph as node-link JSON of networkx, and beside it the edges as CSV."""
    exported = to_networkx(part.graph)
    label, probability = inspection.top(1)[0]
    exported.graph.update(
        video=inspection.name, class_name=inspection.class_names[label], probability=probability
    )
    nx.set_node_attributes(exported, dict(enumerate(values.nodes.tolist())), "value")
    ends = map(tuple, part.graph.edge_index.t().tolist())
    nx.set_edge_attributes(exported, dict(zip(ends, values.edges.tolist(), strict=True)), "value")
    path.write_text(json.dumps(nx.node_link_data(exported, edges="edges")))
    columns = ["source", "target", "rule", "distance", "similarity", "attention", "value"]
    with path.with_suffix(".csv").open("w", newline="") as file:
        table = csv.DictWriter(file, columns)
        table.writeheader()
        for source, target, known in exported.edges(data=True):
            table.writerow({"source": source, "target": target, **known})


def draw_patches(
    figure: Figure, part: GraphPart, inspection: ClipInspection, values: Values, chosen: Tensor
) -> None:
    """Values of the patches over the middle frame, arrows from where a patch takes to itself."""
    ax = figure.add_subplot()
    rows, columns = inspection.grid_size
    extent = (-0.5, columns - 0.5, rows - 0.5, -0.5)
    frame = inspection.frames[len(inspection.frames) // 2].mean(dim=0)
    ax.imshow(frame.numpy(), cmap="gray", extent=extent, vmin=-0.5, vmax=1)  # light, for the arrows
    nodes = values.nodes.view(rows, columns)
    signed = bool((nodes < 0).any())
    # Even values say nothing: only what stands out covers the frame.
    stands_out = nodes.abs() if signed else nodes - nodes.min()
    heat = ax.imshow(
        nodes.numpy(),
        cmap="PuOr_r" if signed else "YlOrBr",
        norm=TwoSlopeNorm(0, *limits(nodes)) if signed else None,
        extent=extent,
        alpha=0.75 * (stands_out / stands_out.max().clamp_min(1e-12)).numpy(),
    )
    figure.colorbar(heat, ax=ax, shrink=0.8, label="value of the patch")
    ax.set(xticks=[], yticks=[])
    draw_arrows(ax, part.graph.pos, part, values, chosen, bend=0.15)


def draw_segments(
    figure: Figure, part: GraphPart, inspection: ClipInspection, values: Values, chosen: Tensor
) -> None:
    """Frames, arrows from where a segment takes to itself, and a bar for each segment."""
    arrows, strip, bars = figure.subplots(3, 1, height_ratios=(2.2, 1, 1.2))
    segments = part.graph.num_nodes
    places = torch.cat([part.graph.pos, torch.zeros(segments, 1)], dim=1)
    arrows.scatter(*places.t().tolist(), s=30, c="white", edgecolors="#333333", zorder=3)
    arrows.set(xlim=(-0.5, segments - 0.5), ylim=(-1, 1))
    arrows.set_axis_off()
    draw_arrows(arrows, places, part, values, chosen, bend=0.35)
    draw_film_strip(inspection.frames, segments, strip)
    colors = [FOR if value >= 0 else AGAINST for value in values.nodes.tolist()]
    bars.bar(range(segments), values.nodes.tolist(), width=0.85, color=colors)
    bars.axhline(0, color="#555555", lw=0.8)
    bars.set(xlim=(-0.5, segments - 0.5), xlabel="segment", ylabel="value")
    bars.spines[["top", "right"]].set_visible(False)


def draw_arrows(
    ax: Axes, places: Tensor, part: GraphPart, values: Values, chosen: Tensor, bend: float
) -> None:
    """The chosen edges as arrows, as wide as their values, in the colour of their sign."""
    largest = float(values.edges[chosen].abs().max()) or 1.0
    for edge in chosen.flip(0).tolist():  # the most important on top
        source, target = part.graph.edge_index[:, edge].tolist()
        value = float(values.edges[edge])
        ax.add_patch(
            FancyArrowPatch(
                places[source].tolist(),
                places[target].tolist(),
                arrowstyle="-|>",
                mutation_scale=12,
                connectionstyle=f"arc3,rad={bend}",
                lw=0.6 + 2.4 * abs(value) / largest,
                color=FOR if value >= 0 else AGAINST,
                shrinkA=3,
                shrinkB=3,
                zorder=4,
            )
        )

    if (values.edges[chosen] < 0).any():
        signs = {"speaks for the class": FOR, "against it": AGAINST}
        lines = [Line2D([], [], color=color, lw=2, label=sign) for sign, color in signs.items()]
        ax.legend(handles=lines, loc="upper left", fontsize="small")


def limits(values: Tensor) -> tuple[float, float]:
    """Ends of a scale with zero in its middle."""
    largest = float(values.abs().max()) or 1.0
    return -largest, largest


if __name__ == "__main__":
    torch.set_num_threads(1)  # graphs this small are faster so
    try:
        auto_cli(main, allow_abbrev=False)
    except (ImportError, OSError, ValueError, VideoReadError) as error:
        raise SystemExit(f"error: {error}") from None
