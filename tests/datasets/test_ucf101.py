import pytest

from gasmcast.datasets import read_ucf101
from made_files import shown, write

TRAIN = "Archery/v_Archery_g08_c01.avi 2\r\nApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi 1\n"
TEST = "Archery/v_Archery_g01_c01.avi\n"


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "classInd.txt", "1 ApplyEyeMakeup\n2 Archery\n")
    return tmp_path


def test_numbers_count_from_one(folder):
    videos = read_ucf101(write(folder / "trainlist01.txt", TRAIN), folder / "UCF-101")
    assert videos.classes == ("ApplyEyeMakeup", "Archery")
    assert [r.label for r in videos.records] == [1, 0]
    assert videos.records[0].id == "Archery/v_Archery_g08_c01.avi"
    assert videos.records[0].path == folder / "UCF-101" / "Archery" / "v_Archery_g08_c01.avi"


def test_test_lists_have_no_numbers(folder):
    videos = read_ucf101(write(folder / "testlist01.txt", TEST), folder)
    assert shown(videos, folder) == [("Archery/v_Archery_g01_c01.avi", "Archery")]
    assert videos.classes == ("ApplyEyeMakeup", "Archery")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"trainlist01\.txt lists no video"),
        (
            "v_Archery_g01_c01.avi 2\n",
            r"list01\.txt:1: expected '<class>/<video> 1', got 'v_Arch",
        ),
        ("Archery/a b.avi 2\n", r"list01\.txt:1: expected '<class>/<video> 1', got 'Archery/a b"),
        (
            "\nBilliards/a.avi 3\n",
            r"list01\.txt:2: class 'Billiards' is not among the 2 classes",
        ),
        (
            "Archery/a.avi 1\n",
            r"list01\.txt:1: class 'Archery' has the number 1 here, but 2 in classInd\.txt",
        ),
        ("Archery/a.avi 2\nArchery/a.avi 2\n", "got twice: 'Archery/a.avi'"),
    ],
)
def test_lists_that_do_not_serve(folder, text, message):
    with pytest.raises(ValueError, match=message):
        read_ucf101(write(folder / "trainlist01.txt", text), folder)


def test_files_that_are_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"split file .*trainlist01\.txt is not there"):
        read_ucf101(tmp_path / "trainlist01.txt", tmp_path)
    file = write(tmp_path / "trainlist01.txt", TRAIN)
    with pytest.raises(FileNotFoundError, match=r"class file .*classInd\.txt is not there"):
        read_ucf101(file, tmp_path)
    # Labels follow the names, so an order that was given needs no classInd.txt.
    given = read_ucf101(file, tmp_path, classes=["Archery", "Billiards", "ApplyEyeMakeup"])
    assert [r.label for r in given.records] == [0, 2]
