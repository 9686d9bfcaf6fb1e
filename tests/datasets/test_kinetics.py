import pytest

from gasmcast.datasets import read_kinetics
from made_files import shown, touch, write

HEADER = "label,youtube_id,time_start,time_end,split\n"
ROWS = (
    'petting animal (not cat),-a_b,1,11,train\n"testifying",#xyz,101.0,111,train\n'
    "testifying,gone,0,10,train\n"
)


@pytest.fixture
def file(tmp_path):
    return write(tmp_path / "train.csv", HEADER + ROWS)


@pytest.mark.parametrize(
    "name", ["petting animal (not cat)", "petting_animal_(not_cat)", "petting-animal--not-cat-"]
)
@pytest.mark.parametrize("suffix", [".mp4", ".MKV", ".webm"])
def test_clips_in_class_folders(tmp_path, file, name, suffix):
    clips = (f"{name}/-a_b_000001_000011{suffix}", f"testifying/#xyz_000101_000111{suffix}")
    touch(
        tmp_path / "v", *clips, f"{name}/-a_b_000001_000011.txt", f"{name}/-a_b_000002_000012.mp4"
    )
    videos = read_kinetics(file, tmp_path / "v")
    assert videos.classes == ("petting animal (not cat)", "testifying")
    assert shown(videos, tmp_path / "v") == [
        (clips[0], "petting animal (not cat)"),
        (clips[1], "testifying"),
        ("testifying/gone_000000_000010.mp4", "testifying"),  # kept, to be named when it is read
    ]
    ids = [record.id for record in videos.records]
    assert ids == ["-a_b_000001_000011", "#xyz_000101_000111", "gone_000000_000010"]


def test_flat_missing_and_mixed_folders_have_the_same_ids(tmp_path, file):
    touch(tmp_path / "flat", "-a_b_000001_000011.avi")
    flat = read_kinetics(file, tmp_path / "flat")
    assert [path for path, _ in shown(flat, tmp_path / "flat")] == [
        "-a_b_000001_000011.avi",
        "#xyz_000101_000111.mp4",
        "gone_000000_000010.mp4",
    ]
    missing = read_kinetics(file, tmp_path / "missing")
    touch(
        tmp_path / "mixed",
        "testifying/other.mp4",
        "Testifying_/gone_000000_000010.mp4",
        "#xyz_000101_000111.mp4",
    )
    mixed = read_kinetics(file, tmp_path / "mixed")
    assert [path for path, _ in shown(mixed, tmp_path / "mixed")] == [
        "-a_b_000001_000011.mp4",
        "#xyz_000101_000111.mp4",
        "Testifying_/gone_000000_000010.mp4",
    ]
    ids, *others = [[r.id for r in videos.records] for videos in (flat, missing, mixed)]
    assert others == [ids, ids]


def test_an_order_of_the_classes(tmp_path, file):
    order = ["testifying", "zumba", "petting animal (not cat)"]
    videos = read_kinetics(file, tmp_path, classes=order)
    assert videos.classes == tuple(order)
    assert [r.label for r in videos.records] == [2, 0, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "youtube_id,time_start,time_end,split\na,1,2,test\n",
            r"k\.csv has no column 'label', got 'youtube_id,time_start,time_end,split': expected "
            "label,youtube_id,time_start,time_end; test clips without labels cannot be evaluated$",
        ),
        ("a.mp4 1\n", r"k\.csv has no column 'label', 'youtube_id', .* got 'a\.mp4 1': .*_end$"),
        ("", "has no column 'label', 'youtube_id', 'time_start', 'time_end', got ''"),
        (HEADER, r"k\.csv lists no clip"),
        (HEADER + "run,a,1,2,t\nrun,b,x,2,t\n", r"k\.csv:3: expected label,.*, got 'run,b,x,2'"),
        (HEADER + "run,a\n", r"k\.csv:2: expected label,.*, got 'run,a,,'"),
        (HEADER + '"run,a,1,2,t\nrun,b,1,2,t\n', r"k\.csv:3: expected label,.*, got '"),
        (HEADER + '"run,a,1,2,t\n"run",b,1,2,t\n', r"k\.csv:3: expected label,.*, got 'run,a,1"),
        (HEADER + "x" * 200_000, r"k\.csv:2: not CSV: field larger than field limit \(131072\)$"),
        (HEADER + ",a,1,2,t\n", r"k\.csv:2: expected label,.*, got ',a,1,2'"),
        (HEADER + "run,a,inf,2,t\n", r"k\.csv:2: expected label,.*, got 'run,a,inf,2'"),
        (HEADER + "fly,a,1,2,t\n", "clip a_000001_000002 has the label 'fly', not among the 1 cl"),
        (HEADER + "run,a,1,2,t\nrun,a,1,2,t\n", "got twice: 'a_000001_000002'"),
    ],
)
def test_lists_that_do_not_serve(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_kinetics(write(tmp_path / "k.csv", text), tmp_path, classes=["run"])


def test_a_list_that_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"annotation file .*k\.csv is not there"):
        read_kinetics(tmp_path / "k.csv", tmp_path)
