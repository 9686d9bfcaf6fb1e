"""The analysis with networkx: its measures by hand, and the script from end to end."""

import re

import pytest
import torch
from matplotlib.figure import Figure

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
    evidence = seen.patch_evidence[first] - seen.patch_evidence[second]
    torch.testing.assert_close(found["evidence against the second class"], evidence)
    described = example.describe(seen)
    total = sum(
        described[f"logit over the second: from {part}"] for part in ("patches", "segments")
    )
    bias = float(seen.bias[first] - seen.bias[second])
    assert total + bias == pytest.approx(float(seen.logits[first] - seen.logits[second]), abs=1e-5)


def test_a_graph_that_knows_the_object_is_found_out(example):
    """Two halves without an edge between them."""
    on_object = torch.arange(16) < 8
    features = torch.stack([on_object.float(), 1 - on_object.float()], dim=1)
    positions = generate_spatial_positions(4) * 10  # nobody is adjacent
    graph = build_spatial_graph(positions, 0.9, features=features)
    graph.attention = torch.ones(graph.num_edges, 2) / 8
    seen = SeenGraph(graph)
    groups = {weight: example.communities(seen, weight) for weight in ("similarity", "attention")}
    central = {"one": on_object.float(), "even": torch.ones(16), "less": -on_object.float()}
    found = example.compare(on_object, graph, central, groups)
    assert [found[f"{name}: AUC"] for name in central] == [1, 0.5, 0]
    for weight in ("similarity", "attention"):
        assert found[f"communities by {weight}: mutual information"] == pytest.approx(1)
    assert found["edges within object or background"] == 1
    other = torch.arange(16) % 2 == 0
    found = example.compare(other, graph, central, groups)
    assert found["one: AUC"] == 0.5
    assert found["communities by attention: mutual information"] < 0.01
    assert found["edges within object or background"] == pytest.approx(3 / 7)


def test_the_outline_is_drawn_around_the_patches_of_the_object(example):
    on_object = torch.zeros(3, 4, dtype=torch.bool)
    on_object[0, 2:] = True  # at the border of the frame
    ax = Figure().add_subplot()
    ax.imshow([[0] * 4] * 3)
    example.draw_outline(ax, on_object)
    assert (ax.get_xlim(), ax.get_ylim()) == ((-0.5, 3.5), (2.5, -0.5))
    (path,) = ax.collections[0].get_paths()
    low, high = path.vertices.min(axis=0), path.vertices.max(axis=0)
    assert [*low, *high] == pytest.approx([1.5, -0.5, 3.5, 0.5], abs=0.04)


def test_differences_are_of_the_same_clip_with_their_standard_error(example, capsys):
    own, another = ([{"a": value} for value in values] for values in ((1, 5, 3), (0, 5, 1)))
    example.print_table(own, another)
    line = capsys.readouterr().out.splitlines()[1]
    assert line.split() == ["a", "3.00", "2.00", "1.00", "±", "0.58"]


def test_the_picture_says_what_the_outline_is(example, seen):
    figure = example.draw_clip({"trained": seen}, torch.arange(16) < 4)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["border of the object's patches"]


class SeenGraph:
    def __init__(self, graph):
        self.spatial = graph


def test_from_end_to_end(model, tmp_path):
    model.save_pretrained(tmp_path / "model")
    arguments = ("--checkpoint=model", "--clips=8")
    printed = run("graph_analysis.py", *arguments, cwd=tmp_path).stdout
    assert "of their patches are of the object" in printed
    assert re.findall(r"^(\w+): \d of \d clips named", printed, re.MULTILINE) == [
        "fresh",
        "trained",
    ]
    line = r"^communities by attention: mutual information +-?\d\.\d\d +-?\d\.\d\d +.* ± \d\.\d\d$"
    assert len(re.findall(line, printed, re.MULTILINE)) == 2
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
    small_model(1, class_names=CLASSES[:1]).save_pretrained(tmp_path / "one")
    said = run("graph_analysis.py", "--checkpoint=one", cwd=tmp_path, status=1).stderr
    assert said == "error: the model must know at least 2 classes, got 1\n"
