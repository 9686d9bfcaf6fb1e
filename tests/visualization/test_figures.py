import re
from dataclasses import replace

import pytest
import torch
from PIL import Image

from gasmcast import (
    VideoReadError,
    read_video,
    render_clip,
    visualize_class_evidence,
    visualize_cross_attention_layers,
    visualize_graph_attention,
)
from gasmcast.datasets import write_rendered_dataset
from gasmcast.explanation import inspect_clip, load_clip
from gasmcast.graphs.edge_values import MOST_WIDTH
from gasmcast.visualization import attention_received, cross_attention_means
from gasmcast.visualization.inspected import frames_shown
from small import IMAGE_SIZE, small_model


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    root = tmp_path_factory.mktemp("clip")
    (clip,) = write_rendered_dataset(
        root,
        clips_per_class={"test": 1},
        motions=("towards",),
        appearances=("checked",),
        size=48,
    )["test"]
    return root / clip.path


@pytest.fixture
def model():
    torch.manual_seed(0)
    return small_model(class_names=["$lift", "drop", "turn"]).train()


@pytest.fixture
def clip(model, video):
    return load_clip(model, video)


@pytest.fixture
def seen(model, clip):
    return inspect_clip(model, clip)


def run(model, clip):
    model.eval()
    with torch.no_grad():
        logits, maps = model(clip.unsqueeze(0), return_attention=True)
    return logits.softmax(1)[0], maps


def heat_map(ax, image):
    return torch.tensor(ax.images[image].get_array().data)


def titled(figure, beginning):
    (ax,) = (ax for ax in figure.axes if ax.get_title().startswith(beginning))
    return ax


DRAW = [visualize_graph_attention, visualize_cross_attention_layers, visualize_class_evidence]
ATTENTION = DRAW[:2]


@pytest.mark.parametrize("draw", DRAW)
@pytest.mark.parametrize("ending", ["png", "pdf", "svg"])
def test_pictures_are_written(draw, ending, model, video, tmp_path):
    path = tmp_path / f"picture.{ending}"
    model.gasm_cast.eval()
    draw(model, video, path)
    assert model.training  # put back, each part as it was
    assert not model.gasm_cast.layer1_basic.training
    assert path.stat().st_size > 10_000
    if ending == "png":
        with Image.open(path) as image:
            assert image.width > 1000
            assert len(image.convert("RGB").getcolors(1 << 24)) > 500


@pytest.mark.parametrize("draw", DRAW)
def test_title_is_the_prediction(draw, model, video):
    probabilities, _ = run(model, load_clip(model, video))
    label = int(probabilities.argmax())
    said = f"{model.class_names[label]}  ({probabilities[label]:.1%})".replace("$", r"\$")
    first, _ = draw(model, video).get_suptitle().splitlines()
    assert first == f"{video.name}: says {said}"
    assert draw(model, read_video(video).frames).get_suptitle().startswith(f"says {said}\n")


@pytest.mark.parametrize("draw", DRAW)
def test_title_tells_a_right_answer_from_a_wrong_one(draw, seen):
    best = seen.label()
    others = [name for number, name in enumerate(seen.class_names) if number != best]
    right, *_ = draw(None, seen, truth=best).get_suptitle().splitlines()
    assert right.endswith("%), which is right")
    wrong, true, *_ = draw(None, seen, truth=others[0]).get_suptitle().splitlines()
    assert wrong.endswith("%)")
    assert true == f"true: {others[0]}".replace("$", r"\$")


@pytest.mark.parametrize(
    ("patch_frames", "text"),
    [
        ((4, 12), "patches over frame 12 (of 0 to 15), made of 4 and 12"),
        ((2, 8, 13), "patches over frame 8 (of 0 to 15), made of 2, 8 and 13"),
        (tuple(range(1, 16, 2)), "patches over frame 9 (of 0 to 15), made of 8 from 1 to 15"),
        ((8,), "patches of frame 8 (of 0 to 15)"),
        (None, "patches over frame 8 (of 0 to 15)"),
    ],
)
def test_it_is_said_which_frame_lies_under_the_patches(patch_frames, text, seen):
    assert frames_shown(replace(seen, patch_frames=patch_frames)) == text


def test_every_figure_says_which_frame_lies_under_the_patches(seen):
    text = frames_shown(seen)
    for draw in ATTENTION:
        assert draw(None, seen).get_suptitle().endswith(f"; {text}")
    evidence = titled(visualize_class_evidence(None, seen), "patches, sum ")
    assert evidence.get_title().endswith(f"\n{text}")


def test_pairs_are_counted_as_they_are_drawn(seen):
    figure = visualize_graph_attention(None, seen)
    for stream, beginning in (("spatial", "patches: "), ("temporal", "segments: ")):
        tied = {frozenset(ends) for ends in seen.graph(stream).edge_index.t().tolist()}
        tied = len([pair for pair in tied if len(pair) == 2])
        title = titled(figure, beginning).get_title().partition("\n")[0]
        ax = figure.axes[figure.axes.index(titled(figure, beginning)) + (stream == "temporal")]
        places = {
            frozenset(tuple(map(float, line[end])) for end in (0, -1))
            for lines in ax.collections[:-1]
            for line in lines.get_segments()
        }
        fewer = f", {len(places)} drawn" if len(places) < tied else ""
        assert title == f"{beginning}{tied} pairs connected by rule{fewer}"
    assert fewer == ""  # over time, all are drawn


@pytest.mark.parametrize("head", [None, 0, 3])
def test_drawn_layers_are_the_attention(head, model, clip, seen):
    figure = visualize_cross_attention_layers(model, clip, head=head)
    _, maps = run(model, clip)
    patches, segments = cross_attention_means(seen, head)
    torch.testing.assert_close(patches.sum(1), torch.ones(3))
    torch.testing.assert_close(segments.sum(1), torch.ones(3))
    heads = slice(None) if head is None else slice(head, head + 1)
    by_hand = maps.pattern.motion_to_semantic[0, heads].mean(dim=(0, 1))
    torch.testing.assert_close(patches[1], by_hand)
    for layer, name in enumerate(("layer 1: basic", "layer 2: pattern", "layer 3: action")):
        index = [ax.get_title() for ax in figure.axes].index(name)
        heat, _, bars = figure.axes[index : index + 3]
        torch.testing.assert_close(heat_map(heat, 1), patches[layer].view(4, 4))
        heights = torch.tensor([bar.get_height() for bar in bars.patches]).float()
        torch.testing.assert_close(heights, segments[layer])


@pytest.mark.parametrize("head", [None, 0, 3])
def test_drawn_graph_attention_is_the_attention(head, model, clip):
    figure = visualize_graph_attention(model, clip, head=head)
    _, maps = run(model, clip)
    spatial, temporal = maps.semantic_graph[0], maps.motion_graph[0]
    heads = slice(None) if head is None else slice(head, head + 1)
    received, value_of = torch.zeros(16), {}
    for (source, target), weights in zip(
        spatial.edge_index.t().tolist(), spatial.attention[:, heads], strict=True
    ):
        value_of[source, target] = float(weights.mean())
        if source != target:
            received[source] += weights.mean()
    torch.testing.assert_close(attention_received(spatial, head), received)
    torch.testing.assert_close(
        heat_map(titled(figure, "attention received"), 1), received.view(4, 4)
    )
    lines, nodes = titled(figure, "attention along edges\neach patch's 2 largest").collections
    for line, value in zip(lines.get_segments(), lines.get_array(), strict=True):
        i, j = (int(x) + 4 * int(y) for x, y in line[[0, -1]])
        assert float(value) == pytest.approx(max(value_of[i, j], value_of[j, i]))
    assert nodes.get_array().tolist() == pytest.approx([value_of[i, i] for i in range(16)])

    (square,) = (ax for ax in figure.axes if ax.get_xlabel() == "attended segment")
    matrix = heat_map(square, 0)
    for (source, target), weights in zip(
        temporal.edge_index.t().tolist(), temporal.attention[:, heads], strict=True
    ):
        torch.testing.assert_close(matrix[target, source], weights.mean())
    torch.testing.assert_close(matrix.nansum(1), torch.ones(8))
    assert int(matrix.isnan().sum()) == 64 - temporal.num_edges
    (arcs,) = (ax for ax in figure.axes if [t for t in ax.texts if t.get_text() == "from later"])
    lines, nodes = arcs.collections
    assert len(lines.get_segments()) == temporal.num_edges - 8
    for line, value in zip(lines.get_segments(), lines.get_array(), strict=True):
        source, target = (round(float(x)) for x in line[[0, -1], 0])
        assert float(value) == pytest.approx(float(matrix[target, source]))
    assert nodes.get_array().tolist() == pytest.approx(matrix.diagonal().tolist())
    heat = square.images[0]
    assert lines.get_clim() == nodes.get_clim() == pytest.approx(heat.get_clim())  # one colour bar


def test_uniform_attention_looks_uniform(seen):
    """As that of a model that has learned nothing: in the middle of the scale, and marked."""
    graphs = {}
    for stream in ("spatial", "temporal"):
        graphs[stream] = seen.graph(stream).clone()
        target = graphs[stream].edge_index[1]
        entering = target.bincount().float()[target]
        graphs[stream].attention = (1 / entering)[:, None].expand(-1, seen.num_heads)
    figure = visualize_graph_attention(None, replace(seen, **graphs))
    (square,) = (ax for ax in figure.axes if ax.get_xlabel() == "attended segment")
    arcs = figure.axes[figure.axes.index(titled(figure, "attention along edges, both")) + 1]
    edges = titled(figure, "attention along edges\n")
    for ax, stream in ((arcs, "temporal"), (edges, "spatial")):
        values = graphs[stream].attention[:, 0]
        mean = float(values.mean())
        low, high = ax.collections[0].get_clim()
        assert (low, high) == pytest.approx((0, max(2 * mean, float(values.max()))))
        (bar,) = (
            bar
            for holder in (square, edges)
            for bar in holder.child_axes
            if (holder is edges) == (ax is edges)
        )
        assert bar.lines[-1].get_xdata()[0] == pytest.approx(mean)
        widths = ax.collections[0].get_linewidths()
        drawn = ax.collections[0].get_array()
        assert widths == pytest.approx(MOST_WIDTH * drawn / high)


def test_attention_received_of_no_head(seen):
    for head in (4, -1):
        with pytest.raises(ValueError, match=f"head must be None or 0 to 3, got {head}"):
            attention_received(seen.spatial, head)


@pytest.mark.parametrize(("label", "against"), [(None, None), ("drop", None), (1, "turn")])
def test_drawn_evidence_adds_up_to_the_logit(label, against, model, clip, seen):
    model.eval()
    with torch.no_grad():
        logits = model(clip.unsqueeze(0))[0]
    figure = visualize_class_evidence(model, clip, label=label, against=against)
    patches, segments = titled(figure, "patches, sum "), titled(figure, "segments, sum ")
    bars, total = figure.axes[figure.axes.index(segments) + 1 :][:2]
    evidence = seen.evidence(label, against)
    torch.testing.assert_close(heat_map(patches, 1), evidence.patches.view(4, 4))
    low, high = patches.images[1].get_clim()
    assert -low == high == pytest.approx(float(evidence.patches.abs().max()))
    heights = torch.tensor([bar.get_height() for bar in bars.patches]).float()
    torch.testing.assert_close(heights, evidence.segments)

    logit = logits.max() if label is None else logits[1]
    logit = float(logit if against is None else logit - logits[2])
    parts = [float(heat_map(patches, 1).sum()), float(heights.sum()), evidence.bias]
    widths = [bar.get_width() for bar in total.patches]
    assert widths == pytest.approx([*parts, logit], abs=1e-5)
    starts = [bar.get_x() for bar in total.patches]
    assert starts == pytest.approx([0, parts[0], parts[0] + parts[1], 0], abs=1e-5)
    said = [text.get_text().replace("\N{MINUS SIGN}", "-") for text in total.texts]
    assert [float(text) for text in said] == pytest.approx(widths, abs=6e-4)
    largest = [float(part[part.abs().argmax()]) for part in evidence[:2]]
    for ax, part, most in zip((patches, segments), parts[:2], largest, strict=True):
        text = ax.get_title().replace("\N{MINUS SIGN}", "-")
        numbers = re.match(r"\w+, sum (\S+), largest (\S+)\n", text).groups()
        assert [float(number) for number in numbers] == pytest.approx([part, most], abs=6e-4)
    said = re.fullmatch(r"on (1/)?(\S+) times the scale of the patches", text.splitlines()[1])
    ratio = 1 / float(said[2]) if said[1] else float(said[2])
    assert ratio == pytest.approx(abs(largest[1] / largest[0]), rel=0.06)
    unit = "logit" if against is None else "logit difference"
    assert [text.get_text() for text in total.get_yticklabels()][-1] == unit


def test_the_title_of_evidence_names_both_classes(seen):
    title = visualize_class_evidence(None, seen, label="drop", against="turn").get_suptitle()
    _, drop, turn = (f"{probability:.1%}" for probability in seen.probabilities.tolist())
    assert title.endswith(f"\nevidence for drop  ({drop})\nrather than turn  ({turn})")


@pytest.mark.parametrize("draw", ATTENTION)
def test_the_title_says_which_head(draw, seen):
    assert "attention, mean of 4 heads; " in draw(None, seen).get_suptitle()
    assert "attention, head 2 of 0 to 3; " in draw(None, seen, head=2).get_suptitle()


@pytest.mark.parametrize("draw", DRAW)
def test_an_inspection_is_drawn_without_the_model(draw, model, clip, seen, tmp_path):
    frames = seen.frames.clone()
    for ours, theirs in zip(
        draw(None, seen, tmp_path / "a.png").axes, draw(model, clip).axes, strict=True
    ):
        for image, other in zip(ours.images, theirs.images, strict=True):
            assert torch.allclose(*(torch.as_tensor(im.get_array()) for im in (image, other)))
    assert (tmp_path / "a.png").stat().st_size > 10_000
    assert torch.equal(seen.frames, frames)
    with pytest.raises(ValueError, match="video must be a ClipInspection, got Tensor"):
        draw(None, clip)


@pytest.mark.parametrize("draw", DRAW)
def test_a_wrong_choice_is_named_before_the_extractors_run(draw, model, clip, seen):
    def never(*_):
        raise AssertionError("the extractor ran")

    model.semantic_extractor.register_forward_pre_hook(never)
    wrong = [({"truth": "push"}, "the model has no class 'push': expected one of")]
    if draw in ATTENTION:
        wrong.append(({"head": 4}, "head must be None or 0 to 3, got 4"))
    else:
        wrong += [
            ({"label": "push"}, "the model has no class 'push': expected one of"),
            ({"label": 1, "against": 3}, "label must be a name or 0 to 2, got 3"),
        ]
    for options, message in wrong:
        for given in ((model, clip), (None, seen)):
            with pytest.raises(ValueError, match=message):
                draw(*given, **options)


def test_evidence_for_a_class_against_itself_is_refused(seen, tmp_path):
    best = seen.class_names[seen.label()]
    message = re.escape(f"label and against must be two classes, got {best!r} twice")
    for label in (None, best):
        options = {"label": label, "against": seen.label()}
        with pytest.raises(ValueError, match=f"^{message}$"):
            visualize_class_evidence(None, seen, tmp_path / "a.png", **options)
    assert not list(tmp_path.iterdir())


def test_text_stays_text(seen, tmp_path):
    for ending in ("svg", "pdf"):
        visualize_class_evidence(None, seen, tmp_path / f"a.{ending}", label="drop")
    assert ">evidence for drop" in (tmp_path / "a.svg").read_text()  # within <text>
    pdf = (tmp_path / "a.pdf").read_bytes()
    assert b"/Type3" not in pdf
    assert b"/CIDFontType2" in pdf


def test_every_kind_of_video(model, video):
    from_file = load_clip(model, video)
    assert from_file.shape == (16, 3, IMAGE_SIZE, IMAGE_SIZE)
    frames = render_clip("lift", "plain", seed=0, num_frames=16, size=40)
    assert load_clip(model, frames).shape == (16, 3, IMAGE_SIZE, IMAGE_SIZE)
    assert load_clip(model, from_file) is from_file
    assert torch.equal(load_clip(model, read_video(video)), from_file)
    for count in (1, 100):  # sampled as a file of so many frames would be
        frames = render_clip("lift", "plain", seed=0, num_frames=100, size=40)[:count]
        assert load_clip(model, frames).shape[0] == 16


@pytest.mark.parametrize("draw", DRAW)
def test_wrong_input_is_named_before_any_work(draw, model, video, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"cannot write .*: its folder .* is not there"):
        draw(model, video, tmp_path / "nowhere" / "picture.png")
    with pytest.raises(ValueError, match="cannot write a picture as '.mp5'.*png"):
        draw(model, video, tmp_path / "picture.mp5")
    with pytest.raises(VideoReadError, match="nothing.mp4"):
        draw(model, tmp_path / "nothing.mp4", tmp_path / "picture.png")
    with pytest.raises(
        ValueError, match=r"video must be a path or \[T, 3, H, W\], got \[3, 8, 8\]"
    ):
        draw(model, torch.zeros(3, 8, 8))
    for shape, missing in (((0, 3, 64, 64), "frames"), ((16, 3, 0, 64), "pixels")):
        message = f"the video has no {missing}: got {list(shape)}"
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            draw(model, torch.zeros(shape))
    assert not list(tmp_path.iterdir())


def test_late_fusion_has_no_layers_to_show(video):
    model = small_model(fusion="late")
    with pytest.raises(
        ValueError, match="the model has no fusion layers to show: it was made with"
    ):
        visualize_cross_attention_layers(model, video)
    seen = inspect_clip(model, video)
    with pytest.raises(ValueError, match="the model has no fusion layers to show"):
        visualize_cross_attention_layers(None, seen)
    for draw in (visualize_graph_attention, visualize_class_evidence):
        assert draw(None, seen).get_suptitle()
