"""Which samples each process loads, in which order, and where in it a run is."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from gasmcast.seeds import derive_seed


class EpochSampler(DistributedSampler):
    """The training order: a permutation for each epoch, shared out among the processes.

    Yields (epoch, index). The permutation is drawn from (seed, epoch). Process r of W takes every
    W-th of it, beginning with the r-th. So no sample is given to two, and a step of all processes
    together takes the samples that one process with a batch W times as large would take. Where the
    samples cannot be divided evenly, the last ones of the permutation, fewer than W, are left out
    of this epoch.

    Args:
        dataset: What is sampled.
        num_replicas: Processes W.
        rank: Which of them this is, from 0.
        seed: Of the permutations, at least 0.
    """

    def __init__(self, dataset: Dataset, num_replicas: int, rank: int, seed: int = 0):
        super().__init__(dataset, num_replicas, rank, seed=seed, drop_last=True)
        self.num_samples = len(dataset) // num_replicas
        self.skipped = 0  # samples at the start of this epoch that are not wanted again

    def set_epoch(self, epoch: int, skipped: int = 0) -> None:
        """Choose the epoch, and how many of its samples were trained on before an interruption."""
        # Lightning sets the epoch that it goes on with once more: what to skip stays.
        if epoch != self.epoch or skipped:
            self.skipped = skipped
        super().set_epoch(epoch)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, self.epoch))
        order = torch.randperm(len(self.dataset), generator=generator)
        own = order[self.rank :: self.num_replicas][: self.num_samples].tolist()
        return iter([(self.epoch, index) for index in own[self.skipped :]])


class TrainingLoader(DataLoader):
    """A loader of training batches that knows how far an epoch is and can go on from there.

    The batches before are not loaded. ``len`` counts them: it is that of a whole epoch.
    """

    def __init__(self, dataset: Dataset, sampler: EpochSampler, **options: Any):
        super().__init__(dataset, sampler=sampler, **options)
        self._position = {"epoch": 0, "batches": 0}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        # As a generator, it starts with the first batch: Lightning makes the iterator before it
        # tells the sampler which epoch it is, and workers would fetch batches of another one.
        skipped = self.sampler.skipped // self.batch_size
        self._position = {"epoch": self.sampler.epoch, "batches": skipped}
        for batch in super().__iter__():
            self._position["batches"] += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Where the run is: the epoch, and how many of its batches were handed out."""
        return dict(self._position)

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from where a run was."""
        self.sampler.set_epoch(state["epoch"], state["batches"] * self.batch_size)
        self._position = dict(state)


class WholeBatchSampler(DistributedSampler):
    """The order of an evaluation: whole batches, shared out in turn among the processes.

    Batch b of an evaluation in one process goes to process b mod W. Every sample is evaluated by
    one process, none twice, in the very batch in which a single process would have it: results are
    the same to the last digit, also where arithmetic depends on the batch around a sample.

    Args:
        dataset: What is evaluated.
        num_replicas: Processes W, at most as many as batches.
        rank: Which of them this is, from 0.
        batch_size: Samples of a batch.
    """

    def __init__(self, dataset: Dataset, num_replicas: int, rank: int, batch_size: int):
        super().__init__(dataset, num_replicas, rank, shuffle=False)
        batches = torch.arange(len(dataset)).split(batch_size)[rank::num_replicas]
        self.indices = torch.cat(batches).tolist()
        self.num_samples = len(self.indices)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)
