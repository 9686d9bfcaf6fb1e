import json
import re

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


def test_it_writes_one_page_for_all_videos(folder, tmp_path):
    videos = sorted(folder.rglob("*.mp4"))
    assert len(videos) == 2
    named = ("--checkpoint", folder / "model", '--labels=["up", null]', "--output=page.html")
    printed = run("explore.py", *videos, *named, cwd=tmp_path).stdout
    page = (tmp_path / "page.html").read_text()
    assert (
        re.fullmatch(r"written: page.html, (\d+\.\d+) MB\n", printed)[1] == f"{len(page) / 1e6:.2f}"
    )
    data = json.loads(page.partition('id="data">')[2].partition("</script>")[0])
    assert [clip["name"] for clip in data["clips"]] == [video.name for video in videos]
    assert [clip["truth"] for clip in data["clips"]] == [0, None]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gone.mp4"], "error: gone.mp4: no such file\n"),
        (["gone.mp4", "--checkpoint=nothing"], "error: nothing is no folder: expected a saved "),
        (["gone.mp4", "--labels=[push]"], "error: the model has no class 'push': expected one of"),
        (["gone.mp4", "--output=no/page.html"], "error: cannot write no/page.html: its folder no"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(arguments, message, folder, tmp_path):
    given = ["--checkpoint", folder / "model", *arguments]
    assert run("explore.py", *given, cwd=tmp_path, status=1).stderr.startswith(message)
    assert not list(tmp_path.iterdir())
