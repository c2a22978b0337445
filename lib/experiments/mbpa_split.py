"""A split of the classes in old and new ones: what a network and a memory learn of them, and how they answer.

Sprechmann et al. 2018, section 4.2; the experiments are in `mbpa_incremental.py` and `mbpa_sensitivity.py`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from tqdm import tqdm

from lib.baselines.resnet import ResNet
from lib.experiments.mbpa_incremental_configs import IncrementalConfig
from lib.memory.episodic import Context, EpisodicMemory, kernel_weights
from lib.methods.mbpa import MbPAConfig, fitter, from_memory, mixture
from lib.tasks.incremental import PictureSet
from lib.tasks.seeds import generator

QUERIES_AT_ONCE = 250
GROUPS = ("all", "new", "old", "scarce")


@dataclass(frozen=True)
class Answer:
    """What is asked of the last layer and the memory at some point."""

    model: Literal["parametric", "non-parametric", "mixture", "mbpa"]
    neighbours: int = 0
    """K."""
    share: float = 0.0
    """λ of the mixture."""
    steps: int = 0
    """T of MbPA."""
    rate: float = 0.0
    """α of MbPA."""

    @property
    def fit(self) -> MbPAConfig:
        """MbPA's local fit (paper: RMSprop)."""
        return MbPAConfig(neighbours=self.neighbours, steps=self.steps, rate=self.rate, optimizer="rmsprop")


class Learnt(NamedTuple):
    """Where the last layer and the memory stand."""

    epoch: float
    """Passes through all that is shown, so far."""
    head: nn.Linear
    memory: EpisodicMemory
    held: Int[Tensor, " capacity"]
    """Which picture is at each position of the memory."""


@dataclass(frozen=True, eq=False)
class Split:
    """The pictures as features of a network that learnt the split's old classes, and what of them is shown."""

    config: IncrementalConfig
    number: int
    pictures: PictureSet
    features: Float[Tensor, "pictures width"]
    network: ResNet
    old: Int[Tensor, " old"]
    new: Int[Tensor, " new"]

    @property
    def scarce(self) -> Int[Tensor, " scarce"]:
        """The new classes of which less is shown, if the config says so."""
        return self.new[: len(self.new) // 2 if self.config.scarce < 1 else 0]

    def shown(self) -> Int[Tensor, " shown"]:
        """Positions of the pictures that are shown, over and over."""
        config, scarce = self.config, self.scarce.to(self.features.device)
        positions = self.pictures.of("train")
        labels = self.pictures.labels[positions]
        left_out = torch.zeros_like(positions, dtype=torch.bool)
        for label in scarce:
            own = (labels == label).nonzero().squeeze(1)
            left_out[own[max(1, round(config.scarce * len(own))) :]] = True
        return positions[~left_out]

    def head(self) -> nn.Linear:
        """The last layer: rows of the old classes as they were learnt, of the new ones zero."""
        learnt = self.network.output
        head = nn.Linear(learnt.in_features, self.pictures.classes).to(self.features.device)
        with torch.no_grad():
            for whole, part in ((head.weight, learnt.weight), (head.bias, learnt.bias)):
                whole.zero_()
                whole[self.old.to(whole.device)] = part
        return head

    def learn(self, rate: float, epochs: Sequence[float], memory: float | None = None) -> Iterator[Learnt]:
        """Show the pictures: at each minibatch the last layer takes a step, and the memory keeps the features
        (algorithm 1). memory: its room in place of the config's. Yields where things stand at
        each of the epochs, after the minibatch that reaches it."""
        shown, config = self.shown(), self.config
        capacity = max(1, round((config.memory if memory is None else memory) * len(shown)))
        held = EpisodicMemory(capacity, self.features.shape[1], like=self.features)
        pictures = torch.zeros(capacity, dtype=torch.int64, device=shown.device)
        head, done = self.head(), 0
        optimizer = torch.optim.Adam(head.parameters(), lr=rate)
        order = shown[:0]
        for epoch in epochs:
            while done < round(epoch * len(shown)):
                if not len(order):
                    draws = generator(self.number, "shown", done // len(shown))
                    order = shown[torch.randperm(len(shown), generator=draws).to(shown.device)]
                batch, order = order[: config.batch_size], order[config.batch_size :]
                done += len(batch)
                xs, ys = self.features[batch], self.pictures.labels[batch]
                with torch.enable_grad():
                    optimizer.zero_grad()
                    F.cross_entropy(head(xs), ys).backward()
                    optimizer.step()
                pictures[held.append(xs, ys)[-len(batch) :]] = batch[-capacity:]
            yield Learnt(epoch, head, held, pictures)

    def queries(self, part: str, count: int) -> Int[Tensor, " count"]:
        """The first pictures of a part, in a fixed random order."""
        positions = self.pictures.of(part)
        order = torch.randperm(len(positions), generator=generator(0, "queries", 0))
        return positions[order[:count].to(positions.device)]

    def groups(self, labels: Int[Tensor, " queries"]) -> dict[str, Bool[Tensor, " queries"]]:
        """Which of some labels are of each group."""
        classes = {"new": self.new, "old": self.old, "scarce": self.scarce}
        found = {name: torch.isin(labels, some.to(labels.device)) for name, some in classes.items()}
        return {"all": torch.ones_like(labels, dtype=torch.bool), **found}


@torch.no_grad()
def probabilities(
    learnt: Learnt, queries: Float[Tensor, "queries width"], answers: Sequence[Answer]
) -> Iterator[Float[Tensor, "queries classes"]]:
    """What each of the answers gives every class, in their order; the neighbours are looked for once."""
    head, memory = learnt.head, learnt.memory
    most = max((answer.neighbours for answer in answers), default=0)
    found = memory.nearest(queries, most) if most else None
    by_network = torch.softmax(head(queries), dim=1)

    def context(k: int, epsilon: float) -> Context:
        at, distances = found.positions[:, :k], found.distances[:, :k]
        return Context(memory.keys[at], memory.values[at], kernel_weights(distances, epsilon))

    for answer in answers:
        if answer.model == "parametric":
            yield by_network
            continue
        fit = answer.fit
        own = context(answer.neighbours, fit.epsilon)
        if answer.model == "mbpa":
            yield torch.softmax(fitter(head, fit, True)(head, queries, own, fit).outputs, dim=1)
            continue
        by_memory = from_memory(own, head.out_features)
        yield by_memory if answer.model == "non-parametric" else mixture(by_network, by_memory, answer.share)


def measure(
    split: Split,
    rate: float,
    answers: Sequence[Answer],
    epochs: Sequence[float],
    part: str,
    count: int,
    *,
    memory: float | None = None,
    progress: str = "",
) -> list[dict[str, list[float | None]]]:
    """Of each answer and group of classes, the accuracy at each of the epochs; None where a group is empty.

    rate: of the last layer's optimizer. memory: its room, in place of the config's. progress: what the bar says.
    """
    positions = split.queries(part, count)
    labels = split.pictures.labels[positions]
    groups = split.groups(labels)
    accuracy: list[dict[str, list[float | None]]] = [{group: [] for group in GROUPS} for _ in answers]
    points, bar = split.learn(rate, epochs, memory), {"desc": progress, "disable": not progress, "leave": False}
    for learnt in tqdm(points, total=len(epochs), **bar):
        right: list[list[Tensor]] = [[] for _ in answers]
        for some in positions.split(QUERIES_AT_ONCE):
            for hits, p in zip(right, probabilities(learnt, split.features[some], answers), strict=True):
                hits.append(p.argmax(1) == split.pictures.labels[some])
        for hits, found in zip(right, accuracy, strict=True):
            whole = torch.cat(hits)
            for group, of in groups.items():
                found[group].append(whole[of].float().mean().item() if of.any() else None)
    return accuracy


@torch.no_grad()
def worked_example(split: Split, rate: float, answers: Sequence[Answer], epoch: float) -> dict[str, Any] | None:
    """The first test picture of a new class, in the order of the test, that MbPA alone names rightly; what it was
    fitted to, and how much of that is named rightly before and after (figure 5, right). None if there is no such
    picture. Classes and pictures are given by number. answers: one of each model."""
    (learnt,) = split.learn(rate, [epoch])
    fit = next(answer.fit for answer in answers if answer.model == "mbpa")
    for at in split.queries("test", split.config.tested_on).tolist():
        label, query = split.pictures.labels[at], split.features[at : at + 1]
        if not (split.new.to(label.device) == label).any():
            continue
        given = zip(answers, probabilities(learnt, query, answers), strict=True)
        p = {answer.model: each[0] for answer, each in given}
        right = {model: bool(each.argmax() == label) for model, each in p.items()}
        if not right["mbpa"] or right["parametric"] or right["mixture"]:
            continue
        found = learnt.memory.nearest(query, fit.neighbours)
        context = learnt.memory.context(query, fit.neighbours, fit.epsilon)
        keys, values = context.keys[0], context.values[0]
        shared = Context(*(part.expand(len(keys), *part.shape[1:]) for part in context))
        before = learnt.head(keys)
        after = fitter(learnt.head, fit, True)(learnt.head, keys, shared, fit)
        classes = torch.cat([values, label.view(1)]).unique()
        return {
            "picture": at,
            "label": int(label),
            "epoch": epoch,
            "neighbours": learnt.held[found.positions[0]].tolist(),
            "labels": values.tolist(),
            "weights": context.weights[0].tolist(),
            "classes": classes.tolist(),
            "probabilities": {model: each[classes].tolist() for model, each in p.items()},
            "neighbours_right_before": (before.argmax(1) == values).float().mean().item(),
            "neighbours_right_after": (after.outputs.argmax(1) == values).float().mean().item(),
            "moved": after.moved[0].item(),
        }
    return None
