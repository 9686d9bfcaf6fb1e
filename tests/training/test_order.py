import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from gasmcast.training.order import EpochSampler, TrainingLoader, WholeBatchSampler

SIZES = {
    "size": st.integers(1, 60),
    "processes": st.integers(1, 6),
    "batch_size": st.integers(1, 9),
}


def shares(size, processes, epoch=0, seed=0):
    samplers = [EpochSampler(range(size), processes, rank, seed) for rank in range(processes)]
    for sampler in samplers:
        sampler.set_epoch(epoch)
    return [list(sampler) for sampler in samplers]


@given(**SIZES, epoch=st.integers(0, 5))
def test_processes_share_an_epoch_evenly_and_overlap_nowhere(size, processes, batch_size, epoch):
    parts = shares(size, processes, epoch)
    assert {len(part) for part in parts} == {size // processes}
    keys = [key for part in parts for key in part]
    assert {at for at, _ in keys} <= {epoch}
    indices = [index for _, index in keys]
    assert len(set(indices)) == len(indices) > size - processes
    assert set(indices) <= set(range(size))


def test_steps_are_those_of_one_process_with_a_larger_batch():
    (alone,) = shares(12, 1)
    first, second = shares(12, 2)
    for step in range(3):
        together = set(first[2 * step : 2 * step + 2] + second[2 * step : 2 * step + 2])
        assert together == set(alone[4 * step : 4 * step + 4])


def test_the_order_depends_on_seed_and_epoch_only():
    orders = [tuple(shares(30, 1, epoch, seed)[0]) for epoch in (0, 1) for seed in (0, 1)]
    assert orders[0] == tuple(shares(30, 1, 0, 0)[0])
    plain = {tuple(index for _, index in order) for order in orders}
    assert len(plain | {tuple(range(30))}) == 5


def test_who_is_left_out_changes():
    left_out = set()
    for epoch in range(30):
        seen = {index for part in shares(5, 2, epoch) for _, index in part}
        left_out |= set(range(5)) - seen
    assert left_out == set(range(5))


@given(**SIZES, done=st.integers(0, 20))
def test_a_loader_goes_on_where_another_was(size, processes, batch_size, done):
    def loader():
        sampler = EpochSampler(range(size), processes, processes - 1, seed=3)
        return TrainingLoader(Keys(size), sampler, batch_size=batch_size, collate_fn=list)

    whole = loader()
    whole.sampler.set_epoch(2)
    batches = list(whole)
    assert len(batches) == len(whole)
    done = min(done, len(batches))

    began = loader()
    for epoch, count in ((1, len(batches)), (2, done)):
        began.sampler.set_epoch(epoch)
        iterator = iter(began)
        handed_out = [next(iterator) for _ in range(count)]
    assert handed_out == batches[:done]
    state = began.state_dict()
    # Before the first batch of an epoch, a run is at the end of the one before.
    assert state == {"epoch": 2, "batches": done} if done else {"epoch": 1, "batches": len(batches)}

    rest = loader()
    rest.load_state_dict(state)
    assert len(rest) == len(whole)  # of the whole epoch
    iterator = iter(rest)  # Lightning makes it before it sets the epoch
    rest.sampler.set_epoch(2)
    assert list(iterator) == batches[done:]
    if batches:
        assert rest.state_dict() == {"epoch": 2, "batches": len(batches)}
    rest.sampler.set_epoch(3)
    whole.sampler.set_epoch(3)
    assert list(rest) == list(whole)


class Keys:
    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, key):
        return key


def test_an_iterator_made_early_takes_the_epoch_that_is_set_later():
    loader = TrainingLoader(
        Keys(6), EpochSampler(range(6), 1, 0), batch_size=6, num_workers=1, collate_fn=list
    )
    iterator = iter(loader)
    loader.sampler.set_epoch(7)
    assert {epoch for epoch, _ in next(iterator)} == {7}


@given(**SIZES)
def test_whole_batches_are_evaluated_once_as_in_one_process(size, processes, batch_size):
    processes = min(processes, -(-size // batch_size))
    alone = list(DataLoader(range(size), batch_size=batch_size, collate_fn=list))
    shared = []
    for rank in range(processes):
        sampler = WholeBatchSampler(range(size), processes, rank, batch_size)
        loader = DataLoader(range(size), batch_size=batch_size, sampler=sampler, collate_fn=list)
        batches = list(loader)
        assert len(batches) == len(loader) > 0
        shared += batches
    assert sorted(shared) == alone


@pytest.mark.parametrize(
    "sampler", [EpochSampler(range(4), 2, 0), WholeBatchSampler(range(4), 2, 0, 1)]
)
def test_lightning_does_not_put_its_own_sampler_in_place(sampler):
    from lightning.pytorch.trainer.connectors.data_connector import DistributedSampler

    assert isinstance(sampler, DistributedSampler)
