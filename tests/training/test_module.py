import json
import math

import pytest
import torch
from lightning import Trainer

from gasmcast.training import ActionRecognition, EvaluationReport
from small import small_model


class Part(list):
    """Stands in for a data set of so many videos."""


class Data:
    def __init__(self, size):
        self.train = self.test = self.validation = Part([None] * size)


@pytest.fixture
def module():
    torch.manual_seed(0)
    module = ActionRecognition(small_model(trainable=False), warmup_share=0.2, max_unreadable=0.25)
    module.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    module.trainer.datamodule = Data(8)
    module.log = lambda *args, **kwargs: None
    return module


def batch(size=2, errors=None):
    return {
        "clip": torch.rand(size, 16, 3, 32, 32),
        "label": torch.arange(size) % 3,
        "index": torch.arange(size),
        "errors": errors or {},
    }


def test_loss_is_smoothed_cross_entropy(module):
    data = batch()
    logits = module.model(data["clip"])
    log_p = logits.log_softmax(1)
    expected = -(0.9 * log_p[range(2), data["label"]] + 0.1 * log_p.mean(1)).mean()
    torch.testing.assert_close(module.training_step(data, 0), expected)


def test_a_batch_without_readable_clips_trains_nothing(module):
    loss = module.training_step({"errors": {0: "a.mp4: empty"}}, 0)
    loss.backward()
    gradients = [p.grad for p in module.parameters() if p.requires_grad]
    assert float(loss) == 0.0
    assert all(gradient is not None and not gradient.any() for gradient in gradients)
    assert module.unreadable["train"] == {0: "a.mp4: empty"}


def test_too_many_unreadable_videos_stop_the_run(module):
    module.training_step(batch(errors={0: "a.mp4: empty", 1: "b.mp4: text"}), 0)
    module.training_step(batch(errors={1: "b.mp4: text"}), 1)  # seen again, counted once
    message = r"3 of 8 train videos .* allowed share of 25%; among them:\n  a\.mp4: empty\n  b"
    with pytest.raises(RuntimeError, match=message):
        module.training_step(batch(errors={2: "c.mp4: cut"}), 2)


def test_a_loss_that_is_not_finite_is_an_error(module):
    with torch.no_grad():
        module.model.classifier.bias.fill_(torch.nan)
    with pytest.raises(ValueError, match="the loss is nan at step 0: lower the learning rate"):
        module.training_step(batch(), 0)


def test_schedule_and_decay(module, monkeypatch):
    monkeypatch.setattr(Trainer, "estimated_stepping_batches", 10)
    made = module.configure_optimizers()
    decayed, kept = made["optimizer"].param_groups
    assert decayed["weight_decay"] == 0.05
    assert kept["weight_decay"] == 0.0
    assert all(p.ndim > 1 for p in decayed["params"])
    count = len(decayed["params"]) + len(kept["params"])
    assert count == sum(p.requires_grad for p in module.model.parameters())
    scheduler, rates = made["lr_scheduler"]["scheduler"], []
    for _ in range(10):
        rates.append(scheduler.get_last_lr()[0])
        made["optimizer"].step()
        scheduler.step()
    cosine = [0.5e-3 * (1 + math.cos(math.pi * step / 8)) for step in range(8)]
    assert rates == pytest.approx([0.5e-3, 1e-3, *cosine])


def test_classes_without_a_video_do_not_count_as_missed(module, monkeypatch):
    monkeypatch.setattr(type(module), "log_dict", lambda *args, **kwargs: None)
    module.model.forward = lambda clip: torch.eye(3)[torch.tensor([0, 0, 2, 1])]
    module.on_test_epoch_start()
    module.test_step({**batch(4), "label": torch.tensor([0, 0, 1, 1])}, 0)
    module.on_test_epoch_end()
    assert module.report.mean_class == pytest.approx(0.75)


def test_top5_of_seven_classes(monkeypatch):
    module = ActionRecognition(small_model(7))
    module.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    module.trainer.datamodule = Data(8)
    monkeypatch.setattr(type(module), "log_dict", lambda *args, **kwargs: None)
    module.model.forward = lambda clip: -torch.arange(7.0).repeat(7, 1)
    module.on_test_epoch_start()
    module.test_step({**batch(7), "label": torch.arange(7)}, 0)
    module.on_test_epoch_end()
    assert module.report.top5 == pytest.approx(5 / 7)
    assert module.report.top1 == pytest.approx(1 / 7)


@pytest.mark.parametrize(
    "option", ["learning_rate", "weight_decay", "warmup_share", "label_smoothing", "max_unreadable"]
)
def test_options_out_of_range(option):
    with pytest.raises(ValueError, match=f"{option} must be between 0 and (1|inf), got -1"):
        ActionRecognition(small_model(), **{option: -1})


def test_report_by_hand(module, tmp_path, monkeypatch):
    monkeypatch.setattr(type(module), "log_dict", lambda *args, **kwargs: None)
    module.model.class_names = ["lift", "drop", "a, b"]
    answers = torch.tensor([[3.0, 2, 1], [3, 2, 1], [1, 3, 2], [1, 2, 3], [3, 2, 1]])
    module.model.forward = lambda clip: answers
    module.on_test_epoch_start()
    labels = torch.tensor([0, 1, 1, 2, 0])
    module.test_step({**batch(5), "label": labels, "errors": {7: "x.mp4: empty"}}, 0)
    module.on_test_epoch_end()
    report = module.report
    assert report.confusion.tolist() == [[2, 0, 0], [1, 1, 0], [0, 0, 1]]
    assert report.top1 == pytest.approx(4 / 5)
    assert report.mean_class == pytest.approx((1 + 0.5 + 1) / 3)
    assert report.top5 == 1.0
    assert report.num_videos == 5
    assert report.unreadable == ("test: x.mp4: empty",)
    text = str(report)
    assert "top-1       80.0%  (chance 33.3%)" in text
    assert "not readable, left out: 1\n  test: x.mp4: empty" in text

    report.save(tmp_path / "new")
    results = json.loads((tmp_path / "new" / "results.json").read_text())
    assert results["top1"] == pytest.approx(0.8)
    assert results["unreadable"] == ["test: x.mp4: empty"]
    lines = (tmp_path / "new" / "confusion_matrix.csv").read_text().splitlines()
    assert lines == ['shown \\ named,lift,drop,"a, b"', "lift,2,0,0", "drop,1,1,0", '"a, b",0,0,1']
    assert isinstance(report, EvaluationReport)
