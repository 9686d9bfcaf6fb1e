"""The model of the quickstart, trained from several seeds, and the clips held out."""

import runpy
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.measure import Effort
from gasmcast import TemporalCrossAttentionModel
from gasmcast.datasets import read_annotation_list, write_rendered_dataset
from gasmcast.explanation import load_clip
from gasmcast.training import VideoDataModule, train_and_test
from small import IMAGE_SIZE, small_model

SEEDS = (0, 1, 2)
FOLDER = Path("runs/explanations")
QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart.py"
EPOCHS = 10


def models_and_clips(effort: Effort) -> Iterator[tuple[TemporalCrossAttentionModel, list[Tensor]]]:
    """A model of each seed with all clips held out; what is in ``FOLDER`` is not made again.

    The clips are those of the quickstart, whose seed is 0, for all models. With ``effort.tiny``:
    two models that nobody trained, and noise.
    """
    if effort.tiny:
        for seed in (0, 1):
            torch.manual_seed(seed)
            yield untrained_model(), list(torch.rand(3, 16, 3, IMAGE_SIZE, IMAGE_SIZE))
        return
    quickstart = runpy.run_path(str(QUICKSTART))
    folder = FOLDER / "clips"
    if not (folder / "labels.json").exists():
        write_rendered_dataset(
            folder,
            clips_per_class={"train": 30, "test": 8},
            motions=quickstart["MOTIONS"],
            appearances=quickstart["APPEARANCES"],
            seed=0,
        )
    train, test = (
        read_annotation_list(folder / f"{part}.csv", classes=folder / "labels.json")
        for part in ("train", "test")
    )
    for seed in SEEDS:
        run = FOLDER / f"seed{seed}"
        if not (run / "results.json").exists():
            torch.manual_seed(seed)
            model = quickstart["small_model"](train.classes)
            size = quickstart["IMAGE_SIZE"]
            data = VideoDataModule(train, test, image_size=size, batch_size=16, seed=seed)
            train_and_test(model, data, run, epochs=EPOCHS, seed=seed, resume=True)
        model = TemporalCrossAttentionModel.from_pretrained(run / "model").to(effort.device)
        yield model, [load_clip(model, record.path) for record in test.records]


def untrained_model() -> TemporalCrossAttentionModel:
    """A small model whose fusion does something: fresh, its layers are the identity."""
    model = small_model(num_classes=4)
    for layer in model.gasm_cast.fusion_layers:
        nn.init.normal_(layer.sem_expand.weight, std=0.1)
        nn.init.normal_(layer.mot_expand.weight, std=0.1)
    return model.eval()
