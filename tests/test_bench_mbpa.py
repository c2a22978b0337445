"""MbPA's benchmark, in small: what is compared is the same, all of it is measured, and the sentences say what was."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from lib import bench, bench_mbpa, cli
from lib.bench_mbpa import PicturesCase, SearchCase, TextCase
from lib.methods.mbpa import MbPAConfig, adapted_by_loop
from lib.methods.mbpa_text import TextMbPAConfig

CPU = torch.device("cpu")
TEXT = TextCase(12, 40, 3, compared=20, fit=TextMbPAConfig(MbPAConfig(neighbours=5), size=30), words=50)
SMALL = {
    "texts": (TEXT,),
    "pictures": (
        PicturesCase(8, 5, 3),
        PicturesCase(4, 6, 2),
        PicturesCase(8, 5, 3, MbPAConfig(neighbours=6, steps=2, rate=0.1), hidden=7),
    ),
    "searches": (SearchCase(300, 1, width=8, k=4), SearchCase(300, 7, width=8, k=4)),
}


@pytest.fixture(scope="module")
def measured() -> bench.Bench:
    return bench_mbpa.bench_mbpa(CPU, 2, **SMALL)


def test_every_way_of_every_case_is_measured(measured):
    names = [[way.name for way in comparison.ways] for comparison in measured.comparisons]
    by_hand = bench_mbpa.BATCH, bench_mbpa.BATCH, bench_mbpa.FIRST_DUAL
    assert names[0] == [bench_mbpa.LOOP, bench_mbpa.DUAL]
    assert names[1:4] == [[bench_mbpa.LOOP, bench_mbpa.VMAP, form] for form in by_hand]
    assert len(names) == 6 and all(bench_mbpa.EXACT in of_search for of_search in names[4:])
    for comparison in measured.comparisons:
        assert all(len(way.seconds) == 2 and min(way.seconds) > 0 for way in comparison.ways)


def test_what_is_compared_is_the_same(measured):
    differences = {name: value for name, value in measured.found.items() if name.startswith("largest")}
    assert len(differences) == 5 and max(differences.values()) < 1e-5
    assert any(value > 0 for value in differences.values()), "two ways, not one twice"


def test_a_loop_that_fits_nothing_is_found_out(monkeypatch):
    def unfitted(output, queries, context, config):
        return adapted_by_loop(output, queries, context, replace(config, steps=0))

    monkeypatch.setattr(bench_mbpa, "adapted_by_loop", unfitted)
    found: dict[str, float] = {}
    bench_mbpa.compare_on_text(TEXT, 1, CPU, found)
    bench_mbpa.compare_on_pictures(SMALL["pictures"][0], 1, CPU, found)
    assert len(found) == 3 and min(found.values()) > 1e-3
    with pytest.raises(ValueError, match="the loop does 4 and 128 words, of 40 measured"):
        TextCase(12, 40)


def test_logits_are_those_of_the_form_that_is_timed(monkeypatch):
    """Where the blocks of a text are wrong, the comparison says so."""
    right = bench_mbpa.TextMbPA._one_step
    monkeypatch.setattr(bench_mbpa.TextMbPA, "_one_step", lambda *each: 1.1 * right(*each))
    found: dict[str, float] = {}
    bench_mbpa.compare_on_text(TEXT, 1, CPU, found)
    assert min(found.values()) > 1e-4 and all(" of 20 words, " in name for name in found)


def test_seconds_are_of_one_query():
    timed = (bench.Measurement("a", (2.0, 4.0), 6.0), bench.Measurement("b", (3.0,), 3.0))
    one, other = bench_mbpa.a_query(timed, (2, 3))
    assert one == bench.Measurement("a", (1.0, 2.0), 3.0) and other == bench.Measurement("b", (1.0,), 1.0)


def test_the_products_of_a_fit_are_counted():
    case = PicturesCase(3, 4, fit=MbPAConfig(neighbours=5, steps=2, optimizer="rmsprop"))
    outputs = gradient = 2 * 5 * 3 * 4
    assert case.flops == 2 * (outputs + gradient) + 2 * 3 * 4
    two = replace(case, fit=replace(case.fit, optimizer="sgd"), hidden=6)
    first, products, to_query, at_last = 6 * 3 * 6, 6 * 3 * 5, 5 * 6, 6 * 4  # of five keys and the query
    with_c, second = 5 * 5 * 6, 5 * 6 * 4
    assert two.flops == 2 * (first + products + to_query + at_last) + 2 * 2 * (with_c + 3 * second)


def with_medians(comparison: bench.Comparison, **seconds: float) -> bench.Comparison:
    ways = tuple(bench.Measurement(name, (each,), each) for name, each in seconds.items())
    return replace(comparison, ways=ways)


def known_times(measured: bench.Bench, loop=0.12, faiss=0.02, difference=1e-6) -> bench.Bench:
    """A text, a picture and a search with these times, and 1, 10 and 30 ms for ours."""
    text, one, *_ = measured.comparisons
    search = measured.comparisons[4]
    return replace(
        measured,
        flops_per_second=1e4 * one.flops,
        comparisons=(
            with_medians(text, **{bench_mbpa.LOOP: loop, bench_mbpa.DUAL: 0.001}),
            with_medians(one, **{bench_mbpa.LOOP: 0.02, bench_mbpa.VMAP: 0.01, bench_mbpa.BATCH: 0.001}),
            with_medians(search, **{bench_mbpa.FAISS: faiss, bench_mbpa.EXACT: 0.03, bench_mbpa.LISTS: 0.004}),
        ),
        found={name: difference for name in measured.found} | {f"recall of lists of faiss, {search.title}": 0.955},
    )


CASES = {"texts": SMALL["texts"], "pictures": SMALL["pictures"][:1], "searches": SMALL["searches"][:1]}


def test_the_goals_say_what_was_reached_and_what_was_missed(measured):
    goals = bench_mbpa.goals(known_times(measured), **CASES).splitlines()
    verdicts = [line.rsplit(": ", 1)[1] for line in goals if line[0].isdigit()]
    reached, missed = "**reached**.", "**missed** in 1 of 1 cases."
    assert verdicts == [reached, reached, missed, reached, reached, reached]
    details = [line for line in goals if not line[0].isdigit()]
    assert details[0].endswith("timed on 40: 120 times the loop, reached")
    assert details[1].endswith("82 s, projected from those timed, reached")
    assert details[2].endswith("2 times the loop (the matrix products alone leave 200), missed")
    assert details[3].endswith("20 times the loop (the matrix products alone leave 200), reached")
    assert details[4].endswith("1.5 times the time of faiss (lists of faiss take 0.2 and find 95.5%), reached")
    assert details[5].endswith("largest difference of 20 words 1.0e-06, reached") and len(details) == 7

    slower = known_times(measured, loop=0.099, faiss=0.019, difference=2e-4)
    goals = [line for line in bench_mbpa.goals(slower, **CASES).splitlines() if line[0].isdigit()]
    assert [line.rsplit(": ", 1)[1] for line in goals] == [
        missed, reached, missed, reached, missed, "**missed** in 2 of 2 cases.",
    ]  # fmt: skip
    text = with_medians(slower.comparisons[0], **{bench_mbpa.LOOP: 1.0, bench_mbpa.DUAL: 0.01})
    hours = bench_mbpa.goals(replace(slower, comparisons=(text, *slower.comparisons[1:])), **CASES).splitlines()
    assert "under 10 minutes: **missed** in 1 of 1 cases." in hours[2]


def test_what_was_not_measured_has_no_verdict(measured):
    known = known_times(measured)
    text, one, search = known.comparisons
    without = replace(known, comparisons=(text, one, with_medians(search, **{bench_mbpa.EXACT: 0.03})))
    line = next(line for line in bench_mbpa.goals(without, **CASES).splitlines() if "The search" in line)
    assert line.endswith("faiss's exact index: **not measured**.")
    more = CASES | {"pictures": SMALL["pictures"]}  # of two cases one was measured
    goals = bench_mbpa.goals(known, **more)
    assert "queries a second: **reached**; 1 not measured." in goals
    assert "a picture: 4 features, 6 classes, K 50, T 20: not measured" in goals


def test_the_kept_measurement_can_be_told_of():
    goals = bench_mbpa.goals(bench.load("mbpa"))
    assert goals.startswith("1. A text: at least 100 times") and "\n7. Logits equal" in goals


def test_a_whole_text_is_timed_where_that_is_asked(monkeypatch):
    monkeypatch.setattr(bench_mbpa, "ALL_WORDS", 60)
    found = bench_mbpa.bench_mbpa(CPU, 2, whole=True, texts=(TEXT,), pictures=(), searches=())
    assert "timed on 60" in found.comparisons[0].title and len(found.comparisons[0].ways[0].seconds) == 1
    assert "all of them timed" in bench_mbpa.goals(found, (TEXT,), (), ())


def test_from_the_command_line_to_what_is_kept(measured, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(cli, "bench_mbpa", lambda device, repetitions, whole: measured)
    monkeypatch.setattr(cli, "goals", partial(bench_mbpa.goals, **SMALL))
    monkeypatch.setattr(cli, "save_bench", partial(bench.save, folder=tmp_path))
    cli.bench("mbpa", device="cpu", repetitions=1, save=True)
    printed = capsys.readouterr().out
    assert bench.load("mbpa", "cpu", tmp_path) == measured
    assert bench.describe(measured) in printed and bench_mbpa.goals(measured, **SMALL) in printed
