import pytest

from gasmcast.datasets import read_something_something
from made_files import shown, write

LABELS = {"Holding something": "1", "Putting something, then something": "0"}
TRAIN = [
    {
        "id": "78687",
        "label": "holding potato next to vicks",
        "template": "Holding [something]",
        "placeholders": ["potato"],
    },
    {"id": "42326", "label": "...", "template": "Putting [something], then [something]"},
    {"id": 100904, "label": "holding it", "template": "Holding [something]"},
]


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "labels.json", LABELS)
    return tmp_path


@pytest.mark.parametrize("release", ["", "something-something-v2-"])
def test_both_releases(tmp_path, release):
    write(tmp_path / f"{release}labels.json", LABELS)
    file = write(tmp_path / f"{release}train.json", TRAIN)
    videos = read_something_something(file, tmp_path / "videos")
    assert videos.classes == ("Putting something, then something", "Holding something")
    assert [r.label for r in videos.records] == [1, 0, 1]
    assert [r.id for r in videos.records] == ["78687", "42326", "100904"]
    assert videos.records[2].path == tmp_path / "videos" / "100904.webm"


@pytest.mark.parametrize("release", ["", "something-something-v2-"])
def test_answers_of_the_test_clips(folder, release):
    file = write(folder / "test.json", [{"id": "5"}, {"id": "7"}])
    with pytest.raises(FileNotFoundError) as error:
        read_something_something(file, folder)
    assert str(error.value) == (
        f"{file} needs test-answers.csv or something-something-v2-test-answers.csv beside it, or "
        "another named"
    )
    answers = "7;Putting something, then something\n5;Holding something\n9;Holding something\n"
    beside = write(folder / f"{release}test-answers.csv", answers)
    videos = read_something_something(file, folder)
    assert shown(videos, folder) == [
        ("5.webm", "Holding something"),
        ("7.webm", "Putting something, then something"),
    ]
    elsewhere = beside.rename(folder / "mine.csv")
    assert read_something_something(file, folder, answers=str(elsewhere)) == videos


def test_another_order_of_the_classes(folder):
    file = write(folder / "train.json", TRAIN)
    order = ["Holding something", "Putting something, then something"]
    videos = read_something_something(file, folder, classes=order)
    assert videos.classes == tuple(order)
    assert [r.label for r in videos.records] == [0, 1, 0]
    named = write(folder / "mine.json", order)
    assert read_something_something(file, folder, classes=named) == videos


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", r"train\.json is not JSON"),
        ({"id": "1"}, r"train\.json must be a list of clips with id and template"),
        ([{"template": "Holding [something]"}], "must be a list of clips with id and template"),
        ([{"id": "1", "template": 3}], "must be a list of clips with id and template"),
        (["1"], "must be a list of clips with id and template"),
        ([], r"train\.json lists no clip"),
        (
            [{"id": "1", "template": "Hiding [something]"}],
            "clip 1 shows 'Hiding something', not among the 2 classes: 'Putting something, then",
        ),
        ([{"id": "1"}], r"clip 1 has no template, and .*test-answers\.csv no answer for it"),
        (
            [{"id": "3", "template": ""}],
            "clip 3 shows 'Losing something', not among the 2 classes",
        ),
        ([TRAIN[0], TRAIN[0]], "each video must have an id of its own, got twice: '78687'"),
    ],
)
def test_annotations_that_do_not_serve(folder, content, message):
    write(folder / "test-answers.csv", "2;Holding something\n3;Losing something\n")
    with pytest.raises(ValueError, match=message):
        read_something_something(write(folder / "train.json", content), folder)


def test_files_that_are_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"annotation file .*train\.json is not there"):
        read_something_something(tmp_path / "train.json", tmp_path)
    file = write(tmp_path / "train.json", TRAIN)
    with pytest.raises(FileNotFoundError, match=r"needs labels\.json or something-something-v2-l"):
        read_something_something(file, tmp_path)
    write(tmp_path / "labels.json", LABELS)
    file = write(tmp_path / "test.json", [{"id": "5"}])
    with pytest.raises(FileNotFoundError, match=r"file of answers .*none\.csv is not there"):
        read_something_something(file, tmp_path, answers=tmp_path / "none.csv")
    answers = write(tmp_path / "a.csv", "5;Holding something\n6,Holding something\n")
    with pytest.raises(ValueError, match=r"a\.csv:2: expected 'id;class', got '6,Holding some"):
        read_something_something(file, tmp_path, answers=answers)
