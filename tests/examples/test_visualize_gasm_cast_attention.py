import pytest
import torch

from examples.running import run
from gasmcast.datasets import write_rendered_dataset
from small import small_model

SCRIPT = "visualize_gasm_cast_attention.py"
FIGURES = ["graph_attention", "cross_attention_layers", "class_evidence"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A clip and two saved models."""
    root = tmp_path_factory.mktemp("visualize")
    write_rendered_dataset(
        root, clips_per_class={"test": 1}, motions=("lift",), appearances=("plain",), size=40
    )
    next(root.rglob("*.mp4")).rename(root / "clip.mp4")
    torch.manual_seed(0)
    small_model(class_names=["lift", "drop", "turn"]).save_pretrained(root / "model")
    small_model(fusion="late").save_pretrained(root / "late")
    return root


def draw(folder, *options, checkpoint="model", **how):
    arguments = ("clip.mp4", "--checkpoint", checkpoint, *options)
    return run(SCRIPT, *arguments, cwd=folder, **how)


def said_first(printed):
    return " ".join(printed.splitlines()[0].split())


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_it_writes_three_figures_from_one_pass(ending, folder, tmp_path):
    options = ("--head=1", "--label=drop", "--against=0", "--truth=turn", f"--format={ending}")
    printed = draw(folder, "--output", tmp_path / "made", *options).stdout
    paths = [tmp_path / "made" / f"clip_{name}.{ending}" for name in FIGURES]
    assert [line.removeprefix("written: ") for line in printed.splitlines()[3:]] == [
        str(path) for path in paths
    ]
    assert all(path.stat().st_size > 10_000 for path in paths)
    if ending == "svg":
        assert "head 1 of 0 to 3" in paths[0].read_text()
        assert "head 1 of 0 to 3" in paths[1].read_text()
        said = "which is right" if "% turn" in said_first(printed) else "true: turn"
        for path in paths:
            assert said in path.read_text()
            assert "clip.mp4: says " in path.read_text()
        assert "evidence for drop" in paths[2].read_text()
        assert "rather than lift" in paths[2].read_text()


def test_late_fusion_has_two_figures(folder, tmp_path):
    printed = draw(folder, "--output", tmp_path, checkpoint="late").stdout
    assert 'no picture of the fusion layers: the model was made with fusion="late"' in printed
    assert {path.name for path in tmp_path.iterdir()} == {
        "clip_graph_attention.png",
        "clip_class_evidence.png",
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--head=4"], "error: head must be None or 0 to 3, got 4"),
        (["--label=push"], "error: the model has no class 'push': expected one of 'lift'"),
        (["--label=0", "--against=9"], "error: label must be a name or 0 to 2, got 9"),
        (["--truth=push"], "error: the model has no class 'push': expected one of 'lift'"),
        (["--label=drop", "--against=1"], "error: label and against must be two classes, got"),
        (["--checkpoint=nowhere"], "error: nowhere is no folder: expected a saved model"),
    ],
)
def test_mistakes_get_one_clear_line(options, message, folder):
    (line,) = draw(folder, *options, "--output=none", status=1).stderr.splitlines()
    assert line.startswith(message)
    assert not (folder / "none").exists()
