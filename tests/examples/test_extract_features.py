"""From files in the layout of Something-Something V2 to a store, a head trained on it, results."""

import json

import av
import pytest

from examples import running
from gasmcast.datasets import scan_class_folders
from gasmcast.feature_store import FeatureStore, verify_store
from gasmcast.video import read_video, uniform_indices
from made_files import write

SMALL = """
model:
  image_size: 32
  semantic_extractor:
    model_name: vit_tiny_patch16_224
    pretrained: false
    num_frames: 2
    model_kwargs: {patch_size: 8, embed_dim: 24, depth: 1, num_heads: 2}
  motion_extractor: {width: 0.0625}
"""
HEAD = "  bottleneck_dim: 16\n  num_heads: 4\nloader: {batch_size: 4, num_workers: 0}\nepochs: 2\n"
TEMPLATES = {"fight": "[People] fighting", "nofight": "[People] standing about"}


@pytest.fixture(scope="module")
def ssv2(video_samples, tmp_path_factory):
    """Real clips in the data set's own layout: annotation files and VP9 in WebM, by number."""
    root = tmp_path_factory.mktemp("ssv2")
    (root / "videos").mkdir()
    labels = {
        text.replace("[", "").replace("]", ""): str(i) for i, text in enumerate(TEMPLATES.values())
    }
    (root / "labels.json").write_text(json.dumps(labels))
    clips = scan_class_folders(video_samples / "fights")
    chosen = [clips.records[place] for place in (0, 1, 2, 3, 40, 41, 42, 43)]
    entries = []
    for number, record in enumerate(chosen):
        template = TEMPLATES[clips.classes[record.label]]
        frames = read_video(record.path, lambda count: uniform_indices(count, 20)).frames
        write_webm(root / "videos" / f"{number}.webm", frames.permute(0, 2, 3, 1).numpy())
        text = template.replace("[People]", "guests")
        entries.append(
            {"id": str(number), "label": text, "template": template, "placeholders": ["guests"]}
        )
    (root / "train.json").write_text(json.dumps([*entries[:3], *entries[4:7]]))
    (root / "validation.json").write_text(json.dumps([entries[3], entries[7]]))
    (root / "extractors.yaml").write_text(SMALL)
    (root / "train.yaml").write_text(SMALL + HEAD)
    return root


def write_webm(path, frames):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libvpx-vp9", rate=12, options={"cpu-used": "8"})
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(160, 120)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def run(script, *arguments, status=0, **environment):
    """What a script says: the error where it fails."""
    done = running.run(script, *arguments, status=status, **environment)
    return done.stdout if status == 0 else done.stderr


def extract(ssv2, part, output, *more, **options):
    return run(
        "extract_features.py",
        *("--config", ssv2 / "extractors.yaml", "--videos", ssv2 / f"{part}.json"),
        *("--root", ssv2 / "videos", "--output", output, "--clips_per_shard", "2"),
        *("--device", "cpu", "--num_workers", "0", *more),
        **options,
    )


@pytest.fixture(scope="module")
def stores(ssv2, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    printed = extract(ssv2, "train", folder / "train", "--random_views", "2")
    assert f"{folder / 'train'}: 6 videos, 2 views each\n" in printed
    assert "could not be read" not in printed
    extract(ssv2, "validation", folder / "validation", "--protocol", "ssv2")
    return folder


def test_train_on_a_store_and_evaluate(ssv2, stores, tmp_path):
    store = FeatureStore(stores / "validation")
    assert store.ids == ("3", "7")
    assert store.num_views == 6
    assert store.classes == ("People fighting", "People standing about")
    common = ("--config", ssv2 / "train.yaml", "--output", tmp_path / "run")
    printed = run(
        "train.py",
        *common,
        *("--train", stores / "train", "--test", stores / "validation"),
        *("--check_labels", ssv2 / "labels.json", "--trainer.accelerator", "cpu"),
    )
    assert "6 videos to train on, 2 to test on" in printed
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    # The same views of the same videos, through the saved model's own extractors.
    quick = ("--num_workers", "0", "--trainer.accelerator", "cpu")
    model = ("--checkpoint", tmp_path / "run" / "model")
    again = run(
        "evaluate.py",
        *(*model, "--test", ssv2 / "validation.json", "--root", ssv2 / "videos"),
        *("--protocol", "ssv2", "--output", tmp_path / "videos", *quick),
    )
    assert "2 clips x 3 crops of each video" in again
    stored = run("evaluate.py", *model, "--test", stores / "validation", *quick)
    assert "6 stored views of each video" in stored
    for name in ("top1", "top5", "mean_class"):
        found = json.loads((tmp_path / "videos" / "results.json").read_text())
        assert found[name] == results[name]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ("--seed", "1"),
            r"train features come from another semantic extractor .* in weights \(weights that are "
            r"not loaded from a file follow from the seed\)",
        ),
        (("--flip", "auto"), "flip is for videos, and stores hold features"),
        (("--evaluation.crops", "3"), "evaluation is for videos, and stores hold features"),
        (("--loader.erase", "0.5"), "loader is for videos, and stores hold features"),
        (("--bad_files", "bad.csv"), "bad_files are for videos, got the feature store"),
    ],
)
def test_what_a_store_cannot_do(ssv2, stores, tmp_path, more, message):
    error = run(
        "train.py",
        *("--config", ssv2 / "train.yaml", "--output", tmp_path / "run", *more),
        *("--train", stores / "train", "--test", stores / "validation"),
        status=1,
    )
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(error)


def test_workers_damage_and_repair(ssv2, tmp_path):
    first = extract(ssv2, "train", tmp_path, RANK="0", WORLD_SIZE="2")
    assert "1 of 3 shards are left to others" in first
    extract(ssv2, "train", tmp_path, "--worker", "1", "--workers", "2")
    check = ("--output", tmp_path)
    assert f"{tmp_path} is sound" in run("extract_features.py", *check, "--verify", "true")
    file = sorted((tmp_path / "shards").iterdir())[1]
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    error = run("extract_features.py", *check, "--verify", "true", status=1)
    assert "1 shard files are damaged or missing: --repair true deletes those that" in error
    printed = run("extract_features.py", *check, "--repair", "true")
    assert "00001-" in printed
    assert "(2 clips, '2' to '4')\n1 of 3 shards are to be extracted" in printed
    extract(ssv2, "train", tmp_path)
    assert verify_store(tmp_path) == []
    assert file.read_bytes() == content
    error = extract(ssv2, "train", tmp_path, "--seed", "1", status=1)
    assert "holds another store" in error
    assert "fingerprint.semantic.weights" in error


def test_nothing_to_extract(tmp_path):
    error = run("extract_features.py", "--output", tmp_path / "x", status=1)
    assert "name the videos to extract features of: --videos VIDEOS" in error
    error = run("extract_features.py", "--output", tmp_path / "x", "--vidoes", "y", status=2)
    assert "vidoes" in error


def test_a_split_of_hmdb51_that_is_not_there(tmp_path):
    write(tmp_path / "splits" / "clap_test_split1.txt", "a.avi 1\nb.avi 2\n")
    arguments = ("--videos", tmp_path / "splits", "--root", tmp_path, "--split", "3")
    error = run("extract_features.py", *arguments, "--output", tmp_path / "x", status=1)
    assert "holds no <class>_test_split3.txt, got the splits [1]" in error
