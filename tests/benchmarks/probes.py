"""What the fusion layers of a trained model do: ``python tests/benchmarks/probes.py --help``.

Compression, residuals and progression, each in a table; with ``--write`` into the page.
"""

import argparse
import sys
import tempfile
from pathlib import Path

# The folder is on the path when it is run; what is imported is the package benchmarks, beside it.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import compression, progression
from benchmarks.page import table, write_section
from gasmcast import (
    ClipDataset,
    FrameSampling,
    TemporalCrossAttentionModel,
    eval_transform,
    generate_spatial_positions,
    generate_temporal_positions,
    read_annotation_list,
    scan_class_folders,
    write_rendered_dataset,
)
from gasmcast.datasets import LabeledVideos
from gasmcast.nn import BottleneckCrossAttention, CrossAttentionWeights


@torch.no_grad()
def refined(
    model: TemporalCrossAttentionModel, videos: LabeledVideos
) -> tuple[Tensor, Tensor, Tensor, int]:
    """Both streams of every video after graph attention, labels, and how many cannot be read."""
    sampling = FrameSampling(model.num_frames)
    dataset = ClipDataset(videos, eval_transform(model.image_size), sampling=sampling)
    semantic, motion, labels, unreadable = [], [], [], 0
    for sample in dataset:
        if "error" in sample:
            unreadable += 1
            continue
        clip = sample["clip"].unsqueeze(0)
        patches, segments = model.semantic_extractor(clip), model.motion_extractor(clip)
        space, time = places(model, segments.size(1))
        semantic.append(model.gasm_cast.semantic_graph(patches, space))
        motion.append(model.gasm_cast.motion_graph(segments, time))
        labels.append(sample["label"])
    if len(labels) < 2:
        raise ValueError(f"at least two videos must be readable, got {len(labels)}")
    return torch.cat(semantic), torch.cat(motion), torch.tensor(labels), unreadable


def places(model: TemporalCrossAttentionModel, segments: int) -> tuple[Tensor, Tensor]:
    """Where the tokens of both streams are."""
    return (
        generate_spatial_positions(model.semantic_extractor.grid_size),
        generate_temporal_positions(model.num_frames, segments),
    )


@torch.no_grad()
def through_layers(
    model: TemporalCrossAttentionModel, semantic: Tensor, motion: Tensor
) -> tuple[list[list[Tensor]], list[CrossAttentionWeights]]:
    """What each layer reads, and its attention."""
    inputs, weights = [], []
    for layer in model.gasm_cast.fusion_layers:
        inputs.append([semantic, motion])
        semantic, motion, attention = layer(
            semantic, motion, *places(model, motion.size(1)), return_attention=True
        )
        weights.append(attention)
    return inputs, weights


def damping(
    layers: list[nn.Module],
    semantic: Tensor,
    motion: Tensor,
    where: tuple,
    grads: list[Tensor] | None = None,
) -> list[float]:
    """Norm of the gradient that reaches each layer's input, relative to that at the output.

    Args:
        layers: In their order.
        semantic: [B, P, D].
        motion: [B, S, D'].
        where: Positions of both.
        grads: At the output, of both streams; None: random ones.
    """
    torch.manual_seed(0)
    streams = [semantic.clone().requires_grad_(), motion.clone().requires_grad_()]
    inputs = []
    for layer in layers:
        inputs += streams
        streams = list(layer(*streams, *where))
    if grads is None:
        grads = [torch.randn_like(stream) for stream in streams]
    found = torch.autograd.grad(streams, inputs, grads)
    norm = torch.cat([grad.flatten() for grad in grads]).norm()
    pairs = zip(found[::2], found[1::2], strict=True)
    return [float(torch.cat([a.flatten(), b.flatten()]).norm() / norm) for a, b in pairs]


def loss_gradients(classifier: nn.Linear, semantic: Tensor, motion: Tensor) -> list[Tensor]:
    """Gradient at both streams of the cross-entropy of the model's own answers.

    A random gradient would show little: hardly any of it lies in what a narrow layer can change.
    """
    streams = [semantic.clone().requires_grad_(), motion.clone().requires_grad_()]
    logits = classifier(torch.cat([stream.mean(dim=1) for stream in streams], dim=1))
    loss = F.cross_entropy(logits, logits.argmax(dim=1))
    return list(torch.autograd.grad(loss, streams))


def residuals(model: TemporalCrossAttentionModel, semantic: Tensor, motion: Tensor) -> str:
    """A table of what fresh and trained layers change, and what gradient passes through them."""
    trained = model.gasm_cast.fusion_layers
    fresh = [
        type(layer)(
            layer.sem_compress.in_features,
            layer.mot_compress.in_features,
            layer.sem_compress.out_features,
            layer.cross_attention.num_heads,
        )
        for layer in trained
    ]
    rows = []
    for name, layers in (("fresh", fresh), ("trained", trained)):
        streams = [semantic, motion]
        with torch.no_grad():
            for layer in layers:
                streams = layer(*streams, *places(model, motion.size(1)))
        changes = [
            float((after - before).norm() / before.norm())
            for after, before in zip(streams, (semantic, motion), strict=True)
        ]
        grads = loss_gradients(model.classifier, *streams)
        gradients = damping(layers, semantic, motion, places(model, motion.size(1)), grads)
        rows.append([name, *(f"{value:.4g}" for value in (*changes, *gradients[::-1]))])
    header = (
        "",
        "semantic changed by",
        "motion changed by",
        "gradient before layer 3",
        "before layer 2",
        "before layer 1",
    )
    return table(header, rows)


def run(model: TemporalCrossAttentionModel, videos: LabeledVideos, rendered: LabeledVideos) -> str:
    """The section of the page."""
    if tuple(model.class_names or ()) != tuple(rendered.classes):
        raise ValueError(
            "the model must have been trained on the classes of the quickstart, got "
            f"{model.class_names}"
        )
    if [*map(type, model.gasm_cast.fusion_layers)] != [BottleneckCrossAttention] * 3:
        raise ValueError('the model must have been made with fusion="bottleneck"')
    semantic, motion, _, unreadable = refined(model, videos)
    inputs, _ = through_layers(model, semantic, motion)
    layers = model.gasm_cast.fusion_layers
    parts = [
        f"{len(semantic)} real clips, {unreadable} unreadable; {len(rendered)} rendered clips "
        "that the model was not trained on.",
        "**Compression**, real clips. Share of the variance of what a layer reads that a linear "
        "map reconstructs from the code; fitted on half of the clips, measured on the others.",
        compression.run(layers, inputs),
        "**Residuals**, real clips. Relative change from the input of the three layers to their "
        "output, and norm of the gradient of the cross-entropy (of the model's own answers) on its "
        "way back, relative to that at the output (= 1).",
        residuals(model, semantic, motion),
    ]
    semantic, motion, labels, _ = refined(model, rendered)
    _, weights = through_layers(model, semantic, motion)
    with torch.no_grad():
        cut = progression.run_cut(
            layers, model.classifier, semantic, motion, places(model, motion.size(1)), labels
        )
    return "\n\n".join(
        [
            *parts,
            f"**Progression**, rendered clips. Layers are cut from the trained model, which is not "
            f"trained again; chance is {1 / len(rendered.classes):.1%}. The last two columns "
            "compare clip by clip with all layers.",
            cut,
            "**Drift**, rendered clips. Total variation between the attentions of two layers (0: "
            "the same, 1: nothing in common), mean over tokens, heads and clips; between a layer's "
            "attentions on clips of two classes; a layer's entropy as a share of that of uniform "
            "attention.",
            progression.run_drift(weights),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python tests/benchmarks/probes.py", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="saved by the quickstart")
    parser.add_argument(
        "--videos", type=Path, required=True, help="folder with one folder of real videos per class"
    )
    parser.add_argument("--clips", type=int, default=50, help="rendered clips per class")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="page with the markers")
    arguments = parser.parse_args()
    model = TemporalCrossAttentionModel.from_pretrained(arguments.model)
    with tempfile.TemporaryDirectory() as folder:
        write_rendered_dataset(
            folder,
            clips_per_class={"probe": arguments.clips},  # another split: other seeds
            motions=("left_to_right", "right_to_left", "towards", "away"),
            appearances=("plain", "checked"),
        )
        rendered = read_annotation_list(
            Path(folder) / "probe.csv", classes=Path(folder) / "labels.json"
        )
        section = run(model, scan_class_folders(arguments.videos), rendered)
    print(section)
    if arguments.write is not None:
        write_section(arguments.write, "probes", section)


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from None
