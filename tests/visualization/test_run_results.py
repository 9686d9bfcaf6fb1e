"""The confusion matrix and the accuracy of each class, of files as training writes them."""

import csv
import json

import pytest
import torch
from scipy.stats import binomtest

from gasmcast.training import EvaluationReport
from gasmcast.visualization import (
    draw_class_accuracy,
    draw_confusion_matrix,
    visualize_class_accuracy,
    visualize_confusion_matrix,
    wilson_interval,
)
from gasmcast.visualization.canvas import new_figure
from made_files import write

ODD_NAMES = (
    "$x_1$ up\nand down",
    "_" * 300,
    "שלום \N{BASEBALL}",
    '"quoted", with a comma',
    "",
    r"\frac{",
)


def saved(folder, classes, labels, named):
    """The files of an evaluation that named these videos like this."""
    report = EvaluationReport(
        classes=tuple(classes),
        ids=tuple(f"video {index}" for index in range(len(labels))),
        labels=torch.as_tensor(labels),
        ranked=torch.as_tensor(named)[:, None],
        probabilities=torch.ones(len(labels), 1),
    )
    report.save(folder)
    return folder


def random_run(folder, size, *, without=()):
    """Each class was named right about half of the time; some have no videos."""
    generator = torch.Generator().manual_seed(size)
    labels = torch.randint(size, (12 * size,), generator=generator)
    labels = labels[~torch.isin(labels, torch.tensor(without, dtype=torch.int64))]
    right = torch.rand(len(labels), generator=generator) < 0.5
    other = torch.randint(size, (len(labels),), generator=generator)
    names = [f"class number {label} with a name" for label in range(size)]
    return saved(folder, names, labels, torch.where(right, labels, other))


def table(run, name):
    with (run / name).open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def matrix_of(run):
    return draw_confusion_matrix(run, new_figure((4, 4)).add_subplot())


def bars_of(run):
    return draw_class_accuracy(run, new_figure((4, 4)).add_subplot())


@pytest.mark.parametrize("size", [1, 2, 8, 40, 174])
def test_the_drawn_matrix_is_the_file(size, tmp_path):
    without = [size // 2] if size > 2 else []
    run = random_run(tmp_path, size, without=without)
    image = matrix_of(run)
    drawn = image.get_array()
    counts = [list(map(int, row[1:])) for row in table(run, "confusion_matrix.csv")[1:]]
    for row, (shares, numbers) in enumerate(zip(drawn, counts, strict=True)):
        if row in without:
            assert shares.mask.all()  # not 0: there is nothing to have a share of
        else:
            assert shares.tolist() == pytest.approx([each / sum(numbers) for each in numbers])
    assert image.get_clim() == (0, 1)
    title = image.axes.get_title()
    assert title == (f"grey: 1 of {size} classes without videos" if without else "")
    cells = {text.get_position(): text.get_text() for text in image.axes.texts}
    written = {
        (column, row): str(number)
        for row, numbers in enumerate(counts)
        for column, number in enumerate(numbers)
        if number
    }
    assert cells == (written if size <= 20 else {})
    names = [label.get_text() for label in image.axes.get_yticklabels()]
    if size <= 40:
        assert names == [f"class number {k} with a name  {k}" for k in range(size)]
    else:
        assert names == [str(label) for label in range(0, size, 10)]


def test_many_classes_are_named_in_a_list_of_those_confused_most(tmp_path):
    labels = [5] * 9 + [7] * 6 + [70] * 5 + list(range(80))
    named = [6] * 9 + [7] * 2 + [9] * 4 + [3] * 2 + [70] * 3 + list(range(80))
    run = saved(tmp_path, [f"act ${k}$" for k in range(80)], labels, named)
    figure = visualize_confusion_matrix(run, tmp_path / "picture.svg")
    (text,) = figure.axes[1].texts
    assert text.get_text() == (
        "9 of 10: 5 act \\$5\\$\n      named 6 act \\$6\\$\n"
        "4 of 7: 7 act \\$7\\$\n      named 9 act \\$9\\$\n"
        "2 of 6: 70 act \\$70\\$\n      named 3 act \\$3\\$"
    )
    perfect = visualize_confusion_matrix(saved(tmp_path, map(str, range(80)), range(80), range(80)))
    assert perfect.axes[1].texts[0].get_text() == "no video was named wrong"


def test_drawn_bars_are_the_file(tmp_path):
    run = random_run(tmp_path, 12, without=[3])
    bars = bars_of(run)
    ax = bars.patches[0].axes
    rows = {row[0]: row for row in table(run, "per_class.csv")[1:]}
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert len(labels) == 12
    assert labels[-1] == "class number 3 with a name  (0)"
    assert [text.get_text() for text in ax.texts] == ["no videos"]
    whiskers = bars.errorbar.lines[2][0].get_segments()
    accuracies = []
    for label, bar, whisker in zip(labels, bars.patches, whiskers, strict=False):
        name, videos = label.removesuffix(")").split("  (")
        _, shown, right, accuracy = rows[name]
        assert videos == shown
        assert bar.get_width() == float(accuracy)
        ci = binomtest(int(right), int(shown)).proportion_ci(0.95, method="wilson")
        assert whisker[:, 0].tolist() == pytest.approx([ci.low, ci.high], abs=1e-12)
        assert bar.get_y() < whisker[0, 1] < bar.get_y() + bar.get_height()
        accuracies.append(float(accuracy))
    assert len(bars.patches) == len(whiskers) == len(accuracies) == 11
    assert accuracies == sorted(accuracies, reverse=True)
    results = json.loads((run / "results.json").read_text())
    mean, chance = (line for line in ax.lines if line.get_label()[0] != "_")
    assert mean.get_xdata()[0] == pytest.approx(results["mean_class"])
    assert mean.get_label() == f"mean over classes, {results['mean_class']:.1%}"
    assert chance.get_xdata()[0] == results["chance"]
    top, bottom = ax.get_ylim()[1], ax.get_ylim()[0]
    assert top < bottom  # the best is at the top


def test_of_many_classes_the_best_and_the_worst_are_shown(tmp_path):
    run = random_run(tmp_path, 174, without=range(100, 130))
    bars = bars_of(run)
    rows = [row for row in table(run, "per_class.csv")[1:] if row[3]]
    accuracies = sorted((float(row[3]) for row in rows), reverse=True)
    widths = [bar.get_width() for bar in bars.patches]
    assert widths == accuracies[:20] + accuracies[-20:]
    notes = [text.get_text() for text in bars.patches[0].axes.texts]
    assert notes[0] == f"{len(rows) - 40} classes between"
    assert notes[1] == f"{174 - len(rows)} classes without videos"
    figure = visualize_class_accuracy(run)
    assert figure.get_figheight() < 14


@pytest.mark.parametrize("draw", [visualize_confusion_matrix, visualize_class_accuracy])
@pytest.mark.parametrize("ending", ["png", "pdf", "svg"])
@pytest.mark.filterwarnings("error")
def test_odd_names_are_drawn(draw, ending, tmp_path):
    run = saved(tmp_path, ODD_NAMES, [0, 1, 2, 2], [0, 1, 2, 5])
    figure = draw(run, tmp_path / f"picture.{ending}")
    assert (tmp_path / f"picture.{ending}").stat().st_size > 5000
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert any(label.startswith(r"\$x_1\$ up and down  ") for label in labels)
    assert max(map(len, labels)) < 60


@pytest.mark.filterwarnings("error")
def test_without_any_video_nothing_is_claimed(tmp_path):
    run = saved(tmp_path, ["up", "down"], torch.empty(0).long(), torch.empty(0).long())
    assert matrix_of(run).get_array().mask.all()
    assert visualize_confusion_matrix(run).axes[0].get_title().startswith("grey: 2 of 2")
    bars = bars_of(run)
    assert not bars.patches
    visualize_class_accuracy(run, tmp_path / "picture.png")


@pytest.mark.parametrize(("right", "total"), [(0, 1), (1, 1), (0, 50), (50, 50), (3, 7), (99, 100)])
def test_wilson_interval_is_that_of_scipy(right, total):
    for confidence in (0.5, 0.95, 0.999):
        theirs = binomtest(right, total).proportion_ci(confidence, method="wilson")
        low, high = wilson_interval(right, total, confidence)
        assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
        assert 0 <= low <= right / total <= high <= 1


def test_wilson_interval_refuses_what_is_no_share():
    for numbers in ((2, 1), (-1, 3), (0, 0)):
        with pytest.raises(ValueError, match=f"got {numbers[0]} of {numbers[1]}"):
            wilson_interval(*numbers)
    with pytest.raises(ValueError, match=r"confidence must be between 0 and 1, got 1\.0"):
        wilson_interval(1, 2, 1.0)


MATRIX, CLASSES = "confusion_matrix.csv", "per_class.csv"
DRAW = {MATRIX: visualize_confusion_matrix, CLASSES: visualize_class_accuracy}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (MATRIX, "", "confusion_matrix.csv is empty: expected a row for each class"),
        (CLASSES, "\n", "per_class.csv is empty: expected a row for each class"),
        (MATRIX, "corner\n", "expected the same classes by row and by column"),
        (MATRIX, "c,up,down\nup,1,0\n", "expected the same classes by row and by column"),
        (MATRIX, "c,up,down\nup,1,0\nleft,0,1\n", "expected the same classes by row and by col"),
        (MATRIX, "c,up,down\nup,1,0\ndown,0\n", r"expected 2 numbers of videos, got \[0\]"),
        (MATRIX, "c,up,down\nup,1,0\ndown,-1,2\n", r"expected 2 numbers of .*, got \[-1, 2\]"),
        (MATRIX, "c,up,down\nup,1,0\ndown,nan,2\n", r"expected 2 numbers of .*, got \[nan, 2\]"),
        (MATRIX, f"c,up\nup,{'9' * 99}\n", r"expected 1 numbers of videos, got \[999"),
        (MATRIX, 'c,up\n"up,1\n', "is damaged: expected a CSV table"),
        (MATRIX, "c,up\nup,1\0\n", "is damaged: expected"),
        (CLASSES, "class,videos\nup,1\n", "expected the columns class, videos and right"),
        (CLASSES, "class,videos,right,accuracy\n", "expected the columns class, videos and right"),
        (
            CLASSES,
            "class,videos,right\nup,1.5,1\n",
            r"expected 2 numbers of videos, got \[1.5, 1\]",
        ),
        (CLASSES, "class,videos,right\nup,1,2\n", "2 of 1 videos of 'up' are right"),
    ],
)
def test_a_damaged_file_is_named(name, text, message, tmp_path):
    write(tmp_path / name, text)
    with pytest.raises(ValueError, match=message):
        DRAW[name](tmp_path, tmp_path / "picture.png")
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", DRAW)
def test_what_is_not_there_is_named(name, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"{name} is not there: expected what a training"):
        DRAW[name](tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere is not there: expected the folder of"):
        DRAW[name](tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"cannot write .*: its folder .* is not there"):
        DRAW[name](tmp_path / "nowhere", tmp_path / "no" / "picture.png")
    with pytest.raises(ValueError, match="cannot write a picture as '.mp5'"):
        DRAW[name](tmp_path / "nowhere", tmp_path / "picture.mp5")
