import csv

import pytest
import torch

from gasmcast.training import ActionDataModule, train_and_test
from gasmcast.visualization import draw_training_curve, visualize_training_curves
from gasmcast.visualization.canvas import new_figure
from made_files import write
from small import small_model
from training.parts import QUIET, DieBefore, Died, StoredFeatures

HEADER = "epoch,lr-AdamW/pg1,lr-AdamW/pg2,step,train_loss,train_top1,validation_top1\n"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same run twice: without a stop, and stopped in the second epoch, within and resumed."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("runs")
    for name, stops in {"whole": [None], "resumed": [15, None]}.items():
        for stop in stops:
            torch.manual_seed(5)
            parts = StoredFeatures(22, training=True), StoredFeatures(4), StoredFeatures(8)
            data = ActionDataModule(*parts, batch_size=2, num_workers=0)
            dies = [] if stop is None else [DieBefore(stop)]
            options = {**QUIET, "callbacks": dies, "log_every_n_steps": 3}
            model = small_model(2, trainable=False)
            try:
                train_and_test(
                    model,
                    data,
                    root / name,
                    epochs=3,
                    resume=True,
                    checkpoint_minutes=1000,
                    trainer=options,
                )
            except Died:
                assert stop is not None
    return root


def logged(run, column, version=0):
    """Steps done and values of a column, as the CSV file has them."""
    with (run / "log" / f"version_{version}" / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get(column)]
    return [int(row["step"]) + 1 for row in rows], [float(row[column]) for row in rows]


def lines_of(run, measure):
    drawn = draw_training_curve(run, measure, new_figure((4, 3)).add_subplot())
    return {line.get_gid(): line for line in drawn}


def made(folder, *starts, header=HEADER):
    for number, rows in enumerate(starts):
        write(folder / "log" / f"version_{number}" / "metrics.csv", header + rows)
    return folder


def assert_drawn(line, steps, values, per_epoch=1.0):
    assert list(line.get_xdata()) == pytest.approx([step / per_epoch for step in steps])
    assert list(line.get_ydata()) == values


def test_drawn_lines_are_the_log_of_a_real_run(runs):
    run = runs / "whole"
    loss = lines_of(run, "loss")
    assert set(loss) == {"training", "training, single batches", "validation"}
    steps, values = logged(run, "train_loss")
    assert len(steps) == 11
    assert_drawn(loss["training, single batches"], steps, values, 11)
    assert_drawn(loss["validation"], *logged(run, "validation_loss"), 11)
    first = [value for step, value in zip(steps, values, strict=True) if step <= 11]
    assert loss["training"].get_ydata()[0] == pytest.approx(sum(first) / len(first))
    assert loss["training"].get_xdata()[0] == pytest.approx((3 + 6 + 9) / 3 / 11)
    top1 = lines_of(run, "top1")
    assert_drawn(top1["training"], *logged(run, "train_top1"), 11)
    steps, values = logged(run, "validation_top1")
    assert_drawn(top1["validation"], steps, values, 11)
    assert list(top1["validation"].get_xdata()) == [1, 2, 3]
    best = values.index(max(values))
    assert_drawn(top1["epoch that was saved"], [best + 1], [values[best]])
    assert_drawn(lines_of(run, "learning_rate")["learning rate"], *logged(run, "lr-AdamW/pg1"), 11)


def test_the_star_is_the_epoch_that_was_saved(runs):
    saved = torch.load(runs / "whole" / "checkpoints" / "best.ckpt", weights_only=True)
    (x,) = lines_of(runs / "whole", "top1")["epoch that was saved"].get_xdata()
    assert x * 11 == saved["global_step"]
    figure = visualize_training_curves(runs / "whole")
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    top1 = max(logged(runs / "whole", "validation_top1")[1])
    assert labels[-1] == f"epoch that was saved ({saved['epoch'] + 1}, {top1:.1%})"


def test_a_resumed_run_is_drawn_as_if_it_had_not_been_stopped(runs):
    assert logged(runs / "resumed", "train_loss", version=1)[0][0] == 12  # and again from there
    for measure in ("loss", "top1", "learning_rate"):
        whole, resumed = (lines_of(runs / name, measure) for name in ("whole", "resumed"))
        assert whole.keys() == resumed.keys()
        for what in whole:
            torch.testing.assert_close(
                torch.tensor(resumed[what].get_xydata()), torch.tensor(whole[what].get_xydata())
            )


def test_a_later_start_replaces_what_it_took_again(tmp_path):
    starts = [
        "0,,,9,1.0,,\n0,,,19,2.0,,\n0,,,29,3.0,,\n0,,,34,3.5,,\n",
        ",0.5,0.5,19,,,\n0,,,19,7.0,,\n0,,,29,8.0,,\n",
        "0,,,39,9.0,,\n",
    ]
    single = lines_of(made(tmp_path, *starts), "loss")["training, single batches"]
    # 34 is gone: the second start was not yet there again when the third went on after it
    assert_drawn(single, [10, 20, 30, 40], [1.0, 7.0, 8.0, 9.0])
    for number in range(3, 11):  # in the order of numbers: 10 comes after 9
        row = f"0,,,39,{number}.0,,\n"
        write(tmp_path / "log" / f"version_{number}" / "metrics.csv", HEADER + row)
    write(tmp_path / "log" / "version_11" / "metrics.csv", "")  # killed before it logged
    write(tmp_path / "log" / "version_x" / "metrics.csv", "of another tool")
    assert lines_of(tmp_path, "loss")["training, single batches"].get_ydata()[-1] == 10.0


def test_the_first_of_the_highest_is_best_and_nan_is_not(tmp_path):
    rows = "0,,,9,,0.5,nan\n1,,,19,,0.5,0.4\n2,,,24,,,0.9\n2,,,29,,0.5,0.6\n3,,,39,,0.5,0.6\n"
    top1 = lines_of(made(tmp_path, rows), "top1")
    # 0.9 was within an epoch, whose end is saved
    assert_drawn(top1["epoch that was saved"], [3], [0.6])


def test_an_unfinished_run_shows_what_there_is(tmp_path):
    run = made(tmp_path, ",0.5,0.5,9,,,\n0,,,9,2.5,,\n0,,,19,2.0,,\n0,,,29,1.")
    figure = visualize_training_curves(run)
    assert [ax.get_xlabel() for ax in figure.axes] == ["steps"] * 3
    loss = lines_of(run, "loss")
    assert_drawn(loss["training, single batches"], [10, 20], [2.5, 2.0])  # the cut row is left out
    assert figure.axes[1].texts[0].get_text() == "nothing logged yet"
    assert not lines_of(run, "top1")


def test_runs_are_told_apart(runs, tmp_path):
    figure = visualize_training_curves([runs / "whole", runs / "resumed"], tmp_path / "both.pdf")
    assert (tmp_path / "both.pdf").stat().st_size > 10_000
    colors = {line.get_color() for line in figure.axes[1].lines if line.get_gid() == "validation"}
    assert len(colors) == 2
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[0].startswith("whole (saved: epoch ")
    assert labels[1].startswith("resumed (saved: epoch ")
    # Folders of the same name go by their paths; no name is hidden or set as mathematics.
    same = [made(tmp_path / name / "_$run$", "0,,,9,1.0,0.5,\n") for name in "ab"]
    labels = [text.get_text() for text in visualize_training_curves(same).legends[0].get_texts()]
    assert len(set(labels[:2])) == 2
    assert all(label.endswith(r"_\$run\$") for label in labels[:2])
    many = [made(tmp_path / f"seed {k}", "0,,,9,1.0,0.5,\n") for k in range(12)]
    figure = visualize_training_curves(many)
    assert len({line.get_color() for line in figure.axes[0].lines}) == 12
    assert len(figure.legends[0].get_texts()) == 12 + 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "metrics.csv is empty: expected what a run logs"),
        (HEADER, "metrics.csv is empty: expected what a run logs"),
        ("a,b\n1,2\n", r"is damaged: expected columns step and epoch, got \['a', 'b'\]"),
        (HEADER + "0,,,x,1.0,,\n", r"expected 7 numbers or empty cells in a row, got \[0,,,x,1.0"),
        (HEADER + "0,,,9\n", r"expected 7 numbers or empty cells in a row, got \[0,,,9\]"),
        (HEADER + "0,,,9,high,,\n", r"in a row, got \[0,,,9,high,,\]"),
        (b"\xff\xfe\n", "is damaged: expected a CSV table"),
        (b"\x80\x04cposix\nsystem\n.\n", "is damaged: expected a CSV table"),
    ],
)
def test_a_damaged_log_is_named(text, message, tmp_path):
    file = write(tmp_path / "log" / "version_0" / "metrics.csv", "")
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message):
        visualize_training_curves(tmp_path, tmp_path / "picture.png")
    assert not (tmp_path / "picture.png").exists()


def test_wrong_input_is_named_before_anything_is_read(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere is not there: expected the folder of a"):
        visualize_training_curves(tmp_path / "nowhere")
    file = write(tmp_path / "file", "")
    with pytest.raises(NotADirectoryError, match="file is no folder: expected the folder of a"):
        visualize_training_curves([file])
    with pytest.raises(FileNotFoundError, match=r"has no log/version_N/metrics.csv: expected the"):
        visualize_training_curves(tmp_path)
    with pytest.raises(ValueError, match="expected the folder of at least one run, got none"):
        visualize_training_curves([])
    with pytest.raises(ValueError, match="measure must be one of loss, top1, learning_rate, got"):
        lines_of(tmp_path, "accuracy")
    for path, message in [("no/x.png", "its folder .* is not there"), ("x.mp5", "'.mp5'")]:
        with pytest.raises((OSError, ValueError), match=message):
            visualize_training_curves(tmp_path / "nowhere", tmp_path / path)
