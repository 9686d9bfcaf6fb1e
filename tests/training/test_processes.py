"""Two processes that share the work through gloo, against one that does all of it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gasmcast import TemporalCrossAttentionModel
from gasmcast.training import ActionDataModule, evaluate
from training.parts import QUIET, StoredFeatures

SCRIPT = """
import json
import sys
sys.path[:0] = [{tests!r}]
import torch
from gasmcast.training import ActionDataModule, train_and_test
from training.parts import QUIET, DieBefore, Died, Seen, StoredFeatures
from small import small_model

if __name__ == "__main__":
    output, stop = sys.argv[1:]
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
        optimization={{"ema_decay": 0.5, "max_unreadable": 0.5, "learning_rate": 1e-2}},
        trainer={{
            **QUIET, "devices": 2, "strategy": "ddp",
            "callbacks": [seen, *([DieBefore(int(stop))] if stop != "never" else [])],
        }},
    )
    import torch.distributed as dist
    name = f"{{output}}/process{{dist.get_rank()}}.json"
    said = {{"backend": dist.get_backend(), "batches": seen.batches, "report": str(report)}}
    with open(name, "w") as file:
        json.dump(said, file)
"""


def run(folder, output, stop="never"):
    script = folder / "train.py"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parents[1])))
    return subprocess.run(
        [sys.executable, str(script), str(output), str(stop)],
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    done = run(folder, folder / "run")
    assert done.returncode == 0, done.stderr[-3000:]
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


def test_two_processes_that_stop_go_on_exactly(trained, tmp_path):
    stopped = run(tmp_path, tmp_path / "run", stop=3)
    assert "Died" in stopped.stderr
    done = run(tmp_path, tmp_path / "run")
    assert done.returncode == 0, done.stderr[-3000:]
    # The third batch was done: one is left, in both processes.
    assert [len(each["batches"]) for each in said(tmp_path / "run")] == [1, 1]
    for name in ("predictions.csv", "results.json"):
        assert (trained / name).read_bytes() == (tmp_path / "run" / name).read_bytes()
    weights, again = (
        torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for folder in (trained, tmp_path / "run")
    )
    assert all(torch.equal(weights[name], again[name]) for name in weights)
