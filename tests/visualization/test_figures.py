import pytest
import torch
from PIL import Image

from gasmcast import (
    VideoReadError,
    read_video,
    render_clip,
    visualize_cross_attention_layers,
    visualize_graph_attention,
)
from gasmcast.datasets import write_rendered_dataset
from gasmcast.explanation import inspect_clip, load_clip
from gasmcast.visualization import attention_received, cross_attention_means
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


def run(model, clip):
    model.eval()
    with torch.no_grad():
        logits, maps = model(clip.unsqueeze(0), return_attention=True)
    return logits.softmax(1)[0], maps


def heat_map(ax, image):
    return torch.tensor(ax.images[image].get_array().data)


DRAW = [visualize_graph_attention, visualize_cross_attention_layers]


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
    title = draw(model, video).get_suptitle()
    assert title == f"{model.class_names[label]}  ({probabilities[label]:.0%})".replace("$", r"\$")


def test_drawn_layers_are_the_attention(model, video):
    clip = load_clip(model, video)
    figure = visualize_cross_attention_layers(model, clip)
    _, maps = run(model, clip)
    patches, segments = cross_attention_means(inspect_clip(model, clip))
    torch.testing.assert_close(patches.sum(1), torch.ones(3))
    torch.testing.assert_close(segments.sum(1), torch.ones(3))
    by_hand = maps.pattern.motion_to_semantic[0].sum(dim=(0, 1)) / (4 * 8)
    torch.testing.assert_close(patches[1], by_hand)
    for layer, name in enumerate(("layer 1: basic", "layer 2: pattern", "layer 3: action")):
        index = [ax.get_title() for ax in figure.axes].index(name)
        heat, _, bars = figure.axes[index : index + 3]
        torch.testing.assert_close(heat_map(heat, 1), patches[layer].view(4, 4))
        heights = torch.tensor([bar.get_height() for bar in bars.patches]).float()
        torch.testing.assert_close(heights, segments[layer])


def test_drawn_graph_attention_is_the_attention(model, video):
    clip = load_clip(model, video)
    figure = visualize_graph_attention(model, clip)
    _, maps = run(model, clip)
    spatial, temporal = maps.semantic_graph[0], maps.motion_graph[0]
    received = torch.zeros(16)
    for (source, target), weights in zip(
        spatial.edge_index.t().tolist(), spatial.attention, strict=True
    ):
        if source != target:
            received[source] += weights.mean()
    torch.testing.assert_close(attention_received(spatial), received)
    (heat,) = (ax for ax in figure.axes if ax.get_title().startswith("graph attention"))
    torch.testing.assert_close(heat_map(heat, 1), received.view(4, 4))
    (square,) = (ax for ax in figure.axes if ax.get_xlabel() == "attended segment")
    matrix = heat_map(square, 0)
    for (source, target), weights in zip(
        temporal.edge_index.t().tolist(), temporal.attention, strict=True
    ):
        assert matrix[target, source] == weights.mean()
    torch.testing.assert_close(matrix.nansum(1), torch.ones(8))
    assert int(matrix.isnan().sum()) == 64 - temporal.num_edges


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
    assert not list(tmp_path.iterdir())


def test_late_fusion_has_no_layers_to_show(video):
    model = small_model(fusion="late")
    with pytest.raises(
        ValueError, match="the model has no fusion layers to show: it was made with"
    ):
        visualize_cross_attention_layers(model, video)
    assert visualize_graph_attention(model, video).axes
