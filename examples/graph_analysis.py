# %% [markdown]
"""Does the graph know the object? Centrality and communities of patches, before and after training.

    pip install scikit-learn "jsonargparse[signatures]"
    python examples/graph_analysis.py --checkpoint runs/quickstart/run/model --output analysis

draws clips of the rendered set that no training has seen, of which it is known where the object is,
and lets two models look at them: the trained one, and one of the same parts with fresh weights.
Each graph of patches goes to networkx, as it came out of the model, and is compared with the
object's outline: which patches are central, which form communities, where the evidence for the
class lies. Everything is also compared with the outline of another clip, for the middle of the
frame is where objects mostly are, whatever a model sees.

What it printed and drew for the quickstart's model, and what that says, is in
docs/graph_analysis.md; on a machine with two CPU cores it took 1 min 11 s.

The file is made of cells (`# %%`) for editors that run them one by one; in place of the last cell
call `main(checkpoint=...)` there.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import networkx as nx
import torch
from jsonargparse import auto_cli
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor
from torch.nn import functional as F

from gasmcast import TemporalCrossAttentionModel, graph_report, segment_indices, to_networkx
from gasmcast.datasets import APPEARANCES, MOTIONS, class_name, render_clip, render_object_mask
from gasmcast.explanation import ClipInspection, inspect_clip
from gasmcast.visualization import attention_received, check_folder, overlay_patches

# isort: split
# After gasmcast, which silences a warning that torch gives when this is imported.
from torch_geometric.data import Data

# The palette of Okabe and Ito, told apart by colour-blind readers too.
COLORS = ["#56b4e9", "#e69f00", "#009e73", "#f0e442", "#cc79a7", "#d55e00", "#0072b2", "#999999"]

EVIDENCE = "evidence against the second class"
WEIGHTS = ("similarity", "attention")

# %% [markdown]
# Clips with an outline. A patch is of the object when the object covers at least half of it, on
# average over the frames that the model makes its patches of.


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
    """How central each patch is, and what speaks for the class, [P]."""
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
        EVIDENCE: inspection.evidence(first, against=second).patches,
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
# Each clip against its outline. AUC is the chance that a patch of the object has a larger value
# than one of the background: 0.5 says nothing, 1 tells them apart, whatever the sign of the values.
# Adjusted mutual information is 0 for communities that have nothing to do with the outline, and 1
# where they are the outline.


# %%
def compare(
    on_object: Tensor, graph: Data, central: dict[str, Tensor], groups: dict[str, Tensor]
) -> dict[str, float]:
    """All numbers of one clip for one outline."""
    from sklearn.metrics import adjusted_mutual_info_score, roc_auc_score

    outline = on_object.tolist()
    found = {name: roc_auc_score(outline, values.tolist()) for name, values in central.items()}
    found = {f"{name}: AUC": float(value) for name, value in found.items()}
    for weight, label in groups.items():
        shared = adjusted_mutual_info_score(outline, label.tolist())
        found[f"communities by {weight}: mutual information"] = shared
    found["edges within object or background"] = graph_report(graph, on_object.long()).homophily
    return found


def describe(inspection: ClipInspection) -> dict[str, float]:
    """What no outline changes: the graph's size, and what sets the best class off the second."""
    (first, _), (second, _) = inspection.top(2)
    patches, segments, _ = inspection.evidence(first, against=second)
    return {
        "edges": inspection.spatial.num_edges,
        "logit over the second: from patches": float(patches.sum()),
        "logit over the second: from segments": float(segments.sum()),
    }


# %% [markdown]
# One clip as all models see it.


# %%
def draw_clip(seen: dict[str, ClipInspection], on_object: Tensor) -> Figure:
    """Attention received, evidence and communities, a row a model, with the object's patches."""
    figure = Figure(figsize=(13, 3.1 * len(seen)), layout="constrained")
    for axes, (name, inspection) in zip(
        figure.subplots(len(seen), 4, squeeze=False), seen.items(), strict=True
    ):
        frame = inspection.frames[inspection.frame_index]
        grid, central = inspection.grid_size, centralities(inspection)
        received = "attention received"
        overlay_patches(frame, central[received].view(grid), axes[0], colorbar=received)
        overlay_patches(
            frame, central[EVIDENCE].view(grid), axes[1], colorbar=EVIDENCE, signed=True
        )
        for ax, weight in zip(axes[2:], ("similarity", "attention"), strict=True):
            label = communities(inspection, weight).view(grid) % len(COLORS)
            ax.imshow(label.numpy(), cmap=ListedColormap(COLORS), vmin=0, vmax=len(COLORS) - 1)
            ax.set(xticks=[], yticks=[])
            ax.set_xlabel(f"communities by {weight}", fontsize="small")
        for ax in axes:
            draw_outline(ax, on_object.view(grid))
        axes[0].set_ylabel(name)
    outline = Line2D([], [], color="black", lw=1.6)
    figure.legend([outline], ["border of the object's patches"], loc="outside lower center")
    return figure


def draw_outline(ax: Axes, on_object: Tensor, fine: int = 16) -> None:
    """The border of the object's patches."""
    rows, columns = on_object.shape
    padded = F.pad(on_object.float(), (1, 1, 1, 1))
    inside = padded.repeat_interleave(fine, 0).repeat_interleave(fine, 1).numpy()
    y, x = (((torch.arange(fine * size) + 0.5) / fine - 1.5).numpy() for size in padded.shape)
    for color, width in (("white", 3.2), ("black", 1.6)):
        ax.contour(x, y, inside, levels=[0.5], colors=color, linewidths=width)
    ax.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5))


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
        output: Folder for the picture, made if need be.
        clips: How many clips to look at.
        seed: Of the fresh model's weights; the clips are the same for every seed.
    """
    check_folder(output)
    if find_spec("sklearn") is None:
        raise ImportError("scikit-learn is missing: pip install scikit-learn")
    if not checkpoint.is_dir():
        raise FileNotFoundError(f"{checkpoint} is no folder: expected a saved model")
    models = fresh_and_trained(checkpoint, seed)
    trained = models["trained"]
    outlined = outlined_clips(trained.class_names or [], clips, seed=1_000_000)
    outlines = [object_patches(trained, clip.mask) for clip in outlined]
    chosen = [i for i, outline in enumerate(outlines) if outline.any() and not outline.all()]
    if len(chosen) < 2:
        raise ValueError(
            f"the control needs clips with patches of the object, at least 2: got {len(chosen)} of "
            f"{clips}, take more clips"
        )
    output.mkdir(parents=True, exist_ok=True)
    share = torch.stack([outlines[i] for i in chosen]).float().mean()
    print(f"{len(chosen)} of {clips} clips, {share:.1%} of their patches are of the object")
    first_clip = {}
    for name, model in models.items():
        own, another, correct = [], [], 0
        for place, number in enumerate(chosen):
            inspection = inspect_clip(model, outlined[number].frames)
            correct += inspection.class_names[inspection.label()] == outlined[number].name
            central = centralities(inspection)
            groups = {weight: communities(inspection, weight) for weight in WEIGHTS}
            other = chosen[(place + len(chosen) // 2) % len(chosen)]
            for outline, found in (number, own), (other, another):
                found.append(compare(outlines[outline], inspection.spatial, central, groups))
            own[-1] |= describe(inspection)
            first_clip.setdefault(name, inspection)
        print(f"\n{name}: {correct} of {len(chosen)} clips named correctly")
        print_table(own, another)
    draw_clip(first_clip, outlines[chosen[0]]).savefig(output / "clip.png", dpi=150)
    print(f"written: {output / 'clip.png'}")


def fresh_and_trained(checkpoint: Path, seed: int = 0) -> dict[str, TemporalCrossAttentionModel]:
    """A saved model, and before it one of the same parts with fresh weights."""
    trained = TemporalCrossAttentionModel.from_pretrained(checkpoint)
    if trained.classifier.out_features < 2:
        raise ValueError("the model must know at least 2 classes, got 1")
    torch.manual_seed(seed)
    return {"fresh": TemporalCrossAttentionModel(**trained.config()).eval(), "trained": trained}


def print_table(own: list[dict[str, float]], another: list[dict[str, float]]) -> None:
    """Means over the clips; of the difference, taken clip by clip, with its standard error."""
    width = max(map(len, own[0]))
    print(f"{'':<{width}}    own outline     another's    difference")
    for name in own[0]:
        values = torch.tensor([float(clip[name]) for clip in own])
        line = f"{name:<{width}}{values.mean():>15.2f}"
        if name in another[0]:
            control = torch.tensor([float(clip[name]) for clip in another])
            apart = values - control
            error = float(apart.std()) / len(apart) ** 0.5
            line += f"{control.mean():>14.2f}{apart.mean():>14.2f} ± {error:.2f}"
        print(line)


# %%
if __name__ == "__main__":
    torch.set_num_threads(1)  # graphs this small are faster so
    try:
        auto_cli(main, allow_abbrev=False)
    except (ImportError, OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from None
