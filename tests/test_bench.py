"""Benchmarks: what is counted, what is kept, and that the ways compared do the same."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lib import bench, bench_lmn, bench_lmn_adaptation, bench_mann, kernels
from lib.experiments.mann import TABLE1
from lib.ledger import LedgerError
from lib.methods.flmn import FLMN, FLMNConfig
from lib.methods.mann import MANN, MANNConfig
from lib.tasks.episodes import EpisodeConfig, EpisodeSampler
from lib.tasks.images import ORIGINAL_SIZE, ImageBank
from tests.methods.test_mann import random_episodes, random_mann

CPU = torch.device("cpu")
SMALL = replace(
    TABLE1["mann"],
    learner=MANNConfig(hidden=8, slots=9, width=5, reads=2),
    episodes=EpisodeConfig(length=6),
)
SCALES = {"steps": (5, 150), "slots": (4, 8), "classes": (5, 6)}


@pytest.fixture(scope="module")
def measured() -> bench.Bench:
    return bench_mann.bench_method("mann", CPU, 2, compile=False, config=SMALL, batches=(2, 3), scales=SCALES)


@pytest.fixture
def bank() -> ImageBank:
    random = np.random.default_rng(0)
    return ImageBank((random.random((30, 20, ORIGINAL_SIZE, ORIGINAL_SIZE)) < 0.1).astype(np.uint8))


@pytest.mark.parametrize("controller", ["lstm", "feedforward"])
@pytest.mark.parametrize(("keys", "gate"), [("separate", "dynamic"), ("shared", "constant")])
@pytest.mark.parametrize("projected_at_once", [True, False])
def test_operations_are_counted_as_pytorch_counts_them(controller, keys, gate, projected_at_once):
    config = MANNConfig(9, 3, controller, hidden=7, slots=11, width=5, reads=2, keys=keys, gate=gate)
    learner = MANN(config)
    xs, ys = random_episodes(config, 0, batch=3, length=4, dtype=torch.float32)
    with FlopCounterMode(display=False) as counter:
        (learner if projected_at_once else learner.step_by_step)(xs, ys).sum().backward()
    counts = {str(op): count for op, count in counter.get_flop_counts()["Global"].items()}
    work = bench_mann.work(config, batch=3, steps=4)
    assert work.products == counts["aten.mm"] + counts["aten.addmm"]
    assert work.memory == counts["aten.bmm"] + counts["aten.baddbmm"]


@pytest.mark.parametrize("gate", ["constant", "dynamic"])
def test_operations_of_an_flmn_too(gate):
    learner = FLMN(FLMNConfig(9, 3, hidden=7, slots=11, width=5, gate=gate))
    xs, ys = random_episodes(learner.config, 0, batch=3, length=4, dtype=torch.float32)
    with FlopCounterMode(display=False) as counter:
        learner(xs, ys).sum().backward()
    counts = {str(op): count for op, count in counter.get_flop_counts()["Global"].items()}
    work = bench_mann.work(learner.config, batch=3, steps=4)
    assert work.products == counts["aten.mm"] + counts["aten.addmm"]
    assert work.memory == counts["aten.bmm"] + counts["aten.baddbmm"]


def test_flmn_is_measured_beside_the_mann_of_its_paper():
    config = replace(SMALL, learner=FLMNConfig(hidden=8, slots=9, width=5))
    found = bench_mann.bench_method("flmn", CPU, 1, compile=False, config=config, batches=(2,), scales={})
    assert found.method == "flmn"
    _, flmn, mann = found.comparisons
    assert (flmn.title, mann.title) == ("an update of FLMN, batch 2", "an update of MANN with one head, batch 2")
    assert [way.name for way in flmn.ways] == [way.name for way in mann.ways]
    assert flmn.flops == bench_mann.work(config.learner, 2, 6).products
    assert mann.flops == bench_mann.work(MANNConfig(hidden=8, slots=18, width=5, reads=1), 2, 6).products


@pytest.mark.parametrize("controller", ["lstm", "feedforward"])
def test_step_by_step_gives_what_a_whole_episode_gives(controller):
    config = MANNConfig(4, 3, controller, hidden=5, slots=7, width=3, reads=2)
    learner = random_mann(config, 5)
    xs, ys = random_episodes(config, 6, batch=3, length=5)
    gradients = []
    for forward in (learner, learner.step_by_step):
        learner.zero_grad()
        logits = forward(xs, ys)
        logits.square().sum().backward()
        gradients.append([logits, *(parameter.grad.clone() for parameter in learner.parameters())])
    for whole, stepwise in zip(*gradients, strict=True):
        torch.testing.assert_close(stepwise, whole)


@pytest.mark.skipif(not kernels.compiler(), reason="needs a C compiler")
def test_a_hundred_updates_give_the_losses_of_the_steps_one_by_one(bank):
    paper = TABLE1["mann"]  # but few slots, so that a short episode uses them again
    config = replace(paper, learner=MANNConfig(slots=32), episodes=EpisodeConfig(length=15))
    sampler = EpisodeSampler(bank, config.episodes, seed=0, stream="bench")
    updates = {how: bench_mann.updating(config, how, partial(sampler.batch, size=2), CPU) for how in ("step", "fast")}
    losses = {how: torch.tensor([update() for _ in range(100)]) for how, update in updates.items()}
    torch.testing.assert_close(losses["fast"], losses["step"], atol=1e-4, rtol=0)
    assert losses["step"].unique().numel() > 90


def test_every_way_is_measured_and_compared_with_the_first(measured):
    fast = [bench_mann.FAST] if kernels.compiler() else []
    for comparison, batch in zip(measured.comparisons[1:], (2, 3, 2), strict=True):
        assert [way.name for way in comparison.ways] == [bench_mann.STEP_BY_STEP, bench_mann.PLAIN, *fast]
        assert all(len(way.seconds) == 2 and min(way.seconds) > 0 for way in comparison.ways)
        assert comparison.ratio(comparison.ways[0]) == 1
        of_mann = "MANN, " in comparison.title  # the work of an NTM is not counted
        assert comparison.flops == (bench_mann.work(SMALL.learner, batch, 6).products if of_mann else None)
    assert {scaling.size: scaling.values for scaling in measured.scalings} == SCALES


def test_a_measurement_is_kept_whole(measured, tmp_path):
    path = bench.save(measured, tmp_path)
    assert path == tmp_path / "mann-cpu.json"
    assert bench.load("mann", "cpu", tmp_path) == measured
    assert bench.describe(bench.load("mann", "cpu", tmp_path)) == bench.describe(measured)


def test_a_table_shows_rates_ratios_and_the_machine(measured):
    comparison = bench.Comparison(
        "an update",
        "episodes",
        16,
        (bench.Measurement("a", (0.2, 0.3, 0.4), 1), bench.Measurement("b", (0.1,), 2)),
        1e9,
    )
    shown = bench.table(replace(measured, comparisons=(comparison,), flops_per_second=20e9, commit=None))
    assert [row.cells[:4] for row in shown.rows] == [
        ("53.3 episodes/s", "1.00", "300.0 ms, 200.0 to 400.0", "6.0"),
        ("160.0 episodes/s", "3.00", "100.0 ms, 100.0 to 100.0", "2.0"),
    ]
    assert f"torch {torch.__version__}" in shown.caption
    assert "commit unknown; products of large matrices reach 20 GFLOP/s" in shown.caption


def test_what_is_missing_or_damaged_is_named_with_the_command_that_makes_it(measured, tmp_path):
    with pytest.raises(LedgerError, match="python -m lib bench mann --device cpu --save"):
        bench.load("mann", "cpu", tmp_path)
    path = bench.save(measured, tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))
    with pytest.raises(LedgerError, match="format 99"):
        bench.load("mann", "cpu", tmp_path)


def test_what_is_kept_fills_the_tables_of_the_page():
    kept = bench.load("lmn")
    assert all(row.cells for row in bench_lmn.dense_table(kept).rows if "mask" not in row.source)
    assert len(bench_lmn_adaptation.adaptation_table(kept).rows) == 12
