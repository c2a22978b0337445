"""Shankar & Sarawagi 2018, table 2: online sequence prediction by six methods on five data sets, and one more.

| row | learner | what is trained |
| --- | --- | --- |
| `network` | the GRU that LMN adapts, alone (not in the paper's table) | all of it |
| `lstm` | an LSTM of 5 times its recurrent parameters | all of it |
| `rei` | an LSTM, one vector of which goes on learning | all of it |
| `maml`, `maml-2` | an LSTM all of whose weights go on learning; of first and of second order | all of it |
| `dntm` | a dynamic Neural Turing Machine as the paper altered it | all of it |
| `lmn-fixed` | the GRU of `network` with a labelled memory, θ constant | nothing: θ and margin are chosen |
| `lmn` | the same with the combiner | the combiner |

Every method is tuned alike. The first seed tries `TRIALS` settings on the validation sequences, each trained for
`trial_updates`; all seeds train with the best. Training stops to count where validation was best. Test sequences are
looked at once, by what was chosen. LMN had more: its λ and δ, and the ranges of its θ and margin, were laid down after
some sixty settings of LMN-fixed were looked at on the validation sequences of New York; of the other methods the ranges
were laid down before. Rei's rates and the θ of LMN-fixed were moved once, after their best were at the ends of their
ranges on nearly all data sets; the test sequences had been looked at by then.
"""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lib import ledger
from lib.baselines.dntm import DNTM, DNTMConfig
from lib.baselines.maml import MAML, MAMLConfig
from lib.baselines.rei import Rei, ReiConfig
from lib.baselines.sequence import TokenNetwork, TokenNetworkConfig
from lib.config import to_dict
from lib.data.sequences import Sequences, load_sequences
from lib.experiments import lmn_sequence_tables as tables
from lib.experiments import runs
from lib.experiments.base import Experiment, RunOptions
from lib.experiments.lmn_sequence_configs import (
    CONFIGS,
    TRAINED_AS,
    SequencesConfig,
    chosen,
    described,
    in_profile,
    tested,
    with_labels,
)
from lib.experiments.lmn_table1 import PAPER
from lib.methods.lmn import LMN, LMNConfig
from lib.report import Table
from lib.tasks.streams import StreamSampler, StreamTask, WholeStreams
from lib.training import evaluate, pick_device, train
from lib.training.checkpoint import CheckpointError, load_checkpoint, read_details, save_checkpoint
from lib.training.loop import TrainingResult

MOST_KEPT = 1_000_000  # weights that a record keeps: 4 MB
TOLERANCE = 0.002  # nats; of a committed checkpoint, for rounding on another machine
TEST_BATCH = 16
BUILDERS: dict[type, Callable[[Any], nn.Module]] = {ReiConfig: Rei, MAMLConfig: MAML, DNTMConfig: DNTM}


def build_task(config: SequencesConfig, sequences: Sequences, seed: int, device: torch.device) -> StreamTask:
    """Windows to train on, whole sequences to validate and to test on."""
    limit = 40 if config.test_steps else None  # the smoke profile looks at some
    train, validation, test = (list(part)[:limit] for part in (sequences.train, sequences.validation, sequences.test))
    return StreamTask(
        train=StreamSampler(train, config.steps, seed, "train", device),
        validation=WholeStreams(validation, device, config.test_steps),
        test=WholeStreams(test, device, config.test_steps),
    )


class OutOfTime(Exception):
    """The minutes of a run are over; its argument says how far training was."""


@dataclass(frozen=True)
class Workplace:
    """What all the work of one run shares."""

    data: dict[str, Any]
    sequences: Sequences
    options: RunOptions
    device: torch.device
    folder: Path
    """For what is in progress or may be used again by other runs."""
    until: float
    """A `time.monotonic()` after which training stops, to go on another time."""

    def task(self, config: SequencesConfig, seed: int) -> StreamTask:
        """The task of a seed."""
        return build_task(config, self.sequences, seed, self.device)


def build(config: SequencesConfig, seed: int, workplace: Workplace) -> nn.Module:
    """A fresh learner; LMN's network is trained first, where it is not yet."""
    if not isinstance(config.learner, LMNConfig):
        return plain_learner(config.learner, seed)
    network = trained_network(config.network, seed, workplace)
    return LMN(network, config.learner)


def plain_learner(config: Any, seed: int) -> nn.Module:
    """A learner that stands on no other; the seed is that of dropout."""
    if isinstance(config, TokenNetworkConfig):
        return TokenNetwork(config, seed)
    return BUILDERS[type(config)](config)


def trained_network(config: SequencesConfig, seed: int, workplace: Workplace) -> TokenNetwork:
    """The network that LMN adapts, of this seed: trained once, for LMN and for its own row."""
    setting, _ = tuned("network", config, workplace)
    own = chosen(config, setting)
    network = runs.fresh(lambda: TokenNetwork(own.learner, seed), seed).to(workplace.device)
    fit(network, own, seed, workplace, f"network-{seed}")
    return network


def fit(
    learner: nn.Module, config: SequencesConfig, seed: int, workplace: Workplace, name: str
) -> tuple[TrainingResult, float]:
    """Train, and load the weights of the best validation; how training went, and that validation's log-perplexity.

    Goes on from where it was left; raises OutOfTime where the run's minutes are over.
    """
    task, folder, options = workplace.task(config, seed), workplace.folder / name, workplace.options
    validations = task.validation.batches(TEST_BATCH)
    if not any(parameter.requires_grad for parameter in learner.parameters()):
        started = time.monotonic()
        score = evaluate(learner, task, task.validation, validations, TEST_BATCH)["log_perplexity"]
        return TrainingResult(0, True, time.monotonic() - started, []), score
    identity = {"config": to_dict(replace(config, test_states=None)), "data": workplace.data, "seed": seed}
    best = folder / "best.safetensors"
    lowest = read_details(best)["log_perplexity"] if best.exists() else math.inf

    def keep_best(line: dict[str, Any]) -> None:
        # Called before the checkpoint of the same update: after a kill between, the same score comes again.
        nonlocal lowest
        if (score := line["validation"]["log_perplexity"]) < lowest:
            lowest = score
            save_checkpoint(best, learner, {"update": line["update"], "log_perplexity": score})

    result = train(
        learner,
        task,
        replace(config.training, validation_batches=validations),
        folder=folder,
        identity=identity,
        unroll="plain",
        progress=options.progress,
        until=workplace.until,
        on_log=keep_best,
    )
    if not result.complete:
        raise OutOfTime(result)
    load_checkpoint(best, learner)
    return result, lowest


def tuned(method: str, config: SequencesConfig, workplace: Workplace) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The best of a method's settings on the validation sequences, by the first seed; and how each of them did."""
    tried = []
    for index, setting in enumerate(config.settings):
        trial = chosen(config, setting)
        trial = replace(trial, training=replace(trial.training, updates=config.trial_updates))
        learner = runs.fresh(lambda trial=trial: build(trial, 0, workplace), 0).to(workplace.device)
        _, score = fit(learner, trial, 0, workplace, f"{method}-trial-{index}")
        tried.append({"setting": setting, "validation_log_perplexity": score})
    best = min(tried, key=lambda each: each["validation_log_perplexity"])
    return best["setting"], tried


def run(experiment: str, variant: str, profile: str, seed: int, options: RunOptions) -> ledger.Record | None:
    """Tune, train, test and record one row."""
    paper = CONFIGS[experiment][variant]
    sequences = load_sequences(paper.data)
    method = TRAINED_AS.get(variant, variant.removeprefix(f"{paper.data}-"))
    config = with_labels(in_profile(paper, profile), sequences.labels)
    data = {"name": sequences.name, "sha256": sequences.digest, "is_standin": sequences.is_standin}
    name = ledger.record_name(experiment, variant, profile, seed)
    ledger.refuse_stand_in(name, data)
    device = pick_device(options.device)
    place = options.runs / tables.NAME / f"{sequences.name.replace(' ', '-')}-{profile}"
    until = math.inf if options.minutes is None else time.monotonic() + 60 * options.minutes
    workplace = Workplace(data, sequences, options, device, place, until)
    record = partial(
        ledger.Record,
        experiment=experiment,
        variant=variant,
        profile=profile,
        seed=seed,
        config=described(config),
        machine=ledger.describe_machine(device),
        commit=ledger.code_commit(),
        data=data,
    )
    try:
        setting, tried = tuned(method, config, workplace)
        own = chosen(config, setting)
        learner = runs.fresh(lambda: build(own, seed, workplace), seed).to(device)
        result, validation = fit(learner, own, seed, workplace, f"{method}-{seed}")
        if own.test_states:
            own = tested(own)
            learner.config = own.learner
    except OutOfTime as stopped:
        (reached,) = stopped.args
        return record(metrics={}, updates=reached.updates, complete=False, seconds=reached.seconds)
    task = workplace.task(own, seed)
    metrics = evaluate(learner, task, task.test, task.test.batches(TEST_BATCH), TEST_BATCH, options.progress)
    metrics |= {"validation_log_perplexity": validation, "setting": setting, "tuning": tried}
    kept = record(
        metrics=metrics | {"labels": sequences.labels, "source": sequences.source},
        updates=result.updates,
        complete=True,
        seconds=result.seconds,
        curve=runs.curve_of(result.log),
        checkpoint=keep(learner, name, own) if options.keep_checkpoint else None,
    )
    ledger.save_record(kept)
    return kept


def keep(learner: nn.Module, name: str, config: SequencesConfig) -> dict[str, str] | None:
    """Keep the weights with the record; None where they are too many for that."""
    if sum(parameter.numel() for parameter in learner.parameters()) > MOST_KEPT:
        return None
    path = runs.kept_path(name)
    digest = save_checkpoint(path, learner, {"identity": {"run": name, "config": to_dict(config)}})
    return {"file": path.relative_to(ledger.ROOT).as_posix(), "sha256": digest}


def restored(record: ledger.Record, device: str | torch.device = "cpu") -> nn.Module:
    """The learner of a record that keeps its weights. Raises CheckpointError if the file is not the recorded one."""
    config = in_profile(CONFIGS[record.experiment][record.variant], record.profile)
    own = tested(chosen(with_labels(config, record.metrics["labels"]), record.metrics["setting"]))
    if isinstance(own.learner, LMNConfig):
        learner = LMN(TokenNetwork(own.network.learner), own.learner)
    else:
        learner = plain_learner(own.learner, record.seed)
    return runs.load_weights(record, learner).to(device)


def verify(record: ledger.Record, device: str) -> tuple[bool | None, str]:
    """Test a committed checkpoint on the recorded sequences again; log-perplexity may differ by rounding."""
    config = in_profile(CONFIGS[record.experiment][record.variant], record.profile)
    sequences = load_sequences(config.data)
    if sequences.digest != record.data["sha256"]:
        return None, f"not tested: it needs {record.data['name']}, and only {sequences.name} is here"
    if record.config != json.loads(json.dumps(described(config))):
        return False, "its config is not the one that the code now has"
    try:
        learner = restored(record, pick_device(device))
    except CheckpointError as error:
        return False, str(error)
    task = build_task(config, sequences, record.seed, pick_device(device))
    found = evaluate(learner, task, task.test, task.test.batches(TEST_BATCH), TEST_BATCH)["log_perplexity"]
    difference = abs(found - record.metrics["log_perplexity"])
    return difference <= TOLERANCE, f"log-perplexity differs by {difference:.5f} nats"


def experiment_of(name: str, title: str, table: Callable[[], Table]) -> Experiment:
    """An experiment whose variants are configs, given at the paper profile."""
    configs = CONFIGS[name]
    return Experiment(
        name=name,
        paper=PAPER,
        title=title,
        variants=tuple(configs),
        run=partial(run, name),
        config=lambda variant, profile: described(in_profile(configs[variant], profile)),
        table=table,
        costs={"smoke": "10 s", "short": "2 to 30 minutes, by data", "paper": "15 minutes to some hours"},
        wanted=tuple((variant, seed) for seed in range(3) for variant in configs),
        verify=verify,
    )


EXPERIMENTS = (
    experiment_of(tables.NAME, "Online sequence prediction: log-perplexity and mean reciprocal rank", tables.table2),
    experiment_of(tables.READINGS, "What the paper leaves open about LMN, one choice at a time", tables.readings),
)
