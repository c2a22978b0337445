"""Shankar & Sarawagi 2018, tables 3 and 4 as the command line and the book show them, and the paper's claims of them.

The claims' criteria are ours where the paper gives no number. Each is judged on the seeds that all of its runs have: on
means, and on differences seed by seed, of which half of the 95% interval (±) must not reach zero.
"""

import itertools

from lib import ledger, report
from lib.experiments.claims import FAILS, HOLDS, IN_PART, Claim, percent, verdicts
from lib.experiments.curves import PROFILES_SHOWN
from lib.ledger import Record

TABLE3, TABLE4 = "lmn.table3", "lmn.table4"
TABLE3_LABELS = {"baseline": "baseline", "maml": "MAML", "lmn-fixed": "LMN-fixed", "lmn": "LMN"}
TABLE4_LABELS = {
    **{
        f"{name}-{cells}cell": f"{label}, {cells} cells a label"
        for cells in (2, 3, 5)
        for name, label in (("kaiser", "Kaiser"), ("lmn", "LMN"))
    },
    "maml": "MAML",
}
SHOTS = (1, 2, 3)


def table3() -> report.Table:
    """Table 3 with our rows; LMN-fixed is ours alone."""
    paper = ledger.paper_numbers("lmn")["table3"]
    rows = []
    for variant, label in TABLE3_LABELS.items():
        if variant in paper["rows"]:
            rows.append(report.Row(label, "paper", tuple(str(v) for v in paper["rows"][variant])))
        rows += report.accuracy_rows(TABLE3, variant, label, list(SHOTS), PROFILES_SHOWN)
    caption = (
        "Online Omniglot: accuracy in percent on second occurrences of labels, all, new and seen ones "
        "(Shankar & Sarawagi 2018, table 3)"
    )
    return report.Table(caption, ("overall", "new", "seen"), tuple(rows), ("method", "source"))


def repetitions() -> report.Table:
    """Of the first seed, what 100 test sequences more or less change: mean and interval over ten repetitions."""
    rows = []
    for variant, label in TABLE3_LABELS.items():
        record = ledger.best_record(TABLE3, variant)
        if not record:
            rows.append(report.Row(label, "ours", (), report.NOT_RUN))
            continue
        of = record.metrics["by_repetition"]
        source = f"ours, {record.profile} profile, seed {record.seed}"
        cells = tuple(report.percent(list(each)) for each in zip(*of, strict=True))
        rows.append(report.Row(label, source, cells, f"{len(of)} repetitions; {report.note_on([record])}"))
    caption = (
        "Online Omniglot, one training: accuracy in percent on second occurrences, mean over repetitions of the test "
        "with 100 other sequences, ± half of its 95% interval"
    )
    return report.Table(caption, ("overall", "new", "seen"), tuple(rows), ("method", "source"))


def table4() -> report.Table:
    """Table 4 with our rows."""
    paper = ledger.paper_numbers("lmn")["table4"]
    rows = []
    for variant, label in TABLE4_LABELS.items():
        rows.append(report.Row(label, "paper", tuple(f"{v:.1f}" for v in paper["rows"][variant])))
        rows += report.accuracy_rows(TABLE4, variant, label, list(SHOTS), PROFILES_SHOWN)
    caption = (
        "Few-shot learning over 4492 labels at once: accuracy in percent after 1, 2 and 3 drawings of each label "
        "(Shankar & Sarawagi 2018, table 4)"
    )
    return report.Table(caption, ("1-shot", "2-shot", "3-shot"), tuple(rows), ("method", "source"))


def memories() -> report.Table:
    """Either memory on either embedding, in both orders: what is a memory worth, and what its training of an embedding?

    Seed means of the longest profile that there is.
    """
    rows = []
    for cells in (2, 3, 5):
        for trained, label in (("kaiser", "Kaiser"), ("lmn", "LMN")):
            variant = f"{trained}-{cells}cell"
            found = next((r for p in PROFILES_SHOWN if (r := ledger.whole_records(TABLE4, variant, p))), [])
            for order in ("passes", "mixed"):
                columns = [
                    [record.metrics["by_memory"][memory][order]["accuracy"][k] for record in found]
                    for memory in ("kaiser", "lmn")
                    for k in range(len(SHOTS))
                ]
                source = f"order {order}, {cells} cells"
                if found:
                    note = f"{found[0].profile} profile, {report.note_on(found)}"
                    rows.append(report.Row(label, source, tuple(report.percent(c) for c in columns), note))
                else:
                    rows.append(report.Row(label, source, (), report.NOT_RUN))
    columns = tuple(f"{memory}, {k}-shot" for memory in ("Kaiser", "LMN") for k in SHOTS)
    caption = "Either memory on the embedding that either has trained: accuracy in percent"
    return report.Table(caption, columns, tuple(rows), ("embedding of", "test"))


Records = list[Record]  # of one run, a seed each


def _mean(records: Records, index: int) -> float:
    return sum(record.metrics["accuracy"][index] for record in records) / len(records)


def _of_kind(records: Records, kind: str) -> list[float]:
    """Accuracy by seed."""
    return [record.metrics["accuracy"][record.metrics["kinds"].index(kind)] for record in records]


def _leads(first: list[float], second: list[float]) -> list[float]:
    """By how many points the second is ahead, seed by seed."""
    return [100 * (b - a) for a, b in zip(first, second, strict=True)]


def _is_ahead(leads: list[float]) -> bool:
    mean, half = ledger.mean_and_interval(leads)
    return mean - (half or 0.0) > 0


def _in_order(*kinds: str):
    """A judge of (baseline, MAML, LMN): each is ahead of the one before."""

    def judge(*runs: Records) -> tuple[str, str]:
        scores = {kind: [_of_kind(records, kind) for records in runs] for kind in kinds}
        leads = {kind: [_leads(*pair) for pair in itertools.pairwise(each)] for kind, each in scores.items()}
        ordered = [_is_ahead(each) for of_kind in leads.values() for each in of_kind]
        verdict = HOLDS if all(ordered) else IN_PART if any(ordered) else FAILS
        words = (
            f"{kind}: MAML {_points(maml)} points on the baseline, LMN {_points(lmn)} on MAML"
            for kind, (maml, lmn) in leads.items()
        )
        return verdict, "; ".join(words)

    return judge


def _maml_forgets(baseline: Records, maml: Records, lmn: Records) -> tuple[str, str]:
    before, retuned, remembered = (_of_kind(records, "seen") for records in (baseline, maml, lmn))
    lost, gained = _leads(retuned, before), _leads(before, remembered)
    right = [_is_ahead(lost), _is_ahead(gained)]
    verdict = HOLDS if all(right) else IN_PART if any(right) else FAILS
    words = (_points([-points for points in lost]), _points(gained))
    return verdict, "seen labels: MAML {} points on the baseline, LMN {}".format(*words)


def _reported3(records: Records) -> tuple[str, str]:
    reported = ledger.paper_numbers("lmn")["table3"]["rows"]["lmn"]
    differences = [100 * _mean(records, index) - paper for index, paper in enumerate(reported)]
    worst = min(differences)
    verdict = HOLDS if worst >= -2 else IN_PART if worst >= -5 else FAILS
    named = zip(records[0].metrics["kinds"], differences, strict=True)
    return verdict, ", ".join(f"{kind} {d:+.1f} points" for kind, d in named)


def _margins(first: Records, second: Records) -> list[list[float]]:
    """By how many points the second is ahead: for each number of shots, by seed."""
    return _differences(*([record.metrics["accuracy"] for record in records] for records in (first, second)))


def _differences(first: list[list[float]], second: list[list[float]]) -> list[list[float]]:
    return [_leads([a[k] for a in first], [b[k] for b in second]) for k in range(len(SHOTS))]


def _points(values: list[float]) -> str:
    mean, half = ledger.mean_and_interval(values)
    return f"{mean:+.1f}" + ("" if half is None else f" ± {half:.1f}")


def _by_four_points(kaiser: Records, lmn: Records) -> tuple[str, str]:
    return _four_points(_margins(kaiser, lmn))


def _on_one_embedding(kaiser: Records) -> tuple[str, str]:
    """The memories alone: on the embedding of Kaiser's row, which it favours if anything."""
    by_memory = [
        [record.metrics["by_memory"][memory]["passes"]["accuracy"] for record in kaiser] for memory in ("kaiser", "lmn")
    ]
    return _four_points(_differences(*by_memory))


def _four_points(margins: list[list[float]]) -> tuple[str, str]:
    means = [sum(each) / len(each) for each in margins]
    ahead = [_is_ahead(each) for each in margins]
    # The paper's own margins are 4.4, 4.5 and 3.8: its «more than 4%» is rounded.
    verdict = HOLDS if min(means) >= 3.8 and all(ahead) else IN_PART if any(ahead) else FAILS
    return verdict, ", ".join(f"{k}-shot {_points(each)} points" for k, each in zip(SHOTS, margins, strict=True))


def _more_when_limited(*runs: Records) -> tuple[str, str]:
    few, many = (
        [sum(each) / len(SHOTS) for each in zip(*_margins(*pair), strict=True)] for pair in (runs[:2], runs[2:])
    )
    mean, half = ledger.mean_and_interval([a - b for a, b in zip(few, many, strict=True)])
    verdict = HOLDS if mean - (half or 0.0) > 0 and sum(few) > 0 else FAILS
    return verdict, f"mean lead of LMN {_points(few)} points with 2 cells a label, {_points(many)} with 5"


def _maml_worst(maml: Records, *others: Records) -> tuple[str, str]:
    own = [_mean(maml, k) for k in range(len(SHOTS))]
    below = [_is_ahead(leads) for other in others for leads in _margins(maml, other)]
    verdict = HOLDS if all(below) else IN_PART if sum(below) >= len(below) / 2 else FAILS
    return verdict, f"below in {sum(below)} of {len(below)} cells; MAML " + ", ".join(percent(a) for a in own)


def _runs(experiment: str, *variants: str) -> tuple[tuple[str, str], ...]:
    return tuple((experiment, variant) for variant in variants)


CLAIMS = (
    Claim(
        "Table 3",
        "LMN has 86% overall, 71% on new labels, 92% on seen ones",
        "no cell more than 2 points below; in part: 5 points",
        _runs(TABLE3, "lmn"),
        _reported3,
        all_seeds=True,
    ),
    Claim(
        "Table 3",
        "LMN is ahead of MAML, and MAML of the baseline, overall and on new labels",
        "in all four comparisons, by more than the interval; in part: in some",
        _runs(TABLE3, "baseline", "maml", "lmn"),
        _in_order("overall", "new"),
        compares=True,
        all_seeds=True,
    ),
    Claim(
        "Table 3",
        "MAML's accuracy on seen labels drops below the baseline's, LMN's rises",
        "both; in part: one of them",
        _runs(TABLE3, "baseline", "maml", "lmn"),
        _maml_forgets,
        compares=True,
        all_seeds=True,
    ),
    Claim(
        "Table 4",
        "with 2 cells a label LMN is more than 4% ahead of Kaiser's memory in 1, 2 and 3-shot learning",
        "3.8 points ahead in each, the paper's least; in part: ahead in some, by more than the interval",
        _runs(TABLE4, "kaiser-2cell", "lmn-2cell"),
        _by_four_points,
        compares=True,
        all_seeds=True,
    ),
    Claim(
        "Table 4",
        "the same of the memories alone, both on the embedding that Kaiser's memory has trained",
        "as above",
        _runs(TABLE4, "kaiser-2cell"),
        _on_one_embedding,
        compares=True,
        all_seeds=True,
    ),
    Claim(
        "Table 4",
        "LMN's lead is larger where memory is limited",
        "ahead with 2 cells a label, and with a larger mean lead than with 5, by more than half of its interval",
        _runs(TABLE4, "kaiser-2cell", "lmn-2cell", "kaiser-5cell", "lmn-5cell"),
        _more_when_limited,
        compares=True,
        all_seeds=True,
    ),
    Claim(
        "Table 4",
        "MAML is not as effective over 4K labels: below both memories of any size",
        "in all cells of the table; in part: in half of them",
        _runs(TABLE4, "maml", *(variant for variant in TABLE4_LABELS if variant != "maml")),
        _maml_worst,
        compares=True,
        all_seeds=True,
    ),
)


def claims() -> report.Table:
    """The paper's claims of these tables with our verdicts."""
    return verdicts(CLAIMS, "Shankar & Sarawagi 2018 on Omniglot")
