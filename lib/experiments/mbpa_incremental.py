"""Sprechmann et al. 2018, table 1 and figures 4 and 5: new classes are met by a network that knows others.

A residual network learns half of the classes. Then pictures of all classes are shown, minibatch by minibatch; its last
layer, to which a row for each new class was added, goes on learning, and each picture's features are written to the
memory with its class. At some points on the way four models answer for the test pictures:

| model | answer |
| --- | --- |
| `parametric` | the last layer |
| `non-parametric` | the memory: what the K nearest bear, by their weights (equation 9) |
| `mixture` | λ of the first and 1 - λ of the second (equation 5) |
| `mbpa` | the last layer, fitted by RMSprop to the K nearest |

The features stay as they are, since only «the last layer» is fine-tuned, and are computed once. Settings are chosen on
the validation pictures of split 0, by the mean accuracy over all classes at the table's epochs; a run of seed s is of
split s + 1, tested on the test pictures. What the paper leaves open is told in the config's fields.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lib import ledger
from lib.atomic import write_atomically
from lib.baselines.resnet import ResNet, ResNetConfig
from lib.config import to_dict
from lib.experiments import mbpa_incremental_tables as tables
from lib.experiments import runs
from lib.experiments.base import Experiment, RunOptions
from lib.experiments.mbpa_incremental_configs import BALANCED, CONFIGS, UNBALANCED, IncrementalConfig, in_profile
from lib.experiments.mbpa_split import QUERIES_AT_ONCE, Answer, Split, measure, worked_example
from lib.experiments.mbpa_tables import PAPER
from lib.tasks.incremental import ClassPictures, PictureSet, as_floats, picture_set, split_classes
from lib.tasks.online_tasks import ImageTask
from lib.training import TrainingConfig, pick_device, train
from lib.training.checkpoint import load_checkpoint, read_details, save_checkpoint

TUNED_SPLIT = 0


@dataclass(frozen=True)
class Chosen:
    """Settings that did best on the validation pictures of split 0."""

    rate: float
    """Of the last layer's optimizer."""
    answers: tuple[Answer, ...]
    """One of each model."""
    tried: dict[str, list[dict[str, Any]]]
    """Model to settings with their validation accuracy."""


def choose(split: Split, progress: bool) -> Chosen:
    """The rate by the last layer alone; then, with it, the best setting of each other model."""
    config, tried = split.config, {}
    at = [epoch for epoch in config.epochs if epoch in tables.EPOCHS]

    def scores(rate: float, answers: Sequence[Answer], what: str) -> list[float]:
        found = measure(
            split, rate, answers, at, "validation", config.tuned_on, progress=f"choosing {what}" if progress else ""
        )
        return [sum(each["all"]) / len(at) for each in found]

    plain = Answer("parametric")
    by_rate = [scores(rate, [plain], "the rate")[0] for rate in config.rates]
    rate = config.rates[by_rate.index(max(by_rate))]
    tried["parametric"] = [
        {"rate": each, "validation_accuracy": score} for each, score in zip(config.rates, by_rate, strict=True)
    ]
    ranges = {
        "non-parametric": [Answer("non-parametric", k) for k in config.neighbours],
        "mixture": [Answer("mixture", k, share) for k in config.neighbours for share in config.shares],
        "mbpa": [Answer("mbpa", k, steps=steps, rate=each) for k, steps, each in config.fits],
    }
    best = [plain]
    for model, answers in ranges.items():
        found = scores(rate, answers, model)
        best.append(answers[found.index(max(found))])
        tried[model] = [
            {"setting": to_dict(answer), "validation_accuracy": score}
            for answer, score in zip(answers, found, strict=True)
        ]
    return Chosen(rate, tuple(best), tried)


@dataclass(frozen=True)
class Pretraining:
    """All that the training of the network depends on."""

    pictures: str
    size: int
    held_out: float
    network: ResNetConfig
    training: TrainingConfig
    shift: int


def split_of(
    name: str, profile: str, config: IncrementalConfig, number: int, options: RunOptions, recorded_as: str = ""
) -> Split | None:
    """A split with its trained network and its features; what was trained before is taken from the folder of runs.

    name: of the data set among `CONFIGS`. recorded_as: a record that must not be replaced by one of a stand-in. None if
    the time that `options` allow did not do for the training, which can be resumed.
    """
    pictures = picture_set(config.pictures, config.size, config.held_out, pick_device(options.device))
    if recorded_as:
        ledger.refuse_stand_in(recorded_as, pictures.data)  # before the work, not after it
    old, new = split_classes(pictures.classes, number)
    network = replace(config.network, labels=len(old), channels=pictures.images.shape[1])
    task = ImageTask(
        ClassPictures(pictures, "train", old, number, config.shift), ClassPictures(pictures, "validation", old, None)
    )
    same = Pretraining(config.pictures, config.size, config.held_out, network, config.training, config.shift)
    run = runs.Run(
        experiment=tables.TABLE1,
        variant=name,
        profile=profile,
        seed=number,
        options=replace(options, unroll="plain"),
        config=config,
        data=pictures.data,
        task=task,
        build=lambda: ResNet(network),
        test=lambda network: {},
        trained_as=(f"network-{name}", same),
    )
    folder = run.in_progress.parent
    done = train(run.learner, task, config.training, folder=folder, identity=run.identity, **run.training_options())
    if not done.complete:
        return None
    features = features_of(run.learner, pictures, folder, run.identity)
    return Split(config, number, pictures, features, run.learner, old, new)


@torch.no_grad()
def features_of(
    network: ResNet, pictures: PictureSet, folder: Path, identity: dict[str, Any]
) -> Float[Tensor, "pictures width"]:
    """f_γ of every picture, computed once and kept in a folder."""
    path = folder / "features.safetensors"
    kept = nn.Module()
    kept.register_buffer(
        "features", pictures.images.new_zeros(len(pictures.images), network.output.in_features).float()
    )
    if path.exists() and read_details(path)["identity"] == json.loads(json.dumps(identity)):
        load_checkpoint(path, kept)
        return kept.features
    network.eval()
    for at in range(0, len(pictures.images), QUERIES_AT_ONCE):
        kept.features[at : at + QUERIES_AT_ONCE] = network.embed(as_floats(pictures.images[at : at + QUERIES_AT_ONCE]))
    save_checkpoint(path, kept, {"identity": identity})
    return kept.features


def chosen(
    name: str, profile: str, config: IncrementalConfig, options: RunOptions, data: dict[str, Any]
) -> Chosen | None:
    """`choose` on split 0 of a data set, or what was chosen before, from the folder of runs; None if there was no time
    for it. data: of its pictures."""
    path = options.runs / tables.TABLE1 / f"chosen-{name}-{profile}.json"
    key = json.loads(json.dumps({"config": to_dict(config), "data": data}))
    if path.exists():
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["key"] == key:
            return Chosen(kept["rate"], tuple(Answer(**answer) for answer in kept["answers"]), kept["tried"])
    split = split_of(name, profile, config, TUNED_SPLIT, options)
    if split is None:
        return None
    found = choose(split, options.progress)
    content = json.dumps({"key": key, **to_dict(found)})
    write_atomically(path, lambda file: file.write(content.encode()))
    return found


def network_accuracy(split: Split) -> float:
    """Of the trained network, among the old classes alone, on their test pictures."""
    positions = split.pictures.of("test", split.old)
    with torch.no_grad():
        named = split.old.to(positions.device)[split.network.output(split.features[positions]).argmax(1)]
    return (named == split.pictures.labels[positions]).float().mean().item()


def save(
    experiment: str,
    variant: str,
    profile: str,
    seed: int,
    split: Split,
    metrics: dict[str, Any],
    started: float,
    config: Any = None,
) -> ledger.Record:
    """Record what was measured on a split. config: of the run, where it is not the split's."""
    return runs.recorded(
        experiment,
        variant,
        profile,
        seed,
        config or split.config,
        metrics,
        data=split.pictures.data,
        device=split.features.device,
        seconds=time.monotonic() - started,
        updates=split.config.training.updates,
    )


def prepared(
    experiment: str, variant: str, name: str, profile: str, seed: int, config: IncrementalConfig, options: RunOptions
) -> tuple[Split, Chosen] | None:
    """What a run begins with: the split of its seed, and the settings chosen on split 0 for table 1; None if there was
    no time for it."""
    recorded_as = ledger.record_name(experiment, variant, profile, seed)
    split = split_of(name, profile, config, seed + 1, options, recorded_as)
    if split is None:
        return None
    best = chosen(name, profile, in_profile(CONFIGS[name], profile), options, split.pictures.data)
    return (split, best) if best else None


def run_with(experiment: str, configs: dict[str, IncrementalConfig]) -> Callable[..., ledger.Record]:
    """What `Experiment.run` is of table 1 and of figure 5."""

    def run(variant: str, profile: str, seed: int, options: RunOptions) -> ledger.Record | None:
        config, started = in_profile(configs[variant], profile), time.monotonic()
        ready = prepared(experiment, variant, tables.data_of(variant), profile, seed, config, options)
        if ready is None:
            return None
        split, best = ready
        progress = "testing" if options.progress else ""
        found = measure(split, best.rate, best.answers, config.epochs, "test", config.tested_on, progress=progress)
        metrics = {
            "epochs": list(config.epochs),
            "accuracy": {answer.model: each for answer, each in zip(best.answers, found, strict=True)},
            "setting": {"rate": best.rate, **{answer.model: to_dict(answer) for answer in best.answers}},
            "tuning": best.tried,
            "network_accuracy": network_accuracy(split),
            "shown": len(split.shown()),
            "tested": len(split.queries("test", config.tested_on)),
        }
        if config.scarce < 1:
            metrics["example"] = worked_example(split, best.rate, best.answers, config.epochs[-1])
        return save(experiment, variant, profile, seed, split, metrics, started)

    return run


FIGURE5 = UNBALANCED | BALANCED
COSTS = {
    "smoke": "10 s",
    "short": "10 to 20 min, and as much for the first split, which all seeds share",
    "paper": "an hour on a GPU",
}
EXPERIMENTS = (
    Experiment(
        name=tables.TABLE1,
        paper=PAPER,
        title="Half of the classes are new: four models on the way, new and old classes apart",
        variants=tuple(CONFIGS),
        run=run_with(tables.TABLE1, CONFIGS),
        config=lambda variant, profile: to_dict(in_profile(CONFIGS[variant], profile)),
        table=tables.table1,
        costs=COSTS,
        wanted=tuple((variant, seed) for seed in range(4) for variant in ("tiny-imagenet", "omniglot")),
    ),
    Experiment(
        name=tables.FIGURE4,
        paper=PAPER,
        title="The curves behind table 1",
        variants=tuple(CONFIGS),
        run=None,
        config=lambda variant, profile: to_dict(in_profile(CONFIGS[variant], profile)),
        table=tables.figure4,
        costs={profile: "nothing: it shows table 1's runs" for profile in COSTS},
        drawn_from={name: (tables.TABLE1, name) for name in CONFIGS},
    ),
    Experiment(
        name=tables.FIGURE5,
        paper=PAPER,
        title="A tenth of the pictures of half the new classes; and one query, worked out",
        variants=tuple(FIGURE5),
        run=run_with(tables.FIGURE5, FIGURE5),
        config=lambda variant, profile: to_dict(in_profile(FIGURE5[variant], profile)),
        table=tables.figure5,
        costs=COSTS,
        wanted=tuple((variant, seed) for seed in range(4) for variant in FIGURE5),
    ),
)
