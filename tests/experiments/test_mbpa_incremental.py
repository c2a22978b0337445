"""New classes beside old ones: what is learnt and held on the way, what the models answer, and the runs' records."""

import dataclasses
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lib import ledger, report
from lib.baselines.resnet import ResNet, ResNetConfig
from lib.experiments import PROFILES, RunOptions, claims, mbpa_incremental, mbpa_readings, mbpa_sensitivity
from lib.experiments import mbpa_incremental_tables as tables
from lib.experiments.mbpa_incremental_claims import incremental_claims
from lib.experiments.mbpa_incremental_configs import BALANCED, CONFIGS, UNBALANCED, in_profile
from lib.experiments.mbpa_split import GROUPS, Answer, Split, measure, probabilities, worked_example
from lib.methods.mbpa import adapted_by_loop
from lib.tasks.incremental import PictureSet, split_classes

CLASSES, EACH, WIDTH = 6, 20, 5
ANSWERS = (
    Answer("parametric"),
    Answer("non-parametric", 4),
    Answer("mixture", 3, share=0.3),
    Answer("mbpa", 5, steps=2, rate=0.05),
)


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A ledger of its own."""
    monkeypatch.setenv("BOOK_RESULTS_DIR", str(tmp_path / "results"))
    return tmp_path


def make_split(scarce=1.0, number=1, **changes) -> Split:
    """Features that were made up: noise around a point for each class."""
    torch.manual_seed(7)
    labels = torch.arange(CLASSES).repeat(EACH)
    features = 2 * torch.randn(CLASSES, WIDTH)[labels] + torch.randn(len(labels), WIDTH)
    at = torch.arange(len(labels))
    parts = {"train": at[:72], "validation": at[72:96], "test": at[96:]}
    images = torch.zeros(len(labels), 3, 2, 2, dtype=torch.uint8)
    pictures = PictureSet(images, labels, parts, tuple("abcdef"), True, {})
    old, new = split_classes(CLASSES, number)
    network = ResNet(ResNetConfig(labels=len(old), widths=(WIDTH,), blocks=1))
    config = replace(CONFIGS["tiny-imagenet"], batch_size=7, scarce=scarce, tested_on=100, **changes)
    return Split(config, number, pictures, features, network, old, new)


def test_the_last_layer_begins_with_what_is_known_of_old_classes_and_nothing_of_new_ones():
    split = make_split()
    head = split.head()
    for row, label in enumerate(split.old):
        assert torch.equal(head.weight[label], split.network.output.weight[row])
        assert torch.equal(head.bias[label], split.network.output.bias[row])
    assert not head.weight[split.new].any() and not head.bias[split.new].any()


def test_each_pass_shows_every_picture_once_and_the_memory_holds_the_last_ones():
    split = make_split()
    shown = set(split.pictures.of("train").tolist())
    for capacity in (1.0, 0.25):
        for learnt in split.learn(1e-2, [1.0, 2.0], memory=capacity):
            held = learnt.held[: len(learnt.memory)]
            assert len(learnt.memory) == round(72 * capacity)
            torch.testing.assert_close(learnt.memory.keys, split.features[held])
            assert torch.equal(learnt.memory.values, split.pictures.labels[held])
            assert len(set(held.tolist())) == len(held) and set(held.tolist()) <= shown
    (early,) = split.learn(1e-2, [0.25])
    assert len(early.memory) == 21, "after the minibatch, of 7, that reaches 18 of 72"


def test_the_last_layer_learns_as_by_a_plain_loop_wherever_it_is_tested_on_the_way():
    split = make_split()
    *_, often = split.learn(3e-2, [0.1, 0.5, 1.0, 2.0])
    (once,) = split.learn(3e-2, [2.0])
    assert torch.equal(often.head.weight, once.head.weight)
    # What was shown, in order: the memory of one pass, whose positions are in the order of writing.
    head, order = split.head(), []
    for upto in (1.0, 2.0):
        *_, learnt = split.learn(3e-2, [upto])
        order.append(learnt.held.clone())
    optimizer = torch.optim.Adam(head.parameters(), lr=3e-2)
    for of_pass in order:
        for batch in of_pass.split(7):
            optimizer.zero_grad()
            F.cross_entropy(head(split.features[batch]), split.pictures.labels[batch]).backward()
            optimizer.step()
    torch.testing.assert_close(once.head.weight, head.weight)


def test_a_tenth_of_the_pictures_of_half_the_new_classes():
    split = make_split(scarce=0.25)
    shown, train = split.pictures.labels[split.shown()], split.pictures.labels[split.pictures.of("train")]
    assert len(split.scarce) == 1
    for label in range(CLASSES):
        there = int((train == label).sum())
        assert int((shown == label).sum()) == (3 if label in split.scarce else there) and there == 12
    groups = split.groups(torch.arange(CLASSES))
    assert groups["new"].sum() == 3 and groups["old"].sum() == 3 and groups["scarce"].sum() == 1
    assert (groups["new"] | ~groups["scarce"]).all(), "scarce classes are new ones"
    assert len(make_split().scarce) == 0


def test_what_the_four_models_answer():
    split = make_split()
    (learnt,) = split.learn(1e-2, [1.0])
    queries = split.features[split.pictures.of("test")]
    found = dict(zip([answer.model for answer in ANSWERS], probabilities(learnt, queries, ANSWERS), strict=True))
    memory, head = learnt.memory, learnt.head
    with torch.no_grad():
        torch.testing.assert_close(found["parametric"], torch.softmax(head(queries), 1))
    for k, model in ((4, "non-parametric"), (3, "mixture")):
        for q, p in zip(queries, found[model], strict=True):
            distances = ((memory.keys - q) ** 2).sum(1)
            expected = torch.zeros(CLASSES)
            nearest = distances.argsort()[:k]
            closeness = 1 / (1e-3 + distances[nearest])
            for at, weight in zip(nearest, closeness / closeness.sum(), strict=True):
                expected[memory.values[at]] += weight
            if model == "mixture":
                expected = 0.3 * torch.softmax(head(q), 0).detach() + 0.7 * expected
            torch.testing.assert_close(p, expected, atol=1e-4, rtol=1e-3)
    fit = ANSWERS[3].fit
    assert fit.optimizer == "rmsprop"
    fitted = adapted_by_loop(head, queries, memory.context(queries, 5, fit.epsilon), fit).outputs
    torch.testing.assert_close(found["mbpa"], torch.softmax(fitted, 1), atol=1e-4, rtol=1e-3)


def test_accuracy_is_counted_by_group():
    split = make_split()
    (found,) = measure(split, 1e-2, [ANSWERS[0]], [0.5, 2.0], "test", 100)
    learnt = list(split.learn(1e-2, [2.0]))[0]
    positions = split.pictures.of("test")
    right = learnt.head(split.features[positions]).argmax(1) == split.pictures.labels[positions]
    of_new = torch.isin(split.pictures.labels[positions], split.new)
    assert found["all"][1] == pytest.approx(right.float().mean().item())
    assert found["new"][1] == pytest.approx(right[of_new].float().mean().item())
    assert found["old"][1] == pytest.approx(right[~of_new].float().mean().item())
    assert found["scarce"] == [None, None] and set(found) == set(GROUPS)


def test_a_worked_example_is_one_that_mbpa_alone_names_rightly():
    split = make_split()
    answers = (*ANSWERS[:2], Answer("mixture", 3, share=0.9), Answer("mbpa", 5, steps=3, rate=0.3))
    example = worked_example(split, 1e-3, answers, 0.3)
    assert example is not None, "with so few updates the last layer is often wrong on new classes"
    (learnt,) = split.learn(1e-3, [0.3])
    query = split.features[example["picture"]].unsqueeze(0)
    named = [p.argmax().item() for p in probabilities(learnt, query, answers)]
    assert example["label"] in split.new.tolist() and split.pictures.labels[example["picture"]] == example["label"]
    assert named[3] == example["label"] and example["label"] not in (named[0], named[2])
    assert example["labels"] == split.pictures.labels[example["neighbours"]].tolist()
    assert sum(example["weights"]) == pytest.approx(1, abs=1e-5)
    keys, fit = split.features[example["neighbours"]], answers[3].fit
    values = torch.tensor(example["labels"])
    before = learnt.head(keys).argmax(1) == values
    assert example["neighbours_right_before"] == pytest.approx(before.float().mean().item())
    context = learnt.memory.context(query, fit.neighbours, fit.epsilon)
    each = [
        adapted_by_loop(learnt.head, key.unsqueeze(0), context, fit).outputs.argmax().item() == value
        for key, value in zip(keys, example["labels"], strict=True)
    ]
    assert example["neighbours_right_after"] == pytest.approx(sum(each) / len(each))


def test_the_area_is_the_mean_of_the_curve():
    epochs, accuracy = [0.5, 1.0, 3.0], [0.2, 0.6, 0.8]
    assert tables.area(epochs, accuracy, 0.5) == pytest.approx(0.2)
    assert tables.area(epochs, accuracy, 1.0) == pytest.approx((0.5 * 0.2 + 0.5 * 0.4) / 1)
    assert tables.area(epochs, accuracy, 3.0) == pytest.approx((0.5 * 0.2 + 0.5 * 0.4 + 2 * 0.7) / 3)
    assert tables.area(epochs, [0.3] * 3, 3.0) == pytest.approx(0.3)
    with pytest.raises(ValueError, match="no test after 2.0 passes"):
        tables.area(epochs, accuracy, 2.0)


def test_within_a_later_pass_the_area_has_no_points(book):
    accuracy = {"mbpa": {"new": [0.4, 0.6, 0.1, 0.6]}}
    made_up_record("mbpa.table1", "omniglot", 0, (0.5, 1.0, 1.5, 2.0), accuracy=accuracy)
    (record,) = ledger.load_records("mbpa.table1")
    assert tables.auc(record, "mbpa", "new", 2.0) == pytest.approx((0.5 * 0.4 + 0.5 * 0.5 + 1 * 0.6) / 2)


def test_what_an_area_from_zero_would_lose_is_told(book):
    assert "not run" in tables.area_in_words() and tables.title_of("omniglot", []) == "Omniglot, not run"
    curves = {"mbpa": 0.5, "non-parametric": 0.25, "mixture": 0.1, "parametric": 0.0}
    accuracy = {model: dict.fromkeys(GROUPS, [first, 0.9, 0.9, 0.9]) for model, first in curves.items()}
    made_up_record("mbpa.table1", "omniglot", 0, (0.02, 0.1, 1.0, 3.0), accuracy=accuracy)
    (record,) = tables.shown_records("mbpa.table1", "omniglot")
    level, epochs = tables.auc(record, "mbpa", "new", 0.1), [0.0, 0.02, 0.1]
    from_zero = np.trapezoid([0.0, 0.5, 0.9], epochs) / 0.1
    assert level - from_zero == pytest.approx(0.05)
    assert "Omniglot MbPA 5.0, Non-parametric 2.5, Mixture 1.0, Parametric 0.0." in tables.area_in_words()
    assert tables.title_of("omniglot", [record]) == "Omniglot, paper profile, n = 1"


def run(experiment, variant, book, seed=0):
    return experiment.run(variant, "smoke", seed, RunOptions(device="cpu", progress=False, runs=book / "runs"))


def test_a_run_is_recorded_and_later_runs_share_network_features_and_settings(book):
    table1, _, figure5 = mbpa_incremental.EXPERIMENTS
    record = run(table1, "tiny-imagenet", book)
    assert "test accuracy at the end: parametric " in report.describe_record(record)
    assert record == ledger.find_record("mbpa.table1", "tiny-imagenet", "smoke", 0)
    assert record.config == json.loads(json.dumps(table1.config("tiny-imagenet", "smoke")))
    assert set(record.metrics["accuracy"]) == set(tables.MODELS)
    for curves in record.metrics["accuracy"].values():
        assert len(curves["all"]) == len(record.metrics["epochs"]) == 3
    for model, tried in record.metrics["tuning"].items():
        best = max(tried, key=lambda each: each["validation_accuracy"])
        chosen = record.metrics["setting"]["rate" if model == "parametric" else model]
        assert chosen == best["rate" if model == "parametric" else "setting"]
    files = sorted((book / "runs").rglob("*.safetensors"))
    before = [path.stat().st_mtime_ns for path in files]
    assert len(files) == 4, "network and features of two splits"
    unbalanced = run(figure5, "tiny-imagenet", book)
    figure6, figure7 = mbpa_sensitivity.EXPERIMENTS
    by_k = run(figure7, "tiny-imagenet-neighbours", book)
    run(figure6, "tiny-imagenet-rate", book)
    run(figure6, "tiny-imagenet-memory", book)
    assert sorted((book / "runs").rglob("*.safetensors")) == files
    assert [path.stat().st_mtime_ns for path in files] == before
    assert unbalanced.metrics["setting"] == by_k.metrics["setting"] == record.metrics["setting"]
    assert unbalanced.metrics["shown"] < record.metrics["shown"] and "example" in unbalanced.metrics
    assert len(by_k.metrics["by_value"]) == len(by_k.metrics["values"]) == 2
    for table in (tables.table1, tables.figure4, tables.figure5, tables.figure6, tables.figure7):
        assert all(cells == () or len(cells) == len(table().columns) for cells in (row.cells for row in table().rows))


def test_settings_are_chosen_again_for_another_config(book):
    options = RunOptions(device="cpu", progress=False, runs=book / "runs")
    config = in_profile(CONFIGS["tiny-imagenet"], "smoke")
    first = mbpa_incremental.chosen("tiny-imagenet", "smoke", config, options, {})
    assert mbpa_incremental.chosen("tiny-imagenet", "smoke", config, options, {}) == first
    other = mbpa_incremental.chosen("tiny-imagenet", "smoke", replace(config, rates=(0.5,)), options, {})
    assert other.rate == 0.5


def test_every_variant_has_a_config_in_every_profile_and_finds_its_numbers():
    for experiment in (*mbpa_incremental.EXPERIMENTS, *mbpa_sensitivity.EXPERIMENTS):
        for variant in experiment.variants:
            for profile in PROFILES:
                json.dumps(experiment.config(variant, profile))
    for configs in (CONFIGS, UNBALANCED, BALANCED):
        for config in configs.values():
            assert set(tables.EPOCHS) <= set(in_profile(config, "short").epochs), "the tables need them"


def made_up_record(experiment, variant, seed, epochs=(0.1, 1.0, 3.0), **metrics):
    record = ledger.Record(
        experiment=experiment,
        variant=variant,
        profile="paper",
        seed=seed,
        config={"tested_on": 2_000},
        metrics={"epochs": list(epochs), **metrics},
        updates=1,
        complete=True,
        seconds=1.0,
        machine={"name": "m"},
        commit="c",
        data={"name": "d", "sha256": "", "is_standin": False},
    )
    ledger.save_record(record)


CHOSEN = {
    "non-parametric": {"neighbours": 20, "share": 0.0, "steps": 0, "rate": 0.0},
    "mixture": {"neighbours": 50, "share": 0.1, "steps": 0, "rate": 0.0},
    "mbpa": {"neighbours": 50, "share": 0.0, "steps": 20, "rate": 0.003},
}
TRIED = [
    {"neighbours": k, "share": share, "steps": steps, "rate": rate}
    for k, share, steps, rate in ((10, 0.1, 1, 1e-3), (50, 0.5, 10, 3e-3), (100, 0.9, 20, 1e-2))
]
SETTINGS = {
    "setting": {"rate": 1e-3, **CHOSEN},
    "tuning": {
        "parametric": [{"rate": rate} for rate in (1e-4, 1e-3, 1e-2)],
        **{model: [{"setting": each} for each in TRIED] for model in CHOSEN},
    },
}


def test_the_table_and_the_verdicts_read_the_records(book):
    level = {"mbpa": 0.6, "mixture": 0.5, "parametric": 0.4, "non-parametric": 0.3}
    for seed in range(3):
        accuracy = {m: dict.fromkeys(GROUPS, [a + seed / 100] * 3) for m, a in level.items()}
        made_up_record("mbpa.table1", "tiny-imagenet", seed, accuracy=accuracy, **SETTINGS)
    rows = [row for row in tables.table1().rows if "Tiny" in row.source and row.label == "MbPA, new classes"]
    assert rows[0].cells[0] == "61.0 ± 2.5" and rows[0].cells[0] == rows[0].cells[5]
    notes = {row.label: row.note for row in tables.table1().rows if "Tiny" in row.source}
    assert notes["MbPA, new classes"].endswith("K = 50, T = 20, α = 0.003, at an end of what was tried: T")
    assert notes["Mixture, old classes"].endswith("K = 50, λ = 0.1, at an end of what was tried: λ")
    assert notes["Parametric, new classes"].endswith("α = 0.001")
    verdicts = {row.label: row.cells[0] for row in incremental_claims().rows}
    assert verdicts["Table 1, Tiny ImageNet: MbPA is the best on new classes, at 0.1, 1 and 3 passes"] == claims.HOLDS
    for seed in range(3):
        accuracy = {m: dict.fromkeys(GROUPS, [1 - a + seed / 100] * 3) for m, a in level.items()}
        made_up_record("mbpa.table1", "tiny-imagenet", seed, accuracy=accuracy)
    verdicts = {row.label: row.cells[0] for row in incremental_claims().rows}
    assert verdicts["Table 1, Tiny ImageNet: MbPA is the best on new classes, at 0.1, 1 and 3 passes"] == claims.FAILS


def test_a_run_stops_in_its_training_when_its_time_is_up_and_later_goes_on(book):
    (table1, *_), (figure6, _) = mbpa_incremental.EXPERIMENTS, mbpa_sensitivity.EXPERIMENTS
    no_time = RunOptions(device="cpu", progress=False, runs=book / "runs", minutes=0)
    assert table1.run("omniglot", "smoke", 0, no_time) is None
    assert figure6.run("omniglot-rate", "smoke", 0, no_time) is None
    assert not ledger.load_records("mbpa.table1") and not ledger.load_records("mbpa.figure6")
    assert run(table1, "omniglot", book).complete


def test_a_stand_in_is_refused_before_anything_is_trained(book, monkeypatch):
    table1, *_ = mbpa_incremental.EXPERIMENTS
    record = run(table1, "omniglot", book)
    monkeypatch.setattr(mbpa_incremental, "train", None)  # must not be asked
    real = dataclasses.replace(record, data=record.data | {"sha256": "real", "is_standin": False})
    ledger.save_record(real)
    with pytest.raises(ledger.LedgerError, match="stand-in"):
        run(table1, "omniglot", book)


@pytest.mark.parametrize(("scores", "verdict"), [([0.1, 0.5, 0.52], claims.HOLDS), ([0.1, 0.3, 0.5], claims.FAILS)])
def test_saturation_is_judged_by_what_more_of_it_adds(book, scores, verdict):
    of = [{"mbpa": dict.fromkeys(GROUPS, [score] * 3)} for score in scores]
    for seed in range(2):
        made_up_record("mbpa.figure7", "omniglot-neighbours", seed, by_value=of, values=[10, 50, 200])
    rows = {row.label: row.cells[0] for row in incremental_claims().rows}
    assert rows["Figure 7, Omniglot: that saturates after about 50"] == verdict


def test_a_rate_that_matters_later_is_not_judged_by_the_beginning_alone(book):
    """At 0.1 passes the parametric model knows nothing at any rate; at 1 and 3 it depends on it, and MbPA does not."""
    for seed in range(2):
        of = [
            {"mbpa": dict.fromkeys(GROUPS, [0.3, 0.5, 0.5]), "parametric": dict.fromkeys(GROUPS, [0.0, later, later])}
            for later in (0.1, 0.4)
        ]
        made_up_record("mbpa.figure6", "omniglot-rate", seed, by_value=of, values=[1e-4, 1e-3])
    rows = {row.label: row.cells for row in incremental_claims().rows}
    verdict, words = rows[
        "Figure 6, right, Omniglot: MbPA learns almost as fast whatever the rate of the parametric model"
    ]
    assert verdict == claims.IN_PART and "at 0.1 MbPA 0.0, parametric 0.0; at 1 MbPA 0.0, parametric 30.0" in words


def made_up_runs(level: dict[str, float], at_01: dict[str, float], noise: float, seeds: int = 3) -> None:
    """Records of all that the claims need. level: accuracy of each model; at_01: in the runs with several rates, sizes
    of the memory and, from `few` on, neighbours; noise: by how much MbPA's differs from split to split."""
    for data in ("tiny-imagenet", "omniglot"):
        for seed in range(seeds):
            off = noise * (seed - 1)
            for experiment, variant, more, epochs in (
                ("table1", data, 0.0, [0.1, 1.0, 3.0]),
                ("figure5", data, 0.1, [0.1, 1.0, 3.0, 20.0]),
                ("figure5", f"{data}-balanced", 0.0, [0.1, 1.0, 3.0, 20.0, 30.0]),
            ):
                better = more * (1 if level["mbpa"] > level["mixture"] else -1)
                of = {m: a + seed / 100 + (better + off if m == "mbpa" else 0) for m, a in level.items()}
                accuracy = {m: dict.fromkeys(GROUPS, [a] * len(epochs)) for m, a in of.items()}
                if 30.0 in epochs:  # the claim is that MbPA is caught up with, or else that it is not
                    at_last = (
                        of["parametric"] + off if level["mbpa"] > level["mixture"] else of["parametric"] + 0.1 + off
                    )
                    accuracy["mbpa"] = accuracy["mbpa"] | {"all": [*accuracy["mbpa"]["all"][:-1], at_last]}
                made_up_record(f"mbpa.{experiment}", variant, seed, epochs, accuracy=accuracy, **SETTINGS)
            for experiment, what, values in (
                ("figure6", "memory", [0.125, 0.25, 1.0]),
                ("figure7", "neighbours", [10, 50, 200]),
                ("figure6", "rate", [1e-4, 1e-3, 1e-2]),
            ):
                scores = [(at_01["first"], 0.0), (0.5, 0.4), (0.6, 0.6)] if what == "rate" else [
                    (at_01["first"], 0.0), (0.5, 0.4), (at_01["last"], 0.9)
                ]  # fmt: skip
                if what == "neighbours":
                    scores[0] = (at_01.get("few", at_01["first"]), 0.0)
                of_old = 0.5 if level["mbpa"] > level["mixture"] else 1.5  # of what it is on others
                by_value = [
                    {
                        "mbpa": dict.fromkeys(GROUPS, [mbpa] * 3) | {"old": [of_old * mbpa] * 3},
                        "mixture": dict.fromkeys(GROUPS, [other] * 3),
                        "parametric": dict.fromkeys(GROUPS, [other] * 3),
                    }
                    for mbpa, other in scores
                ]
                made_up_record(f"mbpa.{experiment}", f"{data}-{what}", seed, by_value=by_value, values=values)


AHEAD = {"mbpa": 0.8, "mixture": 0.6, "parametric": 0.4, "non-parametric": 0.5}
BEHIND = {"mbpa": 0.3, "mixture": 0.5, "parametric": 0.6, "non-parametric": 0.7}


def test_every_claim_holds_where_its_runs_say_so(book):
    assert {row.cells[0] for row in incremental_claims().rows} == {"not run"}
    made_up_runs(AHEAD, {"first": 0.4, "last": 0.52}, 0.0)
    found = incremental_claims().rows
    assert {row.label: row.cells[0] for row in found if row.cells[0] != claims.HOLDS} == {}
    assert len(found) == 24
    rows = tables.figure6().rows
    assert [row.label for row in rows[:3]] == [f"memory of {share} of the pictures" for share in ("0.125", "0.25", "1")]
    assert rows[6].label == "MbPA, rate 0.0001" and rows[6].cells[0] == "40.0 ± 0.0"
    assert [row.label for row in tables.figure7().rows[:3]] == ["K = 10", "K = 50", "K = 200"]
    at_20_and_30 = [row.cells[-2:] for row in tables.figure5().rows if row.label == "MbPA"]
    assert at_20_and_30[0] == ("91.0 ± 2.5", "–") and at_20_and_30[4] == ("81.0 ± 2.5", "81.0 ± 2.5")
    assert len(at_20_and_30) == 10


def test_every_claim_fails_where_its_runs_say_so(book):
    made_up_runs(BEHIND, {"first": 0.0, "few": 0.6, "last": 0.9}, 0.0)
    found = incremental_claims().rows
    assert {row.label: row.cells[0] for row in found if row.cells[0] != claims.FAILS} == {}


def test_what_splits_do_not_agree_on_is_not_told_apart_and_one_split_is_not_judged(book):
    near = {"mbpa": 0.51, "mixture": 0.5, "parametric": 0.5, "non-parametric": 0.5}
    made_up_runs(near, {"first": 0.4, "last": 0.52}, 0.4)
    found = {row.label: row.cells[0] for row in incremental_claims().rows}
    undecided = [label for label, verdict in found.items() if verdict == claims.UNDECIDED]
    assert len(undecided) == 2 * 6, "all that compare models on one data set, but for the gap, which differs by a tenth"
    for path in (ledger.results_dir()).rglob("*-[12].json"):
        path.unlink()
    assert {row.cells[0] for row in incremental_claims().rows} == {claims.TOO_FEW}


def test_readings_are_run_with_rates_of_their_own_which_later_seeds_take_over(book, monkeypatch):
    (readings,) = mbpa_readings.EXPERIMENTS
    first = run(readings, "omniglot", book)
    assert first == ledger.find_record("mbpa.readings", "omniglot", "smoke", 0)
    assert first.config == json.loads(json.dumps(readings.config("omniglot", "smoke")))
    assert set(first.metrics["accuracy"]) == {"as-read", "sgd"} and "at the end" in report.describe_record(first)
    for reading, tried in first.metrics["tuning"].items():
        best = max(tried, key=lambda each: each["validation_accuracy"])
        assert len(tried) == 2 and first.metrics["setting"]["rates"][reading] == best["rate"]
    monkeypatch.setattr(mbpa_readings, "chosen_rates", None)  # must not be asked again
    assert run(readings, "omniglot", book, seed=1).metrics["tuning"] == first.metrics["tuning"]
    config_of = mbpa_readings.config_of
    monkeypatch.setattr(mbpa_readings, "config_of", lambda *which: replace(config_of(*which), rates=(0.1, 0.2)))
    with pytest.raises(TypeError, match="not callable"):
        run(readings, "omniglot", book, seed=1)


def test_a_reading_changes_the_fit_alone(book):
    answer = Answer("mbpa", 7, steps=3, rate=0.25)
    for reading, changes in mbpa_readings.READINGS.items():
        read = mbpa_readings.ReadAnswer("mbpa", 7, steps=3, rate=0.25, reading=reading)
        assert read.fit == replace(answer.fit, **changes) and (read.fit == answer.fit) == (reading == "as-read")
    assert set(mbpa_readings.LABELS) == set(mbpa_readings.READINGS)


def test_the_table_of_readings_shows_each_with_its_rate(book):
    assert {row.note for row in mbpa_readings.table().rows} == {"not run"}
    accuracy = {"as-read": dict.fromkeys(GROUPS, [0.5] * 3), "sgd": dict.fromkeys(GROUPS, [0.52] * 3)}
    tuning = {name: [{"rate": rate} for rate in (0.1, 0.2, 0.3)] for name in accuracy}
    setting = {"rates": {"as-read": 0.2, "sgd": 0.3}}
    for seed in range(2):
        made_up_record("mbpa.readings", "omniglot", seed, accuracy=accuracy, tuning=tuning, setting=setting)
    rows = {row.label: row for row in mbpa_readings.table().rows if row.source == "Omniglot"}
    assert rows["gradient descent"].note.endswith("α = 0.3, at an end of what was tried")
    assert rows[mbpa_readings.LABELS["as-read"]].note.endswith("α = 0.2")
    assert rows[mbpa_readings.LABELS["as-read"]].cells == ("50.0 ± 0.0",) * 6
    assert rows["gradient descent"].cells == ("+2.0 ± 0.0",) * 6
