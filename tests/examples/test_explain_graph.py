"""The script that explains an answer by edges prints and writes what the explainers give."""

import csv
import re
import runpy

import pytest
import torch
from matplotlib.figure import Figure

from examples.running import EXAMPLES, run
from gasmcast import to_networkx
from gasmcast.datasets import write_rendered_dataset
from gasmcast.explanation import GraphPart, inspect_clip
from small import small_model


@pytest.fixture(scope="module")
def model_and_video(tmp_path_factory):
    root = tmp_path_factory.mktemp("explain")
    torch.manual_seed(0)
    model = small_model(class_names=["$\\lift", "$drop$_", "a ^$ b_$"])  # no formulas
    for layer in model.gasm_cast.fusion_layers:  # fresh, they are the identity
        torch.nn.init.normal_(layer.sem_expand.weight, std=0.3)
        torch.nn.init.normal_(layer.mot_expand.weight, std=0.3)
    model.eval().save_pretrained(root / "model")
    clips = write_rendered_dataset(
        root / "clips",
        clips_per_class={"test": 1},
        motions=["lift"],
        appearances=["dotted"],
        num_frames=16,
        size=32,
    )
    return model, root / "model", root / "clips" / clips["test"][0].path


@pytest.mark.parametrize("stream", ["spatial", "temporal"])
@pytest.mark.parametrize("algorithm", ["attention", "gnn", "captum"])
def test_explain_graph_prints_draws_and_writes(algorithm, stream, model_and_video, tmp_path):
    if algorithm == "captum":
        pytest.importorskip("captum")
    model, checkpoint, video = model_and_video
    seen = inspect_clip(model, video)
    arguments = (video, "--checkpoint", checkpoint, "--algorithm", algorithm, "--stream", stream)
    printed = run("explain_graph.py", *arguments, "--top=3", cwd=tmp_path).stdout
    label, probability = seen.top(1)[0]
    assert printed.startswith(f"{seen.class_names[label]} ({probability:.0%})\n")

    path = tmp_path / "explanations" / f"{video.stem}_{stream}_{algorithm}.csv"
    assert path.with_suffix(".png").stat().st_size > 10_000
    rows = list(csv.DictReader(path.open()))
    graph = seen.graph(stream)
    exported = to_networkx(graph)
    ends = list(map(tuple, graph.edge_index.t().tolist()))
    assert [(int(row["source"]), int(row["target"])) for row in rows] == ends
    for row, edge in zip(rows, ends, strict=True):
        assert row["rule"] == exported.edges[edge]["rule"]
        assert float(row["attention"]) == pytest.approx(exported.edges[edge]["attention"])
    values = dict(zip(ends, (float(row["value"]) for row in rows), strict=True))
    if algorithm == "attention":
        assert list(values.values()) == pytest.approx(seen.graph_attention(stream).tolist())
    if algorithm == "gnn":
        assert all(0 <= value <= 1 for value in values.values())

    between = [value for (source, target), value in values.items() if source != target]
    found = re.search(r"^all (\d+) edges: (\S+) to (\S+), mean ([^:\s]+)", printed, re.MULTILINE)
    assert int(found[1]) == len(between)
    expected = [min(between), max(between), sum(between) / len(between)]
    assert [float(number) for number in found.groups()[1:]] == pytest.approx(expected, abs=1e-4)
    assert re.search(rf"^all {graph.num_nodes}: \S+ to \S+, mean", printed, re.MULTILINE)

    edges = re.findall(r"^ *(\d+) <- (\d+) +(\S.*\S) +(\S+) +(\S+)$", printed, re.MULTILINE)
    assert len(edges) == 3
    others = [abs(value) for (source, target), value in values.items() if source != target]
    printed_values = [abs(float(edge[-1])) for edge in edges]
    assert printed_values == pytest.approx(sorted(others)[:-4:-1], abs=1e-4)
    for target, source, rule, similarity, value in edges:
        edge = int(source), int(target)
        assert exported.edges[edge]["rule"] == rule.strip()
        assert exported.edges[edge]["similarity"] == pytest.approx(float(similarity), abs=1e-3)
        assert values[edge] == pytest.approx(float(value), abs=1e-4)
    whole = re.search(r"^logit (-?\d+\.\d+); without these 3 edges", printed, re.MULTILINE)
    assert float(whole[1]) == pytest.approx(float(seen.logits.max()), abs=1e-3)


@pytest.mark.parametrize("stream", ["spatial", "temporal"])
def test_what_is_drawn_are_the_values(stream, model_and_video):
    model, _, video = model_and_video
    seen = inspect_clip(model, video)
    part = GraphPart(model, seen, stream)
    script = runpy.run_path(str(EXAMPLES / "explain_graph.py"))
    nodes = torch.arange(part.graph.num_nodes) - 3.0
    values = script["Values"](torch.arange(part.graph.num_edges) - 20.0, nodes)
    for top in (4, 0):  # a lone segment has self-loops alone
        chosen = script["strongest"](part, values.edges, top)
        assert len(chosen) == top
        figure = Figure(layout="constrained")
        script["draw"](figure, part, seen, values, chosen)
        figure.draw_without_rendering()
        of_edges, of_nodes = figure.axes[0 if stream == "spatial" else 1], figure.axes[-2]
        low, high = of_edges.collections[0].get_clim()
        assert -low == high  # values of both signs: 0 is in the middle
        lines = of_edges.collections[0].get_array()
        assert sorted(lines) == sorted(values.edges[chosen].tolist())
        if stream == "temporal":
            assert [bar.get_height() for bar in of_nodes.patches] == nodes.tolist()
        else:
            heat = figure.axes[1].images[1].get_array()
            assert heat.flatten().tolist() == nodes.tolist()


@pytest.mark.parametrize("stream", ["spatial", "temporal"])
def test_nearly_uniform_values_look_it_and_are_called_so(stream, model_and_video):
    model, _, video = model_and_video
    seen = inspect_clip(model, video)
    part = GraphPart(model, seen, stream)
    script = runpy.run_path(str(EXAMPLES / "explain_graph.py"))
    edges = torch.linspace(0.0117, 0.0147, part.graph.num_edges)
    nodes = torch.linspace(0.0117, 0.0147, part.graph.num_nodes)
    figure = Figure(layout="constrained")
    chosen = script["strongest"](part, edges, 4)
    script["draw"](figure, part, seen, script["Values"](edges, nodes), chosen)
    of_edges = figure.axes[0 if stream == "spatial" else 1]
    mean = float(edges[script["between"](part)].mean())
    assert of_edges.collections[0].get_clim() == pytest.approx((0, 2 * mean))
    titles = [ax.get_title() for ax in figure.axes if "\n" in ax.get_title()]
    assert [title.partition("\n")[0] for title in titles] == [
        "the 4 strongest edges",
        "all patches, over frame 12 (of 0 to 15)" if stream == "spatial" else "all segments",
    ]
    assert all(re.fullmatch(r".*\n\(of all, .*: nearly uniform\)", title) for title in titles)
    if stream == "temporal":
        assert figure.axes[2].get_ylim()[0] == 0
    else:
        assert figure.axes[1].images[1].get_clim()[0] == 0
    spread = script["spread"]
    assert spread(torch.tensor([0.1, 0.3])) == "0.1000 to 0.3000, mean 0.2000"
    assert spread(torch.tensor([-0.2, -0.21])) == "-0.2100 to -0.2000, mean -0.2050: nearly uniform"


def test_mistakes_get_one_line(model_and_video, tmp_path):
    _, checkpoint, video = model_and_video
    said = run("explain_graph.py", video, "--checkpoint=nowhere", cwd=tmp_path, status=1).stderr
    assert said == "error: nowhere is no folder: expected a saved model\n"
    arguments = (video, "--checkpoint", checkpoint, "--top=0")
    said = run("explain_graph.py", *arguments, cwd=tmp_path, status=1).stderr
    assert said == "error: top must be at least 1, got 0\n"
