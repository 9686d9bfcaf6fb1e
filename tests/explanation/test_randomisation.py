"""Maps depend on the weights that make them, and on no others."""

import pytest
import torch
from scipy.stats import spearmanr

from benchmarks.quickstart_models import untrained_model
from benchmarks.randomisation import PARTS, shuffled
from gasmcast.explanation import DIRECTIONS, LAYERS, inspect_clip
from small import IMAGE_SIZE

GRAPHS = ["spatial", "temporal"]
# In the order in which they are computed.
MAPS = [*GRAPHS, *LAYERS, "evidence"]
# The first that may change; what comes before it must not.
FIRST = {
    "graph attention": "spatial",
    "basic": "basic",
    "pattern": "pattern",
    "action": "action",
    "classifier": "evidence",
}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return untrained_model()


@pytest.fixture(scope="module")
def clip():
    torch.manual_seed(1)
    return torch.rand(16, 3, IMAGE_SIZE, IMAGE_SIZE)


def maps_of(seen):
    return {
        **{stream: [seen.graph(stream).attention] for stream in GRAPHS},
        **{
            layer: [getattr(seen.layers[layer], direction) for direction in DIRECTIONS]
            for layer in LAYERS
        },
        "evidence": [seen.patch_evidence, seen.segment_evidence],
    }


@pytest.mark.parametrize("part", FIRST)
def test_what_comes_before_is_the_same_to_the_bit_and_what_comes_after_is_not(model, clip, part):
    before, after = (
        maps_of(inspect_clip(each, clip)) for each in (model, shuffled(model, [part], seed=0))
    )
    place = MAPS.index(FIRST[part])
    for name in MAPS[:place]:
        assert all(map(torch.equal, before[name], after[name])), name
    for name in MAPS[place:]:
        assert not any(map(torch.equal, before[name], after[name])), name
    for old, new in zip(before[MAPS[place]], after[MAPS[place]], strict=True):
        # What is shuffled says something else; what comes later may say much the same.
        assert spearmanr(old.flatten(), new.flatten()).statistic < 0.9


def test_the_cascade_leaves_less_and_less(model, clip):
    before = maps_of(inspect_clip(model, clip))
    parts = list(FIRST)[::-1]  # from the logits down
    assert parts == list(PARTS)[: len(parts)]
    for depth, part in enumerate(parts, start=1):
        place = MAPS.index(FIRST[part])
        correlations = {name: [] for name in MAPS[place:]}
        for draw in range(5):
            after = maps_of(inspect_clip(shuffled(model, parts[:depth], seed=draw), clip))
            for name in MAPS[:place]:
                assert all(map(torch.equal, before[name], after[name])), (depth, name)
            for name, found in correlations.items():
                for old, new in zip(before[name], after[name], strict=True):
                    found.append(spearmanr(old.flatten(), new.flatten()).statistic)
        for name, found in correlations.items():
            # A graph's attention goes also by how many edges there are to share it.
            assert sum(found) / len(found) < (0.8 if name in GRAPHS else 0.4), (depth, name)


def test_shuffling_leaves_the_model_itself_and_keeps_the_numbers(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    other = shuffled(model, ["action"], seed=0)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
        changed = other.state_dict()[name]
        assert torch.equal(changed.flatten().sort().values, value.flatten().sort().values)
        if not name.startswith("gasm_cast.layer3_action"):
            assert torch.equal(changed, value)
