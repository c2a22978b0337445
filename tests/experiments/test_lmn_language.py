"""Table 5: a run of each row at the smoke profile, how a text is read, and what the table and its claims say."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib import ledger
from lib.baselines.language import LanguageModel, LanguageModelConfig
from lib.config import to_dict
from lib.experiments import RunOptions, claims, lmn_language_tables
from lib.experiments import language as texts
from lib.experiments import lmn_language as language
from lib.experiments.language import Text
from lib.experiments.lmn_language import TextLMN, mean_loss, tune
from lib.methods.lmn import LMN, LMNConfig
from tests.cases import random_cases, seeds
from tests.experiments.made_up import own_texts

WORDS = 8


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A project of its own, and a smoke profile shorter still."""

    def small(found):
        return replace(found, training=replace(found.training, updates=10), combiner=replace(found.combiner, updates=2))

    return own_texts(tmp_path / "project", monkeypatch, language, small, validation=601, test=801)


def run(root, variant) -> ledger.Record:
    return language.run(variant, "smoke", 0, RunOptions(device="cpu", progress=False, runs=root / "runs"))


def lmn_and_text(seed, budget=4, batch=2, time=14, kind=TextLMN, **config):
    torch.manual_seed(seed % 2**31)
    model = LanguageModel(LanguageModelConfig(WORDS, 3, 4, dropout=0.0, cutoffs=(3,), narrower=2.0)).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    lmn = kind(model, LMNConfig(budget=budget, evict="oldest", units=3, **config)).double()
    text = torch.randint(WORDS, (batch, time + 1))
    return lmn, text[:, :-1], text[:, 1:]


def test_each_row_is_recorded_and_all_of_a_corpus_share_one_lstm(book):
    losses = {}
    for method in language.METHODS:
        record = run(book, f"wikitext-2-{method}")
        assert record == ledger.find_record("lmn.table5", f"wikitext-2-{method}", "smoke", 0)
        assert record.complete and record.updates == 10 and record.data["is_standin"]
        assert record.config == to_dict(language.config_of(f"wikitext-2-{method}", "smoke"))
        found = record.metrics
        assert found["perplexity"] == pytest.approx(math.exp(found["log_perplexity"]))
        losses[method] = found["log_perplexity"]
        if method != "lstm":
            assert len(found["tuning"]) == 2
            best = min(found["tuning"], key=lambda tried: tried["validation_perplexity"])["setting"]
            expected = best | {"margin": language.ALWAYS} if method == "lmn-always" else best
            assert found["setting"] == {k: v for k, v in expected.items() if method != "lmn" or k != "theta"}
        assert ("combiner" in found) == (method == "lmn")
    assert [folder.name for folder in (book / "runs" / "lmn.table5").iterdir()] == ["wikitext-2-lstm-smoke-0"]
    fixed, combined = (ledger.find_record("lmn.table5", f"wikitext-2-{m}", "smoke", 0) for m in ("lmn-fixed", "lmn"))
    assert combined.metrics["tuning"] == fixed.metrics["tuning"]
    # The memory helps an LSTM that knows next to nothing of a text that repeats itself.
    assert max(losses["cache"], losses["lmn-fixed"], losses["lmn"]) < losses["lstm"] - 0.1


def test_weights_too_large_for_a_repository_are_not_kept(book):
    options = RunOptions(device="cpu", progress=False, runs=book / "runs", keep_checkpoint=True)
    assert language.run("wikitext-2-lstm", "smoke", 0, options).checkpoint is None
    assert not (book / "data" / "checkpoints").exists()


def test_lmn_takes_the_settings_of_lmn_fixed_from_its_record_alone_if_it_is_of_the_same_run(book, monkeypatch):
    run(book, "text8-lmn-fixed")
    monkeypatch.setattr(language, "tune", None)  # no further tuning
    assert run(book, "text8-lmn").complete
    config_of = language.config_of
    monkeypatch.setattr(language, "config_of", lambda *name: replace(config_of(*name), memory=30))
    with pytest.raises(TypeError, match="not callable"):
        run(book, "text8-lmn")


def test_the_trained_lstm_can_be_had_by_others(book):
    options = RunOptions(device="cpu", progress=False, runs=book / "runs")
    model = language.pretrained("text8", "smoke", 0, options)
    record = run(book, "text8-lstm")
    assert record.updates == model.blocks_trained == 10
    text = Text.of(texts.load_corpus("text8", "stand-in"), torch.device("cpu"))
    assert mean_loss(model, text.test, 10) == pytest.approx(record.metrics["log_perplexity"], rel=1e-6)


@random_cases(10)
@given(seeds, st.integers(1, 14), st.sampled_from([None, 0.3]))
def test_lmn_reads_in_blocks_what_it_reads_at_once(seed, time, theta):
    lmn, xs, ys = lmn_and_text(seed, theta=theta)
    with torch.no_grad():
        carried, blocks = None, []
        for x, y in zip(xs.split(time, 1), ys.split(time, 1), strict=True):
            block, carried = lmn.episode(x, y, carried)
            carried = lmn.carry_over(carried)
            blocks.append(block)
        whole = LMN.forward(lmn, xs, ys).log_likelihood
    torch.testing.assert_close(torch.cat(blocks, 1), whole)


def test_the_combiner_gets_gradients_from_its_own_block_and_the_network_none():
    lmn, xs, ys = lmn_and_text(1)
    _, carried = lmn.episode(xs[:, :7], ys[:, :7])
    found, _ = lmn.episode(xs[:, 7:], ys[:, 7:], lmn.carry_over(carried))
    found.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in lmn.combiner.parameters())
    assert all(p.grad is None for p in lmn.network.parameters())
    assert not lmn.carry_over(carried)[1].mu.requires_grad


@random_cases(10)
@given(seeds, st.integers(1, 3), st.integers(1, 15))
def test_the_mean_loss_is_that_of_each_word_whatever_the_blocks(seed, streams, read):
    lmn, *_ = lmn_and_text(seed)
    text = torch.randint(WORDS, (13,))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(language, "READ", read)
        found = mean_loss(lmn, text, streams)
    piece, total = 12 // streams, 0.0
    for row in range(streams):
        lmn.begin(1)
        for at in range(row * piece, (row + 1) * piece):
            x, y = text[at : at + 1], text[at + 1 : at + 2]
            total -= lmn.predict(x)[0, y].log().item()
            lmn.observe(x, y)
    assert found == pytest.approx(total / (piece * streams))


def test_tuning_changes_the_best_setting_so_far_one_thing_at_a_time():
    def loss(setting):
        return abs(setting["a"] - 2) + abs(setting["b"] - 1)

    trials = ({}, {"a": 2}, {"a": 5}, {"b": 1}, {"b": 9})
    best, tried = tune({"a": 0, "b": 0}, trials, loss)
    assert best == {"a": 2, "b": 1}
    settings = [(t["setting"]["a"], t["setting"]["b"]) for t in tried]
    assert settings == [(0, 0), (2, 0), (5, 0), (2, 1), (2, 9)]
    assert [math.log(t["validation_perplexity"]) for t in tried] == pytest.approx([3, 1, 4, 0, 8])


def test_cache_and_lmn_are_tuned_with_as_many_settings():
    assert len(language.CACHE_TRIALS) == len(language.LMN_TRIALS) == language.LanguageConfig("lmn").trials


def test_the_paper_profile_has_the_papers_memories():
    configs = {variant: language.config_of(variant, "paper") for variant in language.VARIANTS}
    assert len(configs) == 10
    for variant, config in configs.items():
        assert variant == f"{config.corpus}-{config.method}"
        assert config.memory == {"wikitext-2": 100, "text8": 2000}[config.corpus]
        assert (config.model.hidden, config.streams) == (1024, 1)
        short = language.config_of(variant, "short")
        assert (short.memory, short.trials, short.source) == (config.memory, config.trials, "auto")


def made_up(variant, perplexity, is_standin=False):
    return ledger.Record(
        experiment="lmn.table5",
        variant=variant,
        profile="short",
        seed=0,
        config={},
        metrics={"perplexity": perplexity},
        updates=5,
        complete=True,
        seconds=1.0,
        machine={"name": "a machine"},
        commit=None,
        data={"name": "made up", "sha256": "", "is_standin": is_standin},
    )


def test_the_table_keeps_a_stand_in_apart(book):
    ledger.save_record(made_up("wikitext-2-cache", 120.25))
    ledger.save_record(made_up("text8-cache", 222.0, is_standin=True))
    rows = {(row.label, row.source): row for row in lmn_language_tables.table5().rows}
    assert rows["Neural cache", "ours, short profile"].cells == ("120.2", "not run", "222.0")
    assert "STAND-IN DATA: made up" in rows["Neural cache", "ours, short profile"].note
    assert rows["LSTM", "ours"].note == "not run"


def test_claims_need_real_data_and_the_lower_perplexity(book):
    for method, perplexity in {"lstm": 150.0, "cache": 130.0, "lmn": 131.0}.items():
        ledger.save_record(made_up(f"wikitext-2-{method}", perplexity))
        ledger.save_record(made_up(f"text8-{method}", perplexity, is_standin=True))
    table = claims.verdicts(lmn_language_tables.paper_claims(), language.PAPER)
    assert [row.cells[0] for row in table.rows] == ["holds so far", "not reached yet", "not run", "not run"]
    assert "130.0 against 150.0: -13.3%" in table.rows[0].cells[1]
