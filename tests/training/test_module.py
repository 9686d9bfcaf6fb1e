import math

import pytest
import torch
from lightning import Trainer
from torch.nn import functional as F

from gasmcast.training import ActionRecognition, LossNotFinite, WeightAverage
from small import small_model


class Part(list):
    """Stands in for a data set of so many videos."""

    ids = tuple(f"{number}.mp4" for number in range(8))


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


def test_validation_loss_is_plain_cross_entropy_over_all_videos(module):
    logged = {}
    module.log = lambda name, value, **_: logged.update({name: value})
    module.eval()
    batches = [batch(3), {"errors": {7: "a.mp4: empty"}}, batch(1)]
    logits, labels = [], []
    for _ in range(2):  # of each epoch by itself
        module.on_validation_epoch_start()
        with torch.no_grad():
            for number, data in enumerate(batches):
                module.validation_step(data, number)
                if "clip" in data:
                    logits.append(module.model(data["clip"]))
                    labels.append(data["label"])
        module.on_validation_epoch_end()
        expected = F.cross_entropy(torch.cat(logits), torch.cat(labels))
        torch.testing.assert_close(logged["validation_loss"], expected)
        batches, logits, labels = [batch(2)], [], []
    with torch.no_grad():
        module.model.classifier.bias.copy_(torch.tensor([-1e4, 0, 0]))
        module.validation_step(batch(2), 0)
    module.on_validation_epoch_end()
    assert 40 < float(logged["validation_loss"]) < 50  # a probability of 0 hides no other video
    module.validation_step(batch(3), 0)
    with torch.no_grad():
        module.model.classifier.bias.fill_(torch.nan)
        module.validation_step(batch(1), 1)
    module.on_validation_epoch_end()
    assert float(logged["validation_loss"]) == torch.inf  # not the mean of the others


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
    with pytest.raises(LossNotFinite, match="the loss is nan at step 0: lower the learning rate"):
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
    "option",
    [
        *("learning_rate", "weight_decay", "warmup_share", "label_smoothing"),
        *("mixup_alpha", "cutmix_alpha", "max_unreadable", "seed"),
    ],
)
def test_options_out_of_range(option):
    with pytest.raises(ValueError, match=f"{option} must be between 0 and (1|inf), got -1"):
        ActionRecognition(small_model(), **{option: -1})


def test_a_batch_of_features_needs_no_extractor(module):
    semantic, motion = torch.randn(2, 16, 24), torch.randn(2, 8, 32)
    label = torch.tensor([0, 2])
    # A store may hold half precision.
    data = {"semantic": semantic.bfloat16(), "motion": motion.bfloat16(), "label": label}
    logits = module.model.forward_features(semantic.bfloat16().float(), motion.bfloat16().float())
    expected = F.cross_entropy(logits, label, label_smoothing=0.1)
    torch.testing.assert_close(module.training_step({**data, "errors": {}}, 0), expected)


def test_features_train_no_extractor():
    module = ActionRecognition(small_model(trainable=True))
    module.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    module.trainer.datamodule = Data(8)
    features = {"semantic": torch.randn(2, 16, 24), "motion": torch.randn(2, 8, 32)}
    message = r"stored features cannot train the semantic_extractor: freeze it \(trainable=False\)"
    with pytest.raises(ValueError, match=message):
        module.training_step({**features, "label": torch.tensor([0, 1]), "errors": {}}, 0)


def test_bytes_are_converted_where_they_are_used(module):
    data = batch()
    data["clip"] = torch.randint(0, 256, data["clip"].shape, dtype=torch.uint8)
    loss = module.training_step(data, 0)
    as_float = {**data, "clip": data["clip"] / 255}
    torch.testing.assert_close(loss, module.training_step(as_float, 0))


@pytest.mark.parametrize("kind", ["clip", "features"])
def test_probabilities_are_averaged_over_the_views(kind, module):
    module.eval()
    if kind == "clip":
        given = {"clip": torch.rand(2, 3, 16, 3, 32, 32)}
        logits = [module.model(given["clip"][:, view]) for view in range(3)]
    else:
        given = {"semantic": torch.randn(2, 3, 16, 24), "motion": torch.randn(2, 3, 8, 32)}
        logits = [
            module.model.forward_features(given["semantic"][:, view], given["motion"][:, view])
            for view in range(3)
        ]
    expected = sum(values.softmax(dim=1) for values in logits) / 3
    torch.testing.assert_close(module._probabilities(given), expected)


def test_mixing_reaches_model_and_loss(module):
    """A mix that gives every clip the first one's picture, and half of each label."""

    def mix(given):
        assert given["clip"].is_floating_point()
        half = F.one_hot(given["label"], 3) / 2
        return {"clip": given["clip"][:1].expand_as(given["clip"]), "label": half + half[[1, 0]]}

    module.mix = mix
    data = batch()
    log_p = module.model(data["clip"][:1]).log_softmax(1)[0]
    target = 0.9 * torch.tensor([0.5, 0.5, 0]) + 0.1 / 3
    torch.testing.assert_close(module.training_step(data, 0), -(target * log_p).sum())


@pytest.mark.parametrize("option", ["mixup_alpha", "cutmix_alpha"])
def test_mixing_options_make_a_mix(option):
    assert ActionRecognition(small_model()).mix is None
    assert ActionRecognition(small_model(), **{option: 0.5}).mix is not None


def test_random_choices_of_a_step_depend_on_nothing_before(module, monkeypatch):
    def draw(epoch, batch_index, rank=0, seed=0):
        module.seed = seed
        monkeypatch.setattr(type(module), "global_rank", rank)
        module.trainer.fit_loop.epoch_progress.current.completed = epoch
        torch.rand(torch.randint(1, 9, ()))
        module.on_train_batch_start({}, batch_index)
        return float(torch.rand(()))

    assert draw(1, 2) == draw(1, 2)
    values = {draw(1, 2), draw(2, 1), draw(1, 3), draw(0, 2), draw(1, 2, 1), draw(1, 2, seed=1)}
    assert len(values) == 6


def test_a_frozen_extractor_is_left_out_and_checked(module):
    checkpoint = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    held = {name.split(".")[1] for name in checkpoint["state_dict"]}
    assert held == {"gasm_cast", "classifier"}
    assert set(checkpoint["frozen"]) == {"model.semantic_extractor", "model.motion_extractor"}

    torch.manual_seed(0)
    again = ActionRecognition(small_model(trainable=False))
    again.trainer = module.trainer
    again.on_load_checkpoint(checkpoint)
    assert again.state_dict().keys() == checkpoint["state_dict"].keys()

    other = ActionRecognition(small_model(trainable=False))
    other.trainer = module.trainer
    with torch.no_grad():
        next(other.model.motion_extractor.backbone.parameters()).view(-1)[0] += 1e-3
    checkpoint["state_dict"] = other.model.state_dict()
    message = r"the frozen model\.\w+_extractor has other weights \(fingerprint \w{32}\) than when"
    with pytest.raises(ValueError, match=message):
        other.on_load_checkpoint(checkpoint)


def test_a_trained_extractor_is_in_the_checkpoint():
    module = ActionRecognition(small_model(trainable=True))
    module.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    checkpoint = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    assert checkpoint["frozen"] == {}
    assert checkpoint["state_dict"].keys() == module.state_dict().keys()
    # Frozen by name only: its weights are trained, so they are kept.
    module.model.motion_extractor.trainable = False
    assert list(module._frozen()) == []


def test_the_average_is_what_is_tested(module, monkeypatch):
    monkeypatch.setattr(type(module), "log_dict", lambda *args, **kwargs: None)
    module.average = WeightAverage(0.5)
    weight = module.model.classifier.weight
    with torch.no_grad():
        weight.fill_(1)
        module.average.update(module._kept_weights())
        weight.fill_(2)
    for begin, end in (
        (module.on_test_epoch_start, module.on_test_epoch_end),
        (module.on_validation_epoch_start, module.on_validation_epoch_end),
    ):
        begin()
        assert weight.unique().tolist() == [1]
        if end == module.on_validation_epoch_end:
            module.validation_step(batch(), 0)
        end()
        assert weight.unique().tolist() == [2]
