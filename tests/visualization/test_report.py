import json
import re
from base64 import b64decode, b64encode
from dataclasses import replace
from hashlib import sha256
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gasmcast import VideoReadError, render_clip, write_report
from gasmcast.explanation import inspect_clip
from gasmcast.graphs import EdgeRule
from gasmcast.graphs.inspect import measures
from gasmcast.visualization import draw_segment_bars, overlay_patches
from small import IMAGE_SIZE, small_model
from visualization.inspections import full_size, seen_by_small_model

NASTY = "</script><img src=x onerror=alert(1)> & \"'`${1}{{ 7 * 7 }}\u2028\u202e\udcff <!--"


@pytest.fixture(scope="module")
def seen():
    (seen,) = seen_by_small_model(class_names=["lift", "drop", "turn"])
    return seen


class Elements(HTMLParser):
    """Elements of a page with their attributes, and what stands in scripts and styles."""

    def __init__(self, text):
        super().__init__()
        self.found, self.content, self.inside = [], {}, None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self.inside = dict(attrs).get("type", tag) if tag in ("script", "style") else None

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, data):
        if self.inside:
            self.content[self.inside] = self.content.get(self.inside, "") + data


def page(path):
    return Elements(path.read_text(encoding="utf-8"))


def page_data(path):
    return json.loads(page(path).content["application/json"])


def decode(array):
    values = np.frombuffer(b64decode(array["base64"]), f"<{array['type'][0]}4")
    return torch.tensor(values).view(array["shape"])


def test_the_page_holds_the_tensors(seen, tmp_path):
    path = tmp_path / "report.html"
    assert write_report(None, seen, path, labels="turn", names="a clip") == path
    (clip,) = page_data(path)["clips"]
    assert clip["name"] == "a clip"
    assert clip["truth"] == 2
    assert clip["grid"] == [4, 4]
    for stream in ("spatial", "temporal"):
        graph, ours = clip[stream], seen.graph(stream)
        assert torch.equal(
            torch.stack([decode(graph["source"]), decode(graph["target"])]), ours.edge_index.int()
        )
        assert torch.equal(decode(graph["rule"]), ours.edge_rule.int())
        assert torch.equal(decode(graph["attention"]), ours.attention)
        assert torch.equal(decode(graph["similarity"]), measures(ours)["similarity"])
    for layer, weights in seen.layers.items():
        for direction, array in clip["layers"][layer].items():
            assert torch.equal(decode(array), getattr(weights, direction))
    assert [entry["label"] for entry in clip["classes"]] == [label for label, _ in seen.top()]
    for entry in clip["classes"]:
        patches, segments, bias = seen.evidence(entry["label"])
        assert torch.equal(decode(entry["patches"]), patches)
        assert torch.equal(decode(entry["segments"]), segments)
        assert (entry["bias"], entry["logit"]) == (bias, float(seen.logits[entry["label"]]))
        assert entry["probability"] == float(seen.probabilities[entry["label"]])
        assert entry["name"] == seen.class_names[entry["label"]]
    for uri, frame in zip(clip["frames"], smooth_frames(seen), strict=True):
        picture = Image.open(BytesIO(b64decode(uri.removeprefix("data:image/jpeg;base64,"))))
        assert picture.size == (IMAGE_SIZE, IMAGE_SIZE)
        assert torch.tensor(np.array(picture)).float().mean() == pytest.approx(frame, abs=3)


def smooth_frames(seen):
    return [float(255 * frame.mean()) for frame in seen.frames]


def test_rules_have_the_colours_of_the_drawings(seen, tmp_path):
    rules = page_data(write_report(None, seen, tmp_path / "report.html"))["rules"]
    assert {rule["bit"] for rule in rules} == {int(rule) for rule in EdgeRule}
    assert {"bit": 2, "name": "adjacent", "color": "#0072b2"} in rules


def test_values_have_the_colours_of_the_figures(seen, tmp_path):
    colors = page_data(write_report(None, seen, tmp_path / "report.html"))["colors"]
    frame = seen.frames[0]
    for name, signed, least in (("plain", False, 0.0), ("signed", True, -1.0)):
        values = torch.linspace(least, 1, len(colors[name])).unsqueeze(0)
        heat = overlay_patches(frame, values, limits=(least, 1), signed=signed)
        if not signed:  # the page begins at the mean, where the frame is bare
            values = 0.5 + values / 2
        page = torch.tensor(colors[name]) / torch.tensor([255, 255, 255, 1])
        drawn = torch.from_numpy(heat.to_rgba(values.numpy()))[0]
        torch.testing.assert_close(page.double()[1:], drawn[1:], atol=0.02, rtol=0)
    bars = draw_segment_bars(torch.tensor([-1.0, 1.0]), signed=True)
    shades = [[round(255 * part) for part in bar.get_facecolor()[:3]] for bar in bars]
    assert [colors["below"], colors["above"]] == shades


def test_the_true_class_is_there_even_if_it_is_unlikely(tmp_path):
    (seen,) = seen_by_small_model(num_classes=8)
    last = int(seen.logits.argmin())
    (clip,) = page_data(write_report(None, [seen], tmp_path / "r.html", labels=[last]))["clips"]
    assert len(clip["classes"]) == 6
    assert clip["classes"][-1]["label"] == clip["truth"] == last


def test_the_same_input_gives_the_same_bytes_and_stays_as_it_was(seen, tmp_path):
    before = seen.frames.clone(), seen.spatial.attention.clone(), seen.spatial.edge_index.clone()
    one, two = (write_report(None, seen, tmp_path / f"{k}.html").read_bytes() for k in "12")
    assert one == two
    after = seen.frames, seen.spatial.attention, seen.spatial.edge_index
    assert all(map(torch.equal, before, after))


def test_a_video_is_inspected(tmp_path):
    model = small_model().eval()
    frames = render_clip("lift", "plain", seed=0, num_frames=16, size=40)
    data = page_data(write_report(model, [frames, frames], tmp_path / "report.html"))
    assert [clip["name"] for clip in data["clips"]] == ["clip 1", "clip 2"]
    assert [clip["truth"] for clip in data["clips"]] == [None, None]
    attention = decode(data["clips"][0]["spatial"]["attention"])
    torch.testing.assert_close(attention, inspect_clip(model, frames).spatial.attention)


def test_one_label_may_be_any_integer_and_a_name_may_be_left_out(seen, tmp_path):
    path = write_report(None, seen, tmp_path / "report.html", labels=np.int64(1), names=[None])
    (clip,) = page_data(path)["clips"]
    assert (clip["truth"], clip["name"]) == (1, "clip 1")


def test_late_fusion_has_no_layers(tmp_path):
    (seen,) = seen_by_small_model(fusion="late")
    (clip,) = page_data(write_report(None, seen, tmp_path / "report.html"))["clips"]
    assert clip["layers"] == {}


def test_times_begin_at_zero_and_the_name_is_that_of_the_file(seen, tmp_path):
    timed = replace(seen, name="/there/a clip.mp4", pts_seconds=torch.arange(16.0) / 8 + 3)
    (clip,) = page_data(write_report(None, timed, tmp_path / "report.html"))["clips"]
    assert clip["times"] == [k / 8 for k in range(16)]
    assert clip["name"] == "a clip.mp4"
    assert "/there" not in (tmp_path / "report.html").read_text()


def test_text_cannot_leave_its_place(seen, tmp_path):
    plain = page(write_report(None, seen, tmp_path / "plain.html"))
    named = replace(seen, name=NASTY.replace("/", ""), class_names=(NASTY, "drop", "turn"))
    path = write_report(None, [named, named], tmp_path / "nasty.html", names=[NASTY, "b"])
    nasty = page(path)
    assert nasty.found == plain.found  # no element more
    first, _ = page_data(path)["clips"]
    assert first["name"] == NASTY
    assert NASTY in [entry["name"] for entry in first["classes"]]


def test_the_browser_is_told_to_fetch_nothing_and_to_run_nothing_else(seen, tmp_path):
    elements = page(write_report(None, seen, tmp_path / "report.html"))
    (policy,) = (
        attributes["content"]
        for tag, attributes in elements.found
        if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    for kind in ("script", "style"):
        digest = b64encode(sha256(elements.content[kind].encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; img-src data:; ")
    for tag, attributes in elements.found:
        assert not {"onclick", "onerror", "onload", "style"} & set(attributes), tag
        assert attributes.get("href", attributes.get("src", "data:")).startswith("data:")
    everything = (tmp_path / "report.html").read_text()
    assert set(re.findall(r"https?://[^\"'\s]+", everything)) == {"http://www.w3.org/2000/svg"}


def test_a_clip_of_full_size_takes_less_than_3_mb(tmp_path):
    path = write_report(None, full_size(), tmp_path / "report.html", labels=0)
    assert path.stat().st_size < 3_000_000
    (clip,) = page_data(path)["clips"]
    assert clip["spatial"]["attention"]["shape"] == [196 * 26, 8]
    assert len(clip["frames"]) == 16


class NeverRun(torch.nn.Module):
    """Fails the test where a model is run before the arguments are checked."""

    class_names = ("lift", "drop", "turn")
    num_frames = 16
    image_size = 8

    def parameters(self, recurse=True):
        raise AssertionError("the model was run")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"videos": []}, ValueError, "videos must hold at least one video, got none"),
        ({"labels": [0, 1]}, ValueError, "labels must be one a video, 1, got 2"),
        ({"labels": "push"}, ValueError, "no class 'push': expected one of 'lift', 'drop'"),
        ({"labels": 3}, ValueError, "label must be a name or 0 to 2, got 3"),
        ({"names": []}, ValueError, "names must be one a video, 1, got 0"),
        ({"names": [Path("a")]}, ValueError, "a name must be text, or None for that of the file, "),
        ({"names": 7}, ValueError, "or None for that of the file, got 7"),
        ({"videos": ["nothing.mp4"]}, VideoReadError, "nothing.mp4: no such file"),
        (
            {"videos": [torch.rand(16, 3, 9, 8)]},
            ValueError,
            "a float video must be [T, 3, 8, 8], as the model takes it, got [16, 3, 9, 8]",
        ),
        (
            {"videos": [torch.full((1, 3, 8, 8), torch.nan)]},
            ValueError,
            "in [0, 1], got nan to nan",
        ),
        ({"videos": [torch.rand(16, 3, 8)]}, ValueError, "or [T, 3, H, W], got [16, 3, 8]"),
        ({"videos": [torch.zeros(16, 3, 8, 8).int()]}, ValueError, "must be uint8, or float in"),
        ({"model": None}, ValueError, "a model is needed for videos that are not inspected yet"),
        ({"path": "nowhere/report.html"}, FileNotFoundError, "its folder nowhere is not there"),
        ({"path": "."}, IsADirectoryError, "cannot write .: it is a folder"),
        ({"path": "a" * 240}, OSError, "File name too long"),
        ({"path": "a\0"}, ValueError, "cannot write 'a\\x00': embedded null byte"),
    ],
)
def test_what_does_not_fit_is_said_before_the_model_runs(
    arguments, error, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    given = {"model": NeverRun(), "videos": torch.rand(16, 3, 8, 8), "path": "report.html"}
    with pytest.raises(error, match=re.escape(message)):
        write_report(**{**given, **arguments})
    assert not list(tmp_path.iterdir())


def test_all_files_that_cannot_be_read_are_named_before_the_model_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("empty.mp4").touch()
    Path("odd.mp4").write_bytes(b"no video")
    videos = [torch.rand(16, 3, 8, 8), "gone.mp4", Path("empty.mp4"), "odd.mp4"]
    with pytest.raises(VideoReadError) as raised:
        write_report(NeverRun(), videos, "report.html")
    gone, empty, odd = str(raised.value).split("\n")
    assert gone == "gone.mp4: no such file"
    assert empty == "empty.mp4: expected a video file, got an empty file (0 bytes)"
    assert odd.startswith("odd.mp4: ")
    assert raised.value.path == "gone.mp4"
    assert not Path("report.html").exists()


def test_files_of_equal_name_are_told_apart(seen, tmp_path):
    paths = ["/x/a/p/1.mp4", "/x/b/p/1.mp4", "/x/b/2.mp4", "/x/b/2.mp4", "3.mp4", "p/3.mp4", None]
    videos = [replace(seen, name=path) for path in paths]
    path = write_report(None, videos, tmp_path / "report.html")
    expected = ["a/p/1.mp4", "b/p/1.mp4", "2.mp4", "2.mp4", "3.mp4", "p/3.mp4", "clip 7"]
    assert [clip["name"] for clip in page_data(path)["clips"]] == expected
    names = ["first", *[None] * 6]  # one that has a name of its own is in nobody's way
    path = write_report(None, videos, tmp_path / "report.html", names=names)
    assert [clip["name"] for clip in page_data(path)["clips"]] == ["first", "1.mp4", *expected[2:]]


def test_the_frames_of_the_patches(seen, tmp_path):
    for frames, shown, opened in (
        ((4, 12), [4, 12], 12),
        ((0, 0, 3), [0, 3], 0),  # of a clip with few frames
        (None, [], 8),
    ):
        known = replace(seen, patch_frames=frames)
        (clip,) = page_data(write_report(None, known, tmp_path / "report.html"))["clips"]
        assert (clip["patch_frames"], clip["frame"]) == (shown, opened)


def test_a_file_of_one_frame_has_no_times(seen, tmp_path):
    still = replace(seen, pts_seconds=torch.full((16,), 3.0))
    (clip,) = page_data(write_report(None, still, tmp_path / "report.html"))["clips"]
    assert clip["times"] is None


def test_logits_that_are_no_numbers_are_refused(seen, tmp_path):
    broken = replace(seen, logits=seen.logits * torch.nan)
    with pytest.raises(ValueError, match="the logits of 'clip 1' are not finite: .nan, nan, nan"):
        write_report(None, broken, tmp_path / "report.html")
