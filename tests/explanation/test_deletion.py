import pytest
import torch

from gasmcast.explanation import deletion_curve, inspect_clip, pixel_deletion_curve
from small import IMAGE_SIZE, small_model

PATCHES, SEGMENTS = 16, 8


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = small_model(class_names=["lift", "drop", "turn"])
    for layer in model.gasm_cast.fusion_layers:  # fresh, they are the identity
        torch.nn.init.normal_(layer.sem_expand.weight, std=0.3)
        torch.nn.init.normal_(layer.mot_expand.weight, std=0.3)
    torch.nn.init.normal_(model.classifier.weight, std=0.5)
    return model.eval()


@pytest.fixture(scope="module")
def seen(model):
    torch.manual_seed(1)
    return inspect_clip(model, torch.rand(16, 3, IMAGE_SIZE, IMAGE_SIZE))


@pytest.fixture(scope="module")
def order():
    return torch.randperm(PATCHES, generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def without(model, seen, patches=(), segments=()):
    """Probabilities of a forward pass with masks by hand."""
    semantic_mask = torch.ones(1, PATCHES, dtype=torch.bool)
    semantic_mask[0, list(patches)] = False
    motion_mask = torch.ones(1, SEGMENTS, dtype=torch.bool)
    motion_mask[0, list(segments)] = False
    features = (
        model.semantic_extractor(seen.frames[None]),
        model.motion_extractor(seen.frames[None]),
    )
    masks = {"semantic_mask": semantic_mask, "motion_mask": motion_mask}
    return model.forward_features(*features, **masks)[0].softmax(dim=0)


def test_it_is_what_masks_give_by_hand(model, seen, order):
    curve = deletion_curve(model, seen, order, label="drop", steps=PATCHES)
    assert curve.removed.tolist() == list(range(PATCHES))
    for removed, probability in zip(curve.removed.tolist(), curve.probabilities, strict=True):
        by_hand = without(model, seen, patches=order[:removed].tolist())
        torch.testing.assert_close(probability, by_hand[1])
    spread = curve.probabilities.max() - curve.probabilities.min()
    assert spread > 0.01  # so that the order is seen at all
    segments = torch.tensor([5, 0, 1, 7, 2, 3, 6, 4])
    curve = deletion_curve(model, seen, segments, stream="temporal", label=2)
    for removed, probability in zip(curve.removed.tolist(), curve.probabilities, strict=True):
        by_hand = without(model, seen, segments=segments[:removed].tolist())
        torch.testing.assert_close(probability, by_hand[2])
    assert curve.removed.tolist() == list(range(SEGMENTS))


def test_it_begins_with_what_the_model_says(model, seen, order):
    for curve in (
        deletion_curve(model, seen, order, steps=1),
        pixel_deletion_curve(model, seen, order, steps=1),
    ):
        torch.testing.assert_close(curve.probabilities[0], seen.probabilities.max())
        torch.testing.assert_close(curve.logits[0], seen.logits.max())
        assert curve.removed.tolist() == [0, PATCHES - 1]
    # the last token alone, whatever the order of the others
    other = torch.cat([order[:-1].flip(0), order[-1:]])
    torch.testing.assert_close(
        deletion_curve(model, seen, other, steps=1).logits[-1],
        deletion_curve(model, seen, order, steps=1).logits[-1],
    )


def test_pixels_take_the_mean_colour_in_every_frame(model, seen):
    order = torch.cat([torch.tensor([6, 1]), torch.tensor([0, *range(2, 6), *range(7, PATCHES)])])
    curve = pixel_deletion_curve(model, seen, order, label=0, steps=PATCHES)
    painted = seen.frames.clone()
    colour = painted.mean(dim=(0, 2, 3))[:, None, None]
    for row, column, removed in ((1, 2, 1), (0, 1, 2)):  # patches 6 and 1 of 4 a row
        painted[..., 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = colour
        with torch.no_grad():
            logits = model(painted[None])[0]
        torch.testing.assert_close(curve.logits[removed], logits[0])
        torch.testing.assert_close(curve.probabilities[removed], logits.softmax(dim=0)[0])
    assert curve.probabilities.std() > 1e-4


def test_many_orders_are_one_after_the_other(model, seen):
    generator = torch.Generator().manual_seed(3)
    orders = torch.stack([torch.randperm(PATCHES, generator=generator) for _ in range(9)])
    for delete in (deletion_curve, pixel_deletion_curve):
        together = delete(model, seen, orders, steps=PATCHES)  # more than run at once
        assert together.logits.shape == (9, PATCHES)
        for row in (0, 8):
            alone = delete(model, seen, orders[row], steps=PATCHES)
            torch.testing.assert_close(together.logits[row], alone.logits, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(together.area[row], alone.area, rtol=1e-4, atol=1e-5)


def test_area_is_the_mean_along_the_way(model, seen, order):
    curve = deletion_curve(model, seen, order, steps=4)
    assert curve.removed.tolist() == [0, 4, 8, 11, 15]
    lengths = torch.tensor([4, 4, 3, 4])
    middles = (curve.probabilities[1:] + curve.probabilities[:-1]) / 2
    torch.testing.assert_close(curve.area, (lengths * middles).sum() / 15)


def test_evidence_in_the_order_it_says(model, seen):
    """Without graph and fusion, what is deleted changes the mean of the others and nothing else."""
    torch.manual_seed(4)
    late = small_model(fusion="late").eval()
    torch.nn.init.zeros_(late.gasm_cast.semantic_graph.graph_attention.attention.lin_l.weight)
    torch.nn.init.zeros_(late.gasm_cast.semantic_graph.graph_attention.attention.lin_l.bias)
    seen = inspect_clip(late, seen.frames)
    patches, segments, bias = seen.evidence(1)
    order = patches.argsort(descending=True)
    curve = deletion_curve(late, seen, order, label=1, steps=PATCHES)
    for removed, logit in zip(curve.removed.tolist(), curve.logits, strict=True):
        left = patches[order[removed:]].mean() * PATCHES
        torch.testing.assert_close(logit, left + segments.sum() + bias, rtol=1e-4, atol=1e-5)
    assert (curve.logits.diff() < 0).all()


def test_nothing_is_touched_and_modes_are_put_back(model, seen, order):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    tensors = [order, seen.frames, seen.spatial.x, seen.temporal.x]
    copies = [tensor.clone() for tensor in tensors]
    model.train()
    model.gasm_cast.layer1_basic.eval()
    for delete in (deletion_curve, pixel_deletion_curve):
        curve = delete(model, seen, order, steps=2)
        assert not curve.logits.requires_grad
        torch.testing.assert_close(curve.probabilities[0], seen.probabilities.max())
    assert model.training
    assert model.semantic_extractor.training
    assert not model.gasm_cast.layer1_basic.training
    model.eval()
    for tensor, copy in zip(tensors, copies, strict=True):
        assert torch.equal(tensor, copy)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_model_in_half_precision(model, seen, order):
    half = small_model(class_names=model.class_names).eval()
    half.load_state_dict(model.state_dict())
    half.bfloat16()
    seen_half = inspect_clip(half, seen.frames)
    for delete in (deletion_curve, pixel_deletion_curve):
        curve = delete(half, seen_half, order, steps=2)
        assert curve.logits.dtype == torch.float32
        torch.testing.assert_close(curve.logits[0], seen_half.logits.max(), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("delete", [deletion_curve, pixel_deletion_curve])
def test_what_does_not_fit_is_named(model, seen, order, delete):
    doubled = order.clone()
    doubled[0] = doubled[1]
    for change, message in [
        (
            {"order": torch.arange(15)},
            r"each token from 0 to 15 once, got \[0, 1, 2, 3, 4, 5, 6, 7, ... 15 in all\]$",
        ),
        ({"order": torch.arange(3)}, r"from 0 to 15 once, got \[0, 1, 2\]$"),
        ({"order": doubled}, "order must hold each token from 0 to 15 once"),
        (
            {"order": torch.stack([torch.arange(16), torch.arange(16) // 2])},  # the second one
            r"once, got \[0, 0, 1, 1, 2, 2, 3, 3, ... 16 in all\]$",
        ),
        ({"order": order.unsqueeze(0).unsqueeze(0)}, r"a tensor \[16\] or \[O, 16\], got \[1, 1, "),
        ({"order": order.tolist()}, "order must be a tensor .* got list"),
        ({"order": order.new_zeros(0, 16)}, r"got \[0, 16\]"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"label": "push"}, "no class 'push'"),
        ({"model": small_model(5)}, "of a model with 3 classes, got a model with 5"),
        ({"model": small_model(3)}, "the inspection is of another model: there the logit of class"),
    ]:
        arguments = {"model": model, "inspection": seen, "order": order, **change}
        with pytest.raises(ValueError, match=message):
            delete(**arguments)


def test_a_stream_that_is_not_there(model, seen, order):
    with pytest.raises(ValueError, match=r'stream must be "spatial" or "temporal", got \'both\''):
        deletion_curve(model, seen, order, stream="both")
    with pytest.raises(ValueError, match="from 0 to 7 once"):
        deletion_curve(model, seen, order, stream="temporal")
