"""Table 2 and figure 8 of MbPA as they are shown, and the claims on language, from made-up records."""

import math

import pytest

from lib import ledger
from lib.experiments import claims
from lib.experiments import mbpa_language as language
from lib.experiments import mbpa_language_tables as tables
from lib.experiments.mbpa_language_claims import CLAIMS
from tests.experiments.made_up import own_texts


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A project of its own."""
    return own_texts(tmp_path / "project", monkeypatch, language, lambda config: config, validation=2, test=2)


def made_up(variant, gains, at_end=(), error=0.001, **metrics):
    """error: of a row's lead on another, in nats."""
    rows = {"lstm": {"validation_perplexity": 101.0, "perplexity": 100.0}}
    setting = {"size": 5000, "neighbours": 256, "steps": 1, "rate": 0.15, "share": 0.1}
    perplexity = {"lstm": 100.0} | {name: 100.0 - gain for name, gain in gains.items()}
    for name, gain in gains.items():
        shared = {"setting": setting, "at_end": list(at_end), "validation_perplexity": 99.0, "gain_error": 100 * error}
        ahead = {other: [math.log(perplexity[other] / perplexity[name]), error] for other in perplexity}
        rows[name] = shared | {"perplexity": perplexity[name], "gain": gain, "ahead": ahead}
    wider = {name: dict(row) for name, row in rows.items()}
    whole = {"lstm": {"validation_perplexity": None, "perplexity": 90.0}, "words": 99_999}
    whole["lstm-cache"] = {"validation_perplexity": None, "perplexity": 80.0, "gain": 10.0, "gain_error": 0.1}
    other = {
        "exactness": {"likely": 700, "mean": 0.0012, "largest": 0.1, "words": 20},
        "papers_setting": {"setting": {}, "behind": 0.0, "error": 0.01},
        "reach": {"largest_weight": 0.125, "kernel_sum": 12.0, "change": 0.25, "words": 9},
    }
    return ledger.Record(
        experiment="mbpa.table2",
        variant=variant,
        profile="paper",
        seed=0,
        config={},
        metrics={"rows": rows, "wider": wider, "whole": whole, "words": {"validation": 55, "test": 1234}}
        | other
        | metrics,
        updates=5,
        complete=True,
        seconds=1.0,
        machine={"name": "a machine"},
        commit=None,
        data={"name": "made up", "sha256": "", "is_standin": False},
    )


def stated_record():
    """Of the paper's setting: nothing was chosen, no validation text was read."""
    gains = {"lstm-cache": 1.0, "lstm-mbpa": 3.0, "lstm-mbpa-cache": 4.0}
    record = made_up("ptb-appendix-b", gains)
    for row in record.metrics["rows"].values():
        row["validation_perplexity"] = None
        row.pop("at_end", None)
    kept = {"rows": record.metrics["rows"], "words": {"test": 82_429}}
    record.metrics.clear()
    record.metrics.update(kept)
    return record


def bucket(improvement, of_perplexity=None, deviation=2.0, words=100, error=None):
    """of_perplexity: as the improvement, if not given; error: its own."""
    found = {"words": words, "improvement": improvement, "deviation": deviation, "log_likelihood": {}}
    found["of_perplexity"] = improvement if of_perplexity is None else of_perplexity
    return found | ({} if error is None else {"of_perplexity_error": error})


def test_the_tables_show_paper_and_ours_and_where_a_grid_ends(book):
    gains = {"lstm-cache": 4.25, "lstm-mbpa": 5.0, "lstm-mbpa-cache": 6.0}
    buckets = {equal: [bucket(float(each)) for each in range(5)] for equal in ("types", "tokens")}
    ledger.save_record(made_up("ptb", gains, at_end=("rate", "steps"), figure8=buckets))
    ledger.save_record(made_up("ptb-dynamic", {"dynamic": 0.5}))
    ledger.save_record(stated_record())
    rows = {(row.label, row.source, row.note[:6]): row for row in tables.table2().rows}
    assert len(rows) == len(tables.table2().rows) and len({key[:2] for key in rows}) == len(rows)
    assert rows["AWD-LSTM + cache, of Merity et al. 2017", "paper", "quoted"].cells == (
        "53.9",
        "52.8",
        "-4.5 (-7.9%)",
        "53.8",
        "52.0",
        "-13.8 (-21.0%)",
    )
    assert rows["LSTM + MbPA + cache", "paper", ""].cells == (
        "54.8",
        "54.4",
        "-5.2 (-8.7%)",
        "51.8",
        "49.4",
        "-16.5 (-25.0%)",
    )
    ours = rows["LSTM + MbPA", "ours, paper profile", "Penn T"]
    assert ours.cells == ("99.0", "95.0", "-5.0 (-5.0%)", "not run", "not run", "not run")
    assert "55 words of validation text and 1 234 words of test text" in ours.note and "α = 0.15" in ours.note
    assert "at an end of what was tried: α, T" in ours.note and "standard error of Δ 0.10" in ours.note
    assert "ahead of the LSTM by 0.0513 nats a word, standard error 0.0010" in ours.note
    assert "700 likely words move: +0.0012 nats from all in the mean of 20 words, 0.1000 at most" in ours.note
    told_of = [row.label for row in rows.values() if "likely words move" in row.note]
    assert told_of == ["LSTM + MbPA"], "measured for one row alone"
    wider = rows["LSTM + cache, wider grid", "ours, paper profile", "Penn T"]
    assert wider.cells[:3] == ("99.0", "95.8", "-4.2 (-4.2%)")
    whole = rows["LSTM + cache, all of the test text", "ours, paper profile", "Penn T"]
    assert whole.cells[:3] == ("–", "80.0", "-10.0 (-11.1%)") and "99 999 words of test text" in whole.note
    assert rows["LSTM + dynamic evaluation", "ours, paper profile", "Penn T"].cells[2] == "-0.5 (-0.5%)"
    stated = "LSTM + MbPA, paper's setting"
    assert rows[stated, "ours, paper profile", "Penn T"].cells == ("–", "97.0", "-3.0 (-3.0%)", *["not run"] * 3)
    assert "n = 1, 82 429 words of test text, N = 5000" in rows[stated, "ours, paper profile", "Penn T"].note
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
    found = [row.cells[0] for row in claims.verdicts(CLAIMS, "").rows]
    assert found[:4] == verdict
    assert found[4:] == [claims.FAILS if error < 0.01 else claims.UNDECIDED, claims.HOLDS, claims.HOLDS, claims.IN_PART]


def test_a_claim_tells_what_the_wider_grid_gives_and_is_not_judged_by_it(book):
    record = made_up("wikitext-2", {"lstm-cache": 14.0, "lstm-mbpa": 9.0, "lstm-mbpa-cache": 16.0})
    record.metrics["wider"]["lstm-cache"] |= {"perplexity": 80.0, "gain": 20.0, "ahead": {"lstm-mbpa": [0.001, 0.02]}}
    ledger.save_record(record)
    (judged,) = claims.verdicts(tuple(c for c in CLAIMS if "the cache gains more" in c.text), "").rows
    assert judged.cells[0] == claims.HOLDS
    assert judged.cells[1] == (
        "LSTM + cache 86.0 (-14.0%), LSTM + MbPA 91.0 (-9.0%): ahead by +0.0565 nats a word, standard error 0.0010 "
        "(of the wider grid LSTM + cache 80.0 (-20.0%), LSTM + MbPA 91.0 (-9.0%): ahead by +0.0010 nats a word, "
        "standard error 0.0200)"
    )


@pytest.mark.parametrize(
    ("rare", "of_perplexity", "verdict"),
    [
        (2.0, 2.0, claims.HOLDS),
        (-30.0, 2.0, claims.IN_PART),
        (2.0, 0.5, claims.IN_PART),
        (0.0, 0.5, claims.FAILS),
        (1.5, 2.0, claims.IN_PART),  # the first is within two errors, the second has none on record
        (1.5, 0.5, claims.UNDECIDED),
    ],
)
def test_rarer_words_gain_more_by_either_percentage(book, rare, of_perplexity, verdict):
    """A bucket's mean has a standard error of 0.2, so that their difference has one of 0.283."""
    buckets = [bucket(1.0), bucket(5.0), bucket(rare, of_perplexity)]
    empty = bucket(None, 0.0, None, words=0) | {"of_perplexity": None}
    ledger.save_record(made_up("wikitext-2", {}, figure8={"types": [*buckets, empty], "tokens": buckets}))
    judged = claims.verdicts(CLAIMS[-1:], "").rows[0]
    assert judged.cells[0] == verdict
    numbers = judged.cells[1]
    last_less_first = f"last less first {of_perplexity - 1:+.1f}, its error not on record"
    assert f"equal tokens, of the bucket as a whole: +1.0%, +5.0%, {of_perplexity:+.1f}%; {last_less_first}" in numbers
    assert f"last less first {rare - 1:+.1f}, standard error 0.3" in numbers


@pytest.mark.parametrize(("error", "verdict"), [(0.3, claims.HOLDS), (0.4, claims.IN_PART)])
def test_a_bucket_as_a_whole_is_judged_by_its_error_where_that_is_on_record(book, error, verdict):
    """The difference of 1 is between two errors of 0.3 and 0.4 each: its own are 0.42 and 0.57."""
    buckets = [bucket(1.0, error=error), bucket(2.0, error=error)]
    ledger.save_record(made_up("wikitext-2", {}, figure8={"types": buckets, "tokens": buckets}))
    assert claims.verdicts(CLAIMS[-1:], "").rows[0].cells[0] == verdict


@pytest.mark.parametrize("corpus", list(tables.CORPORA))
@pytest.mark.parametrize(
    ("best", "best_of_both", "behind", "verdict"),
    [
        ({"steps": 10}, {"steps": 5}, 0.1, claims.FAILS),
        ({"rate": 1.0}, {"steps": 5}, 0.1, claims.IN_PART),
        ({"steps": 10}, {}, 0.1, claims.IN_PART),  # without the cache's share it is not the paper's
        ({"steps": 10}, {"cache_share": 0.15}, 0.1, claims.HOLDS),
        ({}, {"steps": 5}, 0.0, claims.HOLDS),
        ({"steps": 10}, {"steps": 5}, 0.02, claims.UNDECIDED),
    ],
)
def test_the_papers_setting_is_judged_for_either_row_and_corpus(book, corpus, best, best_of_both, behind, verdict):
    papers = {"setting": {}, "behind": behind, "error": 0.015}
    record = made_up(corpus, {"lstm-mbpa": 5.0, "lstm-mbpa-cache": 6.0}, papers_setting=papers)
    rows = record.metrics["rows"]
    for name, changed in {"lstm-mbpa": best, "lstm-mbpa-cache": best_of_both}.items():
        rows[name]["setting"] = rows[name]["setting"] | changed
    ledger.save_record(record)
    asked = [c for c in CLAIMS if c.figure == f"Appendix B, {tables.CORPORA[corpus]}"]
    (judged,) = claims.verdicts(tuple(asked), "").rows
    assert judged.cells[0] == verdict and f"behind by {behind:.4f} nats a word" in judged.cells[1]


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
        and told.endswith("with nothing chosen but θ of the cache: not run.")
    )
    ledger.save_record(stated_record())
    assert (
        "On all 82 429 words of the test text, with nothing chosen but θ of the cache "
        "(N = 5000, K = 256, T = 1, α = 0.15, λ_mbpa = 0.1): "
        "LSTM 100.0; LSTM + cache 99.0, -1.0 (-1.0%), ahead by 0.0101 nats a word (standard error 0.0010); "
    ) in tables.papers_setting_in_words()
