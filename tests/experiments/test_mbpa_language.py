"""Table 2 and figure 8 of MbPA: runs at the smoke profile, and the sweep against naive sums."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib import ledger
from lib.baselines.language import LanguageModel, LanguageModelConfig
from lib.baselines.neural_cache import CacheConfig, NeuralCache
from lib.config import to_dict
from lib.experiments import RunOptions, find_experiment
from lib.experiments import mbpa_language as language
from lib.experiments import mbpa_language_sweep as sweeps
from lib.experiments.mbpa_language_claims import language_claims
from lib.experiments.mbpa_language_figure8 import buckets_of, figure8
from lib.experiments.mbpa_language_sweep import Setting, Sweep, SweepConfig, Words
from lib.experiments.mbpa_language_tables import LABELS
from lib.methods.mbpa import MbPAConfig
from lib.methods.mbpa_text import TextMbPA, TextMbPAConfig
from tests.cases import random_cases, seeds
from tests.experiments.made_up import own_texts

WORDS = 12
SMALL = SweepConfig(
    sizes=(5, 20),
    neighbours=(2, 4),
    shares=(0.0, 0.2),
    steps=(1, 3),
    rates=(0.2, 1.0),
    priors=(0.3,),
    sharpnesses=(0.3, 1.0),
    wider_neighbours=(1,),
    wider_rates=(3.0,),
    wider_shares=(0.5,),
    likely=WORDS,
)


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A project of its own, and a smoke profile shorter still."""

    def small(found):
        return replace(found, training=replace(found.training, updates=10))

    return own_texts(tmp_path / "project", monkeypatch, language, small, validation=1201, test=1001)


def run(root, variant) -> ledger.Record:
    return language.run(variant, "smoke", 0, RunOptions(device="cpu", progress=False, runs=root / "runs"))


def model_and_text(seed: int, length: int = 40) -> tuple[LanguageModel, torch.Tensor]:
    torch.manual_seed(seed % 2**31)
    model = LanguageModel(LanguageModelConfig(WORDS, 4, 6, dropout=0.0, tied=True)).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model, torch.randint(WORDS, (length + 1,))


def test_all_variants_of_a_corpus_are_recorded_from_one_lstm(book):
    found = {variant: run(book, variant) for variant in ("ptb-appendix-b", "ptb", "ptb-dynamic")}
    assert [folder.name for folder in (book / "runs" / "mbpa.table2").iterdir()] == ["ptb-lstm-smoke-0"]
    for variant, record in found.items():
        assert record == ledger.find_record("mbpa.table2", variant, "smoke", 0)
        assert record.complete and record.updates == 10 and record.data["is_standin"] and record.checkpoint is None
        assert record.config == to_dict(language.config_of(variant, "smoke"))
    metrics = found["ptb"].metrics
    assert metrics["words"] == {"validation": 12, "test": 20} and metrics["whole"]["words"] == 1_000
    for part, grid in {"rows": SMALL.shares, "wider": SMALL.wider_shares}.items():
        rows = metrics[part]
        assert list(rows) == list(LABELS) and grid
        for name, mixes in sweeps.ROWS.items():
            assert rows[name]["validation_perplexity"] <= rows["lstm"]["validation_perplexity"]  # no share is a setting
            assert rows[name]["gain"] == pytest.approx(rows["lstm"]["perplexity"] - rows[name]["perplexity"])
            assert (rows[name]["setting"]["neighbours"] == 0) == (mixes == "cache")
    assert (
        metrics["wider"]["lstm-mbpa"]["validation_perplexity"] <= metrics["rows"]["lstm-mbpa"]["validation_perplexity"]
    )
    assert abs(metrics["exactness"]["mean"]) < 0.05
    stated = found["ptb-appendix-b"].metrics
    assert stated["words"] == {"test": 400} and list(stated["rows"]) == list(LABELS)
    assert stated["rows"]["lstm-mbpa"]["perplexity"] == stated["perplexity"]
    both = stated["rows"]["lstm-mbpa-cache"]["setting"]
    assert both == to_dict(Setting(500, 0.1, 0.15, 16, 1, 0.15, 0.0, 0.1))
    rows = found["ptb-dynamic"].metrics["rows"]
    # It knows next to nothing yet, so that it learns much from what it reads.
    assert rows["dynamic"]["gain"] > 10 and rows["dynamic"]["setting"]["rate"] in (1e-3, 1e-2)
    assert "dynamic evaluation" in claims_text() and "not run" in claims_text()  # a stand-in counts for nothing


def claims_text() -> str:
    return " ".join(f"{row.label} {row.cells[0]}" for row in language_claims().rows)


def test_a_sweep_that_was_broken_off_goes_on_where_it_was(tmp_path, monkeypatch):
    model, tokens = model_and_text(1)
    made, fitted_at = [], sweeps.fitted_at

    def counted(*arguments):
        if len(made) == 5:
            raise KeyboardInterrupt
        made.append(arguments)
        return fitted_at(*arguments)

    def perplexity(identity="a"):
        words = Words.read(model, tokens, 1, WORDS, tmp_path, {"text": identity})
        return Sweep(SMALL, words).best("both", wider=True)

    monkeypatch.setattr(sweeps, "PIECE", 15)
    monkeypatch.setattr(sweeps, "fitted_at", counted)
    with pytest.raises(KeyboardInterrupt):
        perplexity()
    assert len(list(tmp_path.iterdir())) == 5
    first = {path: path.read_bytes() for path in tmp_path.iterdir()}
    made[:] = range(6)
    expected = perplexity()
    assert len(made) == 6 + (6 + 1) * 3 - 5  # (N, K) without β and once with it, three pieces each
    assert all(path.read_bytes() == content for path, content in first.items())
    made[:] = range(6)
    assert perplexity() == expected and len(made) == 6
    perplexity("b")
    model.softmax.weight.data += 0.1
    perplexity()
    assert len(made) == 6 + 2 * (6 + 1) * 3, "another text or LSTM has its own"


@random_cases(15)
@given(seed=seeds, every=st.integers(1, 7))
def test_a_setting_is_the_mixture_that_reads_word_by_word(tmp_path_factory, seed, every):
    model, tokens = model_and_text(seed)
    words = Words.read(model, tokens, every, WORDS, tmp_path_factory.mktemp("sweep"), {})
    sweep = Sweep(SMALL, words)
    for k, prior, (share, cache_share) in itertools.product((2, 4), (0.0, 0.3), ((0.2, 0.0), (0.0, 0.2), (0.2, 0.5))):
        setting = Setting(20, 1.0, cache_share, k, 3, 0.2, prior, share)
        fit = MbPAConfig(neighbours=k, steps=3, rate=0.2, prior=prior)
        learner = TextMbPA(model, model.softmax, TextMbPAConfig(fit, 20, share, cache_share, 1.0))
        expected = learner.episode(tokens[None, :-1], tokens[None, 1:])[0][0, words.at]
        torch.testing.assert_close(sweeps.log_likelihood(words, setting), expected, atol=1e-6, rtol=0)
        assert sweep.perplexity(setting) == pytest.approx(math.exp(-expected.mean()), rel=1e-6)
    cache = NeuralCache(model, CacheConfig(5, 0.2, 0.3)).episode(tokens[None, :-1], tokens[None, 1:])[0]
    torch.testing.assert_close(sweeps.log_likelihood(words, Setting(5, 0.3, 0.2)), cache[0, words.at])


def test_the_best_is_the_best_of_its_grid_and_ends_are_told(tmp_path):
    model, tokens = model_and_text(3)
    sweep = Sweep(SMALL, Words.read(model, tokens, 1, WORDS, tmp_path, {}))
    for wider in (False, True):
        shares = (0.0, 0.2, 0.5) if wider else (0.0, 0.2)
        neighbours, rates = ((1, 2, 4), (0.2, 1.0, 3.0)) if wider else ((2, 4), (0.2, 1.0))
        values = (5, 20), (0.3, 1.0), shares, neighbours, (1, 3), rates, (0.0,), shares
        best = min(sweep.perplexity(Setting(*each)) for each in itertools.product(*values))
        setting, found = sweep.best("both", wider)
        assert found == sweep.perplexity(setting) <= best
        assert setting.prior or found == best
    setting = Setting(20, 0.3, 0.0, 2, 3, 1.0, 0.0, 0.2)
    assert sweep.at_ends(setting, "both") == ["size", "neighbours", "rate", "steps", "share", "sharpness"]
    assert sweep.at_ends(setting, "mbpa", wider=True) == ["size", "steps"]
    assert sweep.at_ends(Setting(5, 0.3, 0.2), "cache", wider=True) == ["size", "sharpness"]
    tried = sweep.tried()
    assert len(tried["cache"]) == 4 and len(tried["mbpa"]) == len(sweep.fits) * 3 * 2
    lowest = min(tried["mbpa"], key=lambda each: each["perplexity"])
    share = lowest.pop("share", 0.0)
    assert sweep.perplexity(Setting(share=share, **{k: v for k, v in lowest.items() if k != "perplexity"})) == (
        pytest.approx(lowest["perplexity"], abs=1e-3)
    )


@random_cases(30)
@given(seed=seeds, count=st.integers(1, 200))
def test_buckets_are_equal_in_what_they_are_to_be_equal_in(seed, count):
    drawn = torch.rand(count, generator=torch.Generator().manual_seed(seed % 2**31)).square()
    words = (drawn * 50).long()
    types = buckets_of(words, 50, "types")
    assert torch.equal(types, words // 10)
    tokens = buckets_of(words, 50, "tokens")
    order = words.argsort()
    assert (tokens[order].diff() >= 0).all(), "the more frequent come first"
    counts, sizes = torch.bincount(words), torch.bincount(tokens, minlength=5)
    assert all((tokens[words == word] == tokens[words == word][0]).all() for word in words.unique())
    # A border is off by half of the word that it would cut.
    assert (sizes - count / 5).abs().max() <= counts.max() + 1


def test_figure_8_sums_by_bucket():
    words = torch.tensor([0, 0, 1, 9])
    p = {"lstm": [0.1] * 4, "lstm-cache": [0.2, 0.4, 0.1, 0.1], "lstm-mbpa-cache": [0.4, 0.4, 0.05, 0.2]}
    found = figure8({row: torch.tensor(each, dtype=torch.float64).log() for row, each in p.items()}, words, 10)["types"]
    assert [bucket["words"] for bucket in found] == [3, 0, 0, 0, 1]
    assert found[0]["improvement"] == pytest.approx((50 + 0 - 100) / 3)
    assert found[0]["deviation"] == pytest.approx(torch.tensor([50.0, 0.0, -100.0]).std().item())
    assert found[0]["log_likelihood"]["lstm"] == pytest.approx(math.log(0.1))
    assert found[0]["of_perplexity"] == pytest.approx(0.0) and found[4]["of_perplexity"] == pytest.approx(50)
    assert found[1]["improvement"] is None and found[4]["deviation"] is None
    # log 2, 0 and -log 2 nats, each a stretch of its own; their mean, 0, moves the percentage as much.
    assert found[0]["of_perplexity_error"] == pytest.approx(100 * math.log(2) / 3**0.5)
    assert found[1]["of_perplexity_error"] is None and found[4]["of_perplexity_error"] is None


def test_the_papers_setting_is_read_as_a_naive_loop_reads(monkeypatch):
    model, tokens = model_and_text(5, length=60)
    monkeypatch.setattr(language, "AT_ONCE", 17)
    asked = language.StatedTest(TextMbPAConfig(MbPAConfig(neighbours=4), 20, 0.1, 0.15, 0.2), test_words=50)
    nowhere = torch.zeros(0, dtype=torch.int64)
    metrics = language.stated_metrics(model, language.Text(nowhere, nowhere, tokens), asked, progress=False)
    with torch.no_grad():
        hidden, followed, softmax = model.hidden(tokens[None, :50])[0][0], tokens[1:51], model.softmax
        said = {"lstm": [], "cache": [], "mbpa": []}
        for at, (q, word) in enumerate(zip(hidden, followed, strict=True)):
            past = range(max(0, at - 20), at)
            network = torch.softmax(softmax(q), 0)[word]
            said["lstm"].append(network)
            attention = torch.softmax(torch.stack([0.2 * (hidden[i] @ q) for i in past]), 0) if past else None
            there = (
                [each for each, i in zip(attention, past, strict=True) if followed[i] == word] if past else [network]
            )
            said["cache"].append(sum(there, torch.zeros((), dtype=torch.float64)))
            kernel = sorted((1 / (1e-3 + (hidden[i] - q).square().sum().item()), i) for i in past)[-4:]
            weight, bias = softmax.weight.clone(), softmax.bias.clone()
            for each, i in kernel:
                p = torch.softmax(softmax(hidden[i]), 0)
                p[followed[i]] -= 1
                share = 0.15 * each / sum(k for k, _ in kernel)
                weight -= share * torch.outer(p, hidden[i])
                bias -= share * p
            said["mbpa"].append(torch.softmax(weight @ q + bias, 0)[word])
    lstm, cache, mbpa = (torch.stack(each) for each in said.values())
    expected = {
        "lstm": lstm.log(),
        "lstm-cache": (0.85 * lstm + 0.15 * cache).log(),
        "lstm-mbpa": (0.9 * lstm + 0.1 * mbpa).log(),
        "lstm-mbpa-cache": (0.75 * lstm + 0.1 * mbpa + 0.15 * cache).log(),
    }
    assert list(metrics["rows"]) == list(expected) and metrics["words"] == {"test": 50}
    for name, row in metrics["rows"].items():
        assert row["perplexity"] == pytest.approx(math.exp(-expected[name].mean()), rel=1e-9), name
        if name != "lstm":
            assert row["gain"] == pytest.approx(metrics["rows"]["lstm"]["perplexity"] - row["perplexity"])
            for other, lead in row["ahead"].items():
                difference = expected[name] - expected[other]
                error = difference.std().item() / 50**0.5  # fewer words than stretches
                assert lead == pytest.approx([difference.mean().item(), error], rel=1e-6)
    settings = {name: row.get("setting") for name, row in metrics["rows"].items()}
    assert settings["lstm-cache"] == to_dict(Setting(20, 0.2, 0.15))
    assert settings["lstm-mbpa"] == to_dict(Setting(20, 0, 0, 4, 1, 0.15, 0, 0.1))
    assert settings["lstm-mbpa-cache"] == to_dict(Setting(20, 0.2, 0.15, 4, 1, 0.15, 0, 0.1))


def test_the_paper_profile_is_the_papers():
    for variant in language.VARIANTS:
        found = language.config_of(variant, "paper")
        assert (found.dynamic is not None) == variant.endswith("-dynamic")
        assert (found.stated is not None) == variant.endswith("-appendix-b")
        assert (found.sweep is not None) == (variant == found.corpus)
        assert variant.startswith(found.corpus) and found.model.tied
        for profile in ("smoke", "short", "paper"):
            # What the LSTM's training depends on is its corpus's, so that one LSTM does; earlier records stay valid.
            of, of_corpus = (language.config_of(each, profile) for each in (variant, found.corpus))
            assert (of.source, of.model, of.training, of.block) == (
                of_corpus.source,
                of_corpus.model,
                of_corpus.training,
                of_corpus.block,
            )
            assert ("stated" in language.config(variant, profile)) == variant.endswith("-appendix-b")
        # «roughly 10M parameters» and «roughly 24M»
        parameters = sum(weight.numel() for weight in LanguageModel(found.model).parameters())
        assert parameters / 1e6 == pytest.approx(10 if found.corpus == "ptb" else 24, abs=1)
    grid = language.config_of("ptb", "paper").sweep
    assert (grid.sizes, grid.neighbours, grid.steps) == ((500, 1000, 5000), (256, 512), (1, 5, 10))
    assert grid.shares == (0.0, 0.05, 0.1, 0.15) and grid.rates == (0.01, 0.1, 0.15, 0.2, 0.5, 1.0)
    assert grid.tuning_every == grid.test_every == 1
    for profile in ("short", "paper"):
        stated = language.config_of("wikitext-2-appendix-b", profile).stated
        fit = stated.learner.fit
        assert (fit.neighbours, fit.steps, fit.rate, fit.optimizer, fit.prior) == (256, 1, 0.15, "sgd", 0.0)
        assert (stated.learner.size, stated.learner.share, stated.learner.cache_share) == (5_000, 0.1, 0.15)
        assert stated.test_words > 245_569


def test_the_lstms_sizes_are_told_as_the_configs_have_them():
    told = language.lstm_in_words()
    assert told.startswith(
        "On Penn Treebank the LSTM has in the paper profile 1 194 units, an embedding of 268 numbers"
    )
    short = told.split("On WikiText-2")[1].split("in the short profile")[1]
    assert short.startswith(" 400 units, an embedding of 120 numbers, dropout of 0.3, and 8 000 updates")
    assert short.endswith("on 20 blocks of 35 words.")


@random_cases(20)
@given(seeds, st.integers(2, 500))
def test_the_error_of_a_mean_is_that_of_the_means_of_stretches(seed, count):
    """Of independent words it is near the usual one; of words in runs that are alike it is larger."""
    torch.manual_seed(seed % 2**31)
    values = torch.randn(count, dtype=torch.float64)
    mean, error = sweeps.with_error(values)
    assert mean == pytest.approx(values.mean().item())
    parts = [part.mean().item() for part in values.tensor_split(min(100, count))]
    assert error == pytest.approx(torch.tensor(parts, dtype=torch.float64).std().item() / len(parts) ** 0.5)
    in_runs = torch.randn(100, dtype=torch.float64).repeat_interleave(40)
    assert sweeps.with_error(in_runs)[1] > 3 * in_runs.std() / len(in_runs) ** 0.5


def test_how_far_the_papers_setting_reaches_is_measured(tmp_path):
    model, tokens = model_and_text(3)
    words = Words.read(model, tokens, 1, WORDS, tmp_path, {})
    found = sweeps.reach(words, 20, 4, 0.15)
    largest, sums, changes = [], [], []
    with torch.no_grad():
        hidden, followed = words.hidden, words.words
        for at in range(5, len(followed)):
            past = range(max(0, at - 20), at)
            kernel = sorted((1 / (1e-3 + (hidden[i] - hidden[at]).square().sum().item()), i) for i in past)[-4:]
            total = sum(each for each, _ in kernel)
            weight, bias = model.softmax.weight.clone(), model.softmax.bias.clone()
            for each, i in kernel:
                p = torch.softmax(model.softmax(hidden[i]), 0)
                p[followed[i]] -= 1
                weight -= 0.15 * each / total * torch.outer(p, hidden[i])
                bias -= 0.15 * each / total * p
            before = torch.log_softmax(model.softmax(hidden[at]), 0)[followed[at]]
            after = torch.log_softmax(weight @ hidden[at] + bias, 0)[followed[at]]
            largest.append(kernel[-1][0] / total)
            sums.append(total)
            changes.append(abs(after - before).item())
    count = len(changes)
    assert found["words"] == count == 35
    assert found["largest_weight"] == pytest.approx(sum(largest) / count)
    assert found["kernel_sum"] == pytest.approx(sum(sums) / count)
    assert found["change"] == pytest.approx(sum(changes) / count, rel=1e-6)


def test_how_far_a_setting_is_behind_is_measured_in_pairs(tmp_path):
    model, tokens = model_and_text(4)
    words = Words.read(model, tokens, 1, WORDS, tmp_path, {})
    best, other = Setting(20, 0, 0, 4, 1, 0.5, 0, 0.2), Setting(20, 0, 0, 4, 1, 0.1, 0, 0.1)
    found = sweeps.behind_best(words, best, other)
    each = [sweeps.log_likelihood(words, setting).double() for setting in (best, other)]
    difference = each[0] - each[1]
    assert found["behind"] == pytest.approx(difference.mean().item())
    assert found["error"] == pytest.approx(
        difference.std().item() / len(difference) ** 0.5
    )  # fewer words than stretches
    assert found["setting"]["rate"] == 0.1


def test_figure_8_is_drawn_from_the_runs_of_table_2():
    figure = find_experiment("mbpa.figure8")
    assert figure.run is None and figure.drawn_from == {each: ("mbpa.table2", each) for each in ("ptb", "wikitext-2")}
    assert figure.config("ptb", "short") == find_experiment("mbpa.table2").config("ptb", "short")
