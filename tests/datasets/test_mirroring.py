import pytest
from hypothesis import given
from hypothesis import strategies as st

from gasmcast.datasets import APPEARANCES, MOTIONS, class_name, mirrored_classes
from made_files import write

SOMETHING = [
    "Pulling something from left to right",
    "Pulling something from right to left",
    "Pushing something from left to right",
    "Pushing something from right to left",
    "Turning something upside down",
    "Turning the camera left while filming something",
    "Turning the camera right while filming something",
]


def test_left_and_right_of_something_something():
    assert mirrored_classes(SOMETHING) == (1, 0, 3, 2, 4, 6, 5)


@pytest.mark.parametrize(
    "pair",
    [
        ("Swiping Left", "Swiping Right"),
        ("swipe_left", "swipe_right"),
        ("SwipeLeft", "SwipeRight"),
        ("turning leftwards", "turning rightwards"),
        ("Left-to-right", "right to left"),
        ("turning clockwise", "turning counterclockwise"),
        ("Turning Clockwise", "turning counter-clockwise"),
        ("turn_anticlockwise", "turn_clockwise"),
    ],
)
def test_pairs_of_words(pair):
    assert mirrored_classes(["stop", *pair, "Stop"]) == (0, 2, 1, 3)


def test_words_that_only_hold_left_or_right():
    assert mirrored_classes(["a leftover", "brightening", "rightmost", "cleft"]) == (0, 1, 2, 3)


def test_the_rendered_set():
    names = [class_name(motion, look) for motion in MOTIONS for look in APPEARANCES]
    mirrored = mirrored_classes(names)
    for label, name in enumerate(names):
        turned = "left" in name or "clockwise" in name
        assert (mirrored[label] != label) == turned
        opposite = label + len(APPEARANCES) * (1 if label // len(APPEARANCES) % 2 == 0 else -1)
        assert mirrored[label] == (opposite if turned else label)


def test_a_class_without_its_mirror_image():
    with pytest.raises(ValueError, match="^no class is the mirror image of ") as error:
        mirrored_classes(["moving left", "stop", "turning right side up"])
    assert str(error.value) == (
        "no class is the mirror image of 'moving left', 'turning right side up': say which class "
        "becomes which by swaps"
    )
    swaps = {"moving left": "stop"}
    assert mirrored_classes(["moving left", "stop", "turning right side up"], swaps) == (1, 0, 2)
    assert mirrored_classes(["moving left", "stop"], {}) == (0, 1)


def test_numbers_do_not_tell_left_from_right():
    with pytest.raises(ValueError, match="^the 3 classes are plain numbers, which do not tell"):
        mirrored_classes(["0", "1", "2"])
    assert mirrored_classes(["0", "1", "2"], {"1": "2", "2": "1"}) == (0, 2, 1)


def test_two_spellings_of_one_class():
    # Both would become "turn right", which can become only one of them again.
    with pytest.raises(ValueError, match="^flipped twice, class 'turn left' must be itself again"):
        mirrored_classes(["turn left", "turn_left", "turn right"])


@pytest.mark.parametrize("swaps", [{"b": "c"}, {"c": "b"}, {"b": "c", "c": "b", "a": "a"}])
def test_swaps_one_way_or_both(tmp_path, swaps):
    assert mirrored_classes(["a", "b", "c", "d"], swaps) == (0, 2, 1, 3)
    file = write(tmp_path / "swaps.json", swaps)
    assert mirrored_classes(["a", "b", "c", "d"], file) == (0, 2, 1, 3)
    assert mirrored_classes(["a", "b", "c", "d"], str(file)) == (0, 2, 1, 3)


@pytest.mark.parametrize(
    ("swaps", "message"),
    [
        (
            {"a": "b", "b": "b"},
            "^flipped twice, class 'a' must be itself .* 'b', and that becomes 'b'$",
        ),
        ({"a": "c", "b": "c"}, "^flipped twice, class 'a' .* 'c', and that becomes 'b'$"),
        ({"a": "b", "b": "c"}, "^flipped twice, class 'a' .* 'b', and that becomes 'c'$"),
        ({"a": "b", "b": "c", "c": "a"}, "^flipped twice, class 'a' .* 'b', and that becomes 'c'$"),
        ({"a": "x", "y": "b"}, "^swaps names 'y', 'x', not among the 3 classes: 'a', 'b', 'c'$"),
    ],
)
def test_swaps_that_do_not_serve(swaps, message):
    with pytest.raises(ValueError, match=message):
        mirrored_classes(["a", "b", "c"], swaps)


def test_files_of_swaps_that_do_not_serve(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"file of swaps .*none\.json is not there"):
        mirrored_classes(["a"], tmp_path / "none.json")
    for content in (["a"], {"a": 0}):
        file = write(tmp_path / "swaps.json", content)
        with pytest.raises(ValueError, match=r"swaps\.json must map names of classes to names"):
            mirrored_classes(["a"], file)
    with pytest.raises(ValueError, match="each class must have a name of its own, got twice: 'a'"):
        mirrored_classes(["a", "a"])


@given(st.dictionaries(st.sampled_from("abcdef"), st.sampled_from("abcdef")))
def test_swaps_lead_there_and_back_or_are_refused(swaps):
    try:
        mirrored = mirrored_classes("abcdef", swaps)
    except ValueError:
        pairs = {frozenset(pair) for pair in swaps.items()}
        assert any(len([pair for pair in pairs if name in pair]) > 1 for name in "abcdef")
        return
    assert [mirrored[other] for other in mirrored] == list(range(6))
    expected = {name: name for name in "abcdef"} | swaps | {o: n for n, o in swaps.items()}
    assert ["abcdef"[other] for other in mirrored] == list(expected.values())


@given(st.permutations(SOMETHING))
def test_flipped_twice_is_the_same_in_any_order(names):
    mirrored = mirrored_classes(names)
    assert [mirrored[other] for other in mirrored] == list(range(len(names)))
    for name, other in zip(names, mirrored, strict=True):
        there, back = name.replace("left", "L").replace("right", "left"), names[other]
        assert there.replace("L", "right") == back
