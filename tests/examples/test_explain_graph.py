"""The script that explains an answer by edges prints and writes what the explainers give."""

import csv
import json
import re

import networkx as nx
import pytest
import torch

from examples.running import run
from gasmcast.datasets import write_rendered_dataset
from gasmcast.explanation import inspect_clip
from small import small_model


@pytest.fixture(scope="module")
def model_and_video(tmp_path_factory):
    root = tmp_path_factory.mktemp("explain")
    torch.manual_seed(0)
    model = small_model(class_names=["lift", "drop", "turn"])
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

    path = tmp_path / "explanations" / f"{video.stem}_{stream}_{algorithm}.json"
    assert path.with_suffix(".png").stat().st_size > 10_000
    rows = list(csv.DictReader(path.with_suffix(".csv").open()))
    exported = nx.node_link_graph(json.loads(path.read_text()), edges="edges")
    graph = seen.graph(stream)
    assert exported.graph["class_name"] == seen.class_names[label]
    assert exported.number_of_edges() == len(rows) == graph.num_edges
    values = {(int(row["source"]), int(row["target"])): float(row["value"]) for row in rows}
    assert values == nx.get_edge_attributes(exported, "value")
    if algorithm == "attention":
        mean = seen.graph_attention(stream).tolist()
        ends = map(tuple, graph.edge_index.t().tolist())
        assert values == pytest.approx(dict(zip(ends, mean, strict=True)))
    if algorithm == "gnn":
        assert all(0 <= value <= 1 for value in values.values())

    edges = re.findall(r"^ *(\d+) <- (\d+) +(\S.*\S) +(\S+) +(\S+)$", printed, re.MULTILINE)
    assert len(edges) == 3
    others = [abs(value) for (source, target), value in values.items() if source != target]
    printed_values = [abs(float(edge[-1])) for edge in edges]
    assert printed_values == pytest.approx(sorted(others)[:-4:-1], abs=1e-4)
    for target, source, rule, similarity, value in edges:
        known = exported.edges[int(source), int(target)]
        assert known["rule"] == rule.strip()
        assert known["similarity"] == pytest.approx(float(similarity), abs=1e-3)
        assert known["value"] == pytest.approx(float(value), abs=1e-4)
    whole = re.search(r"^logit (-?\d+\.\d+); without these 3 edges", printed, re.MULTILINE)
    assert float(whole[1]) == pytest.approx(float(seen.logits.max()), abs=1e-3)


def test_mistakes_get_one_line(model_and_video, tmp_path):
    _, checkpoint, video = model_and_video
    said = run("explain_graph.py", video, "--checkpoint=nowhere", cwd=tmp_path, status=1).stderr
    assert said == "error: nowhere is no folder: expected a saved model\n"
    arguments = (video, "--checkpoint", checkpoint, "--top=0")
    said = run("explain_graph.py", *arguments, cwd=tmp_path, status=1).stderr
    assert said == "error: top must be at least 1, got 0\n"
    (tmp_path / "file").write_text("")
    arguments = (video, "--checkpoint", checkpoint, "--output=file")
    assert "error: " in run("explain_graph.py", *arguments, cwd=tmp_path, status=1).stderr
