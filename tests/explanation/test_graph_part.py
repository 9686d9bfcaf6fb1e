"""PyG's explainers on the model's graph part, and what they leave behind."""

import pytest
import torch
from torch_geometric.explain import (
    AttentionExplainer,
    CaptumExplainer,
    Explainer,
    GNNExplainer,
    PGExplainer,
    fidelity,
    unfaithfulness,
)

from gasmcast.explanation import GraphPart, inspect_clip
from small import IMAGE_SIZE, small_model

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients"),
]

STREAMS = ("spatial", "temporal")
CONFIG = {"mode": "multiclass_classification", "task_level": "graph", "return_type": "raw"}


def made(**options):
    torch.manual_seed(0)
    model = small_model(**options)
    for layer in model.gasm_cast.fusion_layers:  # fresh, they are the identity
        torch.nn.init.normal_(layer.sem_expand.weight, std=0.3)
        torch.nn.init.normal_(layer.mot_expand.weight, std=0.3)
    for graph in (model.gasm_cast.semantic_graph, model.gasm_cast.motion_graph):
        torch.nn.init.ones_(graph.graph_attention.scale)  # fresh, it is close to the identity
    return model.train()


@pytest.fixture(scope="module")
def model():
    return made()


@pytest.fixture(scope="module")
def seen(model):
    return inspect_clip(model, torch.rand(16, 3, IMAGE_SIZE, IMAGE_SIZE))


def inputs(part):
    return part.graph.x, part.graph.edge_index, part.graph.edge_attr


def explain(part, algorithm, *, node=None, edge=None, target=None, graph=None):
    explainer = Explainer(
        part,
        algorithm,
        explanation_type="model" if target is None else "phenomenon",
        node_mask_type=node,
        edge_mask_type=edge,
        model_config=CONFIG,
    )
    x, edge_index, edge_attr = graph or inputs(part)
    target = None if target is None else torch.tensor([target])
    return explainer(x, edge_index, edge_attr=edge_attr, target=target)


@pytest.mark.parametrize("fusion", ["bottleneck", "cross_attention", "late"])
@pytest.mark.parametrize("stream", STREAMS)
def test_on_its_own_graph_it_is_the_model(fusion, stream):
    model = small_model(fusion=fusion)
    for layer in model.gasm_cast.fusion_layers:
        for name, parameter in layer.named_parameters():
            if "expand" in name or "out" in name:
                torch.nn.init.normal_(parameter, std=0.3)
    clip = torch.rand(16, 3, IMAGE_SIZE, IMAGE_SIZE)
    model.eval()
    with torch.no_grad():
        logits = model(clip[None])
    for frozen in (model, model.fuse_for_inference()):
        part = GraphPart(frozen, inspect_clip(frozen, clip), stream)
        assert part.stream == stream
        torch.testing.assert_close(part(*inputs(part)), logits)


@pytest.mark.parametrize("stream", STREAMS)
def test_the_graph_and_the_features_are_what_it_depends_on(model, seen, stream):
    part = GraphPart(model, seen, stream)
    x, edge_index, edge_attr = inputs(part)
    logits = part(x, edge_index, edge_attr)
    loops = edge_index[0] == edge_index[1]
    for changed in [
        (x.roll(1, 0), edge_index, edge_attr),
        (x, edge_index[:, loops], edge_attr[loops]),
        (x, edge_index, edge_attr * 2),
    ]:
        assert (part(*changed) - logits).abs().max() > 1e-4


@pytest.mark.parametrize("stream", STREAMS)
def test_attention_explainer_gives_the_attention_of_the_graph(model, seen, stream):
    part = GraphPart(model, seen, stream)
    attention = part.graph.attention
    mean = explain(part, AttentionExplainer("mean"), edge="object").edge_mask
    torch.testing.assert_close(mean, seen.graph_attention(stream))
    most = explain(part, AttentionExplainer("max"), edge="object").edge_mask
    torch.testing.assert_close(most, attention.amax(dim=1))
    loops = part.graph.edge_index[0] == part.graph.edge_index[1]
    assert int(loops.sum()) == part.graph.num_nodes
    assert (mean[loops] > 0).all()


def test_gnn_explainer_finds_the_one_edge_that_matters():
    """One patch alone sends messages, along one edge: the rest of the graph says nothing."""
    model = made(fusion="late")
    seen = inspect_clip(model, torch.rand(16, 3, IMAGE_SIZE, IMAGE_SIZE))
    part = GraphPart(model, seen, "spatial")
    x, edge_index, edge_attr = inputs(part)
    x = torch.randn(x.shape)  # the model's own are too much alike to tell one of them apart
    layer, sender = part.graph_attention, 5
    out = (edge_index[0] == sender) & (edge_index[1] != sender)
    keep = edge_index[0] != sender
    keep[out.nonzero()[0]] = True
    edge_index, edge_attr = edge_index[:, keep], edge_attr[keep]
    planted = int((edge_index[0] == sender).nonzero())
    with torch.no_grad():
        only_sender = torch.linalg.pinv(layer.norm(x))[:, sender]
        message = 300 * part.classifier.weight[1, : x.size(1)]
        layer.attention.lin_l.weight.copy_(torch.outer(message, only_sender))
        layer.attention.lin_l.bias.zero_()
        logits = part(x, edge_index, edge_attr)[0]
    assert int(logits.argmax()) == 1
    torch.manual_seed(0)
    # The entropy would send each edge that does not matter to 0 or 1, as its random start has it.
    explanation = explain(
        part,
        GNNExplainer(epochs=60, lr=0.1, edge_ent=0.0),
        edge="object",
        graph=(x, edge_index, edge_attr),
    )
    mask = explanation.edge_mask
    others = mask[torch.arange(len(mask)) != planted]
    assert mask[planted] > 0.7
    assert others.max() < 0.3


def test_gnn_explainer_finds_the_one_node_that_matters():
    model = made(fusion="late")
    seen = inspect_clip(model, torch.rand(16, 3, IMAGE_SIZE, IMAGE_SIZE))
    part = GraphPart(model, seen, "spatial")
    x, edge_index, edge_attr = inputs(part)
    weight = part.classifier.weight[:, : x.size(1)]
    x = x - x @ torch.linalg.pinv(weight) @ weight  # of no class
    x[9] += 60 * weight[2] / weight[2].norm()
    with torch.no_grad():
        part.graph_attention.attention.lin_l.weight.zero_()
    torch.manual_seed(0)
    explanation = explain(
        part,
        GNNExplainer(epochs=60, lr=0.1),
        node="object",
        target=2,
        graph=(x, edge_index, edge_attr),
    )
    mask = explanation.node_mask[:, 0]
    assert mask[9] > 0.7
    assert mask[torch.arange(len(mask)) != 9].max() < 0.3


@pytest.mark.parametrize("stream", STREAMS)
def test_integrated_gradients_of_edges_are_complete(model, seen, stream):
    """They sum to what the logit loses when no message is passed."""
    pytest.importorskip("captum")
    part = GraphPart(model, seen, stream)
    x, edge_index, edge_attr = inputs(part)
    none = part(x, edge_index[:, :0], edge_attr[:0])
    for label in (None, 2):
        mask = explain(
            part, CaptumExplainer("IntegratedGradients"), edge="object", target=label
        ).edge_mask
        label = seen.label(label)
        gained = seen.logits[label] - none[0, label]
        assert abs(gained) > 1e-3
        torch.testing.assert_close(mask.sum().float(), gained, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("stream", STREAMS)
def test_integrated_gradients_of_features_are_complete(model, seen, stream):
    """They sum to the logit less that of the baseline, here the mean of the nodes everywhere."""
    pytest.importorskip("captum")
    part = GraphPart(model, seen, stream)
    x, edge_index, edge_attr = inputs(part)
    baseline = x.mean(dim=0).expand_as(x)
    algorithm = CaptumExplainer("IntegratedGradients", baselines=baseline.unsqueeze(0))
    mask = explain(part, algorithm, node="attributes").node_mask
    gained = seen.logits.max() - part(baseline, edge_index, edge_attr)[0, seen.label()]
    assert abs(gained) > 1e-3
    torch.testing.assert_close(mask.sum().float(), gained, rtol=1e-2, atol=1e-3)


def test_what_the_guide_says_of_the_other_attributions(model, seen):
    pytest.importorskip("captum")
    part = GraphPart(model, seen, "temporal")
    x, edge_index, edge_attr = inputs(part)
    gained = seen.logits.max() - part(x, edge_index[:, :0], edge_attr[:0])[0, seen.label()]
    # Shapley values add up with any number of samples.
    shapley = explain(part, CaptumExplainer("ShapleyValueSampling", n_samples=1), edge="object")
    torch.testing.assert_close(shapley.edge_mask.sum().float(), gained, rtol=1e-3, atol=1e-4)
    features = CaptumExplainer("ShapleyValueSampling", n_samples=1)
    zero = part(x * 0, edge_index, edge_attr)[0, seen.label()]
    mask = explain(part, features, node="attributes").node_mask
    torch.testing.assert_close(mask.sum().float(), seen.logits.max() - zero, rtol=1e-3, atol=1e-4)
    signed = explain(part, CaptumExplainer("InputXGradient"), edge="object").edge_mask
    for method, expected in (
        ("Saliency", signed.abs()),
        ("Deconvolution", signed),
        ("GuidedBackprop", signed),
    ):
        mask = explain(part, CaptumExplainer(method), edge="object").edge_mask
        torch.testing.assert_close(mask, expected)


def test_pg_explainer_runs_and_leaves_the_part_as_it_was(model, seen):
    part = GraphPart(model, seen, "temporal")
    x, edge_index, edge_attr = inputs(part)
    logits, target = part(x, edge_index, edge_attr), torch.tensor([1])
    algorithm = PGExplainer(epochs=2)
    explainer = Explainer(
        part,
        algorithm,
        explanation_type="phenomenon",
        edge_mask_type="object",
        model_config=CONFIG,
    )
    for epoch in range(2):
        algorithm.train(epoch, part, x, edge_index, target=target, edge_attr=edge_attr)
    explanation = explainer(x, edge_index, edge_attr=edge_attr, target=target)
    assert ((explanation.edge_mask > 0) & (explanation.edge_mask < 1)).all()
    assert 0 <= unfaithfulness(explainer, explanation) <= 1
    assert torch.equal(part(x, edge_index, edge_attr), logits)


def test_without_fusion_the_attribution_of_an_edge_is_its_message():
    """Late fusion is linear in the messages: attention times what the class makes of the source."""
    pytest.importorskip("captum")
    model = made(fusion="late")
    seen = inspect_clip(model, torch.rand(16, 3, IMAGE_SIZE, IMAGE_SIZE))
    part = GraphPart(model, seen, "spatial")
    x, (source, _), _ = inputs(part)
    layer = part.graph_attention
    sent = layer.attention.lin_l(layer.norm(x)).unflatten(1, (4, -1))[source]  # [E, H, C]
    weight = part.classifier.weight[1, : x.size(1)].unflatten(0, (4, -1))
    by_hand = (part.graph.attention * (sent * weight).sum(dim=-1)).sum(dim=1) / len(x)
    for method in ("IntegratedGradients", "InputXGradient"):
        mask = explain(part, CaptumExplainer(method), edge="object", target=1).edge_mask
        torch.testing.assert_close(mask.float(), by_hand, rtol=1e-4, atol=1e-7)


def state(module):
    return (
        [(each.training, getattr(each, "explain", None)) for each in module.modules()],
        [getattr(each, "_edge_mask", None) for each in module.modules()],
        [(name, p.requires_grad, p.grad) for name, p in module.named_parameters()],
    )


def test_masked_predictions_are_those_without_what_is_masked(model, seen):
    """What PyG's measures of faithfulness build on, also after an explainer."""
    part = GraphPart(model, seen, "spatial")
    x, edge_index, edge_attr = inputs(part)
    explainer = Explainer(
        part,
        GNNExplainer(epochs=2),
        explanation_type="model",
        edge_mask_type="object",
        model_config=CONFIG,
    )
    explanation = explainer(x, edge_index, edge_attr=edge_attr)
    assert all(0 <= value <= 1 for value in fidelity(explainer, explanation))
    masked = explainer.get_masked_prediction(
        x, edge_index, edge_mask=torch.zeros(edge_index.size(1)), edge_attr=edge_attr
    )
    torch.testing.assert_close(masked, part(x, edge_index[:, :0], edge_attr[:0]))
    assert (masked[0] - seen.logits).abs().max() > 1e-4


class Interrupted(GNNExplainer):
    def _loss(self, *args):
        raise KeyboardInterrupt


def test_nothing_is_left_behind(model, seen):
    pytest.importorskip("captum")
    clip, before = seen.frames, state(model)
    said = inspect_clip(model, clip).logits
    part = GraphPart(model, seen, "spatial")
    part_before, logits = state(part), part(*inputs(part))
    graph = part.graph.clone()
    explain(part, GNNExplainer(epochs=3), node="attributes", edge="object")
    explain(part, CaptumExplainer("Saliency"), edge="object", target=0)
    attention = explain(part, AttentionExplainer("mean"), edge="object").edge_mask
    torch.testing.assert_close(attention, seen.graph_attention("spatial"))
    explain(part, CaptumExplainer("Saliency"), node="attributes", edge="object")
    assert state(part) == part_before
    assert torch.equal(part(*inputs(part)), logits)
    for key, value in part.graph.items():
        assert torch.equal(value, graph[key])
        assert not value.requires_grad
    with pytest.raises(KeyboardInterrupt):
        explain(part, Interrupted(epochs=3), edge="object")
    assert state(part) != part_before  # the copy is spoilt
    assert state(model) == before
    assert model.training
    assert torch.equal(inspect_clip(model, clip).logits, said)


def test_what_does_not_fit_is_refused(model, seen):
    with pytest.raises(ValueError, match='stream must be "spatial" or "temporal", got \'both\''):
        GraphPart(model, seen, "both")
    with pytest.raises(
        ValueError,
        match="model: expected patches, segments and logits 24, 32, 5 wide, got 24, 32, 3",
    ):
        GraphPart(small_model(5), seen)
    torch.manual_seed(1)
    with pytest.raises(ValueError, match=r"another model: there the logit of class \d is .*, here"):
        GraphPart(small_model(), seen)
    part = GraphPart(model, seen, "temporal")
    x, edge_index, edge_attr = inputs(part)
    with pytest.raises(ValueError, match=r"x must be \[8, 32\], .* of the temporal graph, got \[5"):
        part(x[:5], edge_index, edge_attr)
