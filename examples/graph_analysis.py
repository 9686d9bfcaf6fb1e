# %% [markdown]
"""Does the graph know the object? Centrality and communities of patches, before and after training.

    pip install scikit-learn "jsonargparse[signatures]"
    python examples/graph_analysis.py --checkpoint runs/quickstart/run/model --output analysis

draws clips of the rendered set that no training has seen, of which it is known where the object is,
and lets two models look at them: the trained one, and one of the same parts with fresh weights.
Each graph of patches goes to networkx, as it came out of the model, and is held against the
object's outline: which patches are central, which form communities, where the evidence for the
class lies. Everything is also held against the outline of another clip (`control`), for the middle
of the frame is where objects mostly are, whatever a model sees.

What it printed and drew for the quickstart's model, and what that says, is in
docs/graph_analysis.md; on a machine with two CPU cores it took 1 min 11 s.

The file is made of cells (`# %%`) for editors that run them one by one; in place of the last cell
call `main(checkpoint=...)` there.
"""

import csv
from pathlib import Path
from typing import NamedTuple

import networkx as nx
import torch
from jsonargparse import auto_cli
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F
from torch_geometric.data import Data

from gasmcast import TemporalCrossAttentionModel, graph_report, segment_indices, to_networkx
from gasmcast.datasets import APPEARANCES, MOTIONS, class_name, render_clip, render_object_mask
from gasmcast.explanation import ClipInspection, inspect_clip
from gasmcast.visualization import attention_received, overlay_patches

# The palette of Okabe and Ito, told apart by colour-blind readers too.
COLORS = ["#56b4e9", "#e69f00", "#009e73", "#f0e442", "#cc79a7", "#d55e00", "#0072b2", "#999999"]

# %% [markdown]
# Clips with an outline. A patch is of the object when the object covers at least half of it, in the
# mean over the frames that the model makes its patches of.


# %%
class OutlinedClip(NamedTuple):
    """Frames [T, 3, H, W] as of a video file, and where the object is in them, [T, H, W]."""

    name: str
    frames: Tensor
    mask: Tensor


def outlined_clips(class_names: list[str], count: int, seed: int) -> list[OutlinedClip]:
    """Clips of all these classes in turn, each of a scene of its own."""
    known = {class_name(m, a): (m, a) for m in MOTIONS for a in APPEARANCES}
    kinds = [known[name] for name in class_names if name in known]
    if not kinds:
        raise ValueError(f"the model has no class of the rendered set: {', '.join(class_names)}")
    clips = []
    for number in range(count):
        motion, appearance = kinds[number % len(kinds)]
        drawn = {"seed": seed + number, "num_frames": 24, "size": 96}
        frames = render_clip(motion, appearance, **drawn)
        mask = render_object_mask(motion, appearance, **drawn)
        clips.append(OutlinedClip(class_name(motion, appearance), frames, mask))
    return clips


def object_patches(model: TemporalCrossAttentionModel, mask: Tensor) -> Tensor:
    """Which patches are of the object: bool [P]."""
    clip = mask[segment_indices(len(mask), model.num_frames)]  # as the model samples a video
    looked_at = clip[segment_indices(len(clip), model.semantic_extractor.num_frames)]
    share = F.adaptive_avg_pool2d(looked_at.float(), model.semantic_extractor.grid_size)
    return share.mean(dim=0).flatten() >= 0.5


# %% [markdown]
# Centrality. An edge j -> i with attention a says that i takes the share a from j, and what enters
# a patch sums to 1. So the reversed graph is a random walk of one who goes where patches look.


# %%
def centralities(inspection: ClipInspection) -> dict[str, Tensor]:
    """How central each patch is, [P], all of them 0 or more."""
    exported = to_networkx(inspection.spatial)
    pagerank = nx.pagerank(exported.reverse(), weight="attention")
    for *_, known in exported.edges(data=True):
        known["length"] = 1 / max(known["attention"], 1e-9)
    betweenness = nx.betweenness_centrality(exported, weight="length")
    (first, _), (second, _) = inspection.top(2)
    found = {
        "attention received": attention_received(inspection.spatial),
        "PageRank of attention": as_tensor(pagerank),
        "betweenness": as_tensor(betweenness),
        "class evidence": inspection.evidence(first).patches.clamp_min(0),
        "evidence against the second": inspection.evidence(first, second).patches.clamp_min(0),
    }
    if inspection.layers:
        taken = inspection.cross_attention("action", "motion_to_semantic")
        found["taken by segments (action)"] = taken.mean(dim=0)
    return found


def as_tensor(values: dict[int, float]) -> Tensor:
    """A value for each node, in the order of the nodes."""
    return torch.tensor([values[node] for node in range(len(values))])


# %% [markdown]
# Communities, by Louvain's method: groups of patches with more weight among them than chance would
# give, once by similarity and once by attention.


# %%
def communities(inspection: ClipInspection, weight: str, seed: int = 0) -> Tensor:
    """The number of each patch's community, [P]."""
    graph = nx.Graph()
    exported = to_networkx(inspection.spatial)
    graph.add_nodes_from(exported)
    for source, target, known in exported.edges(data=True):
        if source != target and known[weight] > 0:  # both directions add up
            before = graph.get_edge_data(source, target, {weight: 0.0})[weight]
            graph.add_edge(source, target, **{weight: before + known[weight]})
    label = torch.zeros(len(graph), dtype=torch.long)
    for number, members in enumerate(nx.community.louvain_communities(graph, weight, seed=seed)):
        label[list(members)] = number
    return label


# %% [markdown]
# Each clip against its outline. `lift` is the share of all attention (evidence, ...) that falls on
# the object, over the share of patches that are of it: 1 is even. `hit` asks whether the highest
# patch is of the object (the pointing game). Adjusted mutual information is 0 for communities that
# have nothing to do with the outline, and 1 where they are the outline.


# %%
def measure(inspection: ClipInspection, outlines: list[Tensor]) -> list[dict[str, float]]:
    """All numbers of one clip, for each of these outlines."""
    central = centralities(inspection)
    groups = {weight: communities(inspection, weight) for weight in ("similarity", "attention")}
    patches, segments, _ = inspection.evidence()
    logit = {
        "logit: from patches": float(patches.sum()),
        "logit: from segments": float(segments.sum()),
    }
    return [
        hold_against(outline, inspection.spatial, central, groups) | logit for outline in outlines
    ]


def hold_against(
    on_object: Tensor, graph: Data, central: dict[str, Tensor], groups: dict[str, Tensor]
) -> dict[str, float]:
    """All numbers for one outline."""
    from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score

    found = {}
    for name, values in central.items():
        share = float(values[on_object].sum() / values.sum().clamp_min(1e-12))
        found[f"{name}: lift"] = share / float(on_object.float().mean())
        found[f"{name}: hit"] = float(on_object[values.argmax()])
    outline = on_object.tolist()
    for weight, label in groups.items():
        name, label = f"communities by {weight}", label.tolist()
        found[f"{name}: number"] = max(label) + 1
        found[f"{name}: mutual information"] = adjusted_mutual_info_score(outline, label)
        found[f"{name}: Rand index"] = adjusted_rand_score(outline, label)
    found["edges: number"] = graph.num_edges
    found["edges: within object or background"] = graph_report(graph, on_object.long()).homophily
    return found


# %% [markdown]
# Figures: one clip as both models see it.


# %%
def draw_clip(axes: list[Axes], inspection: ClipInspection, on_object: Tensor, title: str) -> None:
    """Attention received, evidence and communities of one clip, with the outline of the patches."""
    frame = inspection.frames[len(inspection.frames) // 2]
    found = centralities(inspection)
    for ax, name in zip(axes, ("attention received", "class evidence"), strict=False):
        overlay_patches(frame, found[name].view(inspection.grid_size), ax, colorbar=name)
    rows, columns = inspection.grid_size
    for ax, weight in zip(axes[2:], ("similarity", "attention"), strict=True):
        label = communities(inspection, weight).view(rows, columns)
        ax.imshow(
            label.numpy() % len(COLORS), cmap=ListedColormap(COLORS), vmin=0, vmax=len(COLORS) - 1
        )
        ax.set(xticks=[], yticks=[])
        ax.set_xlabel(f"communities by {weight}", fontsize="small")
    for ax in axes:
        draw_outline(ax, on_object.view(rows, columns))
    axes[0].set_ylabel(title)


def draw_outline(ax: Axes, on_object: Tensor) -> None:
    """The border of the object's patches."""
    padded = F.pad(on_object.float(), (1, 1, 1, 1))
    for axis in (0, 1):
        first, second = (padded[1:], padded[:-1]) if axis == 0 else (padded[:, 1:], padded[:, :-1])
        for row, column in (first != second).nonzero().tolist():
            if axis == 0:
                x, y = (column - 1.5, column - 0.5), (row - 0.5, row - 0.5)
            else:
                x, y = (column - 0.5, column - 0.5), (row - 1.5, row - 0.5)
            ax.plot(x, y, color="white", lw=3.2, solid_capstyle="round", zorder=5)
            ax.plot(x, y, color="black", lw=1.6, solid_capstyle="round", zorder=6)


# %% [markdown]
# All of it, for both models.


# %%
def main(
    checkpoint: Path = Path("runs/quickstart/run/model"),
    output: Path = Path("analysis"),
    clips: int = 40,
    seed: int = 0,
) -> None:
    """Centrality and communities of patches against the object's outline, fresh and trained.

    Args:
        checkpoint: Folder of a model trained on classes of the rendered set.
        output: Folder for the table and the picture, made if need be.
        clips: How many clips to look at.
        seed: Of the fresh model's weights; the clips are the same for every seed.
    """
    try:
        import sklearn  # noqa: F401
    except ImportError:
        raise ImportError("scikit-learn is missing: pip install scikit-learn") from None
    if not checkpoint.is_dir():
        raise FileNotFoundError(f"{checkpoint} is no folder: expected a saved model")
    trained = TemporalCrossAttentionModel.from_pretrained(checkpoint)
    outlined = outlined_clips(trained.class_names or [], clips, seed=1_000_000)
    output.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    models = {"fresh": TemporalCrossAttentionModel(**trained.config()).eval(), "trained": trained}

    on_object = torch.stack([object_patches(trained, clip.mask) for clip in outlined])
    usable = on_object.any(dim=1)
    chosen = usable.nonzero().squeeze(1).tolist()
    if len(chosen) < 2:
        raise ValueError(
            f"the control needs clips with patches of the object, at least 2: got {len(chosen)} of "
            f"{clips}, take more clips"
        )
    print(
        f"{len(chosen)} clips, {on_object[usable].float().mean():.1%} of the patches are of the "
        f"object ({clips - len(chosen)} clips left out: no patch is)"
    )
    figure = Figure(figsize=(13, 6), layout="constrained")
    panels = figure.subplots(len(models), 4)
    table: dict[str, list[dict[str, float]]] = {}
    for row, (name, model) in enumerate(models.items()):
        table[name], table[f"{name}, control"] = [], []
        correct = 0
        for place, number in enumerate(chosen):
            inspection = inspect_clip(model, outlined[number].frames)
            correct += inspection.class_names[inspection.label()] == outlined[number].name
            other = chosen[(place + len(chosen) // 2) % len(chosen)]
            own, control = measure(inspection, [on_object[number], on_object[other]])
            table[name].append(own)
            table[f"{name}, control"].append(control)
            if place == 0:
                draw_clip(list(panels[row]), inspection, on_object[number], name)
        print(f"{name}: {correct} of {len(chosen)} clips named correctly")
    print_table(table)
    write_table(table, output / "clips.csv")
    figure.savefig(output / "clip.png", dpi=150)
    print(f"written: {output / 'clips.csv'} and {output / 'clip.png'}")


def print_table(table: dict[str, list[dict[str, float]]]) -> None:
    """Mean and standard deviation over the clips."""
    width = max(map(len, table["trained"][0]))
    print("\n" + " " * width + "".join(f"{name:>20}" for name in table))
    for name in table["trained"][0]:
        cells = [torch.tensor([float(clip[name]) for clip in found]) for found in table.values()]
        shown = [f"{cell.mean():.2f} ± {cell.std():.2f}" for cell in cells]
        print(f"{name:<{width}}" + "".join(f"{text:>20}" for text in shown))


def write_table(table: dict[str, list[dict[str, float]]], path: Path) -> None:
    """Every number of every clip, a row a clip and model."""
    with path.open("w", newline="") as file:
        rows = csv.DictWriter(file, ["model", "clip", *table["trained"][0]])
        rows.writeheader()
        for name, found in table.items():
            rows.writerows({"model": name, "clip": i, **clip} for i, clip in enumerate(found))


# %%
if __name__ == "__main__":
    torch.set_num_threads(1)  # graphs this small are faster so
    try:
        auto_cli(main, allow_abbrev=False)
    except (ImportError, OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from None
