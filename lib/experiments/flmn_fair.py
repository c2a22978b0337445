"""Does FLMN's advantage survive a fair comparison? What the records of `flmn.fair` say, in sentences.

The rule, which was set with the settings, before they were run: both networks are tried in the same settings, each is
taken in the one with the best accuracy on second instances of the validation classes at the end of the short run with
seed 0, and the two are compared on the test, seed by seed.
"""

from lib import ledger, report
from lib.experiments import flmn_tables
from lib.experiments.flmn_tables import FAIR_LABELS
from lib.ledger import Record

Setting = tuple[str, str]  # (experiment, variant)
COMPARED = (2, 5, 10)  # instances


def settings_of(network: str) -> list[Setting]:
    """The settings that were tried for `MANN` or `FLMN`."""
    return [(experiment, variant) for experiment, variant in FAIR_LABELS if variant.startswith(network.lower())]


def best_setting(network: str) -> Setting:
    """The setting with the best last validation in the short run with seed 0; all have that record."""
    return max(settings_of(network), key=lambda each: _validated(ledger.best_record(*each, profiles=("short",))))


def advantage(profile: str) -> dict[int, list[float]]:
    """FLMN's test accuracy less MANN's, in points: instance to one difference for each seed that both have."""
    flmn, mann = ({r.seed: r for r in ledger.whole_records(*best_setting(each), profile)} for each in ("FLMN", "MANN"))
    seeds = sorted(flmn.keys() & mann.keys())
    return {k: [100 * (_right(flmn[seed], k) - _right(mann[seed], k)) for seed in seeds] for k in COMPARED}


def verdict() -> str:
    """The answer, in Markdown: after a short training, and after one as long as the paper's."""
    answers = _answers()
    if not answers:
        return "**Not all settings of the fair comparison were run yet.**"
    chosen = {each: FAIR_LABELS[best_setting(each)] for each in ("FLMN", "MANN")}
    return (
        f"The validation chose «{chosen['FLMN']}» and «{chosen['MANN']}». Test accuracy by instance, FLMN less MANN, "
        "in points, with the 95% interval of the difference seed by seed:\n\n"
        + "\n".join(f"- {answer}" for answer in answers)
    )


def _answers() -> list[str]:
    if ledger.shared_profile(FAIR_LABELS, profiles=("short",)) is None:
        return []
    return [_answer("short"), _answer("paper")]


def _answer(profile: str) -> str:
    differences = advantage(profile)
    seeds = len(differences[COMPARED[0]])
    if seeds == 0:
        return "Of the fair comparison one network, or both, was not run yet at the paper's length of 100 000 updates."
    intervals = {k: ledger.mean_and_interval(values) for k, values in differences.items()}
    ahead = [half is not None and mean > half for mean, half in intervals.values()]
    answer = "does not survive" if not any(ahead) else "survives" if all(ahead) else "survives in part"
    if seeds < 2:
        answer = "cannot be judged from one seed"
    numbers = ", ".join(
        f"{report.ordinal(k)} {mean:+.1f}" + ("" if half is None else f" ± {half:.1f}")
        for k, (mean, half) in intervals.items()
    )
    updates = report.grouped(ledger.whole_records(*best_setting("FLMN"), profile)[0].updates)
    return (
        f"**After {updates} updates, at equal memory, equal parameters and equal tuning, FLMN's advantage {answer}:** "
        f"{numbers} (n = {seeds} {'seed' if seeds == 1 else 'seeds'})."
    )


def in_short() -> list[str]:
    """What the experiments came to, in sentences of Markdown."""
    first = flmn_tables.compare_with_paper("flmn.readings", flmn_tables.SINGLE).split("\n\n")[0]
    return [first, papers_comparison(), worth_of_heads(), *_answers()]


def papers_comparison() -> str:
    """FLMN less the one-headed MANN of its paper, experiment I: as reported, and in our runs of either reading."""
    paper = ledger.paper_numbers("flmn")["table1"]
    rows = paper["rows"]["flmn-experiment1"], paper["rows"]["mann-experiment1"]
    reported = {k: flmn - mann for k, flmn, mann in zip(paper["instances"], *rows, strict=True) if k in COMPARED}
    lines = [f"in the paper {_points(reported)}"]
    for experiment, profile in (("flmn.readings", "paper"), ("flmn.table1", "short"), ("flmn.table1", "paper")):
        flmn, mann = (ledger.best_record(experiment, f"{each}-1", profiles=(profile,)) for each in ("flmn", "mann"))
        if flmn and mann:
            each = {1: "one episode", 16: "sixteen episodes"}[flmn.config["training"]["batch_size"]]
            found = {k: 100 * (_right(flmn, k) - _right(mann, k)) for k in COMPARED}
            lines.append(f"after {report.grouped(flmn.updates)} updates of {each} {_points(found)}")
    if len(lines) == 1:
        return "**FLMN and MANN were not both run yet.**"
    return "FLMN less the one-headed MANN, experiment I, seed 0, in points: " + "; ".join(lines) + "."


def worth_of_heads() -> str:
    """How much of FLMN's lead on 2nd instances after a short training four heads in place of one make up for MANN."""
    runs = ("flmn.table1", "mann-1"), ("flmn.ablations", "mann-four-heads"), ("flmn.table1", "flmn-1")
    records = [ledger.best_record(*run, profiles=("short",)) for run in runs]
    if None in records:
        return "**What four heads are worth to MANN was not measured yet.**"
    one, four, flmn = (100 * _right(record, 2) for record in records)
    return (
        f"After {report.grouped(records[0].updates)} updates FLMN leads the one-headed MANN by {flmn - one:.1f} points "
        "on 2nd instances (seed 0); "
        f"four heads in place of one make up {four - one:.1f} of them."
    )


def _points(differences: dict[int, float]) -> str:
    return ", ".join(f"{report.ordinal(k)} {points:+.1f}" for k, points in differences.items())


def pace(flmn: Setting = ("flmn.table1", "flmn-1"), mann: Setting = ("flmn.table1", "mann-1")) -> str:
    """How many updates two runs took to be where the paper's figure 3 has FLMN and MANN after 20 000 episodes."""
    profile = ledger.shared_profile([flmn, mann])
    if profile is None:
        return "**FLMN and MANN were not both run yet.**"
    found = []
    for name, setting, share in (("FLMN", flmn, 0.8), ("MANN", mann, 0.4)):
        curve = ledger.best_record(*setting, profiles=(profile,)).curve
        points = zip(curve["update"], curve["accuracy"], strict=True)
        update = next((update for update, by_instance in points if by_instance[1] >= share), None)
        when = "not yet" if update is None else f"after {report.grouped(update)} updates"
        found.append(f"{name}'s 2nd instance is at {100 * share:.0f}% {when}")
    return f"Ours, {profile} profile: " + ", ".join(found) + "; the paper's are there after some 20 000 episodes."


def _validated(record: Record) -> float:
    return record.curve["validation_accuracy"][-1][1]


def _right(record: Record, instance: int) -> float:
    return record.metrics["accuracy"][instance - 1]
