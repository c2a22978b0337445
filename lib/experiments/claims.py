"""A claim of a paper, and whether the ledger's records bear it out: what the verdicts of all papers share.

Records of the paper profile are preferred to those of the short one, if they have the seeds that a verdict needs; a
stand-in for the data counts for nothing.
What the beginning of a training does not show yet is not held against the claim, and that one network is ahead of
another there does not settle who is at the end.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from lib import ledger, report
from lib.ledger import Record

HOLDS, IN_PART, FAILS = "holds", "holds in part", "does not hold here"
NOT_YET, SO_FAR = "not reached yet", "holds so far"  # of runs shorter than the paper's
UNDECIDED = "not to be told apart here"  # the difference is within its error
TOO_FEW = "not judged: too few seeds"
EXCEEDED = "does not hold: ours does better"  # which more training cannot undo
MEANINGS = {
    SO_FAR: "in runs shorter than the paper's, whose end could be another",
    IN_PART: "in some of what is compared; the rest is undecided or the other way round",
    NOT_YET: "not in so short a run, which does not speak against it",
    FAILS: "not on these data at this size",
    UNDECIDED: "the difference is within its error",
}


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
    compares: bool = False
    """One network with another, which could still fall behind or catch up."""
    all_seeds: bool = False
    """The judge is given, for each run, the records of all seeds that all runs have; else the record of seed 0."""
    settled: bool = False
    """Of shorter runs, too, a claim that fails is not one that would come true with more training."""
    seeds: int = 1
    """Without so many there is no interval, and no verdict."""


# A claim that compares networks over all seeds or splits, by an interval, and that more training would not settle.
over_seeds = partial(Claim, compares=True, all_seeds=True, settled=True, seeds=2)


def verdicts(claims: tuple[Claim, ...], paper: str) -> report.Table:
    """Each claim with its criterion, verdict and evidence; «not run» where a record is missing."""
    rows = []
    for claim in claims:
        found = common_records(claim.runs, claim.all_seeds, claim.seeds)
        verdict, evidence, note = report.NOT_RUN, "–", ""
        if found:
            verdict, evidence = claim.judge(*(found if claim.all_seeds else (records[0] for records in found)))
            if len(found[0]) < claim.seeds:
                verdict = TOO_FEW
            elif not all(r.profile == "paper" and r.complete for records in found for r in records):
                fails, holds = (FAILS if claim.settled else NOT_YET), (SO_FAR if claim.compares else HOLDS)
                verdict = {FAILS: fails, HOLDS: holds}.get(verdict, verdict)
            alike: dict[str, list[str]] = {}
            for records in found:
                alike.setdefault(report.note_on(records), []).append(records[0].variant)
            of = (f"{', '.join(dict.fromkeys(variants))}: {behind}" for behind, variants in alike.items())
            note = f"{found[0][0].profile} profile; " + "; ".join(of)
        rows.append(report.Row(f"{claim.figure}: {claim.text}", claim.criterion, (verdict, evidence), note))
    caption = f"Claims of {paper} and what our records say"
    given = {row.cells[0] for row in rows}
    if meanings := [f"«{verdict}»: {meaning}" for verdict, meaning in MEANINGS.items() if verdict in given]:
        caption += f". {'; '.join(meanings)}"
    return report.Table(caption, ("verdict", "numbers"), tuple(rows), ("claim", "criterion"))


def ahead(gains: Sequence[float]) -> bool | None:
    """Over the seeds, is the mean gain above 0 by more than its interval? False: below, by more; None: neither."""
    mean, half = ledger.mean_and_interval(list(gains))
    half = half or 0.0
    return True if mean - half > 0 else False if mean + half < 0 else None


def share(right: Sequence[bool | None]) -> str:
    """A verdict on several comparisons, of which each came true, did not, or could not be told apart (None)."""
    if any(right):
        return HOLDS if all(right) else IN_PART
    return UNDECIDED if None in right else FAILS


def common_records(runs: tuple[tuple[str, str], ...], all_seeds: bool, enough: int) -> list[list[Record]]:
    """Of each run (experiment, variant), the records of the seeds that all runs have, or of seed 0; of the first
    profile that has enough seeds, else of the first that has any."""
    shown = []
    for profile in ("paper", "short"):
        found = []
        for experiment, variant in runs:
            records = ledger.load_records(experiment, variant, profile)
            found.append({record.seed: record for record in records if not record.data["is_standin"]})
        seeds = sorted(set.intersection(*map(set, found)) if all_seeds else {0})
        if seeds and all(seed in records for records in found for seed in seeds):
            of_profile = [[records[seed] for seed in seeds] for records in found]
            if len(seeds) >= enough:
                return of_profile
            shown = shown or of_profile
    return shown


def training_accuracy(record: Record, instance: int) -> dict[int, float]:
    """Update to training accuracy of an instance, a mean of some hundred updates."""
    pairs = zip(record.curve["update"], record.curve["accuracy"], strict=True)
    return {update: accuracy[instance - 1] for update, accuracy in pairs}


def educated_guess(record: Record) -> tuple[str, str]:
    """A judge: are first instances named right more often than one who does not look at them can do?"""
    # Without a look at the drawing: never answer with the label told last, which no new class can bear. One who does
    # better on first instances by avoiding more labels is wrong on second ones.
    (first, second), count = record.metrics["accuracy"][:2], record.metrics["counts"][0]
    classes = record.config["episodes"]["classes"]
    blind = (1 / classes + (classes - 1) / (classes - 1)) / classes
    error = (first * (1 - first) / count) ** 0.5
    verdict = HOLDS if first - 3 * error > blind and second >= 0.6 else FAILS
    return verdict, (
        f"{percent(first)} ± {percent(1.96 * error)} of {count} first instances, {percent(second)} of second ones; "
        f"{percent(blind)} of first ones by avoiding the label told last"
    )


def percent(share: float) -> str:
    """For a sentence."""
    return f"{100 * share:.1f}%"
