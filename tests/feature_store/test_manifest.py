import json

import pytest

from feature_store.stores import manifest
from gasmcast.feature_store import FeatureStoreError, Manifest, Stream


def test_which_clips_belong_to_which_shard():
    plan = manifest(10)
    assert plan.num_shards == 4
    assert [list(plan.clips_of(shard)) for shard in range(4)] == [
        [0, 1, 2],
        [3, 4, 5],
        [6, 7, 8],
        [9],
    ]
    assert plan.bytes_per_clip == 2 * (4 * 6 + 2 * 3) * 2  # views, numbers, bytes of float16


def test_it_comes_back_as_it_was(tmp_path):
    plan = manifest(ids=("a\u202fb", "b", "ü/ñ 3"), labels=(0, 1, 0))
    assert plan.save(tmp_path) is True
    assert plan.save(tmp_path) is False  # whoever comes second finds it there
    again = Manifest.load(tmp_path)
    assert (again.ids, again.labels, again.classes) == (plan.ids, plan.labels, plan.classes)
    assert again.streams == plan.streams
    assert again.digest == plan.digest
    assert again.differences(plan) == []


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"num_views": 3}, "num_views: 2 and 3"),
        ({"clips_per_shard": 4}, "clips_per_shard: 3 and 4"),
        ({"classes": ("drop", "lift")}, r"classes\[0\]: 'lift' and 'drop'"),
        ({"clips": 11}, "ids: 10 and 11 of them"),
        ({"labels": (0,) * 10}, r"labels\[1\]: 1 and 0"),
        ({"streams": {"semantic": Stream((4, 6))}}, r"streams.motion: .* and 'nothing'"),
        (
            {"streams": {**manifest().streams, "motion": Stream((2, 3), "bfloat16")}},
            "dtype: 'float16'",
        ),
        (
            {"fingerprint": {"semantic": {"weights": "xyz"}, "sampling": {"num_frames": 16}}},
            "fingerprint.semantic.weights: 'abc' and 'xyz'",
        ),
    ],
)
def test_any_difference_is_named_and_changes_the_digest(change, difference):
    other = manifest(**change)
    assert other.digest != manifest().digest
    with pytest.raises(AssertionError, match=difference):
        raise AssertionError("; ".join(manifest().differences(other)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ids": (), "labels": ()}, "a store needs at least one clip, got none"),
        ({"labels": (0,)}, "each clip needs a label, got 10 clips and 1 labels"),
        ({"ids": ("a", "b", "a"), "labels": (0, 0, 0)}, "an id of its own, got 'a' twice"),
        ({"ids": ("a", "\udc80"), "labels": (0, 0)}, r"text that UTF-8 can write, got '\\udc80'"),
        ({"ids": ("a", ""), "labels": (0, 0)}, "text that UTF-8 can write, got ''"),
        ({"labels": (2,) * 10}, "indices of the 2 classes, got 2"),
        ({"streams": {}}, "a store needs at least one stream, got none"),
        ({"streams": {"a/b": Stream((1,))}}, "printable and without '/', got 'a/b'"),
        ({"num_views": 0}, "num_views must be at least 1, got 0"),
        ({"clips_per_shard": 0}, "clips_per_shard must be at least 1, got 0"),
    ],
)
def test_parts_that_do_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        manifest(**change)


def test_a_stream_that_cannot_be():
    with pytest.raises(ValueError, match=r"sizes of at least 1, got \(4, 0\)"):
        Stream((4, 0))
    with pytest.raises(ValueError, match="float16, bfloat16, float32, got 'int8'"):
        Stream((4,), "int8")


def test_a_damaged_manifest(tmp_path):
    with pytest.raises(FeatureStoreError, match="is no feature store: it has no manifest.json"):
        Manifest.load(tmp_path)
    plan = manifest()
    plan.save(tmp_path)
    file = tmp_path / "manifest.json"
    content = json.loads(file.read_text())
    content["labels"][4] = 1
    file.write_text(json.dumps(content))
    with pytest.raises(FeatureStoreError, match="its checksum does not fit its content; delete"):
        Manifest.load(tmp_path)
    file.write_text('{"format": "something else"}')
    with pytest.raises(FeatureStoreError, match="format 'gasmcast feature store 1', got 'somethi"):
        Manifest.load(tmp_path)
    file.write_text("[1")
    with pytest.raises(FeatureStoreError, match=r"damaged: it is not JSON \(.*\); delete it, and"):
        Manifest.load(tmp_path)
    with pytest.raises(FeatureStoreError, match="manifest.json is no feature store: it has no man"):
        Manifest.load(file)
    file.unlink()
    file.mkdir()
    with pytest.raises(FeatureStoreError, match="manifest.json cannot be read: .*Is a directory"):
        Manifest.load(tmp_path)


def test_a_label_of_another_set_is_no_manifest_of_this_one(tmp_path):
    manifest().save(tmp_path)
    text = (tmp_path / "manifest.json").read_text()
    for place in range(0, len(text), 7):  # a byte anywhere
        changed = text[:place] + chr((ord(text[place]) + 1) % 128) + text[place + 1 :]
        (tmp_path / "manifest.json").write_text(changed)
        with pytest.raises(FeatureStoreError):
            Manifest.load(tmp_path)
