"""Two processes that share the work through gloo, against one that does all of it."""

import csv
import json
import os
import signal
import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from gasmcast import TemporalCrossAttentionModel
from gasmcast.training import ActionDataModule, evaluate, train_and_test
from small import small_model
from training.parts import QUIET, DieBefore, Seen, StoredFeatures, fresh_process


def work(rank, port, output, stop):
    """One of two processes, as torchrun starts them."""
    os.environ |= {
        **{"RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0", "WORLD_SIZE": "2"},
        **{"LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)},
        "TORCHELASTIC_RUN_ID": "test",
    }
    os.dup2(os.open(f"{output}.{rank}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    seen = Seen()
    data = ActionDataModule(
        StoredFeatures(9, training=True, damaged=[4]),
        StoredFeatures(7, damaged=[2]),
        StoredFeatures(5),
        batch_size=2,
        num_workers=0,
    )
    report = train_and_test(
        small_model(2, trainable=False, drop_path=0.3),
        data,
        output,
        epochs=2,
        resume=True,
        checkpoint_minutes=0,
        optimization={"ema_decay": 0.5, "max_unreadable": 0.5, "learning_rate": 1e-2},
        trainer={
            **QUIET,
            **{"devices": 2, "strategy": "ddp"},
            "callbacks": [seen, *stop],
        },
    )
    said = {"backend": dist.get_backend(), "batches": seen.batches, "report": str(report)}
    (output / f"process{rank}.json").write_text(json.dumps(said))


def run(output, stops=((), ())):
    """What the two processes print to standard error; their exit codes.

    Each is stopped by callbacks of its own.
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    processes = [fresh_process(work, rank, port, output, stops[rank]) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(100)  # where they wait for each other, forever
        process.kill()
        process.join()
    errors = "".join(Path(f"{output}.{rank}.txt").read_text() for rank in (0, 1))
    return errors, [process.exitcode for process in processes]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    errors, codes = run(folder / "run")
    assert codes == [0, 0], errors
    return folder / "run"


def said(output):
    return [json.loads((output / f"process{rank}.json").read_text()) for rank in (0, 1)]


def test_the_same_results_as_one_process_to_the_last_digit(trained, tmp_path):
    first, second = said(trained)
    assert first["backend"] == "gloo"
    assert first["report"] == second["report"]
    model = TemporalCrossAttentionModel.from_pretrained(trained / "model")
    test = StoredFeatures(7, damaged=[2])
    data = ActionDataModule(None, test, batch_size=2, num_workers=0)
    evaluate(model, data, max_unreadable=0.5, trainer=QUIET).save(tmp_path)
    for name in ("predictions.csv", "per_class.csv", "confusion_matrix.csv"):
        assert (trained / name).read_bytes() == (tmp_path / name).read_bytes(), name
    results, alone = (
        json.loads((folder / "results.json").read_text()) for folder in (trained, tmp_path)
    )
    error = "clip {}: its checksum does not fit".format
    assert results.pop("unreadable") == [f"train: {error(4)}", f"test: {error(2)}"]
    assert alone.pop("unreadable") == [f"test: {error(2)}"]
    assert results == alone
    assert results["num_videos"] == 6


def test_validation_loss_is_that_of_all_videos(trained):
    with next((trained / "log").glob("*/metrics.csv")).open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["validation_loss"]]
    saved = max(rows, key=lambda row: float(row["validation_top1"]))  # the first of equals
    model = TemporalCrossAttentionModel.from_pretrained(trained / "model")
    videos = StoredFeatures(5)  # an odd number for two processes
    with torch.no_grad():
        probabilities = [
            model.forward_features(semantic, motion).softmax(dim=1).mean(dim=0)
            for semantic, motion in zip(videos.semantic, videos.motion, strict=True)
        ]
    expected = torch.nn.functional.nll_loss(torch.stack(probabilities).log(), videos.labels)
    assert float(saved["validation_loss"]) == pytest.approx(float(expected), rel=1e-5)


def test_training_shares_the_samples_and_overlaps_nowhere(trained):
    first, second = (each["batches"] for each in said(trained))
    for epoch in (0, 1):
        shares = [
            [index for at, _, indices in batches if at == epoch for index in indices]
            for batches in (first, second)
        ]
        assert [len(batches) for batches in (first, second)] == [4, 4]  # two of each epoch
        together = shares[0] + shares[1]
        assert len(set(together)) == len(together)
        # Eight of nine, without the damaged one where it is among them.
        assert len(together) in (7, 8)


class TerminateBefore(DieBefore):
    """SIGTERM to one process: the others have to hear of it."""

    def die(self):
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(
    ("stops", "last_words"),
    [
        (([DieBefore(3)], [DieBefore(3)]), "parts.Died"),
        (([], [TerminateBefore(2)]), "stopped before the end: resume goes on from"),
    ],
)
def test_two_processes_that_stop_go_on_exactly(stops, last_words, trained, tmp_path):
    errors, codes = run(tmp_path / "run", stops)
    assert errors.count(last_words) == 2
    assert codes == [1, 1]
    errors, codes = run(tmp_path / "run")
    assert codes == [0, 0], errors
    # Lightning's advice reads as if the numbers were wrong.
    assert "It is recommended to use" not in errors
    assert "smaller than the logging interval" not in errors
    # The third batch was done: one is left, in both processes.
    assert [len(each["batches"]) for each in said(tmp_path / "run")] == [1, 1]
    for name in ("predictions.csv", "results.json"):
        assert (trained / name).read_bytes() == (tmp_path / "run" / name).read_bytes()
    weights, again = (
        torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for folder in (trained, tmp_path / "run")
    )
    assert all(torch.equal(weights[name], again[name]) for name in weights)
