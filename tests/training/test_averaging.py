import pytest
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from gasmcast.training import WeightAverage


def test_three_steps_by_hand():
    average = WeightAverage(0.15)
    # At step 1 and 2 the decay could be 2/11 and 3/12: it is 0.15 already.
    second = 0.15 * 1 + 0.85 * 2
    for weight, expected in ((1.0, 1.0), (2.0, second), (4.0, 0.15 * second + 0.85 * 4)):
        average.update({"w": torch.tensor([weight])})
        assert float(average.averages["w"]) == pytest.approx(expected)


def test_the_decay_rises_to_its_value():
    average = WeightAverage(0.9)
    weights = [torch.randn(3) for _ in range(40)]
    expected = weights[0]
    average.update({"w": weights[0]})
    for step, weight in enumerate(weights[1:], start=1):
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weight
        average.update({"w": weight})
        torch.testing.assert_close(average.averages["w"], expected)


def test_against_torch():
    """With a decay so small that it never rises to it."""
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    reference = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.1))
    average = WeightAverage(0.1)
    for _ in range(5):
        with torch.no_grad():
            model.weight += torch.randn(2, 3)
        reference.update_parameters(model)
        average.update(model.state_dict())
    torch.testing.assert_close(average.averages["weight"], reference.module.weight.detach())


def test_what_is_no_floating_point_number_is_taken_over():
    average = WeightAverage(0.9)
    for count in (1, 2, 3):
        average.update({"w": torch.ones(1), "count": torch.tensor(count)})
    assert average.averages["count"].tolist() == 3


def test_swapping_twice_changes_nothing():
    average = WeightAverage(0.9)
    weights = {"w": torch.tensor([1.0])}
    average.swap(weights)  # nothing is averaged yet
    assert weights["w"].tolist() == [1]
    average.update(weights)
    weights["w"].fill_(3)
    average.swap(weights)
    assert weights["w"].tolist() == [1]
    average.swap(weights)
    assert weights["w"].tolist() == [3]


def test_it_goes_on_from_its_state():
    average, again = WeightAverage(0.9), WeightAverage(0.9)
    for _ in range(3):
        average.update({"w": torch.randn(2)})
    again.load_state_dict(average.state_dict())
    weight = torch.randn(2)
    expected = average.averages["w"].clone()
    for each in (again, average):
        each.averages["w"] = expected.clone()
        each.update({"w": weight})
    assert torch.equal(average.averages["w"], again.averages["w"])


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_decay_out_of_range(decay):
    with pytest.raises(ValueError, match=f"ema_decay must be at least 0 and below 1, got {decay}"):
        WeightAverage(decay)
