import json
import re
from pathlib import Path

import pytest
import torch

from examples.running import run
from gasmcast.datasets import write_rendered_dataset
from small import small_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two clips and a model that has not learned anything."""
    root = tmp_path_factory.mktemp("explore")
    write_rendered_dataset(
        root, clips_per_class={"test": 1}, motions=("lift", "drop"), appearances=("plain",), size=40
    )
    torch.manual_seed(0)
    small_model(2, class_names=["up", "down"]).save_pretrained(root / "model")
    return root


def clips_of(page):
    """What the page knows of each clip."""
    data = page.read_text().partition('id="data">')[2].partition("</script>")[0]
    return json.loads(data)["clips"]


def test_it_writes_one_page_for_all_videos(folder, tmp_path):
    videos = sorted(folder.rglob("*.mp4"))
    assert len(videos) == 2
    given = ("--labels", "up", "down", "--names", "a", "b", "--output=page.html")
    printed = run("explore.py", *videos, "--checkpoint", folder / "model", *given, cwd=tmp_path)
    page = tmp_path / "page.html"
    size = f"{page.stat().st_size / 1e6:.2f}"
    assert re.fullmatch(r"written: page.html, (\d+\.\d+) MB\n", printed.stdout)[1] == size
    assert [clip["name"] for clip in clips_of(page)] == ["a", "b"]
    assert [clip["truth"] for clip in clips_of(page)] == [0, 1]


def test_folders_name_the_classes_and_files_of_equal_name_are_told_apart(folder, tmp_path):
    found = sorted(folder.rglob("*.mp4"))
    videos = [Path("down/0.mp4"), Path("up/0.mp4")]
    for video, source in zip(videos, found, strict=True):
        (tmp_path / video).parent.mkdir()
        (tmp_path / video).symlink_to(source)
    given = ("--checkpoint", folder / "model", "--labels_from_folders")
    run("explore.py", *videos, *given, cwd=tmp_path)
    clips = clips_of(tmp_path / "report.html")
    assert [clip["truth"] for clip in clips] == [1, 0]
    assert [clip["name"] for clip in clips] == ["down/0.mp4", "up/0.mp4"]


def test_options_may_stand_in_a_file(folder, tmp_path):
    (video, _) = folder.rglob("*.mp4")
    options = {"checkpoint": str(folder / "model"), "labels": ["up"], "names": ["a"]}
    (tmp_path / "page.yaml").write_text(json.dumps(options))  # YAML as well
    run("explore.py", video, "--config=page.yaml", cwd=tmp_path)
    (clip,) = clips_of(tmp_path / "report.html")
    assert (clip["truth"], clip["name"]) == (0, "a")


def test_help_shows_an_example():
    printed = run("explore.py", "--help").stdout
    assert 'explore.py a.mp4 b.mp4 --labels "lifting up" "putting down"' in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gone.mp4"], "error: gone.mp4: no such file\n"),
        (["gone.mp4", "--checkpoint=nothing"], "error: nothing is no folder: expected a saved "),
        (["gone.mp4", "--labels", "push"], "error: the model has no class 'push': expected one of"),
        (["gone.mp4", "--labels", "up", "down"], "error: labels must be one a video, 1, got 2\n"),
        (["gone.mp4", "--names", "a", "b"], "error: names must be one a video, 1, got 2\n"),
        (["gone.mp4", "away.mp4"], "error: gone.mp4: no such file\naway.mp4: no such file\n"),
        (
            ["up/gone.mp4", "--labels", "up", "--labels_from_folders"],
            "error: --labels and --labels_from_folders cannot go together\n",
        ),
        (["gone.mp4", "--output=no/page.html"], "error: cannot write no/page.html: its folder no"),
    ],
)
def test_what_is_wrong_is_said_plainly(arguments, message, folder, tmp_path):
    given = ["--checkpoint", folder / "model", *arguments]
    assert run("explore.py", *given, cwd=tmp_path, status=1).stderr.startswith(message)
    assert not list(tmp_path.iterdir())
