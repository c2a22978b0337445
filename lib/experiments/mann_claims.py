"""Santoro et al. 2016: what the paper claims of its figures, and whether the ledger's records bear it out.

Each claim has a criterion, written down before its verdict was known where the paper gives no number. A record of the
paper profile is preferred to one of the short profile; a stand-in for the data counts for nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass

from lib import ledger, report
from lib.ledger import Record

HOLDS, IN_PART, FAILS = "holds", "holds in part", "does not hold here"


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, how it is judged, and from which runs."""

    figure: str
    text: str
    criterion: str
    runs: tuple[tuple[str, str], ...]
    """(experiment, variant) of the records that it needs, of one profile."""
    judge: Callable[..., tuple[str, str]]
    """From these records to a verdict and the numbers behind it."""


def verdicts(claims: tuple[Claim, ...]) -> report.Table:
    """Each claim with its criterion, verdict and evidence; «not run» where a record is missing."""
    rows = []
    for claim in claims:
        records = _records(claim.runs)
        verdict, evidence, note = report.NOT_RUN, "–", ""
        if records:
            verdict, evidence = claim.judge(*records)
            note = f"{records[0].profile} profile: " + "; ".join(report.note_on([record]) for record in records)
        rows.append(report.Row(f"{claim.figure}: {claim.text}", claim.criterion, (verdict, evidence), note))
    return report.Table("Claims of Santoro et al. 2016 and what our records say", ("verdict", "numbers"), tuple(rows))


def _records(runs: tuple[tuple[str, str], ...]) -> list[Record]:
    for profile in ("paper", "short"):
        found = [ledger.find_record(experiment, variant, profile, 0) for experiment, variant in runs]
        if all(record and not record.data["is_standin"] for record in found):
            return found
    return []


def _training(record: Record, instance: int) -> dict[int, float]:
    """Update to training accuracy of an instance, a mean of 500 updates."""
    pairs = zip(record.curve["update"], record.curve["accuracy"], strict=True)
    return {update: accuracy[instance - 1] for update, accuracy in pairs}


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _educated_guess(record: Record) -> tuple[str, str]:
    accuracy, count = record.metrics["accuracy"][0], record.metrics["counts"][0]
    chance = 1 / record.config["episodes"]["classes"]
    error = (accuracy * (1 - accuracy) / count) ** 0.5
    verdict = HOLDS if accuracy - 3 * error > chance else FAILS
    shown = f"{_percent(accuracy)} ± {_percent(1.96 * error)} of {count} first instances"
    return verdict, f"{shown}, chance {_percent(chance)}"


def _approaches_80(record: Record) -> tuple[str, str]:
    best = max(_training(record, 2).values())
    verdict = HOLDS if best >= 0.75 else IN_PART if best >= 0.4 else FAILS
    return verdict, f"best 2nd-instance training accuracy {_percent(best)}"


def _far_slower(kept: Record, wiped: Record) -> tuple[str, str]:
    curves = _training(kept, 2), _training(wiped, 2)
    update = max(curves[0].keys() & curves[1].keys())
    a, b = (curve[update] for curve in curves)
    verdict = HOLDS if b - a >= 0.2 else IN_PART if b - a >= 0.05 else FAILS
    return verdict, f"2nd instance at update {update}: {_percent(a)} not wiped, {_percent(b)} wiped"


def _comparable(kept: Record, wiped: Record) -> tuple[str, str]:
    pairs = [(kept.metrics["accuracy"][k - 1], wiped.metrics["accuracy"][k - 1]) for k in (2, 5)]
    gap = max(b - a for a, b in pairs)
    verdict = HOLDS if gap <= 0.05 else IN_PART if gap <= 0.15 else FAILS
    (second, second_wiped), (fifth, fifth_wiped) = pairs
    return verdict, (
        f"test, 2nd and 5th instance: {_percent(second)}, {_percent(fifth)} not wiped; "
        f"{_percent(second_wiped)}, {_percent(fifth_wiped)} wiped"
    )


def _decays_gradually(record: Record) -> tuple[str, str]:
    by_classes = {int(n): score["accuracy"][4] for n, score in record.metrics["by_classes"].items()}
    accuracy = [by_classes[n] for n in sorted(by_classes)]
    steps = [a - b for a, b in zip(accuracy, accuracy[1:], strict=False)]
    remembers = accuracy[0] >= 0.2
    gradual = max(steps) <= 0.1 and accuracy[-1] < accuracy[0]
    verdict = HOLDS if remembers and gradual else IN_PART if gradual else FAILS
    least, most = min(by_classes), max(by_classes)
    return verdict, (
        f"5th instance: {_percent(accuracy[0])} of {least} classes, {_percent(accuracy[-1])} of {most}; "
        f"largest drop between neighbours {100 * max(steps):.1f} points"
    )


def _better_than(ours: Record, other: Record) -> tuple[str, str]:
    a, b = ours.metrics["accuracy"][1], other.metrics["accuracy"][1]
    verdict = HOLDS if a - b >= 0.05 else IN_PART if a > b else FAILS
    return verdict, f"test, 2nd instance: {_percent(a)} against {_percent(b)}"


def _tracks_function(record: Record) -> tuple[str, str]:
    r2, rank, gp_rank = (
        record.metrics[name] for name in ("mean_r2", "distance_correlation", "gp_distance_correlation")
    )
    mean_tracks, variance_grows = r2 >= 0.9, rank >= gp_rank / 2
    verdict = HOLDS if mean_tracks and variance_grows else IN_PART if mean_tracks or variance_grows else FAILS
    return verdict, (
        f"R² of MANN's means against the exact process's {r2:.3f}; rank correlation of the variance with the distance "
        f"to the nearest sample {rank:.2f}, the exact process's {gp_rank:.2f}"
    )


def _tracks_likelihood(*records: Record) -> tuple[str, str]:
    verdicts, numbers = [], []
    for record in records:
        ours, exact = (record.metrics[name] for name in ("negative_log_likelihood", "gp_negative_log_likelihood"))
        early, late = sum(ours[:5]) / 5, sum(ours[-10:]) / 10
        exact_early, exact_late = sum(exact[:5]) / 5, sum(exact[-10:]) / 10
        share = (early - late) / (exact_early - exact_late)
        verdicts.append(HOLDS if share >= 0.75 else IN_PART if share >= 0.25 else FAILS)
        numbers.append(
            f"{record.variant.replace('d', '-D')}: from {early:.2f} to {late:.2f} nats, exact process from "
            f"{exact_early:.2f} to {exact_late:.2f}, {_percent(share)} of its fall"
        )
    verdict = verdicts[0] if len(set(verdicts)) == 1 else IN_PART
    return verdict, "; ".join(numbers)


CLAIMS = (
    Claim(
        "Table 1",
        "MANN is better than an LSTM",
        "2nd instance at least 5 points higher; in part: higher",
        (("mann.table1", "mann"), ("mann.table1", "lstm")),
        _better_than,
    ),
    Claim(
        "Table 2",
        "with string labels and 15 classes MANN is better than an LSTM",
        "2nd instance at least 5 points higher; in part: higher",
        (("mann.table2", "mann-15"), ("mann.table2", "lstm-15")),
        _better_than,
    ),
    Claim(
        "Table 2",
        "with string labels and 15 classes MANN is better than the nearest neighbour on pixels",
        "2nd instance at least 5 points higher; in part: higher",
        (("mann.table2", "mann-15"), ("mann.table2", "knn-raw-15")),
        _better_than,
    ),
    Claim(
        "Table 2",
        "with NTM access MANN does not reach what it does with least recently used access",
        "2nd instance at least 5 points lower; in part: lower",
        (("mann.table2", "mann-15"), ("mann.table2", "ntm-15")),
        _better_than,
    ),
    Claim(
        "Figure 2b",
        "first-instance accuracy is above chance, an educated guess",
        "above chance by three standard errors on the test classes",
        (("mann.table1", "mann"),),
        _educated_guess,
    ),
    Claim(
        "Figure 2d",
        "with 15 classes and string labels second-instance accuracy approaches 80% in training",
        "reaches 75%; in part: 40%",
        (("mann.table2", "mann-15"),),
        _approaches_80,
    ),
    Claim(
        "Figure 3a",
        "memory not wiped: five classes are learnt far more slowly",
        "20 points lower than with wiping at the last common update; in part: 5 points",
        (("mann.figure3", "five"), ("mann.table1", "mann")),
        _far_slower,
    ),
    Claim(
        "Figure 3b",
        "memory not wiped: ten classes in episodes of length 75 reach comparable accuracy",
        "at most 5 points below a run that wipes; in part: 15 points",
        (("mann.figure3", "ten"), ("mann.figure3", "ten-wiped")),
        _comparable,
    ),
    Claim(
        "Figure 4",
        "after the curriculum accuracy decays gradually with the number of classes",
        "no drop of more than 10 points between neighbours, and 20% or more with the fewest; in part: no such drop",
        (("mann.figure4", "mann"),),
        _decays_gradually,
    ),
    Claim(
        "Figure 5",
        "in 1-D the predicted mean tracks the function after 20 samples, and the variance grows away from the data",
        "R² of 0.9 between the means; half the exact process's rank correlation of variance and distance; in part: one",
        (("mann.figure5", "1d"),),
        _tracks_function,
    ),
    Claim(
        "Figure 6",
        "in 2-D and 3-D the likelihood follows the exact Gaussian process's over an episode",
        "the fall from the first 5 to the last 10 samples is 75% of the exact process's; in part: 25%",
        (("mann.figure6", "2d"), ("mann.figure6", "3d")),
        _tracks_likelihood,
    ),
)
