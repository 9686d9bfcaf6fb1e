import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gasmcast.datasets import read_annotation_list
from gasmcast.datasets.lists import is_annotation_list
from made_files import shown, write


@pytest.mark.parametrize(
    "text",
    [
        'path,label\na b.mp4,lift\n"c,d.mp4","drop, then lift"\n',
        "# made by hand\na b.mp4,lift\n\nc.mp4,drop\n",
        "a b.mp4 lift\nc.mp4 drop\n",
        "\ufeffpath, label\r\na b.mp4, lift\r\nc.mp4, drop\r\n",
        "codec,label,path\nh264,lift,a b.mp4\nvp9,drop,c.mp4\n",
        "path;frames;label\na b.mp4;3;lift\nc.mp4;4;drop\n",
        'path label\n"a b.mp4" lift\nc.mp4 drop\n',
        '"path","label"\n"a b.mp4","lift"\n"c.mp4","drop"\n',
        "label\tpath\nlift\ta b.mp4\ndrop\tc.mp4\n",
        "a b.mp4\tlift\nc.mp4\t drop\n",
        "a b.mp4,lift\nc.mp4, drop\n",
        "a b.mp4;lift\nc.mp4;drop\n",
        '"a b.mp4" lift\nc.mp4 drop\n',
        '"a b.mp4", "lift"\n"c,d.mp4", "drop, then lift"\n',
        "a b.mp4 40 lift\nc.mp4 30 drop\n",
        "a b.mp4,40,lift\nc.mp4,30,drop\n",
    ],
)
def test_lists_of_names(tmp_path, text):
    videos = read_annotation_list(write(tmp_path / "list.csv", text))
    first, second = shown(videos, tmp_path)
    assert first == ("a b.mp4", "lift")
    assert second in [("c.mp4", "drop"), ("c,d.mp4", "drop, then lift")]
    assert videos.classes == tuple(sorted(videos.classes))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("frames/a 40 1\nfr ames/b 30 0\n", [("frames/a", "1"), ("fr ames/b", "0")]),
        ("frames/a,40,1\nb,30,0\n", [("frames/a", "1"), ("b", "0")]),
        ('"frames/a 9 b" 40 lift it\n', [("frames/a 9 b", "lift it")]),
        ("7;Drumming Fingers\n8;Stop Sign\n", [("7", "Drumming Fingers"), ("8", "Stop Sign")]),
        ('7;"Lifting it, then dropping it"\n', [("7", "Lifting it, then dropping it")]),
        ("a.mp4 Lifting it, then not\n", [("a.mp4", "Lifting it, then not")]),
        ("a.mp4,Lifting it, then not\n", [("a.mp4", "Lifting it, then not")]),
        ("dir,1/a.mp4 fight\n", [("dir,1/a.mp4", "fight")]),
        ("a\x85\u2028b.mp4 fight\n", [("a\x85\u2028b.mp4", "fight")]),
        ("a,1,b.mp4 fight\n", [("a,1,b.mp4", "fight")]),
        ("a.mp4 copy.MP4 3\n", [("a.mp4 copy.MP4", "3")]),
        ('a.mp4 "360 flip"\nb.mp4 flip\n', [("a.mp4", "360 flip"), ("b.mp4", "flip")]),
    ],
)
def test_frames_quotes_and_commas(tmp_path, text, expected):
    assert shown(read_annotation_list(write(tmp_path / "list.txt", text)), tmp_path) == expected


words = st.text("abc01 ,;'_-é", min_size=1, max_size=8).filter(
    lambda word: word == word.strip() and word[0] not in ",;" and word[-1] not in ",;"
)
# Without quotes, a label that begins with a number could be the number of frames. One that is an
# integer is an index.
names = words.filter(lambda name: not name[0].isdecimal() and any(map(str.isalpha, name)))


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(words, names), min_size=1, max_size=4, unique_by=lambda row: row[0]),
    st.sampled_from(["\t", ";", ",", " "]),
    st.booleans(),
    st.booleans(),
)
def test_what_is_written_with_quotes_is_read_back(tmp_path_factory, rows, between, frames, quoted):
    number = ["30"] * frames
    quote = '"' if quoted or between != "\t" else ""
    text = "\n".join(
        between.join([f"{quote}{path}.mp4{quote}", *number, f"{quote}{label}{quote}"])
        for path, label in rows
    )
    file = write(tmp_path_factory.mktemp("list") / "list.txt", text)
    assert shown(read_annotation_list(file), file.parent) == [(f"{p}.mp4", n) for p, n in rows]


def test_numbers_are_indices(tmp_path):
    file = write(tmp_path / "list.txt", "a.mp4 2\nb.mp4 0\n")
    videos = read_annotation_list(file, root="/elsewhere")
    assert videos.classes == ("0", "1", "2")
    assert [r.label for r in videos.records] == [2, 0]
    assert videos.records[0].path.as_posix() == "/elsewhere/a.mp4"
    named = read_annotation_list(file, classes=["x", "y", "z"])
    assert [named.classes[r.label] for r in named.records] == ["z", "x"]


def test_ids_do_not_depend_on_the_root(tmp_path):
    (tmp_path / "here").mkdir()
    text = "path,label\n./a/b.mp4,x\n{root}/c.mp4,x\n/far/d.mp4,x\n"
    file = write(tmp_path / "list.csv", text.format(root=tmp_path / "here"))
    videos = read_annotation_list(file, root=tmp_path / "here")
    assert [r.id for r in videos.records] == ["a/b.mp4", "c.mp4", "/far/d.mp4"]
    assert videos.records[0].path == tmp_path / "here" / "a" / "b.mp4"
    assert videos.records[2].path.as_posix() == "/far/d.mp4"


def test_a_video_is_listed_once(tmp_path):
    file = write(tmp_path / "list.txt", "a.mp4 1\nb.mp4 0\n./a.mp4 0\n")
    with pytest.raises(ValueError, match="an id of its own, got twice: 'a.mp4'"):
        read_annotation_list(file)


def test_a_class_file_gives_the_order(tmp_path):
    file = write(tmp_path / "list.csv", "path,label\na.mp4,lift\n")
    labels = write(tmp_path / "labels.json", {"lift": "1", "drop": "0"})
    videos = read_annotation_list(file, classes=labels)
    assert videos.classes == ("drop", "lift")
    assert videos.records[0].label == 1
    with pytest.raises(ValueError, match="a name of its own, got twice: 'lift'"):
        read_annotation_list(file, classes=["lift", "drop", "lift"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lists no video: expected lines"),
        ("path,label\n", "lists no video"),
        ("path,label\na.mp4,lift\nb.mp4\n", r"list\.csv:3: expected path,label, got 'b\.mp4'"),
        (
            "path,label\na.mp4,\n",
            r"the label is empty: expected path,label, got 'a\.mp4,'$",
        ),
        ('path,label\n"a.mp4,lift\nb.mp4,lift\n', r"list\.csv:2: expected path,label, got '\"a"),
        (
            "label,codec,path\n,gif,a.gif\n",
            r"csv:2: the label is empty: expected label,codec,path, ",
        ),
        ("path;label\na.mp4,lift\n", r"list\.csv:2: expected path;label, got 'a\.mp4,lift'"),
        ("a.mp4\n", r"list\.csv:1: expected 'path label' with a video file.* got 'a\.mp4'"),
        ("video,label\na.mp4,lift\n", r"list\.csv:1: .*got 'video,label'"),
        ('"video","label"\n', r"list\.csv:1: .*got '\"video\",\"label\"'"),
        ("label,youtube_id,time_start\nlift,abc,1\n", r"list\.csv:1: .*got 'label,youtube_id,time"),
        ("frames/a 1\n", r"list\.csv:1: .*or 'path total_frames label', or .*got 'frames/a 1'"),
        ("frames/a 12 163 1\n", r"list\.csv:1: .*got 'frames/a 12 163 1'"),
        ("a.mp4 1 3 5\n", r"list\.csv:1: .*got 'a\.mp4 1 3 5'"),
        ("a.mp4 0 1\n", r"list\.csv:1: .*got 'a\.mp4 0 1'"),
        ("path,class\na.mp4,lift\n", r"list\.csv:1: .*got 'path,class'"),
        ("path,label\n ,lift\n", r"csv:2: the path is empty: expected path,label, got ',lift'$"),
        (
            'path,label\n" ",lift\n',
            r"the path is empty: expected path,label, got '\" \",lift'$",
        ),
        ("a.mp4,1,3,5\n", r"list\.csv:1: .*got 'a\.mp4,1,3,5'"),
        ("a.mp4 1\n\nb.mp4 3 1\n", r"list\.csv:3: expected .* like line 1, or .*got 'b\.mp4 3 1'"),
        ("a.mp4,0\nb.mp4,1\nc.mp4 0\n", r"list\.csv:3: .* like line 1, .*got 'c\.mp4 0'"),
        ("a.mp4 ²\n", r"list\.csv:1: label '²' is not among"),
        ("a.mp4 fly\n", r"list\.csv:1: label 'fly' is not among the 2 classes: 'drop', 'lift'"),
        ("a.mp4 1\nb.mp4 2\n", r"list\.csv:2: label '2' is not among the 2 classes"),
        ("a.mp4 -1\n", r"list\.csv:1: label '-1' is not among the 2 classes"),
    ],
)
def test_lines_that_cannot_be_read(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_annotation_list(write(tmp_path / "list.csv", text), classes=["drop", "lift"])


@pytest.mark.parametrize("between", [" ", "\t", " \t", "; ", ", ", "1 ", "a.mp4 1 ", '"'])
@pytest.mark.parametrize("line", ["a{}b", "a.mp4{}b c", "{}b"])
def test_long_lines_are_refused_or_read_in_time_of_their_length(between, line):
    begin = time.monotonic()
    is_annotation_list(line.format(between * 100_000))  # in squares, minutes
    assert time.monotonic() - begin < 10


def test_minus_one_is_no_class(tmp_path):
    with pytest.raises(ValueError, match="label '-1' is not among the 1 classes: '0'"):
        read_annotation_list(write(tmp_path / "list.txt", "a.mp4 -1\nb.mp4 0\n"))


def test_a_number_that_is_no_class(tmp_path):
    file = write(tmp_path / "list.txt", "a.mp4 0\nb.mp4 20261125134754\n")
    message = r"list\.txt:2: expected a class index from 0 to 999999, got 20261125134754$"
    with pytest.raises(ValueError, match=message):
        read_annotation_list(file)


def test_files_that_are_not_lists(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"annotation list .*none\.csv is not there"):
        read_annotation_list(tmp_path / "none.csv")
    with pytest.raises(ValueError, match=r"^annotation list .* is a folder: expected a file$"):
        read_annotation_list(tmp_path)
    (tmp_path / "video.mp4").write_bytes(b"\x00\xff\xfe\x90")
    with pytest.raises(ValueError, match=r"video\.mp4 is not a text file"):
        read_annotation_list(tmp_path / "video.mp4")
    # One long line, longer than a field of CSV may be: its beginning is shown.
    file = write(tmp_path / "train.json", [{"id": "1"}] * 20_000)
    with pytest.raises(ValueError, match=r"train\.json:1: expected 'path label'") as error:
        read_annotation_list(file)
    assert len(str(error.value)) < 600
