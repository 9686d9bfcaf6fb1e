import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gasmcast.datasets import check_classes, read_classes
from made_files import write


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("labels.json", ["drop it", "lift", "3 steps"]),
        ("labels.json", {"lift": 1, "drop it": 0, "3 steps": 2}),
        ("LABELS.JSON", {"lift": "1", "drop it": "0", "3 steps": "2"}),
        ("id2label.json", {"1": "lift", "0": "drop it", "2": "3 steps"}),
        ("kinetics.json", {'"lift"': 1, '"drop it"': 0, '"3 steps"': 2}),
        ("classes.txt", "drop it\n\nlift \n3 steps\n"),
        ("classInd.txt", "1 drop it\n2 lift\n3 3 steps\n"),
        ("classes.txt", "2 3 steps\n0 drop it\n1 lift\n"),
        ("map.csv", "id,name\n0,drop it\n1, lift\n2,3 steps\n"),
        ("map.tsv", "0\tdrop it\n1\tlift\n2\t3 steps\n"),
    ],
)
def test_class_files(tmp_path, name, content):
    file = write(tmp_path / name, content)
    assert read_classes(file) == ("drop it", "lift", "3 steps")
    check_classes(("drop it", "lift", "3 steps"), str(file))


def test_json_of_numbers_to_numbers_maps_names(tmp_path):
    # Names that are numbers themselves: what comes first is the name.
    assert read_classes(write(tmp_path / "l.json", {"1": "0", "0": "1"})) == ("1", "0")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.json", "{", r"c\.json is not JSON: "),
        ("c.json", {"lift": 5}, "must list the classes or map each to its own index 0 to K - 1"),
        ("c.json", {"lift": 0, "drop": 0}, "map each to its own index 0 to K - 1"),
        ("c.json", {"1": "lift", "2": "drop"}, "map each to its own index 0 to K - 1"),
        ("c.json", {"0": 1, "1": [0]}, "map each to its own index 0 to K - 1"),
        ("c.json", [1, 2], "must list the classes"),
        ("c.json", [], r"c\.json names no class"),
        ("c.txt", "\n", r"c\.txt names no class"),
        (
            "c.txt",
            "0 a\n2 b\n",
            r"c\.txt numbers its 2 classes 0 to 2: expected each number from 0",
        ),
        ("c.txt", "1 a\n1 b\n", r"c\.txt numbers its 2 classes 1 to 1: expected each number"),
        ("c.txt", "a\nb\na\n", "^each class must have a name of its own, got twice: 'a'$"),
    ],
)
def test_class_files_that_do_not_serve(tmp_path, name, content, message):
    with pytest.raises(ValueError, match=message):
        read_classes(write(tmp_path / name, content))


def test_a_class_file_that_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"class file .*none\.json is not there"):
        read_classes(tmp_path / "none.json")


@pytest.mark.parametrize(
    "line",
    [
        "label,youtube_id,time_start,time_end,split",
        '"label","youtube_id","time_start","time_end"',
        "path;label",
        "codec\tLabel\tPath",
        "a.mp4 3",
        '"a b.webm",drop',
        "Archery/v_Archery_g01.AVI 1",
    ],
)
def test_lists_of_videos_are_no_class_files(tmp_path, line):
    file = write(tmp_path / "list.csv", f"{line}\ndrop,1,2\n")
    message = f"{file} lists videos, expected class names in order: it begins with {line!r}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        read_classes(file)
    with pytest.raises(ValueError, match="lists videos, expected class names"):
        check_classes(("0", "1"), file)  # of which only the count would be compared


def test_names_that_speak_of_paths_and_labels(tmp_path):
    names = ("drawing a path, then a label", "label", "path", "at 5 a.m. ts")
    assert read_classes(write(tmp_path / "c.txt", "\n".join(names))) == names


def test_orders_that_differ(tmp_path):
    file = write(tmp_path / "labels.json", ["a", "b", "c", "d", "e"])
    check_classes(list("abcde"), file)
    with pytest.raises(ValueError, match="not as expected by") as error:
        check_classes(list("abdce"), file)
    assert str(error.value) == (
        f"2 of 5 classes are not as expected by {file}: 2 is 'd', expected 'c'; "
        "3 is 'c', expected 'd'"
    )
    with pytest.raises(ValueError, match="not as expected:") as error:
        check_classes(list("bcdef"), list("abcde"))
    assert str(error.value) == (
        "5 of 5 classes are not as expected: 0 is 'b', expected 'a'; 1 is 'c', expected 'b'; "
        "2 is 'd', expected 'c'; ..."
    )
    with pytest.raises(ValueError, match="1 of 5 .*: 4 is missing, expected 'e'$"):
        check_classes(list("abcd"), file)
    with pytest.raises(ValueError, match="1 of 6 .*: 5 is 'f', expected missing$"):
        check_classes(list("abcdef"), file)


def test_numbers_alone_have_no_order_to_check(tmp_path):
    file = write(tmp_path / "labels.json", ["a", "b", "c"])
    check_classes(("0", "1", "2"), file)
    check_classes(("0", "1"), file)
    with pytest.raises(ValueError, match=r"labels go up to 3, but 3 classes are expected by .*"):
        check_classes(("0", "1", "2", "3"), file)
    with pytest.raises(ValueError, match="3 of 3 classes are not as expected"):
        check_classes(("1", "2", "3"), file)
    with pytest.raises(ValueError, match="3 of 3 classes are not as expected"):
        check_classes((), file)


@given(st.permutations(["a", "b", "c", "d"]), st.permutations(["a", "b", "c", "d"]))
def test_only_the_same_order_passes(one, other):
    if one == other:
        check_classes(one, other)
    else:
        with pytest.raises(ValueError, match="classes are not as expected"):
            check_classes(one, other)
