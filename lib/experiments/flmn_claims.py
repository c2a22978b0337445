"""Mureja et al. 2017: what the paper claims of its tables and figures, and whether the ledger's records bear it out.

Where the paper gives no number, the criterion is ours. Most were written down before the runs were done; a review
sharpened those of figure 3 and added the two of digits and of MANN's 60% after the first short run of either network.
«MANN» is the paper's, with one head; the paper's episodes are updates here. The same criteria judge the runs of
`flmn.readings`, which were done last. See also `lib/experiments/claims.py`.
"""

from dataclasses import replace
from math import inf

from lib import ledger, report
from lib.experiments.claims import (
    EXCEEDED,
    FAILS,
    HOLDS,
    IN_PART,
    Claim,
    educated_guess,
    percent,
    training_accuracy,
)
from lib.ledger import Record

INSTANCES = (1, 2, 3, 4, 5, 10)


def _reported(row: str):
    def judge(record: Record) -> tuple[str, str]:
        paper = ledger.paper_numbers("flmn")["table1"]
        reported = dict(zip(paper["instances"], paper["rows"][row], strict=True))
        differences = {k: 100 * record.metrics["accuracy"][k - 1] - reported[k] for k in INSTANCES[1:]}
        worst = min(differences.values())
        verdict = HOLDS if worst >= 0 else IN_PART if worst >= -2 else FAILS
        return verdict, ", ".join(f"{report.ordinal(k)} {d:+.1f} points" for k, d in differences.items())

    return judge


def _by_a_large_margin(mann: Record, flmn: Record) -> tuple[str, str]:
    margins = {k: 100 * (flmn.metrics["accuracy"][k - 1] - mann.metrics["accuracy"][k - 1]) for k in (2, 5, 10)}
    least = min(margins.values())
    verdict = HOLDS if least >= 10 else IN_PART if least > 0 else FAILS
    return verdict, ", ".join(f"{report.ordinal(k)} {m:+.1f} points" for k, m in margins.items())


def _reported_on_digits(record: Record) -> tuple[str, str]:
    paper = ledger.paper_numbers("flmn")["table2"]
    reported = dict(zip(paper["instances"], paper["rows"]["flmn"], strict=True))
    differences = {k: 100 * record.metrics["mini_mnist"]["accuracy"][k - 1] - reported[k] for k in (2, 10)}
    worst = min(differences.values())
    verdict = HOLDS if worst >= 0 else IN_PART if worst >= -2 else FAILS
    return verdict, ", ".join(f"{report.ordinal(k)} {d:+.1f} points" for k, d in differences.items())


def _on_digits(mann: Record, flmn: Record) -> tuple[str, str]:
    a, b = ([record.metrics["mini_mnist"]["accuracy"][k - 1] for k in (2, 10)] for record in (mann, flmn))
    least = 100 * min(ours - theirs for ours, theirs in zip(b, a, strict=True))
    verdict = HOLDS if least >= 10 else IN_PART if least > 0 else FAILS
    pairs = zip((2, 10), b, a, strict=True)
    return verdict, ", ".join(
        f"{report.ordinal(k)} {percent(ours)} against {percent(theirs)}" for k, ours, theirs in pairs
    )


def _best_within_20_000(record: Record, instance: int) -> float:
    return max((a for update, a in training_accuracy(record, instance).items() if update <= 20_000), default=0.0)


def _within_20_000(mann: Record, flmn: Record) -> tuple[str, str]:
    a, b = _best_within_20_000(mann, 2), _best_within_20_000(flmn, 2)
    seen = f"{min(mann.updates, 20_000)} and {min(flmn.updates, 20_000)} updates"
    evidence = f"best 2nd-instance training accuracy: MANN {percent(a)}, FLMN {percent(b)}, within {seen}"
    if b < 0.78:
        return FAILS, evidence
    return (HOLDS if a <= 0.5 and mann.updates >= 20_000 else IN_PART), evidence


def _only_60(mann: Record) -> tuple[str, str]:
    best = _best_within_20_000(mann, 10)
    evidence = f"best 10th-instance training accuracy {percent(best)}, within {min(mann.updates, 20_000)} updates"
    if best > 0.65:
        return EXCEEDED, evidence
    return (HOLDS if best >= 0.55 and mann.updates >= 20_000 else FAILS), evidence


def _better_at_each(mann: Record, flmn: Record) -> tuple[str, str]:
    ends = {k: [list(training_accuracy(r, k).values())[-1] for r in (flmn, mann)] for k in INSTANCES}
    better = sum(ours > theirs for ours, theirs in ends.values())
    verdict = HOLDS if better == len(ends) else IN_PART if better >= len(ends) / 2 else FAILS
    return verdict, ", ".join(
        f"{report.ordinal(k)} {percent(ours)} against {percent(theirs)}" for k, (ours, theirs) in ends.items()
    )


def _falls_sooner(*records: Record) -> tuple[str, str]:
    def reaches_one(record: Record) -> float:
        points = zip(record.curve["update"], record.curve["loss"], strict=True)
        return min((update for update, loss in points if loss <= 1.0), default=inf)

    times = [reaches_one(record) for record in records]
    sooner = [flmn < mann for mann, flmn in zip(times[::2], times[1::2], strict=True)]
    verdict = HOLDS if all(sooner) else IN_PART if any(sooner) else FAILS

    def words(update: float) -> str:
        return "not reached" if update == inf else f"update {update}"

    pairs = zip(("I", "II"), times[::2], times[1::2], strict=True)
    return verdict, "a loss of 1: " + "; ".join(
        f"{name}: FLMN {words(flmn)}, MANN {words(mann)}" for name, mann, flmn in pairs
    )


def _runs(*variants: str) -> tuple[tuple[str, str], ...]:
    return tuple(("flmn.table1", variant) for variant in variants)


CLAIMS = (
    Claim(
        "Table 1, I",
        "FLMN has 85.6% on 2nd and 94.1% on 10th instances",
        "no cell from the 2nd on below the paper's; in part: 2 points below. The 1st can be had at the 2nd's expense",
        _runs("flmn-1"),
        _reported("flmn-experiment1"),
    ),
    Claim(
        "Table 1, II",
        "FLMN has 86.5% on 2nd and 94.4% on 10th instances",
        "no cell from the 2nd on below the paper's; in part: 2 points below. The 1st can be had at the 2nd's expense",
        _runs("flmn-2"),
        _reported("flmn-experiment2"),
    ),
    Claim(
        "Table 1, I",
        "FLMN outperforms MANN by a large margin",
        "10 points on 2nd, 5th and 10th instances; in part: better",
        _runs("mann-1", "flmn-1"),
        _by_a_large_margin,
        compares=True,
    ),
    Claim(
        "Table 1, II",
        "... and with augmentation, too",
        "10 points on 2nd, 5th and 10th instances; in part: better",
        _runs("mann-2", "flmn-2"),
        _by_a_large_margin,
        compares=True,
    ),
    Claim(
        "Table 2",
        "FLMN, trained on characters, has 67.6% on 2nd and 80.5% on 10th instances of digits",
        "neither below the paper's; in part: 2 points below; the network of experiment I, mean over the draws",
        _runs("flmn-1"),
        _reported_on_digits,
    ),
    Claim(
        "Table 2",
        "trained on characters, FLMN outperforms MANN on digits",
        "10 points on 2nd and 10th instances; in part: better",
        _runs("mann-1", "flmn-1"),
        _on_digits,
        compares=True,
    ),
    Claim(
        "Figure 3",
        "2nd-instance accuracy of FLMN has reached nearly 80% within the first 20 000 episodes, MANN's only 40%",
        "78% reached, MANN at most 50%; in part: 78% reached",
        _runs("mann-1", "flmn-1"),
        _within_20_000,
        compares=True,
    ),
    Claim(
        "Figure 3",
        "10th-instance accuracy of MANN could only reach 60% within the first 20 000 episodes",
        "between 55% and 65%",
        _runs("mann-1"),
        _only_60,
    ),
    Claim(
        "Figure 3",
        "FLMN's first-instance accuracy is more than a blind guess, especially after 20 000 episodes",
        "on the test 3 standard errors above what avoiding the label told last gives, with 60% of 2nd instances right",
        _runs("flmn-1"),
        educated_guess,
    ),
    Claim(
        "Figure 4",
        "with augmentation FLMN has the better training accuracy at each instance",
        "at the end of training, at all of 1, 2, 3, 4, 5 and 10; in part: half of them",
        _runs("mann-2", "flmn-2"),
        _better_at_each,
        compares=True,
    ),
    Claim(
        "Figure 5",
        "at the same learning rate FLMN's loss falls more sharply than MANN's, in both experiments",
        "a loss of 1 is reached sooner in both; in part: in one",
        _runs("mann-1", "flmn-1", "mann-2", "flmn-2"),
        _falls_sooner,
        compares=True,
    ),
)
OF_THE_READING = tuple(
    replace(claim, runs=tuple(("flmn.readings", variant) for _, variant in claim.runs)) for claim in CLAIMS
)
"""The same claims, judged by runs whose updates are on one episode."""
