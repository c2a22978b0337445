"""Sprechmann et al. 2018, figure 3: permuted MNIST, one task after the other, and what is left of the earlier ones.

| row | weights | memory |
| --- | --- | --- |
| `mlp` | a two-layer network trained by Adam on each task in turn | none |
| `ewc` | the same, held in place by elastic weight consolidation | none |
| `mbpa-N` | those of `mlp` | N examples of each task, whose nearest neighbours the network is fitted to |
| `random-N` | those of `mlp` | the same, but neighbours are drawn at random |
| `fresh-N` | fresh, never trained | as `mbpa-N`: what neighbours alone make of a network (not in the figure) |
| `memory-N` | none | the same; what the nearest bear is the answer (equation 9; not in the figure) |
| `ewc-mbpa-N` | those of `ewc` | as `mbpa-N` |

f_γ is the identity: keys are pixels, and all weights of the network are fitted. A network is trained once for all rows
that have its weights, and kept as it was after each task. The settings of EWC and of the local fit are chosen by the
first seed, on validation images after the last task; each row has the same grid. All rows of a seed are tested on the
same images.
"""

import itertools
import json
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool
from torch import Tensor, nn
from tqdm import tqdm

from lib import ledger, report
from lib.baselines.ewc import Consolidation, fisher
from lib.config import to_dict
from lib.data.mnist import load_mnist
from lib.experiments import mbpa_tables as tables
from lib.experiments import runs
from lib.experiments.base import Experiment, RunOptions
from lib.memory.episodic import Context, EpisodicMemory
from lib.methods.mbpa import MbPAConfig, fitter, from_memory
from lib.tasks.permutations import Images, PermutationConfig, PermutedDigits
from lib.tasks.seeds import generator
from lib.training import pick_device
from lib.training.checkpoint import load_checkpoint, read_details, save_checkpoint

QUERIES_AT_ONCE = 100


@dataclass(frozen=True)
class PermutedConfig:
    """One row: how the network is trained, and what is kept of each task."""

    tasks: PermutationConfig = field(default_factory=PermutationConfig)
    hidden: int = 400
    """Units of the one hidden layer (paper: «a two layer MLP»)."""
    updates: int = 1_000
    """Of each task (paper: silent): thirteen times its examples."""
    batch_size: int = 128
    learning_rate: float = 1e-3
    """Adam's (paper: silent)."""
    strengths: tuple[float, ...] = ()
    """λ of EWC to choose from; none: no EWC (paper: «a grid search»)."""
    fisher_examples: int = 1_000
    """Of each task, from which EWC's information is estimated (paper: silent)."""
    memory: int = 0
    """Examples kept of each task; 0: the network alone."""
    neighbours: Literal["nearest", "random"] = "nearest"
    """What the network is fitted to; `random`: so many of the memory, all weighted alike."""
    alone: bool = False
    """The memory answers by itself, and no network is fitted."""
    fits: tuple[tuple[int, int, float], ...] = ()
    """(K, T, α) to choose from (paper: T from 1 to 20, α from 0 to 1)."""
    tuned_on: int = 50
    """Validation images of each task on which the local fit is chosen; EWC's strength has all of them."""
    tested_on: int = 1_000
    """Test images of each task, drawn anew for each task and seed, the same for all rows."""
    fresh: bool = False
    """The fit begins from weights that were never trained."""


FITS = tuple(itertools.product((10, 50), (1, 5, 20), (0.01, 0.03, 0.1, 0.3, 1.0)))
STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0, 1_000.0, 10_000.0)
ALONE = tuple((k, 0, 0.0) for k in (1, 3, 10, 50))
MLP, EWC = PermutedConfig(), PermutedConfig(strengths=STRENGTHS)
CONFIGS = {
    "mlp": MLP,
    "ewc": EWC,
    **{f"mbpa-{size}": replace(MLP, memory=size, fits=FITS) for size in tables.SIZES},
    "random-1000": replace(MLP, memory=1_000, neighbours="random", fits=FITS),
    "fresh-1000": replace(MLP, memory=1_000, fresh=True, fits=FITS),
    "memory-1000": replace(MLP, memory=1_000, alone=True, fits=ALONE),
    **{f"ewc-mbpa-{size}": replace(EWC, memory=size, fits=FITS) for size in (100, 1_000)},
}


def in_profile(paper: PermutedConfig, profile: str) -> PermutedConfig:
    """A config of the paper profile, cut down to another."""
    if profile == "paper":
        return paper
    if profile == "short":
        return replace(paper, tested_on=100, tasks=replace(paper.tasks, tasks=10), updates=400)
    tasks = PermutationConfig(tasks=3, examples=200, validation=50, test=50)
    strengths, fits = paper.strengths[:2], paper.fits[::11]
    small = {"hidden": 16, "updates": 20, "batch_size": 32, "fisher_examples": 50, "tuned_on": 5, "tested_on": 10}
    return replace(paper, tasks=tasks, strengths=strengths, fits=fits, memory=min(paper.memory, 100), **small)


def make_network(config: PermutedConfig) -> nn.Sequential:
    """784 pixels, one hidden layer of ReLUs, ten digits; weights from PyTorch's global generator."""
    return nn.Sequential(nn.Linear(784, config.hidden), nn.ReLU(), nn.Linear(config.hidden, 10))


def memory_in_words() -> str:
    """Sentences, in Markdown: how many numbers MbPA and EWC keep at the paper profile (section 4.1: «much lower»)."""
    config = CONFIGS["ewc"]
    weights = sum(weight.numel() for weight in make_network(config).parameters())
    a_picture, tasks = 784 + 1, config.tasks.tasks
    of_sizes = ", ".join(
        f"{report.grouped(size)} examples {report.grouped(size * a_picture)}" for size in tables.SIZES[:4]
    )
    fewer = max(size for size in tables.SIZES if size * a_picture < 2 * weights)
    coefficients = 3 * weights
    return (
        f"Numbers kept for each task: MbPA with {of_sizes}; EWC as the paper describes it, weights and information of "
        f"the {report.grouped(weights)} weights, {report.grouped(2 * weights)}. So MbPA keeps fewer up to "
        f"{report.grouped(fewer)} examples a task. But EWC's penalties are parabolas, which add up: the one here keeps "
        f"{report.grouped(coefficients)} numbers for any number of tasks, fewer than MbPA with {tables.SIZES[0]} "
        f"examples from task {coefficients // (tables.SIZES[0] * a_picture) + 1} of {tasks} on."
    )


@dataclass(frozen=True)
class Workplace:
    """What all the work of one run shares."""

    config: PermutedConfig
    tasks: PermutedDigits
    folder: Path
    """For the networks, which other rows may use, too."""
    device: torch.device
    progress: bool

    def network(self) -> nn.Sequential:
        """Fresh, with the weights that the seed gives."""
        return runs.fresh(lambda: make_network(self.config), self.tasks.seed).to(self.device)


def train_in_turn(workplace: Workplace, strength: float | None) -> tuple[list[nn.Sequential], float]:
    """The network after each task, and the seconds of its training; strength: EWC's λ, None without it.

    What was trained before, by this or another row, is taken from the folder. EWC's information is not kept there, so
    its training begins anew where it was broken off.
    """
    config, tasks = workplace.config, workplace.tasks
    folder = workplace.folder / ("mlp" if strength is None else f"ewc-{strength:g}")
    identity = {"config": to_dict(trained_part(config)), "strength": strength, "seed": tasks.seed}
    paths = [folder / f"task-{task}.safetensors" for task in range(config.tasks.tasks)]
    if all(path.exists() for path in paths) and read_details(paths[-1])["identity"] == identity:
        after_each = [workplace.network() for _ in paths]
        details = [load_checkpoint(path, network) for path, network in zip(paths, after_each, strict=True)]
        return after_each, details[-1]["seconds"]
    start = time.monotonic()
    network, after_each = workplace.network(), []
    optimizer, consolidation = torch.optim.Adam(network.parameters(), lr=config.learning_rate), Consolidation(network)
    for task in tqdm(range(config.tasks.tasks), disable=not workplace.progress, desc=folder.name, leave=False):
        images = tasks.images(task, "train")
        for update in range(config.updates):
            batch = tasks.batch(task, update, config.batch_size, images)
            loss = F.cross_entropy(network(batch.xs), batch.ys)
            if strength is not None and task:
                loss = loss + consolidation.penalty(network, strength)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if strength is not None:
            some = config.fisher_examples
            consolidation.add(network, fisher(network, images.xs[:some], images.ys[:some]))
        after_each.append(workplace.network())
        after_each[-1].load_state_dict(network.state_dict())
        details = {"identity": identity, "seconds": time.monotonic() - start}
        save_checkpoint(paths[task], network, details)
    return after_each, time.monotonic() - start


def trained_part(config: PermutedConfig) -> PermutedConfig:
    """All that the training of a network depends on."""
    tested = {"memory": 0, "neighbours": "nearest", "alone": False, "fits": (), "tuned_on": 0, "tested_on": 0}
    return replace(config, strengths=(), fresh=False, **tested)


def memory_of(workplace: Workplace, tasks: int) -> EpisodicMemory:
    """What is kept of the first so many tasks."""
    config = workplace.config
    like = torch.zeros((), device=workplace.device)
    memory = EpisodicMemory(max(1, config.memory * tasks), 784, like=like)
    for task in range(tasks):
        images = workplace.tasks.images(task, "train")
        memory.append(images.xs[: config.memory], images.ys[: config.memory])
    return memory


@torch.no_grad()
def answers(
    network: nn.Sequential,
    images: Images,
    memory: EpisodicMemory | None,
    fit: MbPAConfig | None,
    config: PermutedConfig,
    seed: int = 0,
    what: str = "",
) -> Bool[Tensor, " images"]:
    """Whether each image is named rightly: by the network, or by the network fitted to what the memory has for it.
    seed, what: by which random neighbours are drawn."""
    if memory is None or fit is None:
        return network(images.xs).argmax(1) == images.ys
    found = []
    for index, xs in enumerate(images.xs.split(QUERIES_AT_ONCE)):
        if config.neighbours == "nearest":
            context = memory.context(xs, fit.neighbours, fit.epsilon)
        else:
            context = random_context(memory, len(xs), fit.neighbours, seed, what, index)
        if config.alone:
            found.append(from_memory(context, network[-1].out_features).argmax(1))
        else:
            found.append(fitter(network, fit, True)(network, xs, context, fit).outputs.argmax(1))
    return torch.cat(found) == images.ys


def random_context(memory: EpisodicMemory, queries: int, k: int, seed: int, what: str, index: int) -> Context:
    """For each query k pairs of the memory, drawn at random and weighted alike: by the seed, what is tested, and a
    number."""
    draws = torch.randint(len(memory), (queries, k), generator=generator(seed, f"random neighbours, {what}", index))
    at = draws.to(memory.keys.device)
    return Context(memory.keys[at], memory.values[at], memory.keys.new_full((queries, k), 1 / k))


def accuracy_on(
    workplace: Workplace, network: nn.Sequential, task: int, fit: MbPAConfig | None, part: str, count: int
) -> list[float]:
    """Of a network as it was after a task: its accuracy on this and each earlier task."""
    memory = memory_of(workplace, task + 1) if fit else None
    found = []
    for earlier in range(task + 1):
        images = some_images(workplace, earlier, part, count)
        what = f"{part} of task {earlier} after {task}"
        found.append(
            answers(network, images, memory, fit, workplace.config, workplace.tasks.seed, what).float().mean().item()
        )
    return found


def some_images(workplace: Workplace, task: int, part: str, count: int) -> Images:
    """So many images of a task, or all, drawn by seed and task."""
    images = workplace.tasks.images(task, part)
    draws = torch.randperm(len(images.ys), generator=generator(workplace.tasks.seed, f"{part} images", task))
    at = draws[:count].to(workplace.device)
    return Images(images.xs[at], images.ys[at])


def of_own_task(workplace: Workplace, fit: MbPAConfig) -> float:
    """After the last task, the share of a test image's nearest neighbours that are of its own task."""
    config, found = workplace.config, []
    memory = memory_of(workplace, config.tasks.tasks)
    for task in range(config.tasks.tasks):
        images = some_images(workplace, task, "test", config.tested_on)
        found.append((memory.nearest(images.xs, fit.neighbours).positions // config.memory == task).float().mean())
    return torch.stack(found).mean().item()


@dataclass(frozen=True)
class Chosen:
    """Settings that did best on validation images of the first seed, and how each did."""

    strength: float | None
    fit: MbPAConfig | None
    tried: dict[str, list[dict[str, Any]]]


def chosen(workplace: Workplace, before: ledger.Record | None) -> Chosen:
    """EWC's strength, then the local fit. before: the first seed's record of the same row, where there is one."""
    if before:
        setting = before.metrics["setting"]
        return Chosen(
            setting["strength"], MbPAConfig(**setting["fit"]) if setting["fit"] else None, before.metrics["tuning"]
        )
    strength, strengths = chosen_strength(workplace)
    fit, fits = chosen_fit(workplace, networks_of(workplace, strength)[0][-1])
    return Chosen(strength, fit, {"strengths": strengths, "fits": fits})


def networks_of(workplace: Workplace, strength: float | None) -> tuple[list[nn.Sequential], float]:
    """The network after each task, and the seconds of its training."""
    if workplace.config.fresh:
        return [workplace.network()] * workplace.config.tasks.tasks, 0.0
    return train_in_turn(workplace, strength)


def chosen_strength(workplace: Workplace) -> tuple[float | None, list[dict[str, float]]]:
    """λ of the best mean accuracy on validation images after the last task, and how each did; None without EWC."""
    tried, last = [], workplace.config.tasks.tasks - 1
    for strength in workplace.config.strengths:
        networks, _ = train_in_turn(workplace, strength)
        found = accuracy_on(workplace, networks[-1], last, None, "validation", workplace.config.tasks.validation)
        tried.append({"strength": strength, "validation_accuracy": sum(found) / len(found)})
    return max(tried, key=lambda each: each["validation_accuracy"])["strength"] if tried else None, tried


def chosen_fit(workplace: Workplace, network: nn.Sequential) -> tuple[MbPAConfig | None, list[dict[str, Any]]]:
    """The local fit of the best mean accuracy on validation images after the last task, and how each did."""
    config, tried = workplace.config, []
    for k, steps, rate in tqdm(config.fits, disable=not workplace.progress, desc="local fits", leave=False):
        fit = MbPAConfig(neighbours=k, steps=steps, rate=rate)
        found = accuracy_on(workplace, network, config.tasks.tasks - 1, fit, "validation", config.tuned_on)
        setting = {"neighbours": k, "steps": steps, "rate": rate}
        tried.append({"setting": setting, "validation_accuracy": sum(found) / len(found)})
    if not tried:
        return None, tried
    return MbPAConfig(**max(tried, key=lambda each: each["validation_accuracy"])["setting"]), tried


def run(variant: str, profile: str, seed: int, options: RunOptions) -> ledger.Record | None:
    """Choose settings by the first seed, train, test after each task, and record one row."""
    config = in_profile(CONFIGS[variant], profile)
    digits = {part: load_mnist(part) for part in ("train", "test")}
    data = {
        "name": digits["train"].name,
        "sha256": digits["train"].digest,
        "is_standin": digits["train"].is_standin,
    }
    name = ledger.record_name(tables.FIGURE3, variant, profile, seed)
    ledger.refuse_stand_in(name, data)
    device = pick_device(options.device)

    def workplace(own_seed: int) -> Workplace:
        tasks = PermutedDigits(config.tasks, digits["train"], digits["test"], own_seed, device)
        kept = f"{data['name'].replace(' ', '-')}-{profile}-{own_seed}"
        return Workplace(config, tasks, options.runs / tables.FIGURE3 / kept, device, options.progress)

    first = ledger.find_record(tables.FIGURE3, variant, profile, 0)
    same = first is not None and (first.config, first.data) == (json.loads(json.dumps(to_dict(config))), data)
    best = chosen(workplace(0), first if same else None)
    own = workplace(seed)
    networks, seconds = networks_of(own, best.strength)
    started = time.monotonic()
    by_task = [
        accuracy_on(own, network, task, best.fit, "test", config.tested_on)
        for task, network in tqdm(list(enumerate(networks)), disable=not options.progress, desc="test", leave=False)
    ]
    metrics = {
        "mean_accuracy": [sum(each) / len(each) for each in by_task],
        "by_task": by_task[-1],
        "test_seconds": time.monotonic() - started,
        "setting": {"strength": best.strength, "fit": to_dict(best.fit) if best.fit else None},
        "tuning": best.tried,
    }
    if best.fit and config.neighbours == "nearest":
        metrics["own_task"] = of_own_task(own, best.fit)
    return runs.recorded(
        tables.FIGURE3,
        variant,
        profile,
        seed,
        config,
        metrics,
        data=data,
        device=device,
        seconds=seconds,
        updates=0 if config.fresh or config.alone else config.updates * config.tasks.tasks,
    )


EXPERIMENTS = (
    Experiment(
        name=tables.FIGURE3,
        paper=tables.PAPER,
        title="Permuted MNIST: what is left of earlier tasks",
        variants=tuple(CONFIGS),
        run=run,
        config=lambda variant, profile: to_dict(in_profile(CONFIGS[variant], profile)),
        table=tables.figure3,
        costs={"smoke": "5 s", "short": "1 to 5 minutes", "paper": "2 to 30 minutes"},
        wanted=tuple((variant, seed) for seed in range(3) for variant in CONFIGS),
    ),
)
