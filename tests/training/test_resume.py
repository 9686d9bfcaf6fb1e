"""A run that is stopped anywhere and resumed ends with the weights of one that is not."""

import pytest
import torch

from gasmcast.training import ActionDataModule, VideoDataModule, train_and_test
from training.parts import QUIET, DieBefore, Died, Seen, StoredFeatures
from small import IMAGE_SIZE, small_model

# All that is random or remembers something: dropping, mixing, averaging, accumulated gradients.
HARD = {"optimization": {"mixup_alpha": 0.8, "ema_decay": 0.5, "learning_rate": 1e-2}}


def run(data, output, *, callbacks=(), resume=False, accumulate=2, **options):
    torch.manual_seed(5)
    model = small_model(2, trainable=isinstance(data, VideoDataModule), drop_path=0.4, dropout=0.2)
    report = train_and_test(
        model,
        data,
        output,
        epochs=2,
        seed=3,
        resume=resume,
        checkpoint_minutes=0,
        trainer={
            **QUIET,
            "accumulate_grad_batches": accumulate,
            "gradient_clip_val": 1.0,
            "callbacks": list(callbacks),
        },
        **{**HARD, **options},
    )
    return model.state_dict(), report


def features(size=11, **options):
    return ActionDataModule(
        StoredFeatures(size, training=True, seed=4),
        StoredFeatures(4),
        StoredFeatures(6),
        **{"batch_size": 2, "num_workers": 0, "seed": 2, **options},
    )


def equal(one, other):
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])] == []


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    seen = Seen()
    weights, report = run(features(), tmp_path_factory.mktemp("whole"), callbacks=[seen])
    return weights, report, seen.batches


@pytest.mark.parametrize("stop", range(12))
def test_a_run_on_features_that_stops_before_any_batch(stop, whole, tmp_path):
    weights, report, batches = whole
    first, second = Seen(), Seen()
    with pytest.raises(Died):
        run(features(), tmp_path, callbacks=[first, DieBefore(stop)])
    data = features()
    resumed, again = run(data, tmp_path, callbacks=[second], resume=True)
    assert equal(resumed, weights)
    assert torch.equal(again.probabilities, report.probabilities)
    # No step is taken twice but those after the last checkpoint, and nothing else is loaded.
    repeated = stop % 6 % 2  # six batches an epoch, two a step
    assert second.batches == batches[stop - repeated :]
    keys = [(epoch, index) for epoch, _, indices in second.batches for index in indices]
    assert data.train.asked == keys
