"""The interactions as features of small frozen extractors, which anyone can make again.

    python examples/interaction_features.py --output runs/interactions

renders the benchmark (docs/interactions.md), trains two small extractors once on *other* labels of
other clips, freezes them, and extracts the features of all splits into feature stores:

- a vision transformer learns from single frames which patches show the warm and the cool thing;
- an Inception-I3D learns how a textured square moves over a textured ground. It sees grey only: its
  first layer weighs the colours by their luma, so it cannot tell warm from cool.

Neither has seen an action of the benchmark by its name, or an outline or a background of its
validation and test splits. Stopped at any moment, the same command goes on (with the training of
the extractors from its beginning).

At the size of the benchmark it took a quarter of an hour on two cores.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from jsonargparse import auto_cli
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from gasmcast import TemporalCrossAttentionModel, read_annotation_list
from gasmcast.datasets import (
    derive_seed,
    interaction_name,
    render_interaction,
    render_interaction_masks,
    write_interactions,
)
from gasmcast.datasets.interactions import ACTIONS, AGENTS, VERSION
from gasmcast.extraction import extract_features

IMAGE_SIZE = 96
PATCH_SIZE = 12
NUM_FRAMES = 16
LUMA = torch.tensor([0.299, 0.587, 0.114])
MOTIONS = 12  # eight directions, growing, shrinking, turning either way


def main(
    output: Path = Path("runs/interactions"),
    clips_per_class: dict[str, int] | None = None,
    semantic_frames: int = 2880,
    semantic_epochs: int = 8,
    motion_steps: int = 300,
    processes: int = 2,
    seed: int = 0,
) -> None:
    """Render the interactions, train two extractors on other labels, extract features.

    Args:
        output: Folder for clips, extractors (a model, its head untrained) and stores.
        clips_per_class: For each split, how many clips of each class; null: the benchmark.
        semantic_frames: Frames that the semantic extractor learns from.
        semantic_epochs: Passes over them.
        motion_steps: Batches of 16 clips that the motion extractor learns from.
        processes: How many work at the same time where there is work for several.
        seed: Of the extractors. The benchmark's own seed is fixed.
    """
    chosen = {} if clips_per_class is None else {"clips_per_class": clips_per_class}
    print(f"1. rendering the interactions to {output / 'clips'}")
    splits = write_interactions(output / "clips", processes=processes, progress=True, **chosen)

    # A model is two files, which get their names one after the other.
    folder = output / "extractors"
    saved = [folder / name for name in ("config.json", "model.safetensors")]
    settings = {
        "benchmark": VERSION,
        "seed": seed,
        "semantic_frames": semantic_frames,
        "semantic_epochs": semantic_epochs,
        "motion_steps": motion_steps,
    }
    stated = folder / "trained_with.json"
    if all(file.is_file() for file in saved):
        trained_with = json.loads(stated.read_text()) if stated.is_file() else "unknown settings"
        if trained_with != settings:
            raise ValueError(
                f"the extractors in {folder} were trained with {trained_with}, got {settings}: "
                "delete them with their stores, or give another output"
            )
        print(f"2. extractors are there: {folder}")
    else:
        print("2. training the extractors on other labels")
        model = build_model(seed, trainable=True)
        train_semantic(model.semantic_extractor, semantic_frames, semantic_epochs, seed)
        train_motion(model.motion_extractor, motion_steps, seed)
        see_grey(model.motion_extractor)
        frozen = build_model(seed, trainable=False)
        frozen.load_state_dict(model.state_dict())
        folder.mkdir(parents=True, exist_ok=True)
        stated.write_text(json.dumps(settings))
        frozen.save_pretrained(folder)

    print(f"3. extracting features to {output / 'stores'}")
    model = TemporalCrossAttentionModel.from_pretrained(folder)
    for split in splits:
        videos = read_annotation_list(
            output / "clips" / f"{split}.csv", classes=output / "clips" / "labels.json"
        )
        store = extract_features(
            videos,
            output / "stores" / split,
            model.semantic_extractor,
            model.motion_extractor,
            batch_size=16,
            num_workers=processes - 1,
        )
        print(f"   {split}: {len(store)} clips")


def build_model(seed: int, *, trainable: bool) -> TemporalCrossAttentionModel:
    """A model whose extractors are small enough to be trained in minutes."""
    torch.manual_seed(seed)
    names = [interaction_name(action, agent) for action in ACTIONS for agent in AGENTS]
    return TemporalCrossAttentionModel(
        num_classes=len(names),
        class_names=names,
        semantic_extractor={
            "model_name": "vit_tiny_patch16_224",
            "pretrained": False,
            "image_size": IMAGE_SIZE,
            "num_frames": NUM_FRAMES,
            "model_kwargs": {"patch_size": PATCH_SIZE, "embed_dim": 96, "depth": 3, "num_heads": 3},
            "trainable": trainable,
        },
        motion_extractor={
            "width": 0.25,
            "image_size": IMAGE_SIZE,
            "trainable": trainable,
            "allow_random_weights": True,  # they are to be trained
        },
        num_heads=4,
        bottleneck_dim=64,
        num_frames=NUM_FRAMES,
    )


def train_semantic(extractor: nn.Module, num_frames: int, epochs: int, seed: int) -> None:
    """Learn from single frames how much of each patch is of the warm and of the cool thing."""
    samples = [single_frame(seed, number) for number in tqdm(range(num_frames), desc="frames")]
    frames, shares = map(torch.stack, zip(*samples, strict=True))
    head = nn.Linear(extractor.feature_dim, len(AGENTS))
    order = torch.Generator().manual_seed(seed)

    def losses() -> Iterator[Tensor]:
        for _ in range(epochs):
            for chosen in torch.randperm(num_frames, generator=order).split(32):
                clean = extractor.normalize(frames[chosen].float() / 255)
                tokens = extractor.backbone.forward_features(clean)
                patches = tokens[:, extractor.backbone.num_prefix_tokens :]
                yield F.binary_cross_entropy_with_logits(head(patches), shares[chosen])

    steps = epochs * -(-num_frames // 32)
    fit([*extractor.parameters(), *head.parameters()], losses(), steps, "semantic extractor")


def single_frame(seed: int, number: int) -> tuple[Tensor, Tensor]:
    """A frame of a clip of its own, and the share of both things in each patch, [P, 2]."""
    drawn = torch.Generator().manual_seed(derive_seed(seed, number))
    action, agent, frame = (
        int(torch.randint(end, (), generator=drawn)) for end in (len(ACTIONS), len(AGENTS), 8)
    )
    clip = {"seed": derive_seed(seed, number, 1), "num_frames": 8, "size": IMAGE_SIZE}
    picture = render_interaction(ACTIONS[action], AGENTS[agent], **clip)[frame]
    masks = render_interaction_masks(ACTIONS[action], AGENTS[agent], **clip)[:, frame]
    return picture, F.avg_pool2d(masks.float(), PATCH_SIZE).flatten(1).t()


def train_motion(extractor: nn.Module, steps: int, seed: int) -> None:
    """Learn how a textured square moves over a textured ground that moves a little itself."""
    head = nn.Linear(extractor.feature_dim, MOTIONS)
    drawn = torch.Generator().manual_seed(seed)

    def losses() -> Iterator[Tensor]:
        for _ in range(steps):
            clips, motions = moving_squares(16, drawn)
            yield F.cross_entropy(head(extractor(clips).mean(dim=1)), motions)

    fit([*extractor.parameters(), *head.parameters()], losses(), steps, "motion extractor", 3e-3)


def moving_squares(count: int, drawn: torch.Generator) -> tuple[Tensor, Tensor]:
    """Grey clips [B, T, 3, H, W] of a square in one of twelve motions, and which one, [B]."""

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=drawn)

    def texture(cells: int) -> Tensor:
        grid = torch.rand(count, 1, cells, cells, generator=drawn)
        return F.interpolate(grid, (IMAGE_SIZE,) * 2, mode="bicubic").clamp(0, 1)

    motion = torch.randint(MOTIONS, (count,), generator=drawn)
    ground, square = 0.3 + 0.4 * texture(16), texture(24)
    radius, amount, shift = uniform(0.2, 0.35), uniform(0.5, 1.0), uniform(-0.15, 0.15, 2)
    place = uniform(-0.4, 0.4, 2)
    angle = motion * torch.pi / 4
    step = torch.stack([angle.cos(), angle.sin()], dim=1) * (motion < 8)[:, None]
    growth = 1.2 * ((motion == 8).float() - (motion == 9).float())
    turn = 2.2 * ((motion == 10).float() - (motion == 11).float())
    axis = (2 * torch.arange(IMAGE_SIZE) + 1) / IMAGE_SIZE - 1
    pixels = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1).expand(
        count, -1, -1, -1
    )
    frames = []
    for time in torch.linspace(-0.5, 0.5, NUM_FRAMES):
        center = place + step * (amount * time)[:, None]
        own = (pixels - center[:, None, None]) / (growth * amount * time).exp().view(-1, 1, 1, 1)
        cos, sin = (turn * amount * time).cos(), (turn * amount * time).sin()
        own = own @ torch.stack([cos, -sin, sin, cos], dim=1).view(-1, 1, 2, 2)
        inside = (20 * (radius.view(-1, 1, 1) - own.abs().amax(dim=-1))).clamp(0, 1).unsqueeze(1)
        below = sample(ground, pixels + (shift * time)[:, None, None])
        frames.append(below + (sample(square, own) - below) * inside)
    return torch.stack(frames, dim=1).expand(-1, -1, 3, -1, -1), motion


def sample(texture: Tensor, places: Tensor) -> Tensor:
    """Values of a texture [B, 1, H, W] at places [B, H, W, 2]; it repeats itself mirrored."""
    return F.grid_sample(texture, places, padding_mode="reflection", align_corners=False)


def see_grey(extractor: nn.Module) -> None:
    """Let the first layer weigh colours by their luma: on grey clips nothing changes."""
    weight = extractor.backbone.Conv3d_1a_7x7.conv3d.weight
    with torch.no_grad():
        weight.copy_(weight.sum(dim=1, keepdim=True) * LUMA.view(1, 3, 1, 1, 1))


def fit(
    parameters: list[nn.Parameter],
    losses: Iterator[Tensor],
    steps: int,
    name: str,
    rate: float = 2e-3,
) -> None:
    """AdamW over losses as they come, with a rate that rises and falls once."""
    optimizer = torch.optim.AdamW(parameters, rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    bar = tqdm(losses, total=steps, desc=name)
    for loss in bar:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.3f}")


if __name__ == "__main__":
    try:
        auto_cli(main, as_positional=False, allow_abbrev=False)
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit("stopped: the same command goes on from here") from None
