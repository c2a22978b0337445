"""Santoro et al. 2016: Omniglot classification with one-hot labels (table 1; figure 2, a and b).

| here | paper |
| --- | --- |
| `mann.table1` | table 1: test accuracy by instance after 100 000 updates |
| `mann.figure2` | figure 2, a and b: the same runs' accuracy during training |
| `mann.readings` | not in the paper: what the other readings of its text give |

Reading notes. An «episode» of the 100 000 is read as one update on a minibatch of 16 sequences. The last 50 of the 1200
training classes are held out to validate on, so 1150 are trained on; the 423 test classes choose nothing.
"""

import json
import math
import time
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from lib import ledger, report
from lib.atomic import write_atomically
from lib.baselines.feedforward import FeedForward, FeedForwardConfig
from lib.baselines.lstm import LSTM, LSTMConfig
from lib.data import load_characters
from lib.data.store import Characters
from lib.experiments.base import Experiment, RunOptions
from lib.inspector.trace import Trace
from lib.inspector.trace import record as record_episode
from lib.methods.mann import MANN, MANNConfig
from lib.methods.online import OnlineLearner
from lib.tasks.classification import ClassificationTask
from lib.tasks.episodes import EpisodeConfig, EpisodeSampler
from lib.tasks.images import ImageBank
from lib.tasks.seeds import generator
from lib.training import TrainingConfig, evaluate, pick_device, train
from lib.training.checkpoint import CheckpointError, file_digest, load_checkpoint, read_details, save_checkpoint
from lib.training.loop import TrainingResult
from lib.training.stacked import train_together

PAPER = "Santoro et al. 2016"
VALIDATION_CLASSES = 50
EVALUATION_SEED = 0  # the same test episodes for every method and seed
ROWS = {"feedforward": FeedForwardConfig(), "lstm": LSTMConfig(), "mann": MANNConfig()}
LABELS = {"feedforward": "feed-forward", "lstm": "LSTM", "mann": "MANN"}
READINGS = {
    "shared-keys": MANNConfig(keys="shared"),
    "own-slots": MANNConfig(write_to="own"),
    "shared-keys-own-slots": MANNConfig(keys="shared", write_to="own"),
    "constant-gate": MANNConfig(gate="constant"),
}
READING_LABELS = {
    "shared-keys": "a head stores the key that it looks for",
    "own-slots": "head j writes to the j-th least used slot",
    "shared-keys-own-slots": "both of the above",
    "constant-gate": "the gate α is one learnt number a head",
}
COSTS = {"smoke": "seconds", "short": "minutes", "paper": "hours on a CPU core"}
LEARNERS = {FeedForwardConfig: FeedForward, LSTMConfig: LSTM, MANNConfig: MANN}


@dataclass(frozen=True)
class OmniglotConfig:
    """One run: a learner, its episodes, its training and its test."""

    learner: FeedForwardConfig | LSTMConfig | MANNConfig
    episodes: EpisodeConfig = field(default_factory=EpisodeConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    test_batches: int = 125
    """Minibatches of 16 test episodes: 2000 episodes, 10 000 images for each instance that all classes reach."""


def config(variant: str, profile: str) -> OmniglotConfig:
    """The config of a row of table 1, or of another reading of MANN, in a profile."""
    paper = OmniglotConfig(learner=(ROWS | READINGS)[variant])
    if profile == "paper":
        return paper
    if profile == "short":
        return replace(paper, training=replace(paper.training, updates=5_000, validate_every=2_500), test_batches=30)
    training = replace(
        paper.training, updates=20, log_every=10, validate_every=20, validation_batches=1, checkpoint_every=10
    )
    return replace(paper, training=training, test_batches=2)


def build_learner(config: OmniglotConfig, seed: int) -> OnlineLearner:
    """A learner with fresh weights, a function of (config, seed): PyTorch's default initialisation."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(seed, "weights", 0).initial_seed())
        return LEARNERS[type(config.learner)](config.learner)


def build_task(config: OmniglotConfig, characters: Characters, seed: int, device: torch.device) -> ClassificationTask:
    """Training, validation and test episodes over disjoint classes."""
    training, test = characters.train_test_split()
    held_out = min(VALIDATION_CLASSES, len(training) // 4)

    def sampler(classes, seed: int, stream: str) -> EpisodeSampler:
        bank = ImageBank(characters.images(classes), device)
        return EpisodeSampler(bank, config.episodes, seed=seed, stream=stream)

    return ClassificationTask(
        train=sampler(training[:-held_out], seed, "train"),
        validation=sampler(training[-held_out:], EVALUATION_SEED, "validation"),
        test=sampler(test, EVALUATION_SEED, "test"),
    )


def run(variant: str, profile: str, seed: int, options: RunOptions, experiment: str = "mann.table1") -> ledger.Record:
    """Train, test and record one row of table 1, or one of `mann.readings`."""
    runs = _Runs(variant, profile, [seed], options, experiment)
    result = train(
        runs.learners[0],
        runs.tasks[0],
        runs.settings.training,
        folder=runs.folders[0],
        identity=runs.identities[0],
        **runs.training_options(),
    )
    return runs.record(0, result)


def run_together(
    variant: str, profile: str, seeds: list[int], options: RunOptions, experiment: str = "mann.table1"
) -> list[ledger.Record]:
    """`run` for several seeds, trained at once as one batched model; a record and a checkpoint for each."""
    runs = _Runs(variant, profile, seeds, options, experiment)
    results = train_together(
        runs.learners,
        runs.tasks,
        runs.settings.training,
        folders=runs.folders,
        identities=runs.identities,
        **runs.training_options(),
    )
    return [runs.record(index, result) for index, result in enumerate(results)]


class _Runs:
    """One run for each seed, made ready to be trained, alone or together."""

    def __init__(self, variant: str, profile: str, seeds: list[int], options: RunOptions, experiment: str):
        self.variant, self.profile, self.seeds, self.options = variant, profile, seeds, options
        self.experiment, self.device = experiment, pick_device(options.device)
        self.settings = config(variant, profile)
        characters = load_characters()
        self.data = {"name": characters.name, "sha256": characters.digest, "is_standin": characters.is_standin}
        task = build_task(self.settings, characters, seeds[0], self.device)
        self.tasks = [
            replace(task, train=EpisodeSampler(task.train.bank, task.train.config, seed=seed, stream="train"))
            for seed in seeds
        ]
        self.learners = [build_learner(self.settings, seed).to(self.device) for seed in seeds]
        self.names = [ledger.record_name(experiment, variant, profile, seed) for seed in seeds]
        self.folders = [options.runs / name for name in self.names]
        self.identities = [{"run": name, "config": asdict(self.settings), "data": self.data} for name in self.names]
        for name, folder, identity in zip(self.names, self.folders, self.identities, strict=True):
            ledger.refuse_stand_in(name, self.data)  # before the work, not after it
            _fetch_unfinished(name, folder / "checkpoint.safetensors", identity, self.settings.training)

    def training_options(self) -> dict[str, Any]:
        """What training alone and together are told alike."""
        minutes = self.options.minutes
        return {
            "provenance": {"commit": ledger.code_commit(), "machine": ledger.describe_machine(self.device)},
            "unroll": self.options.unroll,
            "progress": self.options.progress,
            "until": math.inf if minutes is None else time.monotonic() + 60 * minutes,
        }

    def record(self, index: int, result: TrainingResult) -> ledger.Record:
        """Test what was trained, and save the record if the run is complete or if that is not asked for."""
        learner, task, seed, options = self.learners[index], self.tasks[index], self.seeds[index], self.options
        name, settings = self.names[index], self.settings
        in_progress = self.folders[index] / "checkpoint.safetensors"
        if not result.complete:
            # What was learnt after the last checkpoint is not part of the record.
            if result.updates:
                load_checkpoint(in_progress, learner)
            else:
                learner = build_learner(settings, seed).to(self.device)
        finished = result.complete or options.record_unfinished
        tested = partial(evaluate, learner, task, task.test, settings.test_batches, progress=options.progress)
        record = ledger.Record(
            experiment=self.experiment,
            variant=self.variant,
            profile=self.profile,
            seed=seed,
            config=asdict(settings),
            metrics=tested() if finished else {},
            updates=result.updates,
            complete=result.complete,
            seconds=result.seconds,
            machine=ledger.describe_machine(self.device),
            commit=ledger.code_commit(),
            data=self.data,
            checkpoint=_keep(learner, name, self.identities[index], result, in_progress)
            if finished and options.keep_checkpoint
            else None,
            curve=curve_of(result.log),
            trained_by=read_details(in_progress).get("trained_by") if result.updates else None,
        )
        if finished:
            ledger.save_record(record)
            if options.keep_checkpoint and self.variant == "mann":
                save_trace(record, learner, task)
        return record


def save_trace(record: ledger.Record, learner: OnlineLearner, task: ClassificationTask) -> Path:
    """Keep what the learner does to its memory over the first test episode, for the laboratory. Returns its path."""
    episode = task.test.batch(0, 1)
    xs = (episode.xs * 255).round() / 255  # a trace keeps images as bytes: whoever runs it again gets the same answers
    title = f"MANN, {record.profile} profile, after {record.updates:,} updates".replace(",", " ")
    data = record.data["name"] + (" (a stand-in for Omniglot)" if record.data["is_standin"] else "")
    note = f"Test characters of {data}; record {record.name}, weights {record.checkpoint['sha256'][:12]}."
    path = trace_path(record)
    record_episode(learner, xs, episode.ys, title=title, note=note).save(path)
    return path


def trace_path(record: ledger.Record) -> Path:
    """Where the trace of a record's learner is kept."""
    return ledger.ROOT / "data" / "traces" / f"{record.name}.json"


def episode_of(trace: Trace, device: torch.device | str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
    """The episode that a trace was recorded on: xs (1, T, 400) and ys (1, T)."""
    xs = torch.from_numpy(trace.images.copy()).flatten(1).float() / 255
    return xs.unsqueeze(0).to(device), torch.from_numpy(trace.labels.copy()).unsqueeze(0).to(device)


def curve_of(log: list[dict[str, Any]]) -> dict[str, Any]:
    """The training log as columns: update, loss, accuracy by instance, and validations at their own updates."""

    def rounded(accuracy: list[float | None]) -> list[float | None]:
        return [None if a is None else round(a, 4) for a in accuracy]

    validated = [line for line in log if "validation" in line]
    return {
        "update": [line["update"] for line in log],
        "loss": [round(line["loss"], 5) for line in log],
        "accuracy": [rounded(line["accuracy"]) for line in log],
        "validation_update": [line["update"] for line in validated],
        "validation_accuracy": [rounded(line["validation"]["accuracy"]) for line in validated],
    }


def _kept_path(name: str) -> Path:
    return ledger.ROOT / "data" / "checkpoints" / f"{name}.safetensors"


def _keep(
    learner: OnlineLearner, name: str, identity: dict[str, Any], result: TrainingResult, in_progress: Path
) -> dict[str, str]:
    path = _kept_path(name)
    if result.complete or not result.updates:
        digest = save_checkpoint(path, learner, {"identity": identity, "update": result.updates})
    else:  # with the optimizer's state, so that the run can go on anywhere
        write_atomically(path, lambda file: file.write(in_progress.read_bytes()))
        digest = file_digest(path)
    return {"file": path.relative_to(ledger.ROOT).as_posix(), "sha256": digest}


def _fetch_unfinished(name: str, in_progress: Path, identity: dict[str, Any], training: TrainingConfig) -> None:
    """Go on from the kept checkpoint of an unfinished run where this machine has none of its own."""
    kept = _kept_path(name)
    if in_progress.exists() or not kept.exists():
        return
    details = read_details(kept)
    same_run = details["identity"] == json.loads(json.dumps({"training": asdict(training), **identity}))
    if same_run and details["update"] < training.updates:
        write_atomically(in_progress, lambda file: file.write(kept.read_bytes()))


def load_trained(record: ledger.Record, device: torch.device | str = "cpu") -> OnlineLearner:
    """The learner of a record that keeps its weights. Raises CheckpointError if the file is not the recorded one."""
    if record.checkpoint is None:
        raise CheckpointError(f"{record.name} keeps no checkpoint; run it with --keep-checkpoint")
    path = ledger.ROOT / record.checkpoint["file"]
    learner = build_learner(config(record.variant, record.profile), record.seed)
    load_checkpoint(path, learner)
    if (found := file_digest(path)) != record.checkpoint["sha256"]:
        raise CheckpointError(f"{path} has sha256 {found}, its record says {record.checkpoint['sha256']}; restore it")
    return learner.to(device).eval()


def verify(record: ledger.Record, device: str) -> tuple[bool | None, str]:
    """Test a committed checkpoint on the recorded episodes again; accuracies may differ by rounding, 0.2 points.

    None in place of a verdict where only other data than the recorded one is at hand.
    """
    try:
        learner = load_trained(record, pick_device(device))
    except CheckpointError as error:
        return False, str(error)
    if record.config != json.loads(json.dumps(asdict(config(record.variant, record.profile)))):
        return False, f"its config is not the one that the code now has for {record.variant}, {record.profile} profile"
    characters = load_characters()
    if characters.digest != record.data["sha256"]:
        return (
            None,
            f"not tested: it needs {record.data['name']}, and only {characters.name} is here (set BOOK_DATA_DIR)",
        )
    settings = config(record.variant, record.profile)
    task = build_task(settings, characters, record.seed, pick_device(device))
    found = evaluate(learner, task, task.test, settings.test_batches)
    pairs = zip(found["accuracy"], record.metrics["accuracy"], strict=True)
    difference = max(abs(a - b) for a, b in pairs if a is not None and b is not None)
    return difference <= 0.002, f"largest difference of an accuracy {100 * difference:.3f} points"


def table1() -> report.Table:
    """Table 1 with our rows."""
    paper = ledger.paper_numbers("mann")["table1"]
    instances = paper["instances"]
    rows = [report.Row("human", "paper", tuple(str(v) for v in paper["rows"]["human"]), "quoted, not measured here")]
    for variant, label in LABELS.items():
        rows.append(report.Row(label, "paper", tuple(str(v) for v in paper["rows"][variant])))
        rows += report.accuracy_rows("mann.table1", variant, label, instances, ("paper", "short"))
    caption = (
        "Test accuracy in percent by instance, five classes an episode, one-hot labels (Santoro et al. 2016, table 1)"
    )
    return report.Table(caption, tuple(report.ordinal(k) for k in instances), tuple(rows))


def compare_with_paper() -> str:
    """Sentences, in Markdown, on how MANN's runs of the paper profile compare with the paper's row of table 1."""
    paper = ledger.paper_numbers("mann")["table1"]
    records = [r for r in ledger.load_records("mann.table1", "mann", "paper") if not r.data["is_standin"]]
    records = [r for r in records if r.complete] or records
    if not records:
        return "**MANN was not run at the paper profile yet.**"
    asked = config("mann", "paper").training.updates
    done = min(record.updates for record in records)
    differences = {
        k: 100 * sum(record.metrics["accuracy"][k - 1] for record in records) / len(records) - reported
        for k, reported in zip(paper["instances"], paper["rows"]["mann"], strict=True)
    }
    worst = min(differences, key=differences.get)
    best = max(differences, key=differences.get)
    progress = f"After {done:,} of {asked:,} updates".replace(",", " ")
    verdict = "within 2 points of the paper's row or above it at every instance"
    if differences[worst] < -2:
        verdict = "short of the paper's row by more than 2 points at some instance"
    return (
        f"**{progress} MANN is {verdict}.** Its lowest cell beside the paper is the {report.ordinal(worst)} instance, "
        f"at {differences[worst]:+.1f} points, its highest the {report.ordinal(best)}, at {differences[best]:+.1f}."
        + "".join(_still_rising(record) for record in records if not record.complete)
    )


def _still_rising(record: ledger.Record, span: int = 10_000) -> str:
    curve = record.curve or {"update": [], "accuracy": []}
    at = {u: a[1] for u, a in zip(curve["update"], curve["accuracy"], strict=True)}
    if record.updates not in at or record.updates - span not in at:
        return ""
    gain = 100 * (at[record.updates] - at[record.updates - span])
    span_text = f"{span:,}".replace(",", " ")
    return (
        f" The run is unfinished: in its last {span_text} updates the training accuracy of the 2nd instance changed by "
        f"{gain:+.1f} points."
    )


def figure2() -> report.Table:
    """Figure 2 (a, b) as numbers: training accuracy by instance at some points of the runs of the paper profile."""
    instances, points = (1, 2, 5, 10), (1_000, 5_000, 10_000, 20_000, 50_000, 100_000)
    rows = []
    for variant in ("lstm", "mann"):
        for record in ledger.load_records("mann.table1", variant, "paper"):
            at = {u: a for u, a in zip(record.curve["update"], record.curve["accuracy"], strict=True)}
            for k in instances:
                cells = tuple(f"{100 * at[u][k - 1]:.1f}" if u in at else "–" for u in points)
                note = f"STAND-IN DATA: {record.data['name']}" if record.data["is_standin"] else ""
                rows.append(
                    report.Row(f"{LABELS[variant]}, {report.ordinal(k)}", f"ours, seed {record.seed}", cells, note)
                )
    caption = "Training accuracy in percent by instance, means of 500 updates (Santoro et al. 2016, figure 2)"
    return report.Table(caption, tuple(f"{u:,}".replace(",", " ") for u in points), tuple(rows))


def readings() -> report.Table:
    """The other readings of MANN beside the one of table 1, on the held-out training classes."""
    instances = ledger.paper_numbers("mann")["table1"]["instances"]
    rows = report.validation_rows("mann.table1", "mann", "as in table 1", instances, ("paper", "short"))
    for variant, label in READING_LABELS.items():
        rows += report.validation_rows("mann.readings", variant, label, instances, ("paper", "short"))
    caption = (
        "Accuracy in percent by instance on the classes held out for validation, at a run's last validation: "
        "one thing is read another way in each row"
    )
    return report.Table(caption, tuple(report.ordinal(k) for k in instances), tuple(rows))


EXPERIMENTS = (
    Experiment(
        name="mann.table1",
        paper=PAPER,
        title="Omniglot, five classes an episode, one-hot labels: test accuracy by instance",
        variants=tuple(ROWS),
        run=run,
        config=lambda variant, profile: asdict(config(variant, profile)),
        table=table1,
        costs=COSTS,
        wanted=(("mann", 0), ("lstm", 0), ("feedforward", 0), ("mann", 1), ("lstm", 1), ("feedforward", 1)),
        verify=verify,
        run_together=run_together,
    ),
    Experiment(
        name="mann.figure2",
        paper=PAPER,
        title="Omniglot, five classes an episode: accuracy by instance during training (a: LSTM, b: MANN)",
        variants=("lstm", "mann"),
        run=run,
        config=lambda variant, profile: asdict(config(variant, profile)),
        table=figure2,
        costs=COSTS,
        drawn_from="mann.table1",
    ),
    Experiment(
        name="mann.readings",
        paper=PAPER,
        title="Omniglot as in table 1: MANN with other readings of the paper's text",
        variants=tuple(READINGS),
        run=partial(run, experiment="mann.readings"),
        config=lambda variant, profile: asdict(config(variant, profile)),
        table=readings,
        costs=COSTS,
        wanted=tuple((variant, 0) for variant in READINGS),
        verify=verify,
        run_together=partial(run_together, experiment="mann.readings"),
    ),
)
