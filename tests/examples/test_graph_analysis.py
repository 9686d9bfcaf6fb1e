"""The analysis with networkx: its measures by hand, and the script from end to end."""

import csv

import pytest
import torch

from examples.running import EXAMPLES, run
from gasmcast import build_spatial_graph, generate_spatial_positions, render_clip
from gasmcast.datasets import class_name, render_object_mask
from gasmcast.explanation import inspect_clip
from small import small_model

pytest.importorskip("sklearn")

SCRIPT = EXAMPLES / "graph_analysis.py"
CLASSES = [
    class_name("lift", "plain"),
    class_name("towards", "plain"),
    class_name("turn_clockwise", "dotted"),
]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return small_model(class_names=CLASSES).eval()


@pytest.fixture(scope="module")
def seen(model):
    return inspect_clip(model, render_clip("lift", "plain", seed=3, size=32))


def test_a_patch_is_of_the_object_by_the_frames_that_the_model_looks_at(example, model):
    """Of 24 frames the model samples 16, and its extractor looks at the 5th and 13th of these."""
    mask = torch.zeros(24, 32, 32, dtype=torch.bool)
    chosen = [(2 * i + 1) * 24 // 32 for i in range(16)]
    mask[chosen[4], :8, 8:16] = True  # patch 1 in one of both: half
    mask[chosen[12], 24:, 24:] = True  # patch 15, but for one pixel, in the other: less
    mask[chosen[12], 24, 24] = False
    mask[chosen[5]] = True  # not looked at
    assert example.object_patches(model, mask).nonzero().flatten().tolist() == [1]


def test_clips_come_with_their_outlines(example):
    clips = example.outlined_clips([CLASSES[2], "swimming", CLASSES[0]], 3, seed=5)
    assert [clip.name for clip in clips] == [CLASSES[2], CLASSES[0], CLASSES[2]]
    assert torch.equal(clips[1].frames, render_clip("lift", "plain", seed=6))
    assert torch.equal(clips[1].mask, render_object_mask("lift", "plain", seed=6))
    with pytest.raises(ValueError, match="no class of the rendered set: swimming, running"):
        example.outlined_clips(["swimming", "running"], 3, seed=5)


def test_pagerank_is_where_one_ends_who_goes_where_patches_look(example, seen):
    found = example.centralities(seen)
    source, target = seen.spatial.edge_index
    step = torch.zeros(16, 16, dtype=torch.double)
    step[source, target] = seen.graph_attention("spatial").double()  # columns sum to 1
    rank = torch.full((16,), 1 / 16, dtype=torch.double)
    for _ in range(200):
        rank = 0.85 * step @ rank + 0.15 / 16
    torch.testing.assert_close(found["PageRank of attention"].double(), rank, rtol=1e-3, atol=1e-5)
    received = step.fill_diagonal_(0).sum(dim=1).float()
    torch.testing.assert_close(found["attention received"], received)
    segments = seen.layers["action"].motion_to_semantic.mean(dim=(0, 1))
    torch.testing.assert_close(found["taken by segments (action)"], segments)
    (first, _), (second, _) = seen.top(2)
    for name, evidence in [
        ("class evidence", seen.patch_evidence[first]),
        ("evidence against the second", seen.patch_evidence[first] - seen.patch_evidence[second]),
    ]:
        torch.testing.assert_close(found[name], evidence.clamp_min(0))


def test_a_graph_that_knows_the_object_is_found_out(example):
    """Two halves without an edge between them."""
    on_object = torch.arange(16) < 8
    features = torch.stack([on_object.float(), 1 - on_object.float()], dim=1)
    positions = generate_spatial_positions(4) * 10  # nobody is adjacent
    graph = build_spatial_graph(positions, 0.9, features=features)
    graph.attention = torch.ones(graph.num_edges, 2) / 8
    seen = SeenGraph(graph)
    groups = {weight: example.communities(seen, weight) for weight in ("similarity", "attention")}
    central = {"one": on_object.float(), "even": torch.ones(16)}
    found = example.hold_against(on_object, graph, central, groups)
    assert found["one: lift"] == 2
    assert found["one: hit"] == 1
    assert found["even: lift"] == 1
    for weight in ("similarity", "attention"):
        assert found[f"communities by {weight}: number"] == 2
        assert found[f"communities by {weight}: mutual information"] == pytest.approx(1)
        assert found[f"communities by {weight}: Rand index"] == pytest.approx(1)
    assert found["edges: within object or background"] == 1
    other = torch.arange(16) % 2 == 0
    found = example.hold_against(other, graph, central, groups)
    assert found["one: lift"] == 1
    assert found["communities by attention: mutual information"] < 0.01
    assert found["edges: within object or background"] == pytest.approx(3 / 7)


class SeenGraph:
    def __init__(self, graph):
        self.spatial = graph


def test_from_end_to_end(model, tmp_path):
    model.save_pretrained(tmp_path / "model")
    arguments = ("--checkpoint=model", "--clips=8")
    printed = run("graph_analysis.py", *arguments, cwd=tmp_path).stdout
    assert "of the patches are of the object" in printed
    assert "fresh: " in printed
    assert "trained: " in printed
    assert "communities by attention: mutual information" in printed
    rows = list(csv.DictReader((tmp_path / "analysis" / "clips.csv").open()))
    kinds = ["fresh", "fresh, control", "trained", "trained, control"]
    assert list(dict.fromkeys(row["model"] for row in rows)) == kinds
    trained = [float(row["class evidence: lift"]) for row in rows if row["model"] == "trained"]
    mean = sum(trained) / len(trained)
    line = next(line for line in printed.splitlines() if line.startswith("class evidence: lift"))
    assert f"{mean:.2f} ± " in line
    assert (tmp_path / "analysis" / "clip.png").stat().st_size > 20_000
    assert run("graph_analysis.py", *arguments, cwd=tmp_path).stdout == printed


def test_mistakes_get_one_line(model, tmp_path):
    said = run("graph_analysis.py", "--checkpoint=nowhere", cwd=tmp_path, status=1).stderr
    assert said == "error: nowhere is no folder: expected a saved model\n"
    model.save_pretrained(tmp_path / "model")
    said = run("graph_analysis.py", "--checkpoint=model", "--clips=1", cwd=tmp_path, status=1)
    assert said.stderr.startswith(
        "error: the control needs clips with patches of the object, at least 2: got "
    )
