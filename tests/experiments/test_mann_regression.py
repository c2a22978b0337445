"""The experiments of figures 5 and 6: their configs, a run at the smoke profile, and what they keep."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from lib import ledger, report
from lib.baselines import gaussian_process
from lib.config import to_dict
from lib.experiments import PROFILES, RunOptions, find_experiment, mann_tables, runs
from lib.experiments import mann_regression as regression
from lib.methods.mann import MANN
from lib.training.checkpoint import CheckpointError, save_checkpoint


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A project of its own, and a smoke profile shorter still."""
    root = tmp_path / "project"
    monkeypatch.setattr(ledger, "ROOT", root)
    monkeypatch.setenv("BOOK_RESULTS_DIR", str(root / "data" / "results"))
    in_profile = regression.in_profile

    def small(paper, profile):
        found = in_profile(paper, profile)
        training = replace(found.training, batch_size=2, updates=4, log_every=2, checkpoint_every=2, validate_every=4)
        return replace(found, training=training, learner=replace(found.learner, hidden=20, slots=30))

    monkeypatch.setattr(regression, "in_profile", small)
    return root


def run(root, experiment="mann.figure5", variant="1d", **changes) -> ledger.Record:
    options = RunOptions(**({"device": "cpu", "progress": False, "runs": root / "runs"} | changes))
    return find_experiment(experiment).run(variant, "smoke", 0, options)


def verify(record: ledger.Record) -> tuple[bool | None, str]:
    return find_experiment(record.experiment).verify(record, "cpu")


def test_the_paper_profile_is_the_papers_where_it_is_known():
    for dimensions, config in {
        1: regression.FIGURE5["1d"],
        2: regression.FIGURE6["2d"],
        3: regression.FIGURE6["3d"],
    }.items():
        assert config.learner.features == config.process.dimensions == dimensions
        assert config.learner.labels == "real"
        assert config.training.updates == 100_000
        assert config.training.batch_size == 16
        assert config.test_batches * regression.TEST_BATCH == 100


def test_profiles_differ_in_size_and_not_in_what_is_learnt():
    smoke, short, paper = (regression.in_profile(regression.FIGURE5["1d"], profile) for profile in PROFILES)
    assert smoke.learner == short.learner == paper.learner
    assert smoke.process == short.process == paper.process
    assert (smoke.training.updates, short.training.updates) == (20, 5_000)


def test_each_seed_learns_from_its_own_functions_and_is_tested_on_the_same():
    tasks = [regression.build_task(regression.FIGURE5["1d"], seed, torch.device("cpu")) for seed in (0, 1)]
    for part, same in (("train", False), ("validation", True), ("test", True)):
        a, b = (getattr(task, part).batch(1, 2).ys for task in tasks)
        assert torch.equal(a, b) == same
    assert not torch.equal(tasks[0].test.batch(1, 2).ys, tasks[0].validation.batch(1, 2).ys)
    assert not torch.equal(tasks[0].test.batch(1, 2).ys, tasks[0].train.batch(1, 2).ys)


def test_a_run_of_figure_5_records_likelihoods_and_predictions_on_a_grid(book):
    record = run(book)
    assert record == ledger.find_record("mann.figure5", "1d", "smoke", 0)
    assert record.config == to_dict(regression.in_profile(regression.FIGURE5["1d"], "smoke"))
    metrics, curve = record.metrics, record.curve
    assert len(metrics["negative_log_likelihood"]) == len(metrics["gp_negative_log_likelihood"]) == 50
    assert metrics["loss"] == pytest.approx(np.mean(metrics["negative_log_likelihood"]))
    assert np.mean(metrics["gp_negative_log_likelihood"]) < metrics["loss"]  # after four updates
    assert curve["update"] == [2, 4]
    assert [len(line) for line in curve["negative_log_likelihood"]] == [50, 50]
    assert curve["validation_update"] == [4]
    assert len(curve["validation_negative_log_likelihood"][0]) == 50
    assert "accuracy" not in curve
    example = metrics["example"]
    assert len(example["xs"]) == len(example["ys"]) == 20
    assert len(example["unseen_xs"]) == len(example["unseen_ys"]) == 30
    assert example["grid"][0] == -2
    assert example["grid"][-1] == 2
    for model in ("mann", "gp"):
        assert len(example[model]["mean"]) == len(example[model]["variance"]) == 100
        assert min(example[model]["variance"]) > 0
    shown = report.describe_record(record)
    first, exact = (metrics[name][0] for name in ("negative_log_likelihood", "gp_negative_log_likelihood"))
    assert f"1st {first:.2f} (exact GP {exact:.2f})" in shown


def test_the_predictions_on_a_grid_are_those_of_a_whole_episode(book, monkeypatch):
    """The 21st output of an episode of 20 samples and a query is the prediction at that query."""
    monkeypatch.setattr(regression, "GRID", 9)
    config = regression.in_profile(regression.FIGURE5["1d"], "smoke")
    task = regression.build_task(config, 0, torch.device("cpu"))
    learner = runs.fresh(lambda: MANN(config.learner), 0)
    found = regression.predictions_on_a_grid(task, learner)
    example, batch = found["example"], task.test.batch(0, regression.TEST_BATCH)
    seen = batch.xs[:, :20], batch.ys[:, :20]
    assert example["xs"] == seen[0][0, :, 0].tolist()
    assert example["ys"] == seen[1][0].tolist()
    assert example["xs"] + example["unseen_xs"] == batch.xs[0, :, 0].tolist()
    assert example["ys"] + example["unseen_ys"] == batch.ys[0].tolist()
    means, gp_means, variances, gp_variances, distances = [], [], [], [], []
    for x in example["grid"]:
        query = torch.full((regression.TEST_BATCH, 1, 1), x)
        xs = torch.cat([seen[0], query], dim=1)
        with torch.no_grad():
            outputs = learner(xs, torch.cat([seen[1], torch.zeros(regression.TEST_BATCH, 1)], dim=1))[:, -1]
        mean, variance = task.labels.predict(outputs).unbind(-1)
        means.append(mean)
        variances.append(variance)
        gp_mean, gp_variance = gaussian_process.predict(config.process, *seen, query)
        gp_means.append(gp_mean[:, 0])
        gp_variances.append(gp_variance[:, 0])
        distances.append((seen[0][..., 0] - x).abs().amin(1))
    means, gp_means, distances = (torch.stack(each) for each in (means, gp_means, distances))
    variances, gp_variances = torch.stack(variances), torch.stack(gp_variances)
    np.testing.assert_allclose(example["mann"]["mean"], means[:, 0], atol=1e-5)
    np.testing.assert_allclose(example["mann"]["variance"], variances[:, 0], atol=1e-5)
    np.testing.assert_allclose(example["gp"]["mean"], gp_means[:, 0], atol=1e-6)
    left = (means - gp_means).square().sum() / (gp_means - gp_means.mean()).square().sum()
    assert found["mean_r2"] == pytest.approx(1 - left.item(), abs=1e-4)
    for name, each in (("distance_correlation", variances), ("gp_distance_correlation", gp_variances)):
        expected = spearmanr(each.flatten(), distances.flatten()).statistic
        assert found[name] == pytest.approx(expected, abs=2e-3)  # near ties, rounded otherwise


def test_rank_correlation_is_spearmans():
    random = torch.Generator().manual_seed(0)
    a, noise = torch.randn(2, 200, generator=random).unbind()
    assert regression.rank_correlation(a, a.exp()) == pytest.approx(1)
    assert regression.rank_correlation(a, -a) == pytest.approx(-1)
    expected = spearmanr(a, a + noise).statistic
    assert regression.rank_correlation(a, a + noise) == pytest.approx(expected, abs=1e-9)


def test_a_kept_checkpoint_is_verified_and_a_changed_one_is_not(book):
    record = run(book, "mann.figure6", "2d", keep_checkpoint=True)
    assert "example" not in record.metrics
    ok, message = verify(record)
    assert ok, message
    assert "0.0000 nats" in message
    assert not verify(replace(record, config=record.config | {"test_batches": 7}))[0]
    path = book / record.checkpoint["file"]
    learner = runs.load_weights(record, MANN(regression.in_profile(regression.FIGURE6["2d"], "smoke").learner))
    with torch.no_grad():
        learner.to_logits.bias[0] += 0.5
    digest = save_checkpoint(path, learner, {})
    ok, message = verify(record)
    assert not ok
    assert "its record says" in message
    ok, message = verify(replace(record, checkpoint=record.checkpoint | {"sha256": digest}))
    assert not ok
    assert "nats" in message
    with pytest.raises(CheckpointError, match="keeps no checkpoint"):
        runs.load_weights(
            replace(record, checkpoint=None), MANN(regression.in_profile(regression.FIGURE6["2d"], "smoke").learner)
        )


def test_the_tables_show_mann_above_the_exact_process(book):
    record = replace(run(book), profile="short")
    ledger.save_record(record)
    mann, gp = mann_tables.figure5().rows
    nll = record.metrics["negative_log_likelihood"]
    assert (mann.label, gp.label) == ("1-D, MANN", "1-D, exact GP")
    assert mann.cells[:7] == tuple(f"{nll[k - 1]:.2f}" for k in (1, 5, 10, 20, 30, 40, 50))
    assert mann.cells[7:] == (f"{record.metrics['mean_r2']:.2f}", f"{record.metrics['distance_correlation']:.2f}")
    assert len(gp.cells) == len(mann.cells) == len(mann_tables.figure5().columns)
    ledger.save_record(replace(run(book, "mann.figure6", "3d"), profile="short"))
    rows = mann_tables.figure6().rows
    assert [(row.label, row.note == "not run") for row in rows] == [
        ("2-D, MANN", True),
        ("3-D, MANN", False),
        ("3-D, exact GP", False),
    ]


def test_a_learner_that_predicts_the_prior_scores_as_the_prior_does():
    """Mean 0 and variance 1 + noise² at each step: what the exact process says of a first sample."""
    config = regression.FIGURE5["1d"]
    task = regression.build_task(config, 0, torch.device("cpu"))
    learner = MANN(config.learner)
    variance = 1 + config.process.noise**2
    with torch.no_grad():
        learner.to_logits.weight.zero_()
        learner.to_logits.bias.copy_(torch.tensor([0, math.log(math.expm1(variance - 1e-4))]))
    metrics = regression.test_scores(replace(config, test_batches=1), task, learner, progress=False)
    ours, exact = (metrics[name] for name in ("negative_log_likelihood", "gp_negative_log_likelihood"))
    assert ours[0] == pytest.approx(exact[0], abs=1e-4)
    assert ours[-1] > exact[-1] + 1
    assert metrics["mean_r2"] == pytest.approx(0, abs=0.3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_gpu_is_tested_on_the_same_functions_and_scores_the_same():
    config = replace(regression.FIGURE5["1d"], test_batches=1)
    learner = runs.fresh(lambda: MANN(config.learner), 0)
    tasks = [regression.build_task(config, 0, torch.device(name)) for name in ("cpu", "cuda")]
    assert torch.equal(tasks[0].test.batch(2, 3).ys, tasks[1].test.batch(2, 3).ys.cpu())
    expected = regression.test_scores(config, tasks[0], learner, progress=False)
    found = regression.test_scores(config, tasks[1], learner.cuda(), progress=False)
    for name in ("negative_log_likelihood", "gp_negative_log_likelihood"):
        assert found[name] == pytest.approx(expected[name], abs=1e-3)
    assert found["mean_r2"] == pytest.approx(expected["mean_r2"], abs=1e-3)
