"""The scripts do what they say, from any directory."""

import json
import os
import re
import subprocess
import sys

import networkx as nx
import pytest

from examples.running import EXAMPLES, run

SCRIPTS = sorted(path.name for path in EXAMPLES.glob("*.py"))


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    """A short run of the quickstart as a command: output on the screen and its folder."""
    cwd = tmp_path_factory.mktemp("quickstart")
    short = ("--train_clips=2", "--test_clips=1", "--epochs=1", "--output=q")
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "quickstart.py"), *short],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=400,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout, cwd / "q"


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_explains_every_option(script, tmp_path):
    text = run(script, "--help", cwd=tmp_path).stdout
    options = re.split(r"\n  (?=-)", text.partition("options:")[2])[1:]
    assert len(options) >= 4
    for option in options:
        explained = re.sub(r"\(.*\)", "", option.partition(" ")[2], flags=re.DOTALL)
        explained = re.sub(r"^\S*\s", "", explained).strip()
        assert len(explained) > 5, f"{script}: no word on {option}"


def test_quickstart_does_all_it_says(quickstart):
    printed, output = quickstart
    for step in range(1, 7):
        assert f"{step}. " in printed
    assert re.search(r"top-1 +\d+\.\d%  \(chance 12\.5%\)", printed)
    assert "the model says: moving a " in printed
    for name in ("graph_attention.png", "cross_attention.png"):
        assert (output / name).stat().st_size > 10_000
    results = json.loads((output / "run" / "results.json").read_text())
    assert results["num_videos"] == 8
    assert results["chance"] == 0.125


def test_predict_names_five_actions_and_draws(quickstart, tmp_path):
    _, output = quickstart
    video = next((output / "clips" / "test").rglob("*.mp4"))
    done = run(
        "predict.py",
        video,
        "--checkpoint",
        output / "run" / "model",
        "--pictures=pictures",
        cwd=tmp_path,
    )
    lines = done.stdout.splitlines()
    found = [re.fullmatch(r" *(\d+\.\d+)%  (.+)", line) for line in lines[:5]]
    assert all(found)
    probabilities = [float(match[1]) for match in found]
    assert probabilities == sorted(probabilities, reverse=True)
    assert {match[2] for match in found} <= {
        path.name.replace("_", " ") for path in (output / "clips" / "test").iterdir()
    }
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {
        f"{video.stem}_graph_attention.png",
        f"{video.stem}_cross_attention_layers.png",
    }


@pytest.mark.parametrize("features", ["pixels", "model"])
def test_inspect_graph_prints_exports_and_draws(features, quickstart, tmp_path):
    _, output = quickstart
    video = next((output / "clips" / "test").rglob("*.mp4"))
    chosen = ["--checkpoint", output / "run" / "model"] if features == "model" else []
    printed = run("inspect_graph.py", video, *chosen, cwd=tmp_path).stdout
    patches = 64 if features == "model" else 196
    assert re.search(rf"nodes +{patches}\n", printed)
    assert re.search(r"nodes +8\n", printed)
    assert printed.count("components") == 2
    for name, nodes in (("spatial", patches), ("temporal", 8)):
        path = tmp_path / "graphs" / f"{video.stem}_{name}.json"
        graph = nx.node_link_graph(json.loads(path.read_text()), edges="edges")
        assert graph.number_of_nodes() == nodes
        assert all("rule" in attributes for *_, attributes in graph.edges(data=True))
        assert path.with_suffix(".png").stat().st_size > 5_000


def test_train_on_a_folder_with_configuration_and_overrides(quickstart, tmp_path):
    _, output = quickstart
    arguments = (
        *("--config", EXAMPLES / "configs" / "small.yaml"),
        *("--train", output / "clips" / "train", "--held_out=0.5", "--output=out"),
        *("--epochs=1", "--model.image_size=48", "--loader.num_workers=0"),
        *("--trainer.enable_progress_bar=false", "--trainer.limit_train_batches=1"),
    )
    printed = run("train.py", *arguments, cwd=tmp_path).stdout
    assert "8 videos to train on, 8 to test on; classes in order:\n  0  moving_a_checked" in printed
    assert re.search(r"top-5 .*\nmean class", printed)
    config = json.loads((tmp_path / "out" / "model" / "config.json").read_text())
    assert config["semantic_extractor"]["image_size"] == 48
    assert config["semantic_extractor"]["model_kwargs"]["patch_size"] == 12
    assert config["bottleneck_dim"] == 64
    assert len((tmp_path / "out" / "confusion_matrix.csv").read_text().splitlines()) == 9
    again = run("train.py", *arguments, cwd=tmp_path, status=1).stderr
    assert again.startswith("error: out holds a run already: resume it")
    resumed = run("train.py", *arguments, "--resume=true", cwd=tmp_path).stdout
    assert resumed == printed  # it was finished


def test_train_on_lists(quickstart, tmp_path):
    _, output = quickstart
    clips = output / "clips"
    printed = run(
        "train.py",
        *("--config", EXAMPLES / "configs" / "small.yaml"),
        *("--train", clips / "train.csv", "--test", clips / "test.csv"),
        *("--labels", clips / "labels.json", "--output=out", "--epochs=1"),
        *("--model.image_size=48", "--loader.num_workers=0"),
        *("--trainer.enable_progress_bar=false", "--trainer.limit_train_batches=1"),
        cwd=tmp_path,
    ).stdout
    assert "16 videos to train on, 8 to test on" in printed
    assert "  0  moving a plain object from left to right" in printed  # the order of labels.json


def test_mistakes_get_one_clear_line(quickstart, tmp_path):
    _, output = quickstart

    def error(script, *arguments):
        return run(script, *arguments, cwd=tmp_path, status=1).stderr

    (tmp_path / "empty").mkdir()
    said = error("train.py", "--train=empty", "--output=out")
    assert said.startswith("error: empty holds no class folders: expected empty/<class>/")
    said = error("train.py", "--train", output / "clips" / "train", "--output=out")
    assert "error: 'model.safetensors' of the Hugging Face repository" in said
    assert "pretrained=False" in said
    (tmp_path / "text.mp4").write_text("no video")
    (line,) = error("inspect_graph.py", "text.mp4").splitlines()
    assert line.startswith("error: text.mp4: expected a video file")
    said = error("predict.py", "text.mp4", "--checkpoint=nowhere")
    assert said == "error: nowhere is no folder: expected a saved model\n"


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("explain_graph.py", ["a.mp4", "--output"]),
        ("graph_analysis.py", ["--output"]),
        ("graphs_elsewhere.py", ["--output"]),
        ("inspect_graph.py", ["a.mp4", "--output"]),
        ("plot_run.py", ["a", "--output"]),
        ("predict.py", ["a.mp4", "--pictures"]),
        ("visualize_gasm_cast_attention.py", ["a.mp4", "--output"]),
    ],
)
def test_a_folder_that_cannot_be_written_to_is_named_before_all_else(script, arguments, tmp_path):
    *given, option = arguments  # none of the files that are given is there
    (tmp_path / "train.csv").write_text("kept")
    for folder, reason in (("train.csv", "it is a file"), ("train.csv/a/b", "train.csv is a file")):
        said = run(script, *given, f"{option}={folder}", cwd=tmp_path, status=1).stderr
        assert said == f"error: cannot write to {folder}: {reason}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["train.csv"]
    assert (tmp_path / "train.csv").read_text() == "kept"


def test_no_warning_of_others_is_shown(tmp_path):
    """In a process of its own: here, torch_geometric is imported already."""
    for script in ("explain_graph.py", "graph_analysis.py", "graphs_elsewhere.py"):
        done = subprocess.run(
            [sys.executable, str(EXAMPLES / script), "--help"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("script", "required", "short"),
    [
        ("train.py", ["--train=a"], "--epoch=1"),
        ("evaluate.py", ["--checkpoint=a", "--test=b"], "--crop=1"),
    ],
)
def test_no_option_can_be_shortened(script, required, short, tmp_path):
    error = run(script, *required, "--output=c", short, cwd=tmp_path, status=2).stderr
    assert f"unrecognized arguments: {short}" in error
