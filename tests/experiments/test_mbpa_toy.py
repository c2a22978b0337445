"""Figure 2 of MbPA: what changes, the three answers, and a run at the smoke profile."""

import pytest
import torch

from lib import ledger, report
from lib.experiments import RunOptions, mbpa_toy
from lib.experiments import mbpa_tables as tables
from lib.methods.mbpa import MbPAConfig


@pytest.fixture
def book(tmp_path, monkeypatch):
    monkeypatch.setenv("BOOK_RESULTS_DIR", str(tmp_path / "results"))
    return tmp_path


@pytest.mark.parametrize("variant", mbpa_toy.CONFIGS)
def test_a_run_is_recorded(book, variant):
    record, (experiment,) = mbpa_toy.run(variant, "smoke", 0, RunOptions()), mbpa_toy.EXPERIMENTS
    assert record == ledger.find_record("mbpa.figure2", variant, "smoke", 0)
    assert record.config == experiment.config(variant, "smoke")
    found = record.metrics
    assert set(found["error"]) == set(found["answers"]) == set(tables.FITS2)
    assert all(len(each) == len(found["grid"]) == mbpa_toy.GRID for each in found["answers"].values())
    for name, tried in found["tuning"].items():
        kept = [each for each in tried if each["validation_error"] is not None]
        best = min(kept, key=lambda each: each["validation_error"])["setting"]
        assert found["setting"][name].items() >= best.items()


def test_the_function_changes_on_the_right_alone():
    x = torch.linspace(-4, 4, 9)
    for config in mbpa_toy.CONFIGS.values():
        now = mbpa_toy.after(x, config)
        torch.testing.assert_close(now[:3], mbpa_toy.before(x[:3]), atol=1e-4, rtol=0)
        assert (now[6:] - mbpa_toy.before(x[6:])).abs().min() > 0.5
    shifted = mbpa_toy.after(x[6:], mbpa_toy.CONFIGS["shifted"])
    torch.testing.assert_close(shifted - mbpa_toy.before(x[6:]), torch.full((3,), 1.5), atol=0.01, rtol=0)


def test_the_three_answers():
    config = mbpa_toy.in_profile(mbpa_toy.CONFIGS["shifted"], "smoke")
    network, memory = mbpa_toy.trained_network(config, 0), mbpa_toy.make_memory(config, 0)
    told = memory.keys[:5].clone()
    found = mbpa_toy.answers(network, memory, told, MbPAConfig(neighbours=1, steps=200, rate=0.03))
    torch.testing.assert_close(found["attention"], memory.values[:5, 0])  # one neighbour, which is the query itself
    torch.testing.assert_close(found["mbpa"], memory.values[:5, 0], atol=1e-3, rtol=0)
    torch.testing.assert_close(found["network"], network(told).squeeze(1).detach())


def test_the_table_has_a_line_for_each_answer_and_change(book):
    assert {row.note for row in tables.figure2().rows} == {report.NOT_RUN}
    for seed in range(2):
        mbpa_toy.run("shifted", "smoke", seed, RunOptions())
    assert {row.note for row in tables.figure2().rows} == {report.NOT_RUN}, "a smoke run is no result"
    table = tables.figure2()
    assert [(row.label, row.source) for row in table.rows[:2]] == [("the network", "shifted"), ("attention", "shifted")]
    report.html_table(table), report.text_table(table)
