"""Which edges of a model's graph an answer rests on, by the explainers of PyG.

    python examples/explain_graph.py VIDEO --checkpoint runs/quickstart/run/model --algorithm gnn

prints the most important edges (rule, similarity, value) and nodes of the graph of the patches, or
with `--stream temporal` of the segments, the range of all values, and what the class's logit loses
without these edges and without as many others. It writes a picture, and all edges as CSV. The
algorithms:

- attention: the mean over heads of the attention (`AttentionExplainer`);
- gnn: masks from 0 to 1 that keep the answer with as little as possible (`GNNExplainer`);
- captum: integrated gradients (`CaptumExplainer`; needs `pip install captum`). Values of edges sum
  to what all messages add to the logit; values of nodes sum to what tells the nodes' features from
  their mean. They can be negative.

Printed with `--algorithm captum --stream temporal --top 2` for the quickstart's model and its test
clip test_01_00002.mp4:

    moving a checked object from left to right (96%)

     segment takes from  rule                      similarity     value
           7 <- 4         similar                        0.943    0.0156
           6 <- 5         similar + window               0.965    0.0155
    all 56 edges: 0.0064 to 0.0156, mean 0.0121

     segment     value
           0   -0.1130
           5    0.0751
    all 8: -0.1130 to 0.0751, mean -0.0043

    logit 4.800; without these 2 edges 4.800; without 2 of the other 54, at random, 4.800

docs/explainers.md shows more, and the pictures.
"""

import csv
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from jsonargparse import auto_cli
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from torch import Tensor

from gasmcast import TemporalCrossAttentionModel, VideoReadError, draw_graph, to_networkx
from gasmcast.explanation import ClipInspection, GraphPart, inspect_clip
from gasmcast.visualization import (
    attention_received,
    check_folder,
    draw_film_strip,
    draw_segment_bars,
    overlay_patches,
)

# isort: split
# After gasmcast, which silences a warning that torch gives when this is imported.
from torch_geometric.data import Data
from torch_geometric.explain import (
    AttentionExplainer,
    CaptumExplainer,
    Explainer,
    ExplainerAlgorithm,
    Explanation,
    GNNExplainer,
)


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
        output: Folder for the picture and the table, made if need be.
        top: How many edges to print, draw and take away; self-loops are left out.
        seed: Of the masks that gnn starts from, and of the other edges to take away.
    """
    check_folder(output)
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

    path = output / f"{video.stem}_{stream}_{algorithm}.csv"
    write_table(part, values, path)
    figure = Figure(figsize=(11, 5.4) if stream == "spatial" else (8, 5.4), layout="constrained")
    draw(figure, part, inspection, values, chosen)
    said = f"{inspection.class_names[label]} ({probability:.0%})"
    title = f"{video.name}: says {said}\nwhat that rests on, by explainer: {algorithm}"
    figure.suptitle(title, parse_math=False)  # a class name can hold anything
    figure.savefig(path.with_suffix(".png"), dpi=150)
    print(f"written: {path} and {path.with_suffix('.png').name}")


def explain(part: GraphPart, algorithm: str) -> Values:
    """Values of edges and nodes for the class that the model names."""
    if algorithm == "attention":
        edges = run(part, AttentionExplainer("mean"), edge_mask_type="object").edge_mask
        # It says nothing of nodes; this is what the others take from each.
        return Values(edges, attention_received(part.graph))
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
    numbers = between(part)
    order = edges[numbers].abs().argsort(descending=True, stable=True)
    return numbers[order[:top]]


def between(part: GraphPart) -> Tensor:
    """The numbers of the edges between two nodes, so without self-loops."""
    source, target = part.graph.edge_index
    return (source != target).nonzero().squeeze(1)


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
    print(f"all {len(between(part))} edges: {spread(values.edges[between(part)])}")
    print(f"\n{kind:>8}     value")
    for node in values.nodes.abs().argsort(descending=True, stable=True)[: len(chosen)].tolist():
        print(f"{node:>8}{values.nodes[node]:>10.4f}")
    print(f"all {len(values.nodes)}: {spread(values.nodes)}")


def spread(values: Tensor) -> str:
    """From where to where values run, and whether they are nearly uniform."""
    if not len(values):
        return "none"
    text = f"{values.min():.4f} to {values.max():.4f}, mean {values.mean():.4f}"
    return f"{text}: nearly uniform" if nearly_uniform(values) else text


def nearly_uniform(values: Tensor) -> bool:
    """Whether none is further from the mean than a quarter of it."""
    return bool(len(values)) and bool(
        (values - values.mean()).abs().max() <= values.mean().abs() / 4
    )


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


def write_table(part: GraphPart, values: Values, path: Path) -> None:
    """All edges with what is known of them and their values."""
    exported = to_networkx(part.graph)
    columns = ["source", "target", "rule", "distance", "similarity", "attention", "value"]
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, columns)
        table.writeheader()
        ends = part.graph.edge_index.t().tolist()
        for (source, target), value in zip(ends, values.edges.tolist(), strict=True):
            known = exported.edges[source, target]
            table.writerow({"source": source, "target": target, **known, "value": value})


def draw(
    figure: Figure | SubFigure,
    part: GraphPart,
    inspection: ClipInspection,
    values: Values,
    chosen: Tensor,
) -> None:
    """The chosen edges by their values, and all nodes by theirs.

    Scales begin at 0 and reach at least twice the mean of all; where an explainer gives negative
    values, 0 is in the middle of both.
    """
    graph = Data(pos=part.graph.pos, edge_index=part.graph.edge_index[:, chosen])
    edges = values.edges[between(part)]
    signed = bool((edges < 0).any() or (values.nodes < 0).any())
    most, mean = (float(edges.abs().max()), float(edges.mean())) if len(edges) else (0.0, 0.0)
    high = max(most, 0.0 if signed else 2 * mean) or 1.0
    drawn = {"edge_values": values.edges[chosen], "top_k": None}
    drawn["limits"] = (-high if signed else 0.0, high)
    of_edges = f"the {len(chosen)} strongest edges" + uniform_note(edges)
    if part.stream == "spatial":
        frame = inspection.frames[inspection.frame_index]
        left, right = figure.subplots(1, 2)
        draw_graph(graph, frame, left, **drawn)
        edge_bar(left, [left], None if signed else mean, shrink=0.8, pad=0.02)
        left.set_title(of_edges, fontsize="medium")
        nodes = values.nodes.view(inspection.grid_size)
        overlay_patches(frame, nodes, right, colorbar="value of the patch", signed=signed)
        over = f"frame {inspection.frame_index} (of 0 to {len(inspection.frames) - 1})"
        right.set_title(f"all patches, over {over}{uniform_note(values.nodes)}", fontsize="medium")
        return
    film, arcs, bars = axes = figure.subplots(3, 1, height_ratios=(1, 2.2, 1.2))
    draw_film_strip(inspection.frames, graph.num_nodes, film)
    draw_graph(graph, ax=arcs, **drawn)
    arcs.set_title(of_edges, fontsize="medium")
    draw_segment_bars(values.nodes, bars, signed=signed)
    bars.set_ylabel("value of\nthe segment", fontsize="small")
    bars.set_title("all segments" + uniform_note(values.nodes), fontsize="medium")
    # Beside all three, so that they stay as wide as each other.
    edge_bar(arcs, list(axes), None if signed else mean, shrink=0.7)


def uniform_note(values: Tensor) -> str:
    """What to add to a title where values are nearly uniform."""
    return f"\n(of all, {spread(values)})" if nearly_uniform(values) else ""


def edge_bar(drawing: Axes, axes: list[Axes], mean: float | None, **place: float) -> None:
    """The colour bar of the edges, with a line at the mean of all of them."""
    label = "value of the edge" + ("" if mean is None else " (line: mean of all)")
    bar = drawing.figure.colorbar(drawing.collections[0], ax=axes, label=label, **place)
    if mean is not None:
        bar.ax.axhline(mean, color="black", lw=1)


if __name__ == "__main__":
    torch.set_num_threads(1)  # graphs this small are faster so
    try:
        auto_cli(main, allow_abbrev=False)
    except (ImportError, OSError, ValueError, VideoReadError) as error:
        raise SystemExit(f"error: {error}") from None
