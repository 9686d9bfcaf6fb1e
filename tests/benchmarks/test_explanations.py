import pytest
import torch

from benchmarks import deletion, randomisation
from benchmarks.deletion import Curves
from benchmarks.measure import Effort
from benchmarks.page import write_section
from benchmarks.quickstart_models import models_and_clips
from gasmcast.explanation import deletion_curve, inspect_clip

TINY = Effort(seconds=0, min_rounds=1, tries=1, tiny=True)


@pytest.fixture(scope="module")
def model_and_clip():
    model, clips = next(iter(models_and_clips(TINY)))
    return model, clips[0]


def test_randomisation_runs():
    header, _, *rows = randomisation.run(TINY).splitlines()[4:]
    assert header.startswith("| shuffled | spatial graph | temporal graph | basic | pattern |")
    cells = {row.split(" | ")[0][2:]: row.strip("| ").split(" | ")[1:] for row in rows}
    assert cells["classifier alone"][:5] == ["same"] * 5
    assert cells["action and all above"][:4] == ["same"] * 4
    assert "same" not in cells["graph attention alone"]
    assert float(cells["action alone"][4].split(" ")[0]) < 0.9


def test_deletion_runs_and_draws(tmp_path):
    (tmp_path / "images").mkdir()
    page = tmp_path / "explanations.md"
    page.write_text("<!-- begin: deletion -->\n<!-- end: deletion -->\n")
    section = deletion.run(TINY)
    assert section.text.count("\n| class evidence | ") == 3
    assert section.text.count("\n| random | ") == 3
    write_section(page, "deletion", section)
    assert "five orders](images/deletion.png)" in page.read_text()
    assert (tmp_path / "images" / "deletion.png").stat().st_size > 10_000
    assert len(section.figure.axes) == 3


def test_curves_are_those_of_the_library(model_and_clip):
    model, clip = model_and_clip
    seen = inspect_clip(model, clip)
    measured = deletion.measure_curves(TINY)["tokens of patches"]["class evidence"]
    assert measured.most.shape == measured.least.shape == (2, 3, 3)  # models, clips, points
    order = seen.evidence().patches.argsort(descending=True)
    for ours, by_hand in ((measured.most, order), (measured.least, order.flip(0))):
        curve = deletion_curve(model, seen, by_hand, steps=2)
        torch.testing.assert_close(ours[0, 0], curve.probabilities)


def test_attention_received_by_hand(model_and_clip):
    seen = inspect_clip(*model_and_clip)
    by_hand = torch.zeros(16)
    attention = seen.spatial.attention.mean(dim=1)
    for (source, target), weight in zip(
        seen.spatial.edge_index.t().tolist(), attention, strict=True
    ):
        if source != target:
            by_hand[source] += weight
    torch.testing.assert_close(deletion.graph_attention_received(seen, "spatial"), by_hand)


def test_differences_are_paired_and_their_interval_is_over_clips():
    chance = torch.rand(2, 5, 3)
    gains = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5]).view(1, 5, 1)
    removed = torch.tensor([0, 2, 4])
    rankings = {
        "class evidence": Curves(chance - gains, chance + gains, removed),
        "random": Curves(chance, chance, removed),
    }
    curves = dict.fromkeys(deletion.DELETED, rankings)
    row = next(
        row
        for row in deletion.report(curves, "a machine").text.splitlines()
        if row.startswith("| class evidence |")
    )
    # 0.3 in the mean; t of 4 degrees of freedom 2.776, standard error 0.158 / sqrt 5
    assert "| -0.300 ± 0.196 | -0.300, -0.300 | +0.300 ± 0.196 |" in row
