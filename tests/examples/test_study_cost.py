import pytest
import torch
from interaction_study import cost
from interaction_study.cost import count_flops, measure_cost
from interaction_study.features import Features, Scale
from interaction_study.plan import Plan
from interaction_study.runs import Run, RunsFile
from interaction_study.variants import VARIANTS
from pebble import ThreadPool

from examples.running import EXAMPLES
from gasmcast.nn import force_gatv2_backend

SCRIPT = EXAMPLES / "study.py"

CLIPS, PATCHES, SEGMENTS, SEM_DIM, MOT_DIM, CLASSES = 6, 9, 5, 16, 8, 4


@pytest.fixture(scope="module")
def clips():
    drawn = torch.Generator().manual_seed(0)
    return Features(
        torch.randn(CLIPS, PATCHES, SEM_DIM, generator=drawn),
        torch.randn(CLIPS, SEGMENTS, MOT_DIM, generator=drawn),
        torch.arange(CLIPS) % CLASSES,
        tuple(map(str, range(CLIPS))),
        tuple("abcd"),
    )


def flops(name, clips):
    return count_flops(VARIANTS[name].build(clips, seed=0), clips)


def test_what_graphs_cost_can_be_worked_out(clips):
    # All nodes of a clip are tied to all: N * N edges, whatever the features are.
    expected = 0
    for nodes, width, edge_features in ((PATCHES, SEM_DIM, 4), (SEGMENTS, MOT_DIM, 3)):
        two_projections = 2 * 2 * nodes * width * width
        along_edges = nodes * nodes * width * (4 + 2 * edge_features)
        similarities = 2 * nodes * nodes * width
        expected += two_projections + along_edges + similarities
    graphs = flops("fully_connected", clips) - flops("without_graphs", clips)
    assert graphs == CLIPS * expected


def test_attention_is_counted(clips):
    # One product each way of the queries with the keys and of the weights with the values.
    tokens = PATCHES**2 * SEM_DIM + SEGMENTS**2 * MOT_DIM
    linear = 2 * 4 * (PATCHES * SEM_DIM**2 + SEGMENTS * MOT_DIM**2)
    # Twelve waves for each coordinate; places are the same for all clips.
    places = 2 * 12 * (2 * PATCHES * SEM_DIM + SEGMENTS * MOT_DIM)
    attention = flops("self_attention", clips) - flops("without_graphs", clips)
    assert attention == CLIPS * (2 * 2 * tokens + linear) + places


def test_the_count_is_that_of_any_kernel_and_leaves_no_hook(clips):
    model = VARIANTS["gasm_cast"].build(clips, seed=0)
    once = count_flops(model, clips)
    with force_gatv2_backend("blocked"):
        assert count_flops(model, clips) == once
    assert not any(module._forward_hooks for module in model.modules())


@pytest.fixture
def stored(clips, tmp_path, monkeypatch):
    """A study whose features are those of the clips; of one frame all tokens are alike."""
    loaded = []

    def load(folder):
        loaded.append(folder.relative_to(tmp_path).as_posix())
        alike = (x[:, :1].expand_as(x) for x in (clips.semantic, clips.motion))
        return clips.with_streams(*alike) if "one_frame" in folder.parts else clips

    monkeypatch.setattr(cost, "load", load)
    monkeypatch.setattr(cost, "scale_of", lambda folder: Scale.of(load(folder)))
    return tmp_path, loaded


def test_variants_are_timed_against_gasm_cast(stored):
    output, loaded = stored
    names = ["late_fusion", "gasm_cast", "one_frame"]
    found = measure_cost(names, output, rounds=3, batch_size=4)
    assert list(found) == names
    assert found["gasm_cast"]["step_ratio"] == 1
    assert found["late_fusion"]["step_ratio"] < 1
    assert found["late_fusion"]["parameters"] == (SEM_DIM + MOT_DIM + 1) * CLASSES
    assert sorted(set(loaded)) == ["changed/one_frame/train", "stores/train"]
    # Where all tokens are alike, there are more edges.
    assert found["one_frame"]["flops"] > found["gasm_cast"]["flops"]


def test_the_reference_is_timed_though_nobody_asks_for_it(stored):
    found = measure_cost(["late_fusion"], stored[0], rounds=2, batch_size=4)
    assert list(found) == ["late_fusion"]
    assert 0 < found["late_fusion"]["step_ratio"] < 1


def test_times_are_medians_of_rounds_after_the_first(monkeypatch):
    # A clock that only the calls move on: GASM-CAST takes 2 s, the other 1, 3, 5 in its rounds.
    clock = [0.0]
    monkeypatch.setattr(cost.time, "perf_counter", lambda: clock[0])
    lasting = iter((100.0, 1.0, 3.0, 5.0))

    def passing(seconds):
        clock[0] += seconds

    calls = {"gasm_cast": lambda: passing(2.0), "other": lambda: passing(next(lasting))}
    assert cost._in_turn(calls, 3) == {"gasm_cast": [2.0] * 3, "other": [1.0, 3.0, 5.0]}


def test_the_study_measures_what_its_file_does_not_have(stored, example):
    output, _ = stored
    file = RunsFile(output / "runs.jsonl", {"version": 1}, "abc")
    with ThreadPool(1) as worker:
        for names in (["late_fusion"], ["gasm_cast", "late_fusion"]):
            example.add_costs(worker, file, Plan(variants=tuple(names)), output, rounds=1)
    lines = RunsFile(file.path, {"version": 1}, "abc").select("cost")
    assert [line["variant"] for line in lines] == ["late_fusion", "gasm_cast"]
    assert Run("cost", "gasm_cast", 0.0, 0) in file.found
    assert len(file.path.read_text().splitlines()) == 2
