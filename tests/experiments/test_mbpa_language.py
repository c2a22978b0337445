"""Table 2 and figure 8 of MbPA: runs at the smoke profile, the sweep against naive sums, table and claims."""

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
from lib.experiments import RunOptions, claims, find_experiment
from lib.experiments import mbpa_language as language
from lib.experiments import mbpa_language_sweep as sweeps
from lib.experiments import mbpa_language_tables as tables
from lib.experiments.mbpa_language_sweep import Setting, Sweep, SweepConfig, Words, buckets_of, figure8
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


def test_both_variants_of_a_corpus_are_recorded_from_one_lstm(book):
    found = {variant: run(book, variant) for variant in ("ptb", "ptb-dynamic")}
    assert [folder.name for folder in (book / "runs" / "mbpa.table2").iterdir()] == ["ptb-lstm-smoke-0"]
    for variant, record in found.items():
        assert record == ledger.find_record("mbpa.table2", variant, "smoke", 0)
        assert record.complete and record.updates == 10 and record.data["is_standin"] and record.checkpoint is None
        assert record.config == to_dict(language.config_of(variant, "smoke"))
    metrics = found["ptb"].metrics
    assert metrics["words"] == {"validation": 12, "test": 20} and metrics["whole"]["words"] == 1_000
    for part, grid in {"rows": SMALL.shares, "wider": SMALL.wider_shares}.items():
        rows = metrics[part]
        assert list(rows) == list(tables.LABELS) and grid
        for name, mixes in sweeps.ROWS.items():
            assert rows[name]["validation_perplexity"] <= rows["lstm"]["validation_perplexity"]  # no share is a setting
            assert rows[name]["gain"] == pytest.approx(rows["lstm"]["perplexity"] - rows[name]["perplexity"])
            assert (rows[name]["setting"]["neighbours"] == 0) == (mixes == "cache")
    assert (
        metrics["wider"]["lstm-mbpa"]["validation_perplexity"] <= metrics["rows"]["lstm-mbpa"]["validation_perplexity"]
    )
    assert abs(metrics["exactness"]["mean"]) < 0.05
    rows = found["ptb-dynamic"].metrics["rows"]
    # It knows next to nothing yet, so that it learns much from what it reads.
    assert rows["dynamic"]["gain"] > 10 and rows["dynamic"]["setting"]["rate"] in (1e-3, 1e-2)
    assert "dynamic evaluation" in claims_text() and "not run" in claims_text()  # a stand-in counts for nothing


def claims_text() -> str:
    return " ".join(f"{row.label} {row.cells[0]}" for row in tables.language_claims().rows)


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


def test_the_paper_profile_is_the_papers():
    for variant in language.VARIANTS:
        found = language.config_of(variant, "paper")
        assert (found.sweep is None) == variant.endswith("-dynamic") == (found.dynamic is not None)
        assert variant.startswith(found.corpus) and found.model.tied
        # «roughly 10M parameters» and «roughly 24M»
        parameters = sum(weight.numel() for weight in LanguageModel(found.model).parameters())
        assert parameters / 1e6 == pytest.approx(10 if found.corpus == "ptb" else 24, abs=1)
    grid = language.config_of("ptb", "paper").sweep
    assert (grid.sizes, grid.neighbours, grid.steps) == ((500, 1000, 5000), (256, 512), (1, 5, 10))
    assert grid.shares == (0.0, 0.05, 0.1, 0.15) and grid.rates == (0.01, 0.1, 0.15, 0.2, 0.5, 1.0)
    assert grid.tuning_every == grid.test_every == 1


def made_up(variant, gains, at_end=(), error=0.001, **metrics):
    """error: of a row's lead on another, in nats."""
    rows = {"lstm": {"validation_perplexity": 101.0, "perplexity": 100.0}}
    setting = {"size": 5000, "neighbours": 256, "steps": 1, "rate": 0.15, "share": 0.1}
    perplexity = {"lstm": 100.0} | {name: 100.0 - gain for name, gain in gains.items()}
    for name, gain in gains.items():
        shared = {"setting": setting, "at_end": list(at_end), "validation_perplexity": 99.0, "gain_error": 100 * error}
        ahead = {other: [math.log(perplexity[other] / perplexity[name]), error] for other in perplexity}
        rows[name] = shared | {"perplexity": perplexity[name], "gain": gain, "ahead": ahead}
    whole = {"lstm": {"validation_perplexity": None, "perplexity": 90.0}, "words": 99_999}
    whole["lstm-cache"] = {"validation_perplexity": None, "perplexity": 80.0, "gain": 10.0, "gain_error": 0.1}
    other = {
        "exactness": {"likely": 700, "mean": 0.0012, "largest": 0.1, "words": 20},
        "reach": {"largest_weight": 0.125, "kernel_sum": 12.0, "change": 0.25, "words": 9},
    }
    return ledger.Record(
        experiment="mbpa.table2",
        variant=variant,
        profile="paper",
        seed=0,
        config={},
        metrics={"rows": rows, "wider": rows, "whole": whole, "words": {"validation": 55, "test": 1234}}
        | other
        | metrics,
        updates=5,
        complete=True,
        seconds=1.0,
        machine={"name": "a machine"},
        commit=None,
        data={"name": "made up", "sha256": "", "is_standin": False},
    )


def bucket(improvement):
    return {
        "words": 7,
        "improvement": improvement,
        "deviation": 2.0,
        "of_perplexity": improvement,
        "log_likelihood": {},
    }


def test_the_tables_show_paper_and_ours_and_where_a_grid_ends(book):
    gains = {"lstm-cache": 4.25, "lstm-mbpa": 5.0, "lstm-mbpa-cache": 6.0}
    buckets = {equal: [bucket(float(each)) for each in range(5)] for equal in ("types", "tokens")}
    ledger.save_record(made_up("ptb", gains, at_end=("rate", "steps"), figure8=buckets))
    ledger.save_record(made_up("ptb-dynamic", {"dynamic": 0.5}))
    rows = {(row.label, row.source, row.note[:6]): row for row in tables.table2().rows}
    assert len(rows) == len(tables.table2().rows) and len({key[:2] for key in rows}) == len(rows)
    assert rows["AWD-LSTM + cache, of Merity et al. 2017", "paper", "quoted"].cells == (
        "53.9",
        "52.8",
        "-4.5",
        "53.8",
        "52.0",
        "-13.8",
    )
    assert rows["LSTM + MbPA + cache", "paper", ""].cells == ("54.8", "54.4", "-5.2", "51.8", "49.4", "-16.5")
    ours = rows["LSTM + MbPA", "ours, paper profile", "Penn T"]
    assert ours.cells == ("99.0", "95.0", "-5.0", "not run", "not run", "not run")
    assert "55 words of validation text and 1 234 of test text" in ours.note and "α = 0.15" in ours.note
    assert "at an end of what was tried: α, T" in ours.note and "standard error of Δ 0.10" in ours.note
    assert "700 likely words move: +0.0012 nats from all" in ours.note
    whole = rows["LSTM + cache, all of the test text", "ours, paper profile", "Penn T"]
    assert whole.cells[:3] == ("–", "80.0", "-10.0") and "99 999 words of test text" in whole.note
    assert rows["LSTM + dynamic evaluation", "ours, paper profile", "Penn T"].cells[2] == "-0.5"
    figure = tables.figure8().rows
    assert figure[0].cells == ("0.0 ± 2.0", "1.0 ± 2.0", "2.0 ± 2.0", "3.0 ± 2.0", "4.0 ± 2.0")
    assert figure[-1].note == "not run"


@pytest.mark.parametrize(
    ("ptb", "wikitext", "error", "verdict"),
    [
        ((4.0, 5.0, 5.1), (14.0, 9.0, 16.0), 0.001, [claims.HOLDS] * 4),
        ((5.0, 4.0, 7.0), (9.0, 14.0, 13.0), 0.001, [claims.FAILS] * 4),
        ((4.0, 5.0, 7.0), (14.0, 9.0, 16.0), 0.1, [claims.UNDECIDED, claims.HOLDS] + [claims.UNDECIDED] * 2),
    ],
)
def test_claims_compare_what_is_gained_by_more_than_the_error(book, ptb, wikitext, error, verdict):
    names = ("lstm-cache", "lstm-mbpa", "lstm-mbpa-cache")
    for corpus, gains in {"ptb": ptb, "wikitext-2": wikitext}.items():
        rising = {"types": [bucket(1.0), bucket(2.0)], "tokens": [bucket(1.0), bucket(0.0)]}
        ledger.save_record(made_up(corpus, dict(zip(names, gains, strict=True)), error=error, figure8=rising))
    ledger.save_record(made_up("ptb-dynamic", {"dynamic": 1.5}, error=error))
    found = [row.cells[0] for row in claims.verdicts(tables.CLAIMS, "").rows]
    assert found[:4] == verdict
    assert found[4:] == [claims.FAILS if error < 0.01 else claims.UNDECIDED, claims.HOLDS, claims.IN_PART]


@pytest.mark.parametrize(
    ("rare", "of_perplexity", "verdict"),
    [(2.0, 2.0, claims.HOLDS), (-30.0, 2.0, claims.IN_PART), (2.0, 0.5, claims.IN_PART), (0.0, 0.5, claims.FAILS)],
)
def test_rarer_words_gain_more_by_either_percentage(book, rare, of_perplexity, verdict):
    buckets = [bucket(1.0), bucket(5.0), bucket(rare) | {"of_perplexity": of_perplexity}]
    empty = bucket(None) | {"words": 0}
    ledger.save_record(made_up("wikitext-2", {}, figure8={"types": [*buckets, empty], "tokens": buckets}))
    judged = claims.verdicts(tables.CLAIMS[-1:], "").rows[0]
    assert judged.cells[0] == verdict
    assert f"equal tokens, of the bucket as a whole: +1.0%, +5.0%, {of_perplexity:+.1f}%" in judged.cells[1]


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


@pytest.mark.parametrize(
    ("steps", "behind", "verdict"), [(10, 0.1, claims.FAILS), (1, 0.1, claims.IN_PART), (10, 0.02, claims.UNDECIDED)]
)
def test_the_papers_setting_is_judged_by_how_far_it_is_behind_the_best(book, steps, behind, verdict):
    papers = {"setting": {}, "behind": behind, "error": 0.015}
    record = made_up("ptb", {"lstm-mbpa": 5.0}, papers_setting=papers)
    record.metrics["rows"]["lstm-mbpa"]["setting"] |= {"steps": steps, "rate": 1.0}
    ledger.save_record(record)
    (judged,) = claims.verdicts(tuple(c for c in tables.CLAIMS if c.figure.startswith("Appendix B")), "").rows
    assert judged.cells[0] == verdict and f"behind by {behind:.4f} nats a word" in judged.cells[1]


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


def test_what_the_papers_setting_does_is_told(book):
    assert "No text" in tables.papers_setting_in_words()
    asked = {"size": 5_000, "neighbours": 256, "steps": 1, "rate": 0.15, "share": 0.1}
    tried = [
        asked | {"perplexity": 97.5},
        asked | {"prior": 0.1, "perplexity": 90.0},
        asked | {"rate": 1.0, "perplexity": 80.0},
    ]
    record = made_up("ptb", {"lstm-cache": 1.0, "lstm-mbpa": 5.0, "lstm-mbpa-cache": 1.0})
    record.metrics["tuning"] = {"mbpa": tried}
    ledger.save_record(record)
    told = tables.papers_setting_in_words()
    assert (
        "at its best share, 97.5; at the best of the paper's grid" in told
        and "12.5% of the weight" in told
        and told.startswith("- **Penn Treebank**")
    )


def test_figure_8_is_drawn_from_the_runs_of_table_2():
    figure = find_experiment("mbpa.figure8")
    assert figure.run is None and figure.drawn_from == {each: ("mbpa.table2", each) for each in ("ptb", "wikitext-2")}
    assert figure.config("ptb", "short") == find_experiment("mbpa.table2").config("ptb", "short")
