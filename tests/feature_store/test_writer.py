"""Interrupted anywhere, shared by anyone: the store comes out the same."""

import errno
import multiprocessing
import os
import random
import signal
import sys
import time

import pytest
import torch

from feature_store.stores import files, fill, manifest, record, write_shard
from gasmcast.feature_store import (
    FeatureStore,
    FeatureStoreError,
    FeatureStoreWriter,
    Stream,
    merge_stores,
    verify_store,
)


def test_a_store_holds_what_was_written(store):
    plan = manifest()
    read = FeatureStore(store)
    assert (len(read), read.missing) == (10, ())
    for number, name in enumerate(plan.ids):
        for key in (number, name, number - 10):
            for stream, expected in record(number, plan).items():
                assert read[key][stream].dtype == torch.float16
                assert torch.equal(read[key][stream].float(), expected)


def test_the_same_records_give_the_same_bytes(store, tmp_path):
    again = fill(tmp_path / "again", manifest())
    assert files(again) == files(store)
    assert sorted(path.name for path in store.iterdir()) == ["manifest.json", "shards"]


def test_the_records_decide_and_not_their_order(tmp_path, store):
    writer = FeatureStoreWriter(tmp_path / "again", manifest())
    for shard in reversed(writer.pending()):
        names = {manifest().ids[number]: number for number in manifest().clips_of(shard)}
        writer.write(shard, {name: record(names[name], manifest()) for name in reversed(names)})
    assert files(tmp_path / "again") == files(store)


def test_it_goes_on_where_it_stopped(store, tmp_path):
    for shard in (2, 0):
        write_shard(FeatureStoreWriter(tmp_path / "new", manifest()), shard)
    writer = FeatureStoreWriter(tmp_path / "new", manifest())
    assert writer.pending() == [1, 3]
    assert FeatureStore(tmp_path / "new").missing == (1, 3)
    for shard in writer.pending():
        write_shard(writer, shard)
    assert writer.pending() == []
    assert files(tmp_path / "new") == files(store)


def test_workers_share_the_shards(tmp_path, store):
    writers = [FeatureStoreWriter(tmp_path / "new", manifest()) for _ in range(3)]
    shares = [writer.pending(worker, 3) for worker, writer in enumerate(writers)]
    assert shares == [[0, 3], [1], [2]]
    for writer, share in zip(writers, shares, strict=True):
        for shard in share:
            write_shard(writer, shard)
    assert files(tmp_path / "new") == files(store)
    with pytest.raises(ValueError, match="between 0 and 2 with 3 workers in all, got 3"):
        writers[0].pending(3, 3)


def test_another_store_in_the_folder_is_refused(store):
    before = files(store)
    with pytest.raises(FeatureStoreError, match=r"holds another store; .*\n  num_views: 2 and 1\n"):
        FeatureStoreWriter(store, manifest(num_views=1))
    other = {"semantic": {"weights": "xyz"}, "sampling": {"num_frames": 16}}
    with pytest.raises(FeatureStoreError, match=r"semantic.weights: 'abc' and 'xyz'"):
        FeatureStoreWriter(store, manifest(fingerprint=other))
    assert files(store) == before


def test_a_lost_manifest_is_written_again(store):
    before = files(store)
    (store / "manifest.json").unlink()
    assert FeatureStoreWriter(store, manifest()).pending() == []
    assert files(store) == before
    assert verify_store(store) == []


def test_clips_without_features_are_noted(tmp_path):
    plan = manifest()
    fill(tmp_path, plan, failed=("folder/clip 4", "folder/clip 9"))
    store = FeatureStore(tmp_path)
    assert store.failed() == {
        name: f"{name}: it is empty" for name in ("folder/clip 4", "folder/clip 9")
    }
    assert torch.equal(store[5]["motion"].float(), record(5, plan)["motion"])
    assert verify_store(tmp_path) == []  # a shard of which every clip failed is sound too


def test_clips_without_features_get_another_try(tmp_path, store):
    plan, folder = manifest(), tmp_path / "new"
    fill(folder, plan, failed=("folder/clip 4", "folder/clip 5", "folder/clip 9"))
    writer = FeatureStoreWriter(folder, plan)
    assert writer.pending() == []
    assert writer.pending(retry_failed=True) == [1, 3]
    assert writer.pending(1, 2, retry_failed=True) == [1, 3]
    before = files(folder)
    write_shard(writer, 1, failed=("folder/clip 3", "folder/clip 4", "folder/clip 5"))
    assert files(folder) == before  # no features lost to a worse day
    write_shard(writer, 1, failed=("folder/clip 4",))
    assert list(FeatureStore(folder).failed()) == ["folder/clip 4", "folder/clip 9"]
    for shard in writer.pending(retry_failed=True):
        write_shard(writer, shard)
    assert writer.pending(retry_failed=True) == []
    assert files(folder) == files(store)


def test_another_try_on_a_full_disk(tmp_path, small_disk):
    plan = manifest(3, streams={"semantic": Stream((196, 768))})
    fill(tmp_path, plan, failed=plan.ids)
    before = files(tmp_path)
    writer = FeatureStoreWriter(tmp_path, plan)
    with (
        pytest.raises(FeatureStoreError, match="could not be written: File too large; what is in"),
        small_disk(100_000),
    ):
        write_shard(writer, 0)
    assert files(tmp_path) == before
    assert writer.pending(retry_failed=True) == [0]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_types_of_numbers(tmp_path, dtype):
    plan = manifest(streams={"semantic": Stream((4, 6), dtype), "motion": Stream((2, 3))})
    fill(tmp_path, plan)
    streams = FeatureStore(tmp_path)[3]
    assert streams["semantic"].dtype == getattr(torch, dtype)
    assert streams["motion"].dtype == torch.float16
    expected = record(3, plan)["semantic"].to(getattr(torch, dtype))
    assert torch.equal(streams["semantic"], expected)


def test_slices_of_one_batch_are_taken(tmp_path):
    plan = manifest(3)
    batch = {name: torch.randn(3, 2, *stream.shape) for name, stream in plan.streams.items()}
    for dtype in (torch.float16, torch.float32):
        records = {
            clip: {name: part.to(dtype)[number] for name, part in batch.items()}
            for number, clip in enumerate(plan.ids)
        }
        FeatureStoreWriter(tmp_path / str(dtype), plan).write(0, records)
        assert torch.equal(
            FeatureStore(tmp_path / str(dtype))[1]["motion"], batch["motion"][1].half()
        )


def test_records_that_do_not_fit(tmp_path):
    plan = manifest()
    writer = FeatureStoreWriter(tmp_path, plan)
    good = {name: record(0, plan) for name in writer.clips(0)}
    last = writer.clips(0)[-1]
    lacking = {name: good[name] for name in list(good)[:2]}
    with pytest.raises(
        ValueError, match="shard 0 must get each of its 3 clips once, .* got 2 with"
    ):
        writer.write(0, lacking)
    with pytest.raises(ValueError, match="got 3 with features and 1 without"):
        writer.write(0, good, {last: "twice"})
    with pytest.raises(ValueError, match=r"semantic of clip .* must be \[2, 4, 6\], got \[4, 6\]"):
        writer.write(0, {**good, last: {**good[last], "semantic": torch.zeros(4, 6)}})
    with pytest.raises(ValueError, match=r"motion of clip .* must be \[2, 2, 3\], got None"):
        writer.write(0, {**good, last: {"semantic": good[last]["semantic"]}})
    large = torch.full((2, 4, 6), 70000.0)
    with pytest.raises(
        ValueError, match=r"not finite in float16 \(largest: 7e\+04\); bfloat16 has"
    ):
        writer.write(0, {**good, last: {**good[last], "semantic": large}})
    assert writer.pending() == [0, 1, 2, 3]
    assert list((tmp_path / "shards").iterdir()) == []


def test_a_full_disk_ends_in_an_error_and_a_store_that_goes_on(tmp_path, store, monkeypatch):
    writer = FeatureStoreWriter(tmp_path / "new", manifest())
    write_shard(writer, 0)
    written = []

    def full(descriptor):
        written.append(descriptor)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FeatureStoreError, match=r"00001-.* could not be written: No space left"):
        write_shard(writer, 1)
    monkeypatch.undo()
    assert len(written) == 1
    assert len(list((tmp_path / "new" / "shards").iterdir())) == 1  # nothing half written
    fill(tmp_path / "new", manifest())
    assert files(tmp_path / "new") == files(store)


def test_a_write_that_the_system_cuts_short(tmp_path, small_disk):
    plan = manifest(4, streams={"semantic": Stream((196, 768))})
    with (
        pytest.raises(
            FeatureStoreError, match="00000-.* could not be written: File too large; what"
        ),
        small_disk(100_000),
    ):
        fill(tmp_path, plan)
    assert list((tmp_path / "shards").iterdir()) == []


def test_a_shard_written_by_two_is_kept_once(tmp_path):
    """Two machines whose numbers differ in the last bit give two files of one shard."""
    plan = manifest(3)
    writer = FeatureStoreWriter(tmp_path, plan)
    write_shard(writer, 0)
    other = {name: record(5, plan) for name in writer.clips(0)}
    writer.write(0, other)
    assert len(list((tmp_path / "shards").iterdir())) == 1
    assert verify_store(tmp_path) == []


def test_what_killed_writers_left_is_tidied_up(tmp_path, store):
    writer = FeatureStoreWriter(tmp_path / "new", manifest())
    shards = tmp_path / "new" / "shards"
    (shards / ".00001-0123456789abcdef.safetensors.77.part").write_bytes(b"half")
    (tmp_path / "new" / ".manifest.json.88.part").write_bytes(b"half")
    for shard in FeatureStoreWriter(tmp_path / "new", manifest()).pending():
        write_shard(writer, shard)
    assert files(tmp_path / "new") == files(store)


def test_what_is_left_of_a_finished_shard_is_tidied_up_when_it_goes_on(tmp_path):
    """A writer finishes the shard of one that was killed, and is killed before it tidies up."""
    writer = FeatureStoreWriter(tmp_path, manifest())
    write_shard(writer, 0)
    writer.write(
        1,
        {clip: record(manifest().ids.index(clip), manifest()) for clip in writer.clips(1)[1:]},
        {writer.clips(1)[0]: "no video"},
    )
    before = files(tmp_path)
    (finished, failed) = sorted(tmp_path.glob("shards/*"))
    part = finished.with_name(f".{finished.name}.0123.part")
    retried = failed.with_name(f".{failed.name}.4567.part")
    unknown = finished.with_name(".another.safetensors.89ab.part")
    for path in (part, retried, unknown):
        path.write_bytes(b"half")
    FeatureStoreWriter(tmp_path, manifest())
    assert not part.exists()
    assert retried.exists()  # another worker may be at it right now
    assert unknown.exists()
    assert files(tmp_path).keys() - before.keys() == {
        str(path.relative_to(tmp_path)) for path in (retried, unknown)
    }


LARGE = {"semantic": Stream((196, 768)), "motion": Stream((8, 512))}


def start(target, *args):
    """A process of its own. A fork has imported torch already; of its threads it has none."""
    process = multiprocessing.get_context("fork").Process(target=target, args=args)
    process.start()
    return process


def die_in_a_write(folder, plan):
    """The system ends this process when it has written so many bytes of a file, as a kill would."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    fill(folder, plan)


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on files there")
def test_killed_in_the_middle_of_a_write_it_goes_on(tmp_path, one_thread):
    plan = manifest(3, streams=LARGE)
    process = start(die_in_a_write, tmp_path / "stopped", plan)
    process.join()
    assert process.exitcode == -signal.SIGXFSZ
    (half,) = (tmp_path / "stopped" / "shards").iterdir()
    assert half.stat().st_size == 100_000
    assert FeatureStore(tmp_path / "stopped").missing == (0,)
    fill(tmp_path / "stopped", plan)
    assert files(tmp_path / "stopped") == files(fill(tmp_path / "whole", plan))


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
def test_killed_at_random_it_goes_on_and_comes_out_the_same(tmp_path, one_thread):
    plan = manifest(90, streams=LARGE)
    begin = time.monotonic()
    start(fill, tmp_path / "whole", plan).join()
    seconds = time.monotonic() - begin
    draw, stopped = random.Random(0), 0
    for _ in range(8):
        process = start(fill, tmp_path / "stopped", plan)
        time.sleep(seconds * draw.uniform(0.02, 0.25))
        process.kill()
        process.join()
        stopped += process.exitcode == -signal.SIGKILL
    process = start(fill, tmp_path / "stopped", plan)
    process.join()
    assert process.exitcode == 0
    assert stopped >= 2
    assert files(tmp_path / "stopped") == files(tmp_path / "whole")


class TestMerging:
    def test_halves_of_two_machines(self, tmp_path, store):
        for worker in range(2):
            writer = FeatureStoreWriter(tmp_path / str(worker), manifest())
            for shard in writer.pending(worker, 2):
                write_shard(writer, shard)
        assert merge_stores(tmp_path / "0", [tmp_path / "1"]) == []
        assert files(tmp_path / "0") == files(store)
        one = next((tmp_path / "1" / "shards").iterdir())
        assert one.samefile(tmp_path / "0" / "shards" / one.name)  # not copied

    @pytest.mark.parametrize("worse", ["target", "source"])
    def test_of_two_files_of_a_shard_the_better_stays(self, tmp_path, store, worse):
        fill(tmp_path / "worse", manifest(), failed=("folder/clip 1", "folder/clip 9"))
        target, source = tmp_path / "worse", store
        if worse == "source":
            target, source = source, target
        before = files(source)
        assert merge_stores(target, [source]) == []
        assert FeatureStore(target).failed() == {}
        assert files(target) == files(store)  # and of each shard one file
        assert files(source) == before

    def test_a_damaged_file_takes_no_place(self, tmp_path, store):
        target = fill(tmp_path / "target", manifest(), failed=("folder/clip 1",))
        before = files(target)
        better = next((store / "shards").glob("00000-*"))
        content = better.read_bytes()
        better.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        message = (
            r"store/shards/00000-00000-.* cannot take the place of .*target/shards/00000-00001-.*: "
            "its content is damaged: checksum .*; verify_store finds and removes such files$"
        )
        with pytest.raises(FeatureStoreError, match=message):
            merge_stores(target, [store])
        assert files(target) == before

    def test_a_shard_with_too_high_a_number_stays_behind(self, tmp_path, store):
        target = tmp_path / "target"
        FeatureStoreWriter(target, manifest())
        file = next((store / "shards").glob("00000-*"))
        extra = file.with_name(file.name.replace("00000-", "00007-", 1))
        extra.write_bytes(file.read_bytes())
        assert merge_stores(target, [store]) == []
        assert verify_store(target) == []

    def test_what_is_lacking_is_told(self, tmp_path):
        for worker in range(2):
            write_shard(FeatureStoreWriter(tmp_path / str(worker), manifest()), worker)
        assert merge_stores(tmp_path / "0", [tmp_path / "1"]) == [2, 3]

    def test_other_stores_do_not_mix(self, tmp_path, store):
        fill(tmp_path / "other", manifest(classes=("drop", "lift")))
        before = files(store)
        with pytest.raises(
            FeatureStoreError, match=r"are different stores:\n  classes\[0\]: 'lift"
        ):
            merge_stores(store, [tmp_path / "other"])
        assert files(store) == before

    def test_another_file_system(self, tmp_path, store, monkeypatch):
        write_shard(FeatureStoreWriter(tmp_path / "new", manifest()), 0)

        def refuse(source, target):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

        monkeypatch.setattr(os, "link", refuse)
        with pytest.raises(
            FeatureStoreError, match="cannot be linked into .* Invalid cross-device"
        ):
            merge_stores(tmp_path / "new", [store])


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FeatureStoreError, match="file/store cannot be made: .*Not a directory"):
        FeatureStoreWriter(tmp_path / "file" / "store", manifest())
