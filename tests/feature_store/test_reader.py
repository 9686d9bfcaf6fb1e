"""Any clip from any process; whatever is damaged is one error with clip and shard."""

import json
import os
import pickle
import random
import struct
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from feature_store.stores import STREAMS, fill, manifest, record
from gasmcast.feature_store import (
    DamagedRecordError,
    FeatureDataset,
    FeatureStore,
    FeatureStoreError,
    verify_store,
)


def shard(store, number):
    return next((store / "shards").glob(f"{number:05}-*"))


def flip(file, place, bit=0x10):
    content = bytearray(file.read_bytes())
    content[place] ^= bit
    file.write_bytes(content)


class Motions(Dataset):
    """The motion of each clip, by its number or its id."""

    def __init__(self, store, keys):
        self.store, self.keys = store, keys

    def __len__(self):
        return len(self.keys)

    def __getitem__(self, place):
        return self.store[self.keys[place]]["motion"]


@pytest.mark.parametrize(
    ("start_method", "opened_before"), [("fork", False), ("fork", True), ("spawn", True)]
)
def test_workers_read_for_themselves(store, start_method, opened_before):
    read = FeatureStore(store)
    if opened_before:
        assert read[0]
        assert read[9]
    numbers = [7, 0, 9, 3, 3, 8]
    loader = DataLoader(Motions(read, numbers), num_workers=2, multiprocessing_context=start_method)
    for number, batch in zip(numbers, loader, strict=True):
        assert torch.equal(batch[0].float(), record(number, manifest())["motion"])


def test_no_handle_is_pickled(store):
    read = FeatureStore(store)
    closed = len(pickle.dumps(read))
    assert read["folder/clip 4"]["semantic"].shape == (2, 4, 6)
    small = {name: value for name, value in read.__dict__.items() if name != "_numbers"}
    assert "_open" in small
    again = pickle.loads(pickle.dumps(read))
    assert again._open == {}
    assert len(pickle.dumps(read)) < closed + 1000
    assert torch.equal(again[4]["semantic"], read[4]["semantic"])


def test_one_view(store):
    read = FeatureStore(store)
    for view in range(2):
        for name, stream in STREAMS.items():
            one = read.read(6, view)[name]
            assert one.shape == stream.shape
            assert torch.equal(one, read[6][name][view])


def test_a_view_that_is_not_there(store):
    for view in (2, -1):
        with pytest.raises(IndexError, match=f"view {view} is out of range for 2 views of each"):
            FeatureStore(store).read(6, view)


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit there")
def test_more_shards_than_a_process_may_open_files(tmp_path):
    import resource

    read = FeatureStore(fill(tmp_path, manifest(40, clips_per_shard=1)))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = os.dup(0)  # the lowest number that is free
    os.close(used)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 20, hard))
        records = [read[number] for number in range(40)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert torch.equal(records[39]["motion"].float(), record(39, read.manifest)["motion"])


def test_a_record_holds_on_to_its_own_bytes_only(store):
    """Whoever sends or saves one does not take the whole shard along."""
    motion = FeatureStore(store)[4]["motion"]
    assert motion.untyped_storage().nbytes() == motion.numel() * motion.itemsize


def test_writing_to_a_record_leaves_the_file_alone(store):
    before = shard(store, 0).read_bytes()
    read = FeatureStore(store)
    read[0]["motion"].zero_()
    assert shard(store, 0).read_bytes() == before
    assert FeatureStore(store)[0]["motion"].any()


def test_clips_that_are_not_there(store):
    read = FeatureStore(store)
    for number in (10, -11):
        with pytest.raises(
            IndexError, match=f"clip {number} is out of range for a store of 10 clips"
        ):
            read[number]
    with pytest.raises(KeyError, match="nothing"):
        read["nothing"]


def test_no_store(tmp_path, store):
    with pytest.raises(FeatureStoreError, match="is no feature store: it has no manifest"):
        FeatureStore(tmp_path)
    (store / "shards").rename(store / "gone")
    with pytest.raises(FeatureStoreError, match="has lost its folder shards"):
        FeatureStore(store)


class TestDamage:
    def read_all(self, store, **options):
        """The clips that can be read, and the errors of the others."""
        read, good, errors = FeatureStore(store, **options), [], {}
        for number in range(len(read)):
            try:
                read[number]
            except DamagedRecordError as error:
                errors[number] = error
            else:
                good.append(number)
        return good, errors

    def one_damage(self, store, number, reason):
        found = verify_store(store)
        assert [damage.shard for damage in found] == [number]
        assert reason in found[0].reason
        ids = tuple(manifest().ids[clip] for clip in manifest().clips_of(number))
        assert found[0].clips == ids
        assert f"({len(ids)} clips, {ids[0]!r} to {ids[-1]!r})" in str(found[0])

    def test_a_flipped_byte_anywhere(self, store):
        file = shard(store, 1)
        size = file.stat().st_size
        draw = random.Random(0)
        for place in [0, 8, size - 1, *(draw.randrange(size) for _ in range(60))]:
            flip(file, place)
            self.one_damage(store, 1, "")
            good, errors = self.read_all(store, check=True)
            assert good == [0, 1, 2, 6, 7, 8, 9]
            for clip, error in errors.items():
                assert (error.clip_id, error.shard) == (manifest().ids[clip], str(file))
            self.read_all(store)  # unchecked, it raises nothing else than DamagedRecordError
            flip(file, place)
        assert verify_store(store) == []

    def test_a_flipped_number_is_found_by_its_checksum(self, store):
        flip(shard(store, 1), -1)
        self.one_damage(store, 1, "its content is damaged: checksum ")
        with pytest.raises(
            DamagedRecordError, match="clip 'folder/clip 3' in shard .*00001-.*: its con"
        ):
            FeatureStore(store, check=True)[3]
        assert FeatureStore(store)[3]  # not looked for unless asked

    @pytest.mark.parametrize("left", [0, 4, 100, -1, -100])
    def test_a_shard_that_is_cut_off(self, store, left):
        file = shard(store, 2)
        content = file.read_bytes()
        file.write_bytes(content[:left])
        self.one_damage(store, 2, "")
        good, errors = self.read_all(store)
        assert (good, sorted(errors)) == ([0, 1, 2, 3, 4, 5, 9], [6, 7, 8])
        assert "cut off" in str(errors[6])

    @pytest.mark.parametrize("entry", [None, [], {"data_offsets": [None, "x"]}, {"dtype": 3}])
    def test_a_header_that_is_another(self, store, entry):
        file = shard(store, 1)
        content = file.read_bytes()
        (size,) = struct.unpack_from("<Q", content)
        header = json.loads(content[8 : 8 + size])
        key = "folder/clip 3/motion"
        header[key] = {**header[key], **entry} if isinstance(entry, dict) else entry
        changed = json.dumps(header, separators=(",", ":")).encode()
        file.write_bytes(struct.pack("<Q", len(changed)) + changed + content[8 + size :])
        self.one_damage(store, 1, "its content is damaged")
        with pytest.raises(DamagedRecordError, match="'folder/clip 3/motion'"):
            FeatureStore(store)[4]

    @pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that fails")
    def test_a_disk_that_fails(self, store):
        file = shard(store, 1)
        file.unlink()
        file.symlink_to("/proc/self/mem")  # opens, and cannot be read at its beginning
        self.one_damage(store, 1, "the file cannot be read: [Errno 5]")

    def test_a_missing_shard(self, store):
        shard(store, 3).unlink()
        self.one_damage(store, 3, "the file is missing")
        with pytest.raises(
            DamagedRecordError, match="clip 'folder/clip 9' in .*/00003: the file is m"
        ):
            FeatureStore(store)[9]

    def test_a_shard_that_vanishes_after_the_store_was_opened(self, store):
        read = FeatureStore(store)
        shard(store, 3).unlink()
        with pytest.raises(DamagedRecordError, match="the file is missing"):
            read[9]

    def test_a_foreign_manifest(self, store, tmp_path):
        fill(tmp_path / "other", manifest(fingerprint={"semantic": "other weights"}))
        (tmp_path / "other" / "manifest.json").replace(store / "manifest.json")
        found = verify_store(store)
        assert [damage.shard for damage in found] == [0, 1, 2, 3]
        assert all("it belongs to another store" in damage.reason for damage in found)
        with pytest.raises(DamagedRecordError, match="it belongs to another store, whose manifest"):
            FeatureStore(store)[0]

    def test_a_foreign_shard(self, store, tmp_path):
        fill(tmp_path / "other", manifest(fingerprint={"semantic": "other weights"}))
        shard(store, 1).unlink()
        other = shard(tmp_path / "other", 1)
        other.rename(store / "shards" / other.name)
        self.one_damage(store, 1, "it belongs to another store")

    def test_another_safetensors_file(self, store, tmp_path):
        from safetensors.torch import save

        from gasmcast.feature_store.shard import ShardName

        shard(store, 1).unlink()
        content = save({"x": torch.zeros(3)})
        (store / "shards" / str(ShardName.of(1, 0, content))).write_bytes(content)
        self.one_damage(store, 1, "it is no shard of a gasmcast feature store")

    def test_more_shards_than_there_can_be(self, store):
        file = shard(store, 0)
        extra = file.with_name(file.name.replace("00000-", "00007-", 1))
        extra.write_bytes(file.read_bytes())
        found = verify_store(store)
        assert [str(damage) for damage in found] == [
            f"{extra}: the store has 4 shards, not so many (0 clips, none of this store)"
        ]
        read = FeatureStore(store)
        assert (read.failed(), read.missing) == ({}, ())
        assert read[9]

    def test_what_is_damaged_is_made_again_on_request(self, store):
        whole = shard(store, 1).read_bytes()
        flip(shard(store, 1), -1)
        shard(store, 3).unlink()
        assert [damage.shard for damage in verify_store(store, remove=True)] == [1, 3]
        assert FeatureStore(store).missing == (1, 3)
        fill(store, manifest())
        assert verify_store(store) == []
        assert shard(store, 1).read_bytes() == whole

    def test_the_error_survives_pickling(self):
        error = pickle.loads(
            pickle.dumps(DamagedRecordError("a", "b.safetensors", "it is cut off"))
        )
        assert str(error) == "clip 'a' in shard b.safetensors: it is cut off"


class TestDataset:
    def test_evaluation_gives_all_views(self, store):
        data = FeatureDataset(FeatureStore(store))
        sample = data[7]
        assert (sample["label"], sample["index"], len(data)) == (1, 7, 10)
        assert sample["semantic"].shape == (2, 4, 6)
        assert data.classes == ("lift", "drop")
        assert data.ids == manifest().ids

    def test_training_draws_a_view_by_seed_epoch_and_index(self, store):
        read = FeatureStore(store)

        def views(seed):
            data = FeatureDataset(read, training=True, seed=seed)
            return [
                next(
                    v
                    for v in range(2)
                    if torch.equal(data[epoch, i]["motion"], read.read(i, v)["motion"])
                )
                for epoch in range(20)
                for i in range(10)
            ]

        assert views(0) == views(0)
        assert views(0) != views(1)
        assert 70 < sum(views(0)) < 130  # of 200 fair draws
        by_clip = [views(0)[place::10] for place in range(10)]
        assert all(0 < sum(drawn) < 20 for drawn in by_clip)  # another one from epoch to epoch

    def test_samples_are_asked_for_as_they_are_counted(self, store):
        read = FeatureStore(store)
        with pytest.raises(ValueError, match=r"by \(epoch, index\) in training, got 3"):
            FeatureDataset(read, training=True)[3]
        with pytest.raises(ValueError, match=r"by an index in evaluation, got \(0, 3\)"):
            FeatureDataset(read)[0, 3]

    def test_damage_does_not_raise(self, tmp_path):
        fill(tmp_path, manifest(), failed=("folder/clip 4",))
        shard(tmp_path, 0).write_bytes(b"")
        data = FeatureDataset(FeatureStore(tmp_path))
        assert data[0] == {"index": 0, "error": data[0]["error"]}
        assert "clip 'folder/clip 0' in shard" in data[0]["error"]
        assert "it has no features: folder/clip 4: it is empty" in data[4]["error"]
        assert "error" not in data[5]

    def test_an_incomplete_store_is_refused(self, store):
        shard(store, 2).unlink()
        with pytest.raises(FeatureStoreError, match="lacks 1 of its 4 shards, the first of them 2"):
            FeatureDataset(FeatureStore(store))
