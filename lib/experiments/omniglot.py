"""Omniglot classification: from a config to its learner, its episodes, its record and the check of its checkpoint.

Reading notes. An «episode» of the 100 000 is read as one update on a minibatch of 16 sequences. The last 50 of the 1200
training classes are held out to validate on, so 1150 are trained on. The 423 test
classes were scored where a run stood; that the first reading of MANN fell short on them made us try others, but which
one to take was chosen without them.
"""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from lib import ledger
from lib.baselines.feedforward import FeedForward, FeedForwardConfig
from lib.baselines.lstm import LSTM, LSTMConfig
from lib.baselines.ntm import NTM, NTMConfig
from lib.config import added, to_dict
from lib.data import load_characters
from lib.data.store import TRAINING_CLASSES, Characters
from lib.experiments import mini_mnist, runs
from lib.experiments.base import Experiment, RunOptions
from lib.experiments.mini_mnist import MiniMNISTConfig
from lib.inspector.trace import Trace
from lib.inspector.trace import record as record_episode
from lib.methods.controller import glorot
from lib.methods.flmn import FLMN, FLMNConfig
from lib.methods.mann import MANN, MANNConfig
from lib.methods.online import OnlineLearner
from lib.report import Table
from lib.tasks.classification import ClassificationTask
from lib.tasks.curriculum import CurriculumConfig, CurriculumSampler
from lib.tasks.episodes import EpisodeConfig, EpisodeSampler
from lib.tasks.images import ImageBank
from lib.tasks.labels import make_labels
from lib.training import TrainingConfig, evaluate, pick_device

VALIDATION_CLASSES = 50
TRACED = {("mann.table1", "mann"), ("flmn.table1", "mann-1"), ("flmn.table1", "flmn-1")}  # shown in the laboratories
EVALUATION_SEED = 0  # the same test episodes for every method and seed
LEARNERS = {
    FeedForwardConfig: FeedForward,
    FLMNConfig: FLMN,
    LSTMConfig: LSTM,
    MANNConfig: MANN,
    NTMConfig: NTM,
}


@dataclass(frozen=True)
class OmniglotConfig:
    """One run: a learner, its episodes, its training and its test."""

    learner: FeedForwardConfig | FLMNConfig | LSTMConfig | MANNConfig | NTMConfig
    episodes: EpisodeConfig = field(default_factory=EpisodeConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    test_batches: int = 125
    """Minibatches of 16 test episodes: 2000 episodes, 10 000 images for each instance that all classes reach."""
    curriculum: CurriculumConfig | None = added(None)
    """Where the number of classes grows during training; `episodes` then says all else."""
    training_classes: int = added(TRAINING_CLASSES)
    """How many of Omniglot's 1623 characters, by number, are trained on or validated with; tests use the others."""
    split: Literal["by-number", "shuffled"] = added("by-number")
    """`by-number`: whole alphabets are kept for the test; `shuffled`: any characters, so that their likes were seen."""
    initial_weights: Literal["pytorch", "glorot"] = added("pytorch")
    """Of a learner with an LSTM: PyTorch's default, or see `lib/methods/controller.py`."""
    short_updates: int | None = added(None)
    """Of the short profile, where 5000, or 12 000 with strings, do not fit."""
    mini_mnist: MiniMNISTConfig | None = added(None)
    """Also test on digits, which training never showed."""


def in_profile(paper: OmniglotConfig, profile: str) -> OmniglotConfig:
    """A config of the paper profile, cut down to another."""
    if profile == "paper":
        return replace(paper, short_updates=None)
    if profile == "short":
        training = replace(paper.training, updates=5_000, validate_every=2_500)
        if paper.episodes.strings:  # with 3125 labels it takes longer before anything is learnt
            training = replace(paper.training, updates=12_000, validate_every=4_000)
        if paper.short_updates:
            training = replace(training, updates=paper.short_updates)
        curriculum = paper.curriculum and CurriculumConfig(first=5, every=1_000, tests=(10, 15, 20, 25, 30, 40, 50))
        return replace(paper, training=training, test_batches=30, curriculum=curriculum, short_updates=None)
    training = replace(
        paper.training, updates=20, log_every=10, validate_every=20, validation_batches=1, checkpoint_every=10
    )
    curriculum = paper.curriculum and CurriculumConfig(first=3, every=5, tests=(6, 8), test_batches=1)
    digits = paper.mini_mnist and replace(paper.mini_mnist, draws=2, batches=1)
    changes = {"test_batches": 2, "curriculum": curriculum, "mini_mnist": digits, "short_updates": None}
    return replace(paper, training=training, **changes)


def build_learner(config: OmniglotConfig, seed: int) -> OnlineLearner:
    """A learner with fresh weights, a function of (config, seed)."""
    return runs.fresh(lambda: make_learner(config), seed)


def make_learner(config: OmniglotConfig) -> OnlineLearner:
    """A learner with fresh weights from PyTorch's global generator."""
    learner = LEARNERS[type(config.learner)](config.learner)
    if config.initial_weights == "glorot":
        glorot(learner)
    return learner


def build_task(config: OmniglotConfig, characters: Characters, seed: int, device: torch.device) -> ClassificationTask:
    """Training, validation and test episodes over disjoint classes."""
    training, test = characters.train_test_split(config.training_classes, config.split == "shuffled")
    held_out = min(VALIDATION_CLASSES, len(training) // 4)
    final = config.curriculum.episodes(config.training.updates, config.episodes) if config.curriculum else None

    def sampler(classes, seed: int, stream: str) -> EpisodeSampler | CurriculumSampler:
        bank = ImageBank(characters.images(classes), device)
        if config.curriculum and stream == "train":
            return CurriculumSampler(bank, config.curriculum, config.episodes, seed=seed, stream=stream)
        return EpisodeSampler(bank, final or config.episodes, seed=seed, stream=stream)

    return ClassificationTask(
        train=sampler(training[:-held_out], seed, "train"),
        validation=sampler(training[-held_out:], EVALUATION_SEED, "validation"),
        test=sampler(test, EVALUATION_SEED, "test"),
        labels=make_labels(config.learner.labels, config.learner.classes),
    )


def test_scores(config: OmniglotConfig, task: ClassificationTask, learner: OnlineLearner, progress: bool) -> dict:
    """Loss and accuracy by instance on the test classes; for a curriculum also with more classes than were trained."""

    def score(sampler: EpisodeSampler, batches: int) -> dict:
        wipe = config.training.wipe_memory
        return evaluate(learner, task, sampler, batches, progress=progress, wipe_memory=wipe)

    metrics = score(task.test, config.test_batches)
    if config.curriculum:
        by_classes = {}
        for classes in config.curriculum.tests:
            episodes = replace(config.episodes, classes=classes, length=10 * classes)
            sampler = EpisodeSampler(task.test.bank, episodes, seed=EVALUATION_SEED, stream=f"test {classes}")
            by_classes[str(classes)] = score(sampler, config.curriculum.test_batches)
        metrics["by_classes"] = by_classes
    if config.mini_mnist:
        metrics["mini_mnist"] = mini_mnist.scores(config.mini_mnist, config.episodes, task, learner, progress)
    return metrics


def ready(
    experiment: str, paper: OmniglotConfig, variant: str, profile: str, seeds: list[int], options: RunOptions
) -> list[runs.Run]:
    """A run for each seed, on one bank of images; `paper` is their config at the paper profile."""
    config, characters = in_profile(paper, profile), load_characters()
    task = build_task(config, characters, seeds[0], pick_device(options.device))

    def ready_for(seed: int) -> runs.Run:
        train = copy(task.train)
        train.seed = seed
        own = replace(task, train=train)
        return runs.Run(
            experiment=experiment,
            variant=variant,
            profile=profile,
            seed=seed,
            options=options,
            config=config,
            data={"name": characters.name, "sha256": characters.digest, "is_standin": characters.is_standin},
            task=own,
            build=lambda: make_learner(config),
            test=lambda learner: test_scores(config, own, learner, options.progress),
            after=partial(save_trace, own) if (experiment, variant) in TRACED else None,
        )

    return [ready_for(seed) for seed in seeds]


def save_trace(task: ClassificationTask, record: ledger.Record, learner: OnlineLearner) -> Path:
    """Keep what the learner does to its memory over the first test episode, for the laboratory. Returns its path."""
    episode = task.test.batch(0, 1)
    xs = (episode.xs * 255).round() / 255  # a trace keeps images as bytes: whoever runs it again gets the same answers
    title = f"{type(learner).__name__}, {record.profile} profile, after {record.updates:,} updates".replace(",", " ")
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


def load_trained(paper: OmniglotConfig, record: ledger.Record, device: torch.device | str = "cpu") -> OnlineLearner:
    """The learner of a record that keeps its weights. Raises CheckpointError if the file is not the recorded one."""
    return runs.load_weights(record, build_learner(in_profile(paper, record.profile), record.seed)).to(device)


def verify(configs: dict[str, OmniglotConfig], record: ledger.Record, device: str) -> tuple[bool | None, str]:
    """Test a committed checkpoint on the recorded episodes again, see `verify_weights`."""
    config = in_profile(configs[record.variant], record.profile)

    def test(learner: OnlineLearner, characters: Characters) -> dict:
        task = build_task(config, characters, record.seed, pick_device(device))
        return test_scores(config, task, learner, progress=False)

    return verify_weights(record, config, lambda: make_learner(config), test, device)


def verify_weights(
    record: ledger.Record,
    config: Any,
    build: Callable[[], nn.Module],
    test: Callable[[Any, Characters], dict],
    device: str,
) -> tuple[bool | None, str]:
    """Whether a record's committed weights score as recorded; accuracies may differ by rounding, 0.2 points.

    None in place of a verdict where only other data than the recorded one is at hand. config: what the code has for the
    record; build: makes what was trained; test: from it and the characters to its metrics.
    """
    trained = runs.restore(record, config, build, device)
    if isinstance(trained, str):
        return False, trained
    characters = load_characters()
    if characters.digest != record.data["sha256"]:
        return (
            None,
            f"not tested: it needs {record.data['name']}, and only {characters.name} is here (set BOOK_DATA_DIR)",
        )
    found = test(trained, characters)
    pairs = list(zip(found["accuracy"], record.metrics["accuracy"], strict=True))
    for classes, score in record.metrics.get("by_classes", {}).items():
        pairs += zip(found["by_classes"][classes]["accuracy"], score["accuracy"], strict=True)
    difference = max(abs(a - b) for a, b in pairs if a is not None and b is not None)
    return difference <= 0.002, f"largest difference of an accuracy {100 * difference:.3f} points"


def omniglot_experiment(
    name: str,
    paper: str,
    title: str,
    configs: dict[str, OmniglotConfig],
    table: Callable[[], Table],
    costs: dict[str, str],
    wanted: tuple[tuple[str, int], ...],
) -> Experiment:
    """An experiment whose variants are configs, given at the paper profile."""

    def config(variant: str, profile: str) -> dict[str, Any]:
        return to_dict(in_profile(configs[variant], profile))

    def run_variant(variant: str, profile: str, seed: int, options: RunOptions) -> ledger.Record | None:
        return runs.run_alone(ready(name, configs[variant], variant, profile, [seed], options)[0])

    def run_variants(variant: str, profile: str, seeds: list[int], options: RunOptions) -> list[ledger.Record]:
        return runs.run_together(ready(name, configs[variant], variant, profile, seeds, options))

    return Experiment(
        name=name,
        paper=paper,
        title=title,
        variants=tuple(configs),
        run=run_variant,
        run_together=run_variants,
        config=config,
        table=table,
        costs=costs,
        wanted=wanted,
        verify=partial(verify, configs),
    )
