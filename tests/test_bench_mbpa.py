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
TEXT = TextCase(12, 40, 3, TextMbPAConfig(MbPAConfig(neighbours=5), size=30), words=50)
SMALL = {
    "texts": (TEXT,),
    "pictures": (PicturesCase(8, 5, 3), PicturesCase(4, 6, 2)),
    "searches": (SearchCase(300, 1, width=8, k=4), SearchCase(300, 7, width=8, k=4)),
}


@pytest.fixture(scope="module")
def measured() -> bench.Bench:
    return bench_mbpa.bench_mbpa(CPU, 2, **SMALL)


def test_every_way_of_every_case_is_measured(measured):
    fits, (text, *pictures) = measured.comparisons[:3], measured.comparisons[:3]
    assert [way.name for way in text.ways] == [bench_mbpa.LOOP, bench_mbpa.DUAL]
    for comparison in pictures:
        assert [way.name for way in comparison.ways] == [bench_mbpa.LOOP, bench_mbpa.VMAP, bench_mbpa.BATCH]
    for comparison in (*fits, *measured.comparisons[3:]):
        assert all(len(way.seconds) == 2 and min(way.seconds) > 0 for way in comparison.ways)
        assert bench_mbpa.EXACT in [way.name for way in comparison.ways] or comparison in fits
    assert len(measured.comparisons) == 5


def test_what_is_compared_is_the_same(measured):
    differences = {name: value for name, value in measured.found.items() if name.startswith("largest")}
    assert len(differences) == 4 and max(differences.values()) < 1e-5
    assert any(value > 0 for value in differences.values()), "two ways, not one twice"


def test_a_loop_that_fits_nothing_is_found_out(monkeypatch):
    def unfitted(output, queries, context, config):
        return adapted_by_loop(output, queries, context, replace(config, steps=0))

    monkeypatch.setattr(bench_mbpa, "adapted_by_loop", unfitted)
    found: dict[str, float] = {}
    bench_mbpa.compare_on_text(TEXT, 1, CPU, found)
    bench_mbpa.compare_on_pictures(SMALL["pictures"][0], 1, CPU, found)
    assert len(found) == 3 and min(found.values()) > 1e-3


def test_seconds_are_of_one_query():
    timed = (bench.Measurement("a", (2.0, 4.0), 6.0), bench.Measurement("b", (3.0,), 3.0))
    one, other = bench_mbpa.a_query(timed, (2, 3))
    assert one == bench.Measurement("a", (1.0, 2.0), 3.0) and other == bench.Measurement("b", (1.0,), 1.0)


def test_the_products_of_a_fit_are_counted():
    case = PicturesCase(3, 4, fit=MbPAConfig(neighbours=5, steps=2, optimizer="rmsprop"))
    outputs = gradient = 2 * 5 * 3 * 4
    assert case.flops == 2 * (outputs + gradient) + 2 * 3 * 4


def with_medians(comparison: bench.Comparison, **seconds: float) -> bench.Comparison:
    ways = tuple(bench.Measurement(name, (each,), each) for name, each in seconds.items())
    return replace(comparison, ways=ways)


def test_the_sentences_say_what_was_reached(measured):
    text, one, *_ = measured.comparisons
    search = measured.comparisons[3]
    names = {"faiss": bench_mbpa.FAISS, "exact": bench_mbpa.EXACT, "lists": bench_mbpa.LISTS}
    known = replace(
        measured,
        flops_per_second=1e4 * one.flops,
        comparisons=(
            with_medians(text, **{bench_mbpa.LOOP: 0.12, bench_mbpa.DUAL: 0.001}),
            with_medians(one, **{bench_mbpa.LOOP: 0.02, bench_mbpa.VMAP: 0.01, bench_mbpa.BATCH: 0.001}),
            with_medians(search, **{names["faiss"]: 0.02, names["exact"]: 0.03, names["lists"]: 0.004}),
        ),
        found=measured.found | {f"recall of lists of faiss, {search.title}": 0.955},
    )
    cases = {"texts": SMALL["texts"], "pictures": SMALL["pictures"][:1], "searches": SMALL["searches"][:1]}
    lines = bench_mbpa.goals(known, **cases).splitlines()
    assert "timed on 40: 120 times the loop's queries a second" in lines[0]
    assert "82 430 words take 82 s, projected from those timed" in lines[0]
    assert "vmap 2, batch 20 (goal: 10; the matrix products alone leave 200)" in lines[1]
    assert "1.5 times the time of faiss's exact index" in lines[2] and "take 0.2 and find 95.5%" in lines[2]
    without = replace(known, comparisons=(*known.comparisons[:2], with_medians(search, **{names["exact"]: 0.03})))
    assert bench_mbpa.goals(without, **cases).splitlines()[2].endswith("not compared with faiss.")


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
