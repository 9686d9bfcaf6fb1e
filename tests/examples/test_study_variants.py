import math

import pytest
import torch
from interaction_study.features import Features, Scale
from interaction_study.training import Budget, predict, train
from interaction_study.variants import HEAD, VARIANTS

from gasmcast.graphs import check_graph

CLASSES = ("a", "b", "c")


@pytest.fixture(scope="module")
def features():
    drawn = torch.Generator().manual_seed(0)
    labels = torch.arange(12) % 3
    few = [torch.randn(12, count, 3, generator=drawn) for count in (16, 8)]
    wide = [torch.randn(3, width, generator=drawn) for width in (24, 32)]
    semantic, motion = (a @ b for a, b in zip(few, wide, strict=True))
    return Features(semantic, motion, labels, tuple(map(str, range(12))), CLASSES)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_parameter_of_a_variant_matters(name, features):
    given = VARIANTS[name].feed(features)
    model = VARIANTS[name].build(given, seed=0).train()
    for layer in model.gasm_cast.fusion_layers:
        for expand in ("sem_expand", "mot_expand"):
            if hasattr(layer, expand):
                torch.nn.init.normal_(getattr(layer, expand).weight)
    torch.manual_seed(0)
    logits = sum(model.forward_features(given.semantic, given.motion) for _ in range(4))
    torch.nn.functional.cross_entropy(logits, given.labels).backward()
    idle = [
        name for name, p in model.named_parameters() if p.grad is None or not p.grad.count_nonzero()
    ]
    assert not idle


def test_variants_differ_in_what_they_compute(features):
    found = {}
    for name, variant in VARIANTS.items():
        given = variant.feed(features)
        model = variant.build(given, seed=0).eval()
        found[name] = model.forward_features(given.semantic, given.motion)
    same = {"gasm_cast", "one_frame"}  # on other features
    same |= {"two_layers", "one_layer"}  # fresh layers change nothing, but draw random numbers
    names = [name for name in VARIANTS if name not in same]
    for place, name in enumerate(names):
        for other in names[place + 1 :]:
            assert not torch.equal(found[name], found[other]), (name, other)


def test_a_seed_gives_the_same_weights(features):
    one, same, other = (
        VARIANTS["gasm_cast"].build(features, seed).classifier.weight for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_random_edges_have_the_degrees_of_the_graph_and_other_sources(features):
    graphs = {}
    for name in ("gasm_cast", "random_edges"):
        stream = VARIANTS[name].build(features, seed=0).gasm_cast.semantic_graph
        graphs[name] = stream.build_graph(_places(), features=features.semantic, mask=None)
        check_graph(graphs[name])
    degrees = [graph.edge_index[1].bincount(minlength=12 * 16) for graph in graphs.values()]
    assert torch.equal(*degrees)
    assert degrees[0].unique().numel() > 3
    pairs = [set(map(tuple, graph.edge_index.t().tolist())) for graph in graphs.values()]
    assert len(pairs[0] & pairs[1]) < 0.8 * len(pairs[0])


def test_graphs_without_similarity_are_the_grid_and_full_ones_are_full(features):
    counts = {}
    for name in ("grid_only", "fully_connected"):
        stream = VARIANTS[name].build(features, seed=0).gasm_cast.semantic_graph
        graph = stream.build_graph(_places(), features=features.semantic, mask=None)
        counts[name] = graph.num_edges // 12
    assert counts == {"grid_only": 10 * 10, "fully_connected": 16 * 16}  # (4 + 2 * 3)^2


@pytest.mark.parametrize(("alone", "other"), [("semantic", "motion"), ("motion", "semantic")])
def test_a_stream_alone_sees_nothing_of_the_other(features, alone, other):
    given = VARIANTS[f"{alone}_alone"].feed(features)
    assert given.semantic is given.motion is getattr(features, alone)
    assert given.motion is not getattr(features, other)


def test_layers_are_left_out_from_the_end(features):
    for name, layers in (("one_layer", 1), ("two_layers", 2), ("gasm_cast", 3)):
        head = VARIANTS[name].build(features, seed=0).gasm_cast
        assert len(head.fusion_layers) == layers
        assert hasattr(head, "layer1_basic")


def test_layer_scale_is_taken_from_graphs_and_given_to_cross_attention(features):
    """Nothing else changes: what a layer adds is ten times as much, or a tenth."""
    added = {}
    for name in ("gasm_cast", "no_layer_scale"):
        graph = VARIANTS[name].build(features, seed=0).eval().gasm_cast.semantic_graph
        added[name] = graph(features.semantic, _places()) - features.semantic
    torch.testing.assert_close(added["no_layer_scale"], 10 * added["gasm_cast"])
    for name in ("cross_attention", "cross_attention_layer_scale"):
        layer = VARIANTS[name].build(features, seed=0).eval().gasm_cast.layer1_basic
        added[name] = layer(features.semantic, features.motion)[1] - features.motion
    torch.testing.assert_close(
        added["cross_attention_layer_scale"], 0.1 * added["cross_attention"], atol=1e-5, rtol=1e-4
    )


def test_what_a_variant_does_not_name_is_common_to_all(features):
    assert VARIANTS["bottleneck_256"].build(features, 0)._head_config == {
        **VARIANTS["gasm_cast"].build(features, 0)._head_config,
        "bottleneck_dim": 256,
    }
    assert HEAD["bottleneck_dim"] == 64


def test_a_share_has_clips_of_every_class(features):
    half = features.share(0.5, seed=1)
    assert half.labels.bincount().tolist() == [2, 2, 2]
    assert torch.equal(half.semantic, features.semantic[[int(name) for name in half.ids]])
    assert half.ids == features.share(0.5, seed=1).ids != features.share(0.5, seed=2).ids
    assert len(features.share(0.01, seed=1)) == 3


def test_channels_are_scaled_by_the_training_clips(features):
    train, test = features.take(range(8)), features.take(range(8, 12))
    scale = Scale.of(train)
    scaled = scale(train).motion.flatten(0, 1)
    torch.testing.assert_close(scaled.mean(dim=0), torch.zeros(32), atol=1e-5, rtol=0)
    torch.testing.assert_close(scaled.std(dim=0), torch.ones(32))
    mean, deviation = scale.motion
    torch.testing.assert_close(scale(test).motion * deviation + mean, test.motion)


def test_a_run_that_is_lost_is_told_by_its_course_and_ends_nothing(features):
    huge = features.with_streams(features.semantic * 1e38, features.motion)
    model = VARIANTS["late_fusion"].build(huge, seed=0)
    course = train(model, huge, Budget(steps=3, batch_size=4), learning_rate=1e-3, seed=0)
    assert math.isnan(course.losses[-1])
    assert math.isnan(course.norms[-1])
    assert len(predict(model, huge)) == len(huge)
    fine = train(model, features, Budget(steps=3, batch_size=4), learning_rate=1e-3, seed=0)
    assert len(fine.losses) == len(fine.norms) == 3
    assert all(map(math.isfinite, (*fine.losses, *fine.norms)))


def _places():
    from gasmcast import generate_spatial_positions

    return generate_spatial_positions(4)
