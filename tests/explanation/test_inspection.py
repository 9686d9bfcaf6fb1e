from copy import deepcopy
from dataclasses import replace

import networkx as nx
import pytest
import torch

from gasmcast import (
    TemporalCrossAttentionModel,
    VideoReadError,
    read_video,
    render_clip,
    segment_indices,
    to_networkx,
)
from gasmcast.datasets import write_rendered_dataset
from gasmcast.explanation import inspect_clip, load_clip
from gasmcast.graphs import EdgeRule
from small import IMAGE_SIZE, small_model


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = small_model(class_names=["lift", "drop", "turn"])
    for layer in model.gasm_cast.fusion_layers:  # fresh, they are the identity
        torch.nn.init.normal_(layer.sem_expand.weight, std=0.1)
        torch.nn.init.normal_(layer.mot_expand.weight, std=0.1)
    return model.train()


@pytest.fixture(scope="module")
def clip():
    torch.manual_seed(1)
    return torch.rand(16, 3, IMAGE_SIZE, IMAGE_SIZE)


@pytest.fixture(scope="module")
def seen(model, clip):
    return inspect_clip(model, clip)


@pytest.fixture(scope="module")
def pass_of_the_model(model, clip):
    """Logits and attention of a forward pass in ``eval()``."""
    model.eval()
    with torch.no_grad():
        logits, maps = model(clip.unsqueeze(0), return_attention=True)
    model.train()
    return logits[0], maps


def test_it_stays_as_it_is_when_the_model_trains_on(model, clip):
    mine = deepcopy(model)
    seen = inspect_clip(mine, clip)
    before = seen.logits.clone()
    with torch.no_grad():
        for parameter in mine.parameters():
            parameter.add_(1.0)
    patches, segments, bias = seen.evidence("lift")
    torch.testing.assert_close(patches.sum() + segments.sum() + bias, before[0])


def test_a_classifier_without_bias_gives_none(model, clip):
    mine = deepcopy(model)
    mine.classifier = torch.nn.Linear(mine.classifier.in_features, 3, bias=False)
    assert inspect_clip(mine, clip).bias.tolist() == [0.0] * 3


def test_it_is_what_a_forward_pass_gives(seen, pass_of_the_model, clip):
    logits, maps = pass_of_the_model
    torch.testing.assert_close(seen.logits, logits)
    torch.testing.assert_close(seen.probabilities, logits.softmax(0))
    assert torch.equal(seen.frames, clip)
    for stream, graph in (("spatial", maps.semantic_graph[0]), ("temporal", maps.motion_graph[0])):
        ours = seen.graph(stream)
        assert torch.equal(ours.edge_index, graph.edge_index)
        assert torch.equal(ours.edge_rule, graph.edge_rule)
        torch.testing.assert_close(ours.attention, graph.attention)
        torch.testing.assert_close(seen.graph_attention(stream, 3), graph.attention[:, 3])
        loops = ours.edge_index[0] == ours.edge_index[1]
        assert int(loops.sum()) == ours.num_nodes  # with the rest of a node's edges, 1 in all
        received = torch.zeros(ours.num_nodes).index_add_(
            0, ours.edge_index[1], seen.graph_attention(stream)
        )
        torch.testing.assert_close(received, torch.ones(ours.num_nodes))
    for layer in ("basic", "pattern", "action"):
        for direction in ("motion_to_semantic", "semantic_to_motion"):
            weights = getattr(getattr(maps, layer), direction)[0]
            torch.testing.assert_close(seen.cross_attention(layer, direction, 1), weights[1])
            torch.testing.assert_close(seen.cross_attention(layer, direction), weights.mean(0))
    assert seen.cross_attention("basic", "motion_to_semantic").shape == (8, 16)
    assert seen.cross_attention("basic", "semantic_to_motion").shape == (16, 8)


def test_networkx_gets_both_graphs_whole(seen):
    for stream in ("spatial", "temporal"):
        graph = seen.graph(stream)
        exported, of_head = to_networkx(graph), to_networkx(graph, head=2)
        assert exported.number_of_edges() == graph.num_edges
        assert dict(exported.nodes(data="pos")) == {
            node: tuple(place) for node, place in enumerate(graph.pos.tolist())
        }
        mean, two = seen.graph_attention(stream), seen.graph_attention(stream, 2)
        for edge, (source, target) in enumerate(graph.edge_index.t().tolist()):
            found = exported.edges[source, target]
            assert set(found) == {"rule", "distance", "similarity", "attention"}
            assert found["distance"] == float(graph.edge_attr[edge, -2])
            assert found["similarity"] == float(graph.edge_attr[edge, -1])
            assert found["attention"] == float(mean[edge])
            assert of_head.edges[source, target]["attention"] == float(two[edge])
            assert found["rule"] == EdgeRule(int(graph.edge_rule[edge])).label
        assert nx.number_of_selfloops(exported) == graph.num_nodes
        looks_at = dict(exported.in_degree(weight="attention"))
        assert looks_at == pytest.approx(dict.fromkeys(exported, 1.0))


def test_modes_are_put_back(model, clip, seen):
    assert model.training
    model.gasm_cast.layer1_basic.eval()
    again = inspect_clip(model, clip)
    assert model.training
    assert not model.gasm_cast.layer1_basic.training
    model.train()
    assert torch.equal(again.logits, seen.logits)


def test_evidence_sums_to_the_logit(seen, pass_of_the_model):
    logits, _ = pass_of_the_model
    for label, name in enumerate(seen.class_names):
        patches, segments, bias = seen.evidence(name)
        torch.testing.assert_close(patches.sum() + segments.sum() + bias, logits[label])
    assert torch.equal(seen.evidence().patches, seen.evidence(int(logits.argmax())).patches)
    patches, segments, bias = seen.evidence("lift", against="turn")
    torch.testing.assert_close(patches.sum() + segments.sum() + bias, logits[0] - logits[2])
    torch.testing.assert_close(patches, seen.patch_evidence[0] - seen.patch_evidence[2])


def test_evidence_is_grad_cam(model, clip, seen):
    """Gradient of the logit by the fused tokens, averaged over tokens, times the tokens."""
    model.eval()
    with torch.no_grad():
        features = model.semantic_extractor(clip[None]), model.motion_extractor(clip[None])
    tokens = [stream.detach().requires_grad_() for stream in model.fuse_features(*features)]
    logits = model.classifier(torch.cat([stream.mean(dim=1) for stream in tokens], dim=1))
    logits[0, 1].backward()
    model.train()
    for stream, ours in zip(tokens, seen.evidence("drop"), strict=False):
        weights = stream.grad[0].sum(dim=0)
        by_hand = (weights * stream.detach()[0]).sum(dim=1) / stream.size(1)
        torch.testing.assert_close(ours, by_hand, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("autocast", [True, False], ids=["autocast", "weights"])
def test_evidence_in_half_precision_sums_in_full(model, clip, seen, autocast):
    half = deepcopy(model) if autocast else deepcopy(model).bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        seen_half = inspect_clip(half, clip)
        with torch.no_grad():
            logits = half.eval()(clip.unsqueeze(0))[0]
    for label in range(3):
        patches, segments, bias = seen_half.evidence(label)
        torch.testing.assert_close(patches.sum() + segments.sum() + bias, seen_half.logits[label])
    assert seen_half.logits.dtype == patches.dtype == seen_half.spatial.attention.dtype
    assert patches.dtype == torch.float32
    torch.testing.assert_close(seen_half.logits, logits.float(), rtol=0.02, atol=0.02)
    torch.testing.assert_close(seen_half.logits, seen.logits, rtol=0.05, atol=0.05)


def test_evidence_needs_a_linear_classifier(model, clip):
    other = deepcopy(model)
    other.classifier = torch.nn.Sequential(other.classifier)
    with pytest.raises(ValueError, match="evidence needs a linear classifier, got Sequential"):
        inspect_clip(other, clip)


def test_what_is_not_there_is_named(seen):
    for call, message in [
        (lambda: seen.cross_attention("last", "motion_to_semantic"), "no fusion layer 'last'; it "),
        (lambda: seen.cross_attention("basic", "up"), "direction must be one of motion_to_s.*'up'"),
        (
            lambda: seen.cross_attention("basic", "motion_to_semantic", 4),
            "head must be None or 0 to 3",
        ),
        (lambda: seen.graph_attention("spatial", -1), "head must be None or 0 to 3, got -1"),
        (lambda: seen.graph_attention("spatial", True), "head must be None or 0 to 3, got True"),
        (lambda: seen.cross_attention("basic", "motion_to_semantic", 1.5), "or 0 to 3, got 1.5"),
        (lambda: seen.graph("both"), 'stream must be "spatial" or "temporal", got \'both\''),
        (lambda: seen.evidence("push"), "no class 'push': expected one of 'lift', 'drop', 'turn'"),
        (lambda: seen.evidence(3), "label must be a name or 0 to 2, got 3"),
        (lambda: seen.label(1.0), r"label must be a name or 0 to 2, got 1\.0"),
        (lambda: seen.top(0), "k must be at least 1, got 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()


def test_late_fusion_has_no_layers(clip):
    seen = inspect_clip(small_model(fusion="late"), clip)
    assert seen.layers == {}
    assert seen.class_names == ("class 0", "class 1", "class 2")
    torch.testing.assert_close(
        sum(part.sum() for part in seen.evidence(1)[:2]) + seen.bias[1], seen.logits[1]
    )
    with pytest.raises(ValueError, match='has none, it was made with fusion="late"'):
        seen.cross_attention("basic", "motion_to_semantic")


def test_top_and_text(seen):
    best = seen.top(2)
    assert [label for label, _ in best] == seen.logits.topk(2).indices.tolist()
    assert best[0][1] == pytest.approx(float(seen.probabilities.max()))
    assert len(seen.top(9)) == 3
    assert "16 patches, 8 segments, layers: basic, pattern, action" in repr(seen)


def test_frames_and_their_times(model, tmp_path):
    frames = render_clip("lift", "plain", seed=0, num_frames=16, size=40)
    seen = inspect_clip(model, frames)
    assert torch.equal(seen.frames, load_clip(model, frames))
    assert seen.pts_seconds is None
    with pytest.raises(ValueError, match=r"got \[0, 3, 8, 8\]"):
        inspect_clip(model, torch.zeros(0, 3, 8, 8))
    with pytest.raises(ValueError, match=r"must be uint8, or float in \[0, 1\], got torch.int64"):
        inspect_clip(model, frames.long())
    for wrong, came in (
        (frames.float(), r"got \d+ to 2\d\d"),
        (frames / 128 - 1, r"got -0\.\d+ to "),
    ):
        with pytest.raises(ValueError, match=rf"a float video must be RGB in \[0, 1\], {came}"):
            inspect_clip(model, wrong)
    with pytest.raises(ValueError, match="got NoneType"):
        inspect_clip(model, None)
    with pytest.raises(VideoReadError, match="nothing.mp4"):
        inspect_clip(model, tmp_path / "nothing.mp4")


def test_a_file_gives_the_times_of_the_frames_that_are_shown(model, tmp_path):
    (clip,) = write_rendered_dataset(
        tmp_path,
        clips_per_class={"test": 1},
        motions=("lift",),
        appearances=("plain",),
        num_frames=40,
        size=48,
    )["test"]
    path = tmp_path / clip.path
    video = read_video(path, torch.arange)  # all frames
    shown = video.pts_seconds[segment_indices(40, 16)]
    seen = inspect_clip(model, path)
    assert seen.name == str(path)
    assert torch.equal(seen.pts_seconds, shown)
    again = inspect_clip(model, video)
    assert torch.equal(again.frames, seen.frames)
    assert torch.equal(again.pts_seconds, shown)
    assert again.name == str(path)
    unknown = inspect_clip(model, replace(video, pts_seconds=video.pts_seconds * torch.nan))
    assert unknown.pts_seconds is None


@pytest.mark.parametrize("num_frames", [2, 3])
def test_a_short_video_is_filled_a_short_clip_is_not(num_frames, model):
    frames = render_clip("lift", "plain", seed=0, num_frames=16, size=IMAGE_SIZE)[:num_frames]
    seen = inspect_clip(model, frames)
    assert len(seen.frames) == 16
    assert len(seen.frames.unique(dim=0)) == num_frames
    given = inspect_clip(model, frames / 255)
    assert len(given.frames) == num_frames
    for part in (seen, given):
        patches, segments, bias = part.evidence()
        torch.testing.assert_close(patches.sum() + segments.sum() + bias, part.logits.max())


def test_the_inspection_is_not_the_callers_memory(model):
    clip = torch.rand(16, 3, IMAGE_SIZE, IMAGE_SIZE)
    before = clip.clone()
    seen = inspect_clip(model, clip)
    clip.zero_()
    assert torch.equal(seen.frames, before)


def test_within_autocast_evidence_is_as_fine_as_the_tokens(model, clip):
    with torch.autocast("cpu", torch.bfloat16):
        seen = inspect_clip(model, clip)
    assert {part.dtype for part in seen.evidence()[:2]} == {torch.float32}
    assert seen.logits.dtype == torch.float32
    # Rounded to bfloat16, values are multiples of much more than that.
    assert not torch.equal(seen.patch_evidence.bfloat16().float(), seen.patch_evidence)


def test_a_loaded_model_and_a_fused_one_see_the_same(model, clip, seen, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = TemporalCrossAttentionModel.from_pretrained(tmp_path)
    for other in (loaded, loaded.fuse_for_inference()):
        torch.testing.assert_close(inspect_clip(other, clip).logits, seen.logits)


def test_the_frame_to_draw_is_one_that_the_patches_come_from(model, seen, clip):
    assert seen.patch_frames == (4, 12)  # of two equal bins the centres
    assert seen.frame_index == 12
    other = clip.clone()
    kept = torch.zeros(len(clip), dtype=torch.bool)
    kept[list(seen.patch_frames)] = True
    other[~kept] = 0.5
    assert torch.equal(inspect_clip(model, other).spatial.x, seen.spatial.x)
    assert replace(seen, patch_frames=None).frame_index == 8
