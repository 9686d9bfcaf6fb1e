import pytest

from gasmcast.datasets import read_hmdb51
from made_files import shown, write


@pytest.fixture
def folder(tmp_path):
    splits = tmp_path / "splits"
    write(splits / "clap_test_split1.txt", "#20_Rhythm_clap_u.avi 1 \nb (2).avi 2 \nc.avi 0 \n")
    write(splits / "brush_hair_test_split1.txt", "d.avi 1 \ne.avi 2 \nf.avi 2 \n")
    write(splits / "clap_test_split2.txt", "c.avi 1\n")
    write(splits / "notes.txt", "nothing\n")
    return splits


def test_parts_and_splits(folder):
    videos = read_hmdb51(folder, "/videos")
    assert videos.classes == ("brush_hair", "clap")
    assert shown(videos, "/videos") == [
        ("brush_hair/d.avi", "brush_hair"),
        ("clap/#20_Rhythm_clap_u.avi", "clap"),
    ]
    assert [r.id for r in videos.records] == ["brush_hair/d.avi", "clap/#20_Rhythm_clap_u.avi"]
    test = read_hmdb51(folder, "/videos", part="test")
    assert [path for path, _ in shown(test, "/videos")] == [
        "brush_hair/e.avi",
        "brush_hair/f.avi",
        "clap/b (2).avi",
    ]
    both = read_hmdb51(folder, "/videos", part=None)  # and not c.avi, which is of neither
    assert {r.id for r in both.records} == {r.id for r in (*videos.records, *test.records)}
    assert len(both) == 5
    second = read_hmdb51(folder, "/videos", split=2, classes=["clap", "brush_hair"])
    assert [(r.id, r.label) for r in second.records] == [("clap/c.avi", 0)]


def test_what_is_refused(folder):
    with pytest.raises(
        ValueError, match="part of HMDB51 must be 'train', 'test' or None, got 'val'"
    ):
        read_hmdb51(folder, "/videos", part="val")
    with pytest.raises(ValueError, match=r"no <class>_test_split3\.txt, got the splits \[1, 2\]"):
        read_hmdb51(folder, "/videos", split=3)
    with pytest.raises(ValueError, match="split 2 in .* has no video of the part 'test'"):
        read_hmdb51(folder, "/videos", part="test", split=2)
    write(folder / "clap_test_split3.txt", "a.avi 0\n")
    with pytest.raises(ValueError, match=r"split 3 in .* has no video$"):
        read_hmdb51(folder, "/videos", part=None, split=3)
    with pytest.raises(ValueError, match=r"clap_test_split1\.txt is of no class among the 1: 'bru"):
        read_hmdb51(folder, "/videos", classes=["brush_hair"])
    with pytest.raises(FileNotFoundError, match="none is no folder: expected one of HMDB51's"):
        read_hmdb51(folder / "none", "/videos")
    for line in ("a.avi 3", "a.avi", "1"):
        write(folder / "clap_test_split1.txt", f"b.avi 1\n{line}\n")
        with pytest.raises(ValueError, match=rf"split1\.txt:2: expected .* 1 or 2, got '{line}'"):
            read_hmdb51(folder, "/videos")
