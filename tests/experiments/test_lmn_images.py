"""The experiments of tables 3 and 4: their configs, runs at the smoke profile, verification, tables and claims."""

from dataclasses import replace

import pytest
import torch

from lib import ledger, report
from lib.baselines.maml_images import ImageMAMLConfig
from lib.config import to_dict
from lib.experiments import PROFILES, RunOptions, lmn_fewshot, lmn_image_tables, lmn_omniglot, runs
from lib.experiments.claims import HOLDS, IN_PART, NOT_YET, SO_FAR
from lib.ledger import Record
from lib.tasks.online_images import FewShotConfig, FewShotLabels, OnlineConfig
from tests.experiments.made_up import made_up_characters

MODULES = {"lmn.table3": lmn_omniglot, "lmn.table4": lmn_fewshot}


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A project of its own, made-up characters, and a smoke profile shorter still."""
    root, reported = tmp_path / "project", ledger.paper_numbers("lmn")
    monkeypatch.setattr(ledger, "ROOT", root)
    monkeypatch.setattr(ledger, "paper_numbers", lambda method: reported)
    monkeypatch.setenv("BOOK_RESULTS_DIR", str(root / "data" / "results"))
    characters = made_up_characters()
    for module in (*MODULES.values(), lmn_omniglot.omniglot):
        monkeypatch.setattr(module, "load_characters", lambda: characters)
    monkeypatch.setattr(lmn_omniglot, "TEST_BATCH", 4)
    online, few_shot = lmn_omniglot.in_profile, lmn_fewshot.in_profile

    def small_training(training):
        return replace(training, batch_size=4, updates=4, log_every=2, checkpoint_every=2, validate_every=4)

    def small_online(paper, profile):
        found = online(paper, profile)
        network = replace(found.network, labels=28, filters=4)
        training = small_training(found.network_training)
        own = small_training(found.training) if found.trains else training
        labels = OnlineConfig(seen=20, unseen=8)
        return replace(found, network=network, network_training=training, training=own, labels=labels, test_batches=2)

    def small_few_shot(paper, profile):
        found = few_shot(paper, profile)
        network = replace(found.network, filters=4, width=8)
        labels = FewShotConfig(test_characters=600, validation_characters=200, mixed=5)
        training = replace(small_training(found.training), batch_size=8)  # of MAML two labels, four times each
        return replace(found, network=network, training=training, labels=labels)

    monkeypatch.setattr(lmn_omniglot, "in_profile", small_online)
    monkeypatch.setattr(lmn_fewshot, "in_profile", small_few_shot)
    return root


def run(root, experiment: str, variant: str, seed: int = 0, **changes) -> Record:
    options = RunOptions(**({"device": "cpu", "progress": False, "runs": root / "runs"} | changes))
    return MODULES[experiment].run(variant, "smoke", seed, options)


def test_the_paper_profile_is_the_papers_where_it_is_known():
    for config in lmn_omniglot.CONFIGS.values():
        labels = config.labels
        assert (labels.seen, labels.unseen, labels.labels * labels.times) == (250, 100, 10)
        assert config.network.labels == 350
        assert config.network_training.optimizer == config.training.optimizer == "adam"
        assert lmn_omniglot.TEST_BATCH == 100
    assert lmn_omniglot.CONFIGS["lmn"].adapter.decay == 0.99
    for variant, config in lmn_fewshot.CONFIGS.items():
        assert 4 * config.labels.test_characters == 4492
        if variant != "maml":
            assert config.memory.cells == int(variant[-5])
    assert lmn_fewshot.CONFIGS["lmn-2cell"].memory.theta == 1.0


@pytest.mark.parametrize("module", MODULES.values())
def test_profiles_differ_in_size_and_not_in_what_is_learnt(module):
    for paper in module.CONFIGS.values():
        smoke, short, long = (module.in_profile(paper, profile) for profile in PROFILES)
        assert smoke.network == short.network == long.network == paper.network
        assert smoke.training.updates < short.training.updates < long.training.updates
        for part in ("adapter", "memory"):
            assert getattr(smoke, part, None) == getattr(short, part, None) == getattr(paper, part, None)


def test_all_rows_of_table_3_share_one_trained_network(book, monkeypatch):
    baseline = run(book, "lmn.table3", "baseline")
    assert baseline == ledger.find_record("lmn.table3", "baseline", "smoke", 0)
    assert baseline.updates == 4
    folder = book / "runs" / "lmn.table3" / "network-smoke-0"
    assert (folder / "checkpoint.safetensors").exists()
    trained = []
    monkeypatch.setattr(lmn_omniglot, "adapt", lambda network, config: trained.append(network) or real(network, config))
    real = _adapt
    fixed = run(book, "lmn.table3", "lmn-fixed")
    lmn = run(book, "lmn.table3", "lmn")
    weights = [network.state_dict() for network in trained]
    assert all(torch.equal(weights[0]["to_logits.bias"], each["to_logits.bias"]) for each in weights)
    assert (fixed.updates, lmn.updates) == (4, 4)
    assert fixed.curve == baseline.curve
    assert lmn.curve["update"] == [2, 4]
    assert lmn.metrics["kinds"] == ["overall", "new", "seen"]
    for record in (baseline, fixed, lmn):
        overall, new, seen = record.metrics["counts"]
        assert overall == new + seen == 2 * 4 * 5
        assert len(record.metrics["by_repetition"]) == 2
        assert record.config == to_dict(lmn_omniglot.in_profile(lmn_omniglot.CONFIGS[record.variant], "smoke"))
    assert baseline.metrics["accuracy"][1] == 0  # the network has no say for a label that it never saw


_adapt = lmn_omniglot.adapt


def test_a_network_is_left_as_it_was_by_what_adapts_it(book):
    run(book, "lmn.table3", "baseline")
    checkpoint = (book / "runs" / "lmn.table3" / "network-smoke-0" / "checkpoint.safetensors").read_bytes()
    first = run(book, "lmn.table3", "baseline").metrics
    for variant in ("maml", "lmn"):
        run(book, "lmn.table3", variant)
    assert run(book, "lmn.table3", "baseline").metrics == first
    assert (book / "runs" / "lmn.table3" / "network-smoke-0" / "checkpoint.safetensors").read_bytes() == checkpoint


@pytest.mark.parametrize(
    ("experiment", "variant"),
    [("lmn.table3", v) for v in lmn_omniglot.CONFIGS]
    + [("lmn.table4", v) for v in ("kaiser-2cell", "lmn-3cell", "maml")],
)
def test_a_kept_checkpoint_is_verified_and_other_metrics_are_not(book, experiment, variant):
    record = run(book, experiment, variant, keep_checkpoint=True)
    (found,) = [each for each in MODULES[experiment].EXPERIMENTS if each.name == experiment]
    ok, message = found.verify(record, "cpu")
    assert ok, message
    assert "0.000 points" in message
    worse = record.metrics | {"accuracy": [None if a is None else a + 0.1 for a in record.metrics["accuracy"]]}
    assert not found.verify(replace(record, metrics=worse), "cpu")[0]
    assert not found.verify(replace(record, config=record.config | {"network": {}}), "cpu")[0]


def test_rows_of_table_4_share_the_embedding_of_their_memory(book):
    two, three = (run(book, "lmn.table4", f"lmn-{cells}cell") for cells in (2, 3))
    assert [path.name for path in (book / "runs" / "lmn.table4").iterdir()] == ["lmn-embedding-smoke-0"]
    assert two.curve == three.curve
    labels = two.metrics["labels"]
    assert labels == 4 * 12  # of 32 made-up characters, in proportion
    for record in (two, three):
        by_memory = record.metrics["by_memory"]
        assert by_memory.keys() == {"kaiser", "lmn"}
        assert record.metrics["accuracy"] == by_memory["lmn"]["passes"]["accuracy"]
        for scored in by_memory.values():
            assert scored.keys() == {"passes", "mixed", "validation"}
            assert scored["mixed"]["counts"] == [labels] * 3
    assert run(book, "lmn.table4", "kaiser-2cell").metrics["by_memory"].keys() == {"kaiser", "lmn"}
    maml = run(book, "lmn.table4", "maml").metrics["by_memory"]
    assert maml.keys() == {"maml"}


def test_an_interrupted_embedding_goes_on_with_its_memory(book):
    whole = run(book, "lmn.table4", "lmn-2cell")
    other = {"runs": book / "others"}
    run(book, "lmn.table4", "lmn-2cell", minutes=0, **other)
    assert run(book, "lmn.table4", "lmn-2cell", **other).metrics == whole.metrics


def test_an_lmn_embedding_learns_from_labels_in_memory_and_writes_only_in_training():
    config = replace(lmn_fewshot.LMN_SETTINGS, cells=2)
    network = lmn_fewshot.ConvNetConfig(labels=0, filters=4, width=8)
    learner = runs.fresh(lambda: lmn_fewshot.LMNEmbedding(network, 6, config), 0)
    images = torch.rand(5, 784, generator=torch.Generator().manual_seed(0))
    ys = torch.tensor([5, 0, 1, 3, 2])
    assert learner(images, ys).tolist() == [[0.0, 0.0]] * 5
    assert learner.count.tolist() == [1, 1, 1, 1, 0, 1]
    hs = learner.embed(images).detach()
    torch.testing.assert_close(learner.vectors[ys, 0], hs)
    learner.vectors[5, 0] = -hs[0]  # a label that will not be found
    evidence = config.sharpness * torch.nn.functional.cosine_similarity(hs.unsqueeze(1), learner.vectors[ys, 0], dim=2)
    outputs = learner(images, ys)
    assert outputs[:, 1].tolist() == [0.0, 1.0, 1.0, 1.0, 1.0]
    torch.testing.assert_close(outputs[:, 0].detach(), evidence.logsumexp(1) - evidence.diagonal())  # -log s_ty
    assert learner.count.tolist() == [1, 1, 1, 1, 0, 2]  # an error asks for a cell of its own
    torch.testing.assert_close(learner.vectors[5, 1], hs[0])
    outputs[:, 0].sum().backward()
    assert next(learner.network.parameters()).grad.abs().sum() > 0
    before = learner.vectors.clone()
    learner.eval()(images, ys)
    assert torch.equal(learner.vectors, before)


def test_scores_count_the_drawing_after_k_others(book):
    """One who answers rightly from the third drawing on has 2-shot and 3-shot right, and no 1-shot."""
    labels = FewShotLabels(FewShotConfig(validation_characters=200), made_up_characters())

    class Blank(torch.nn.Module):
        def embed(self, xs):
            return xs[:, :1]

    stream = labels.stream("test", "mixed", lmn_fewshot.EVALUATION_SEED)

    def answer(hidden, ys, count):
        assert torch.equal(ys, stream.ys)
        return stream.occurrence >= 3

    found = lmn_fewshot.scores(labels, Blank(), {"patient": answer}, "test", "mixed", 1)["patient"]
    assert found["accuracy"] == [0, 1, 1]
    assert found["counts"] == [labels.count["test"]] * 3


def record(experiment: str, variant: str, accuracy: list[float], profile: str = "paper") -> Record:
    """A made-up record with these accuracies."""
    metrics = {"accuracy": accuracy, "kinds": ["overall", "new", "seen"]}
    better = [each + 0.05 for each in accuracy]
    metrics["by_memory"] = {"kaiser": {"passes": {"accuracy": accuracy}}, "lmn": {"passes": {"accuracy": better}}}
    machine = {"device": "cpu", "name": "made up", "threads": 1, "torch": "2", "python": "3"}
    data = {"name": "omniglot", "sha256": "0", "is_standin": False}
    made = Record(experiment, variant, profile, 0, {}, metrics, 100, True, 1.0, machine, None, data)
    ledger.save_record(made)
    return made


def verdicts() -> dict[str, str]:
    return {row.label: row.cells[0] for row in lmn_image_tables.claims().rows}


def test_claims_of_table_3_follow_from_records(book):
    assert set(verdicts().values()) == {report.NOT_RUN}
    record("lmn.table3", "baseline", [0.45, 0, 0.63])
    record("lmn.table3", "maml", [0.56, 0.49, 0.59])
    record("lmn.table3", "lmn", [0.86, 0.71, 0.92])
    as_reported = {label: verdict for label, verdict in verdicts().items() if label.startswith("Table 3")}
    assert set(as_reported.values()) == {HOLDS}
    record("lmn.table3", "maml", [0.40, 0.49, 0.70])
    record("lmn.table3", "lmn", [0.83, 0.70, 0.92])
    changed = [verdict for label, verdict in verdicts().items() if label.startswith("Table 3")]
    assert changed == [IN_PART, IN_PART, IN_PART]


def test_claims_of_table_4_follow_from_records(book):
    for variant in lmn_image_tables.TABLE4_LABELS:
        level = {"maml": 0.4}.get(variant, 0.5) + (0.05 if variant == "lmn-2cell" else 0)
        record("lmn.table4", variant, [level, level, level], profile="short")
    held = [verdict for label, verdict in verdicts().items() if label.startswith("Table 4")]
    assert held == [SO_FAR] * 4
    record("lmn.table4", "lmn-2cell", [0.45, 0.45, 0.45], profile="short")
    record("lmn.table4", "maml", [0.6, 0.6, 0.6], profile="short")
    failed = [verdict for label, verdict in verdicts().items() if label.startswith("Table 4")]
    assert failed == [NOT_YET, SO_FAR, NOT_YET, NOT_YET]


def test_the_tables_show_the_papers_rows_and_ours(book):
    ledger.save_record(replace(run(book, "lmn.table3", "lmn-fixed"), profile="short"))
    rows = lmn_image_tables.table3().rows
    assert [(row.label, row.source) for row in rows] == [
        ("baseline", "paper"),
        ("baseline", "ours"),
        ("MAML", "paper"),
        ("MAML", "ours"),
        ("LMN-fixed", "ours, short profile"),
        ("LMN", "paper"),
        ("LMN", "ours"),
    ]
    assert rows[5].cells == ("86", "71", "92")
    assert len(rows[4].cells) == 3
    ledger.save_record(replace(run(book, "lmn.table4", "lmn-2cell"), profile="short"))
    rows = lmn_image_tables.table4().rows
    assert sum(row.note == report.NOT_RUN for row in rows) == 6
    rows = lmn_image_tables.memories().rows
    assert len(rows) == 12
    shown = [row for row in rows if row.note != report.NOT_RUN]
    assert [(row.label, row.source) for row in shown] == [
        ("LMN", "order passes, 2 cells"),
        ("LMN", "order mixed, 2 cells"),
    ]
    assert len(shown[0].cells) == 6


def test_maml_has_rates_for_convolutions_and_softmax_layer():
    assert isinstance(lmn_omniglot.CONFIGS["maml"].adapter, ImageMAMLConfig)
    assert lmn_omniglot.CONFIGS["maml"].trains
    assert not lmn_omniglot.CONFIGS["lmn-fixed"].trains
