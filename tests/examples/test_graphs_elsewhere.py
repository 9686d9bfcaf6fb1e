"""The example on digits: what it prints, that each flag reaches what it names, what it claims."""

import re
import runpy
import sys
from pathlib import Path

import pytest
import torch
from torch_geometric.data import Batch

from gasmcast.graphs import EdgeRule, check_graph

SCRIPT = Path(__file__).parents[2] / "examples" / "graphs_elsewhere.py"
KINDS = (
    "no neighbours",
    "grid",
    "grid | similar",
    "4 sides | alike elsewhere",
    "same row or column",
)
ROW = re.compile(r"^(.+?) +(\d+) +(\d+\.\d)%   ([\d.% ]+)$", re.MULTILINE)


def make_graphs(example, digits, similarity_threshold=0.9, neighbors=2):
    patches = Batch.from_data_list(example.as_patches(*example.load_digits(digits)))
    transforms = example.graph_transforms(similarity_threshold, neighbors)
    return {name: transform(patches) for name, transform in transforms.items()}


def run(monkeypatch, *arguments):
    """The script as from the command line, without the seconds of another interpreter."""
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
    runpy.run_path(str(SCRIPT), run_name="__main__")


def test_command_prints_and_draws_what_it_says(tmp_path, monkeypatch, capsys):
    run(monkeypatch, "--digits=40", "--epochs=1", "--runs=2", "--output", tmp_path / "out")
    printed = capsys.readouterr().out
    assert re.search(r"one digit as a graph, grid \| similar\nnodes +16\n", printed)
    assert "30 digits to train on, 10 to test on\n" in printed
    rows = ROW.findall(printed)
    assert tuple(name for name, *_ in rows) == KINDS
    for _, _, mean, each in rows:
        runs = [float(run.rstrip("%")) for run in each.split()]
        assert len(runs) == 2
        assert float(mean) == pytest.approx(sum(runs) / 2, abs=0.11)
    best = max(rows, key=lambda row: float(row[2]))[0]
    assert f"best: {best}; similarity on top of the grid: " in printed
    assert "(one digit of the test is 10.0 points)" in printed
    assert (tmp_path / "out" / "digit.png").stat().st_size > 50_000


def test_nodes_are_the_patches(example):
    images, labels = example.load_digits(8)
    assert sorted(example.load_digits(1797)[1].bincount().tolist())[0] > 170
    assert torch.equal(example.load_digits(1797)[0][:8], images)
    for data, image, label in zip(example.as_patches(images, labels), images, labels, strict=True):
        assert int(data.y) == int(label)
        for pixels, (column, row) in zip(data.x, data.pos.long().tolist(), strict=True):
            patch = image[2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            assert torch.equal(pixels, patch.flatten())


def test_graphs_hold_what_their_names_say(example):
    graphs = make_graphs(example, 20)
    bits = {}
    for name, graph in graphs.items():
        check_graph(graph)
        between = graph.edge_index[0] != graph.edge_index[1]
        bits[name] = {EdgeRule(bit).label for bit in graph.edge_rule[between].tolist()}
    assert bits == {
        "no neighbours": set(),
        "grid": {"adjacent"},
        "grid | similar": {"adjacent", "similar", "adjacent + similar"},
        "4 sides | alike elsewhere": {"adjacent", "nearest"},
        "same row or column": {"other"},
    }
    alike = graphs["4 sides | alike elsewhere"]
    chosen = alike.edge_rule == EdgeRule.NEAREST
    apart = (alike.pos[alike.edge_index[0]] - alike.pos[alike.edge_index[1]]).abs().amax(dim=1)
    assert (apart[chosen] > 1).all()
    row = graphs["same row or column"]
    offsets = row.pos[row.edge_index[0]] - row.pos[row.edge_index[1]]
    assert (offsets == 0).any(dim=1).all()
    assert row.num_edges == 20 * 16 * 7


def test_options_of_the_graphs_reach_them(example):
    few, many = make_graphs(example, 8), make_graphs(example, 8, 0.5, neighbors=8)
    assert many["grid | similar"].num_edges > few["grid | similar"].num_edges
    assert many["4 sides | alike elsewhere"].num_edges > few["4 sides | alike elsewhere"].num_edges
    assert torch.equal(many["grid"].edge_index, few["grid"].edge_index)


@pytest.mark.parametrize("epochs", [1, 3])
def test_options_of_the_training_reach_it(example, epochs, monkeypatch, tmp_path, capsys):
    calls = []
    monkeypatch.setattr(example, "train_and_test", lambda *args: calls.append(args) or 0.5)
    example.main(tmp_path, similarity_threshold=0.5, neighbors=8, digits=12, epochs=epochs, runs=3)
    made = make_graphs(example, 12, 0.5, 8)
    for number, (train, test, given_epochs, seed) in enumerate(calls):
        assert (len(train), len(test), given_epochs, seed) == (9, 3, epochs, number % 3)
        edges = sum(graph.num_edges for graph in (*train, *test))
        assert edges == made[KINDS[number // 3]].num_edges
    assert len(calls) == 15
    assert capsys.readouterr().out.count("50.0% 50.0% 50.0%") == 5


def test_every_weight_of_the_network_is_trained(example):
    graphs = make_graphs(example, 16)["grid"]
    network = example.PatchGAT(graphs)
    network(graphs).square().sum().backward()
    assert all(bool((weight.grad != 0).any()) for weight in network.parameters())


def test_the_grid_helps(example):
    # The claim, after fewer passes than the example makes.
    graphs = make_graphs(example, 1797)
    accuracy = {}
    for name in ("no neighbours", "grid"):
        apart = graphs[name].to_data_list()
        accuracy[name] = example.train_and_test(apart[449:], apart[:449], epochs=4, seed=0)
    assert accuracy["grid"] > 0.87
    assert accuracy["grid"] > accuracy["no neighbours"] + 0.05


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--digits=3"], "error: digits must be between 8 and 1797, got 3"),
        (["--runs=0"], "error: epochs and runs must be at least 1, got 10 and 0"),
        (["--neighbors=-1"], "error: k must be an integer of at least 0, got -1"),
        ([], "error: scikit-learn is missing: pip install scikit-learn"),
    ],
)
def test_mistakes_get_one_clear_line(arguments, message, monkeypatch, tmp_path):
    if not arguments:
        monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, "--output", tmp_path, *arguments)
    assert stopped.value.code == message
