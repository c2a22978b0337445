"""LMN's benchmark: the dense forms give what LMN gives, and all that is compared is measured."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib import bench, bench_lmn, bench_lmn_adaptation, bench_steps, cli
from lib.bench_lmn import Case
from lib.bench_lmn_dense import DenseLMN, MaskMemory, TableMemory
from tests.cases import random_cases, seeds
from tests.methods.test_lmn import LABELS, WIDTH, random_lmn, random_streams

FORMS = {"mask": MaskMemory, "table": TableMemory}
CPU = torch.device("cpu")
SMALL = {
    "cases": (Case(30, 5), Case(30, 30, cells=2), Case(30, 5, theta=0.5)),
    "held": (5, 20),
    "labels": (30, 40),
    "vocabularies": (50, 60),
}


@pytest.fixture(scope="module")
def measured() -> Iterator[bench.Bench]:
    with pytest.MonkeyPatch.context() as shorter:
        shorter.setattr(bench_lmn, "STEPS", 4)
        shorter.setattr(bench_lmn_adaptation, "STREAM", 6)
        shorter.setattr(bench_lmn_adaptation, "TRAINED", (2, 4))
        yield bench_lmn.bench_lmn(CPU, 2, **SMALL)


def cells_of(memory: MaskMemory | TableMemory, y: int) -> list[tuple[list, float]]:
    """The cells of a label, in the order in which they came."""
    if isinstance(memory, MaskMemory):
        own = memory.label == y
        return list(zip(memory.vectors[own].tolist(), memory.weights[own].tolist(), strict=True))
    own = memory.held[y]
    return list(zip(memory.vectors[y, own].tolist(), memory.weights[y, own].tolist(), strict=True))


@pytest.mark.parametrize("form", FORMS)
@given(seeds, st.integers(1, 3), st.sampled_from([0.0, 0.5, 2.0]), st.sampled_from(["all", "fixed"]))
@random_cases(15)
def test_the_dense_forms_give_what_lmn_gives(form, seed, cells, margin, kind):
    settings = {"states": "all"} if kind == "all" else {"theta": 0.3}
    lmn = random_lmn(seed, cells=cells, margin=margin, **settings)
    dense = DenseLMN(lmn, FORMS[form](LABELS, WIDTH, cells, torch.zeros((), dtype=torch.float64)))
    xs, ys = random_streams(seed, batch=1, steps=20)
    lmn.begin(1)
    for t in range(xs.shape[1]):
        torch.testing.assert_close(dense.predict(xs[:, t]), lmn.predict(xs[:, t]), atol=1e-10, rtol=0)
        lmn.observe(xs[:, t], ys[:, t])
        dense.observe(xs[:, t], ys[:, t])
    for y in range(LABELS):
        row = int(lmn.memory.row_of[0, y])
        count = int(lmn.memory.count[0, row]) if row >= 0 else 0
        found = cells_of(dense.memory, y)
        assert len(found) == count
        for j, (vector, weight) in enumerate(found):
            assert vector == pytest.approx(lmn.memory.vectors[0, row, j].tolist(), abs=1e-10)
            assert weight == pytest.approx(lmn.memory.weights[0, row, j].item(), abs=1e-10)


@pytest.mark.parametrize("case", [Case(30, 12), Case(30, 30, cells=2), Case(30, 12, cells=3)])
def test_what_is_measured_begins_with_the_same_cells_and_states(case):
    lmn = bench_lmn.filled(case, CPU)
    for form in FORMS.values():
        dense = bench_lmn.dense_lmn(lmn, bench_lmn.dense_memory(lmn, form))
        x = torch.tensor([3])
        # Not the same to the last digit: LMN's first step tells the combiner 0 for labels that are not in memory.
        torch.testing.assert_close(dense.predict(x), lmn.predict(x))


def test_a_filled_memory_is_as_writes_leave_it():
    lmn = bench_lmn.filled(Case(30, 12), CPU)
    kept, written = lmn.memory, bench_lmn.filled(Case(30, 1), CPU)
    written.begin(1)
    yes = torch.tensor([True])
    for row in range(12):
        written.memory.write(kept.vectors[:, row, 0], kept.label[:, row], yes, yes, decay=0.99)
    found, n = written.memory, 12
    assert torch.equal(kept.vectors, found.vectors[:, :n]) and torch.equal(kept.count, found.count[:, :n])
    assert torch.equal(kept.label, found.label[:, :n]) and torch.equal(kept.row_of, found.row_of)
    assert torch.equal(kept.written, found.written[:, :n]) and torch.equal(kept.used, found.used)
    assert (kept.rows, kept.clock) == (found.rows, found.clock)


def test_a_step_of_lmn_is_over_what_is_in_memory_and_a_write_over_one_label():
    lmn = bench_lmn.filled(Case(5_000, 70, cells=2), CPU)
    before = lmn.memory.vectors.clone()
    step = lmn.look(torch.tensor([3]))
    assert step.memory_p.shape == (1, 70) and step.theta.shape == (1, 71)
    lmn.observe(torch.tensor([3]), lmn.memory.row_labels[:, 7])
    assert (lmn.memory.vectors != before).any(3).any(2).nonzero().tolist() == [[0, 7]]


def test_every_part_of_every_case_is_measured(measured):
    ways = {bench_lmn.TABLE, bench_lmn.MASK, bench_lmn.SPARSE}
    compared = measured.comparisons[:18]
    for case in SMALL["cases"]:
        for part in (*bench_lmn.PARTS, bench_lmn.BOTH, bench_lmn.ADDED):
            (found,) = [each for each in compared if each.title == f"{part}: {case.title}"]
            assert {way.name for way in found.ways} == ways
            assert all(len(way.seconds) == 2 and min(way.seconds) > 0 for way in found.ways)
    assert {scaling.size: scaling.values for scaling in measured.scalings} == {"held": (5, 20), "labels": (30, 40)}
    assert [scaling.task for scaling in measured.scalings] == 2 * list(bench_lmn.PARTS)


def test_both_is_the_sum_of_its_parts(measured):
    predict, observe, both = measured.comparisons[2:5]
    for k, way in enumerate(both.ways):
        for i in range(2):
            assert way.seconds[i] == pytest.approx(predict.ways[k].seconds[i] + observe.ways[k].seconds[i])


def test_a_mask_that_would_not_fit_is_left_out(monkeypatch):
    monkeypatch.setattr(bench_lmn, "MOST_MASKED", 30 * 5 - 1)
    case = Case(30, 5)
    found = bench_lmn.compare_with_dense(case, 1, CPU)
    assert [[way.name for way in each.ways] for each in found] == 6 * [[bench_lmn.TABLE, bench_lmn.SPARSE]]
    some = bench.Bench("lmn", {"name": "a machine", "threads": 1, "torch": "2"}, None, 1.0, tuple(found), ())
    assert bench_lmn.dense_table(some, (case,)).rows[2].cells == ()


def test_the_tables_show_rates_and_ratios(measured):
    def with_medians(comparison: bench.Comparison, *seconds: float) -> bench.Comparison:
        ways = zip(comparison.ways, seconds, strict=True)
        return replace(comparison, ways=tuple(replace(way, seconds=(each,)) for way, each in ways))

    changed = [with_medians(each, 0.1, 0.8, 0.002) for each in measured.comparisons[:18]]
    changed += [
        with_medians(each, *(0.01, 0.02, 0.002, 0.03, 0.04, 0.05)[: len(each.ways)])
        for each in measured.comparisons[18:]
    ]
    known = replace(measured, comparisons=tuple(changed))
    rows = bench_lmn.dense_table(known, SMALL["cases"]).rows
    assert [row.cells[0] for row in rows[:3]] == ["500", "50", "400"] and len(rows) == 9
    rows = bench_lmn_adaptation.adaptation_table(known, SMALL["vocabularies"]).rows
    assert [row.label for row in rows[:6]] == list(bench_lmn_adaptation.make_learners(2))
    assert rows[0].cells == ("10", "10", "10", "1", "10", "1") and rows[1].cells == ("20", "20", "20", "2", "–", "–")
    assert rows[4].cells == ("40", "40", "40", "4", "30", "3") and rows[11].cells[4:] == ("–", "–")
    goal = bench_lmn.goal(known, SMALL["cases"]).splitlines()
    assert all(line.endswith("20 times or more in 3 of 3 cases.") for line in goal) and len(goal) == 4
    goal = bench_lmn.goal(known, SMALL["cases"], times=60).splitlines()
    assert goal[0].endswith("60 times or more in 3 of 3 cases.")
    assert f"60 times or more in 0 of 3 cases; below it, 50 at {SMALL['cases'][0].title}; 50" in goal[2]
    faster = bench_lmn_adaptation.in_short(known, SMALL["vocabularies"])
    assert faster.count("**LMN is faster than all of them that retune weights.**") == 2
    slow = [with_medians(each, *(0.04, 0.02, 0.002, 0.03, 0.05, 0.06)[: len(each.ways)]) for each in changed[18:]]
    slower = bench_lmn_adaptation.in_short(
        replace(known, comparisons=tuple(changed[:18] + slow)), SMALL["vocabularies"]
    )
    assert "LMN is slower than: Rei; faster than: MAML, first order; MAML, first order, by autograd.**" in slower


def test_maml_by_autograd_gives_what_maml_gives():
    learners = bench_lmn_adaptation.make_learners(20)
    fast, plain = learners["MAML, first order"].double(), learners["MAML, first order, by autograd"].double()
    plain.load_state_dict(fast.state_dict())
    tokens = torch.randint(20, (1, 13), generator=torch.Generator().manual_seed(0))
    fast.begin(1)
    plain.begin(1)
    for x, y in zip(tokens[0, :-1].unsqueeze(1), tokens[0, 1:].unsqueeze(1), strict=True):
        torch.testing.assert_close(plain.predict(x), fast.predict(x))
        fast.observe(x, y)
        plain.observe(x, y)


def test_from_the_command_line_to_what_is_kept(measured, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(cli, "bench_lmn", lambda device, repetitions: measured)
    monkeypatch.setattr(cli, "save_bench", partial(bench.save, folder=tmp_path))
    cli.bench("lmn", device="cpu", repetitions=1, save=True)
    printed = capsys.readouterr().out
    kept = bench.load("lmn", "cpu", tmp_path)
    assert kept == measured and bench.describe(kept) in printed
    assert "observe by labels in memory (LMN: the occupied cells): 5: " in printed


def test_one_thread_is_timed_by_what_the_processor_gave_it(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert bench_steps.clock_of(CPU) is bench_steps.time.process_time
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert bench_steps.clock_of(CPU) is bench_steps.time.perf_counter
