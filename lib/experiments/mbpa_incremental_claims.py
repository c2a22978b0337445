"""What Sprechmann et al. 2018 claim of classes that are new, and our verdicts: table 1 and figures 4 to 7.

Its figures are curves without numbers: the criteria are ours. ± and «the interval» are over the splits, of differences
on the same split.
"""

import math
from collections.abc import Callable

from lib import report
from lib.experiments.claims import Claim, ahead, over_seeds, share, verdicts
from lib.experiments.mbpa_incremental_tables import (
    AFTER,
    DATA_SETS,
    EPOCHS,
    FIGURE5,
    FIGURE6,
    FIGURE7,
    GROUPS,
    MODELS,
    TABLE1,
    auc,
    top1,
)
from lib.experiments.mbpa_tables import PAPER
from lib.ledger import Record


def _gains(
    records: list[Record], other: str, group: str, epoch: float, score: Callable[..., float] = top1, of: str = "mbpa"
) -> list[float]:
    """Points by which MbPA, or `of`, is ahead of another model in each split."""
    return [100 * (score(r, of, group, epoch) - score(r, other, group, epoch)) for r in records]


def _mean(records: list[Record], model: str, group: str, epoch: float, score: Callable[..., float] = top1) -> float:
    return 100 * sum(score(record, model, group, epoch) for record in records) / len(records)


def _numbers(records: list[Record], group: str, epoch: float, score: Callable[..., float] = top1) -> str:
    return ", ".join(f"{label} {_mean(records, model, group, epoch, score):.1f}" for model, label in MODELS.items())


def _fast_on_new(records: list[Record]) -> tuple[str, str]:
    others = [model for model in MODELS if model != "mbpa"]
    right = [ahead(_gains(records, other, "new", epoch)) for other in others for epoch in EPOCHS]
    words = "; ".join(f"at {epoch:g}: {_numbers(records, 'new', epoch)}" for epoch in EPOCHS)
    return share(right), words


def _ahead_overall(records: list[Record]) -> tuple[str, str]:
    right = [ahead(_gains(records, other, "all", 3.0, auc)) for other in ("parametric", "mixture")]
    return share(right), f"area to 3 passes, all classes: {_numbers(records, 'all', 3.0, auc)}"


def _keeps_old(records: list[Record]) -> tuple[str, str]:
    right = [ahead(_gains(records, "parametric", "old", epoch)) for epoch in EPOCHS[1:]]
    return share(right), "; ".join(f"at {epoch:g}: {_numbers(records, 'old', epoch)}" for epoch in EPOCHS)


def _mixture_helps(records: list[Record]) -> tuple[str, str]:
    gains = [_gains(records, "parametric", "new", epoch, of="mixture") for epoch in EPOCHS]
    words = (f"{sum(of) / len(of):+.1f} points at {epoch:g}" for of, epoch in zip(gains, EPOCHS, strict=True))
    return share([ahead(of) for of in gains]), ", ".join(words)


def _unbalanced(records: list[Record]) -> tuple[str, str]:
    last = records[0].metrics["epochs"][-1]
    right = [ahead(_gains(records, other, "new", last)) for other in ("parametric", "mixture")]
    return share(right), f"new classes at {last:g}: {_numbers(records, 'new', last)}"


def _wider_gap(records: list[Record], balanced: list[Record]) -> tuple[str, str]:
    wider, words = [], []
    for other in ("parametric", "mixture"):
        before, after = (_gains(of, other, "new", 20.0) for of in (balanced, records))
        wider.append(ahead([b - a for a, b in zip(before, after, strict=True)]))
        a, b = sum(before) / len(before), sum(after) / len(after)
        words.append(f"over the {other}: {a:+.1f} balanced, {b:+.1f} unbalanced")
    return share(wider), f"points of MbPA at 20 passes {', '.join(words)}"


def _overtaken(records: list[Record]) -> tuple[str, str]:
    """Does the last layer alone catch up with MbPA?"""
    leads = {epoch: _gains(records, "parametric", "all", epoch) for epoch in AFTER}
    words = ", ".join(f"{sum(of) / len(of):+.1f} at {epoch:g}" for epoch, of in leads.items())
    return share([ahead([1 - lead for lead in leads[30.0]])]), f"points of MbPA over the parametric model: {words}"


def _by_value(records: list[Record], model: str, group: str, epoch: float) -> list[float]:
    """Mean accuracy in percent for each value of what was changed."""
    at = records[0].metrics["epochs"].index(epoch)
    of = [[each[model][group][at] for each in record.metrics["by_value"]] for record in records]
    return [100 * sum(column) / len(column) for column in zip(*of, strict=True)]


def _saturates(records: list[Record], upto: float) -> tuple[str, str]:
    """What each doubling brings up to a value, and from there on."""
    values = records[0].metrics["values"]
    near = max(index for index, value in enumerate(values) if value <= upto)
    room = []  # of each split, how much more the doublings beyond could bring, in points
    for record in records:
        scores = _by_value([record], "mbpa", "new", 1.0)
        before = (scores[near] - scores[0]) / math.log2(values[near] / values[0])
        after = (scores[-1] - scores[near]) / math.log2(values[-1] / values[near])
        room.append(before / 4 - abs(after))
    means = zip(values, _by_value(records, "mbpa", "new", 1.0), strict=True)
    words = ", ".join(f"{value:.3g}: {score:.1f}" for value, score in means)
    return share([ahead(room)]), f"new classes after one pass by value: {words}"


def _new_ones_more(records: list[Record]) -> tuple[str, str]:
    """By how much accuracy varies over the sizes of the memory, of new and of old classes."""
    ranges = {group: [_range(record, "mbpa", group, 1.0) for record in records] for group in GROUPS}
    words = ", ".join(f"{group} {sum(of) / len(of):.1f}" for group, of in ranges.items())
    more = ahead([a - b for a, b in zip(ranges["new"], ranges["old"], strict=True)])
    return share([more]), f"range over the sizes after one pass, in points: {words}"


def _range(record: Record, model: str, group: str, epoch: float) -> float:
    """How far the accuracies for the values of what was changed are apart, in points."""
    scores = _by_value([record], model, group, epoch)
    return max(scores) - min(scores)


def _insensitive(records: list[Record]) -> tuple[str, str]:
    less, words = [], []
    for epoch in EPOCHS:
        ranges = {
            model: [_range(record, model, "new", epoch) for record in records] for model in ("mbpa", "parametric")
        }
        less.append(ahead([other / 2 - mbpa for mbpa, other in zip(*ranges.values(), strict=True)]))
        mbpa, parametric = (sum(of) / len(of) for of in ranges.values())
        words.append(f"at {epoch:g} MbPA {mbpa:.1f}, parametric {parametric:.1f}")
    return share(less), f"range over the rates in points, means over the splits: {'; '.join(words)}"


def _more_is_better(records: list[Record], upto: float) -> tuple[str, str]:
    values = records[0].metrics["values"]
    at = max(index for index, value in enumerate(values) if value <= upto)
    gains, words = [], []
    for epoch in EPOCHS:
        scores = [_by_value([record], "mbpa", "new", epoch) for record in records]
        gains.append([each[at] - each[0] for each in scores])
        words.append(f"{sum(gains[-1]) / len(gains[-1]):+.1f} points at {epoch:g}")
    return share([ahead(of) for of in gains]), f"from {values[0]:g} to {values[at]:g}: {', '.join(words)}"


def _claims(data: str) -> tuple[Claim, ...]:
    of, runs = f", {DATA_SETS[data]}", ((TABLE1, data),)
    return (
        over_seeds(
            f"Table 1{of}",
            "MbPA is the best on new classes, at 0.1, 1 and 3 passes",
            "ahead of each other model by more than the interval over the splits; in part: of some, at some",
            runs,
            _fast_on_new,
        ),
        over_seeds(
            f"Figure 4{of}",
            "it «significantly outperforms both» the parametric model and the mixture",
            "a larger area to 3 passes over all classes, by more than the interval",
            runs,
            _ahead_overall,
        ),
        over_seeds(
            f"Table 1{of}",
            "on old classes it is ahead of the parametric model after 1 and 3 passes",
            "ahead by more than the interval",
            runs,
            _keeps_old,
        ),
        over_seeds(
            f"Figure 4{of}",
            "the mixture is a large improvement on the parametric model on new classes",
            "ahead at 0.1, 1 and 3 passes by more than the interval; in part: at some",
            runs,
            _mixture_helps,
        ),
        over_seeds(
            f"Figure 5{of}",
            "with unbalanced new classes MbPA is ahead of both baselines after 20 passes",
            "ahead on new classes by more than the interval",
            ((FIGURE5, data),),
            _unbalanced,
        ),
        over_seeds(
            f"Figure 5{of}",
            "the gap is wider than with balanced ones",
            "on new classes after 20 passes, by more than the interval over the splits",
            ((FIGURE5, data), (FIGURE5, f"{data}-balanced")),
            _wider_gap,
        ),
        over_seeds(
            f"Section 4.2{of}",
            "after around 30 passes the parametric model matches MbPA",
            "on all classes MbPA is then less than one point ahead, by more than the interval",
            ((FIGURE5, f"{data}-balanced"),),
            _overtaken,
        ),
        over_seeds(
            f"Figure 6, left{of}",
            "accuracy on new classes saturates with the size of the memory (at a third of ImageNet)",
            "from a quarter of the pictures on a doubling adds or loses less than a quarter of what one gained before, "
            "by more than the interval",
            ((FIGURE6, f"{data}-memory"),),
            lambda records: _saturates(records, 0.25),
        ),
        over_seeds(
            f"Figure 6, left{of}",
            "new classes are more sensitive to it",
            "accuracy varies more over the sizes, after one pass, than that of old classes, by more than the interval",
            ((FIGURE6, f"{data}-memory"),),
            _new_ones_more,
        ),
        over_seeds(
            f"Figure 6, right{of}",
            "MbPA learns almost as fast whatever the rate of the parametric model",
            "its accuracy on new classes varies less than half as much, after 0.1, 1 and 3 passes, by more than the "
            "interval; in part: at some",
            ((FIGURE6, f"{data}-rate"),),
            _insensitive,
        ),
        over_seeds(
            f"Figure 7{of}",
            "more neighbours are better",
            "50 than the fewest, on new classes at 0.1, 1 and 3 passes, by more than the interval; in part: at some",
            ((FIGURE7, f"{data}-neighbours"),),
            lambda records: _more_is_better(records, 50),
        ),
        over_seeds(
            f"Figure 7{of}",
            "that saturates after about 50",
            "from 50 on a doubling adds or loses less than a quarter of what one gained before, by more than the "
            "interval",
            ((FIGURE7, f"{data}-neighbours"),),
            lambda records: _saturates(records, 50),
        ),
    )


CLAIMS = (*_claims("tiny-imagenet"), *_claims("omniglot"))


def incremental_claims() -> report.Table:
    """What the paper says of new classes, with our verdicts."""
    return verdicts(CLAIMS, f"{PAPER} on classes that are new")
