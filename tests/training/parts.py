"""Data and stops that several tests of the training share."""

import multiprocessing
from multiprocessing.process import BaseProcess

import torch
from lightning.pytorch.callbacks import Callback
from torch.utils.data import Dataset

from gasmcast.datasets import derive_seed

QUIET = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}


def fresh_process(target, *arguments) -> BaseProcess:
    """A process that shares nothing with this one, without the seconds that its imports take.

    It is forked from a process that has imported all of it and done nothing yet: one that has
    trained cannot be forked.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["gasmcast.training", "small", "timm", "training.parts"])
    return context.Process(target=target, args=arguments, daemon=True)


class StoredFeatures(Dataset):
    """Stands in for a feature store: views of each sample, for the small model's widths.

    Training samples hold one view, drawn by (seed, epoch, index).
    """

    classes = ("lift", "drop")

    def __init__(self, size, *, views=3, training=False, seed=0, damaged=(), prefix="clip "):
        generator = torch.Generator().manual_seed(size)
        self.labels = torch.arange(size) % 2
        self.semantic = torch.randn(size, views, 16, 24, generator=generator)
        self.motion = torch.randn(size, views, 8, 32, generator=generator)
        self.motion += self.labels.view(-1, 1, 1, 1)  # something to learn
        self.training = training
        self.seed = seed
        self.damaged = damaged
        self.prefix = prefix
        self.asked = []

    @property
    def ids(self):
        return tuple(f"{self.prefix}{index}" for index in range(len(self)))

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, key):
        self.asked.append(key)
        epoch, index = key if self.training else (None, key)
        if index in self.damaged:
            return {"index": index, "error": f"clip {index}: its checksum does not fit"}
        view = slice(None)
        if self.training:
            generator = torch.Generator().manual_seed(derive_seed(self.seed, epoch, index))
            view = int(torch.randint(self.semantic.size(1), (), generator=generator))
        return {
            "semantic": self.semantic[index, view],
            "motion": self.motion[index, view],
            "label": int(self.labels[index]),
            "index": index,
        }


class Died(Exception):
    """Stands in for a machine that is switched off."""


class DieBefore(Callback):
    """Stops a run before it takes in the n-th batch of all its epochs, counted from 0."""

    def __init__(self, batch):
        self.batch = batch

    def on_train_batch_start(self, trainer, module, batch, batch_index):
        if trainer.current_epoch * trainer.num_training_batches + batch_index == self.batch:
            self.die()

    def die(self):
        raise Died


class Seen(Callback):
    """Notes the samples of each batch that is trained on."""

    def __init__(self):
        self.batches = []

    def on_train_batch_start(self, trainer, module, batch, batch_index):
        self.batches.append((trainer.current_epoch, batch_index, batch["index"].tolist()))
