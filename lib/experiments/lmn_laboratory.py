"""What the laboratory of LMN runs: a made-up town, a network that learns it in seconds, and a memory without labels.

The town shows the division of work that LMN hopes for: what all people have in common (after home comes a café) is for
the network, what is one person's own (which café) is for the memory. `RecentMemory` is the memory that LMN is set
against in «What cell to replace»: the cells of all labels together, the least recently used one is replaced.

Nothing here is a table of the paper, and nothing is recorded in the ledger.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lib.baselines.sequence import TokenNetwork, TokenNetworkConfig
from lib.memory.labelled import TINY
from lib.methods.lmn import LMN, LMNConfig
from lib.tasks.seeds import generator, seed_of
from lib.tasks.streams import StreamSampler, StreamTask, WholeStreams, rank_of
from lib.training import TrainingConfig, train

PLACES = {"home": 24, "café": 12, "work": 16, "lunch": 12, "shop": 12, "gym": 8, "bar": 12, "park": 8}
NEXT = {  # of 10 times
    "home": {"café": 5, "work": 2, "gym": 1, "park": 1, "shop": 1},
    "café": {"work": 8, "shop": 1, "park": 1},
    "work": {"lunch": 5, "home": 2, "bar": 2, "gym": 1},
    "lunch": {"work": 7, "café": 1, "home": 2},
    "shop": {"home": 8, "café": 2},
    "gym": {"home": 8, "bar": 2},
    "bar": {"home": 9, "lunch": 1},
    "park": {"home": 6, "café": 3, "lunch": 1},
}
ELSEWHERE = 0.1  # of visits go to any place of their kind; all others to the person's own
NETWORK_PEOPLE, COMBINER_PEOPLE, TEST_PEOPLE = 64, 32, 24
VISITS = 61


@dataclass(frozen=True, eq=False)
class Town:
    """Made-up people: `network` and `combiner` are trained on people of their own, `test` is for looking at.

    names: of the places, which are the labels.
    """

    names: tuple[str, ...]
    network: list[np.ndarray]
    combiner: list[np.ndarray]
    test: list[np.ndarray]


def make_town(seed: int, visits: int = VISITS) -> Town:
    """People who each have one home, one place to work, and two places of every other kind, one of them preferred."""
    names = tuple(f"{kind} {number}" for kind, count in PLACES.items() for number in range(1, count + 1))
    rng = np.random.default_rng(seed_of(seed, "town", 0))
    people = [_visits(rng, visits) for _ in range(NETWORK_PEOPLE + COMBINER_PEOPLE + TEST_PEOPLE)]
    return Town(names, people[:NETWORK_PEOPLE], people[NETWORK_PEOPLE:-TEST_PEOPLE], people[-TEST_PEOPLE:])


def _visits(rng: np.random.Generator, count: int) -> np.ndarray:
    kinds, counts = list(PLACES), np.array(list(PLACES.values()))
    first = np.cumsum(counts) - counts
    own = [rng.choice(count, 1 if kind in ("home", "work") else 2, replace=False) for kind, count in PLACES.items()]
    chances = np.array([[NEXT[kind].get(other, 0) / 10 for other in kinds] for kind in kinds])
    kind, visits = 0, []
    for _ in range(count):
        strays = rng.random() < ELSEWHERE
        place = rng.integers(counts[kind]) if strays else own[kind][int(rng.random() < 0.25) % len(own[kind])]
        visits.append(first[kind] + place)
        kind = rng.choice(len(kinds), p=chances[kind])
    return np.array(visits, np.int64)


def train_town(town: Town, config: LMNConfig, seed: int, device: torch.device | str = "cpu") -> LMN:
    """A GRU that knows the town, adapted by an LMN of this config; its combiner, if it has one, is trained too.

    Takes some seconds. The combiner learns from people whom the network does not know: on those that it knows, the
    network needs no memory.
    """

    def task(people: list[np.ndarray], stream: str) -> StreamTask:
        whole = WholeStreams(town.test, device)
        return StreamTask(StreamSampler(people, VISITS - 1, seed, stream, device), whole, whole)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, "town weights", 0))
        sizes = TokenNetworkConfig(labels=len(town.names), embedding=16, hidden=24, dropout=0.2)
        network = TokenNetwork(sizes).to(device)
        train(network, task(town.network, "town network"), _short(60, 16, 2e-2), unroll="plain", progress=False)
        lmn = LMN(network, config).to(device)
        if config.theta is None:
            train(lmn, task(town.combiner, "town combiner"), _short(20, 8, 3e-2), unroll="plain", progress=False)
    return lmn.eval()


def _short(updates: int, batch_size: int, learning_rate: float) -> TrainingConfig:
    return TrainingConfig(
        updates=updates,
        batch_size=batch_size,
        learning_rate=learning_rate,
        clip=1.0,
        log_every=updates,
        validate_every=updates,
        validation_batches=1,
        checkpoint_every=updates,
        optimizer="adam",
    )


class Points(nn.Module):
    """A network that knows nothing: its h is the input. With θ = 1 an LMN of it is its memory alone."""

    def __init__(self, width: int, labels: int):
        super().__init__()
        self.hidden_size, self.labels = width, labels
        self.nothing = nn.Parameter(torch.zeros(()))

    def hidden(self, xs: Float[Tensor, "batch time width"], state: Any = None) -> tuple[Tensor, None]:
        """The points themselves."""
        return xs, None

    def scores(self, hidden: Float[Tensor, "*any width"]) -> Float[Tensor, "*any labels"]:
        """Zero for every label."""
        return self.nothing * hidden.new_zeros(*hidden.shape[:-1], self.labels)


class RecentMemory:
    """Cells of (vector, label), whatever the label; each step is written, and the least recently used cell makes room.

    A label is as probable as the one of its cells that is most like h, by LMN's kernel exp(λ cosine): so it answers by
    the nearest neighbour. merge: where that neighbour is right, the two become their mean, as in Kaiser et al. 2017,
    and no cell is spent; only what is written counts as used. False: each step takes a cell, as a least-recently-used
    write does, and the nearest neighbour counts as used, since it was read.
    """

    def __init__(self, labels: int, cells: int, merge: bool, sharpness: float = 5.0):
        self.labels, self.cells, self.merge, self.sharpness = labels, cells, merge, sharpness

    def begin(self, batch_size: int = 1) -> None:
        """So many streams side by side, each with empty cells."""
        self.vectors: Tensor | None = None  # (B, N, width), of length 1; made where the first x is
        self.label = torch.full((batch_size, self.cells), -1)
        self.used = torch.zeros(batch_size, self.cells, dtype=torch.int64)  # when last, in half steps
        self.now = 0

    def predict(self, x: Float[Tensor, "batch width"]) -> Float[Tensor, "batch labels"]:
        """Probabilities of the labels; equal chances while the memory is empty."""
        kernel = (self.sharpness * self._cosines(x)).exp()
        nearest = kernel.new_zeros(len(x), self.labels + 1)  # one column more, for cells that hold nothing yet
        place = self.label.remainder(self.labels + 1)
        nearest = nearest.scatter_reduce(1, place, kernel, "amax")[:, :-1]
        total = nearest.sum(1, keepdim=True)
        return torch.where(total > 0, nearest / total.clamp(min=TINY), 1 / self.labels)

    def observe(self, x: Float[Tensor, "batch width"], y: Int[Tensor, " batch"]) -> None:
        """Write x with its label y."""
        self.now += 2  # a step's read comes before its write
        stream = torch.arange(len(y), device=y.device)
        nearest = self._cosines(x).masked_fill(self.label < 0, -torch.inf).argmax(1)
        merges = self.merge & (self.label[stream, nearest] == y)
        if not self.merge:
            self.used[stream, nearest] = torch.where(self.label[stream, nearest] < 0, 0, self.now - 1)
        at = stream, torch.where(merges, nearest, self.used.argmin(1))
        joined = nn.functional.normalize(x, dim=1) + merges.unsqueeze(1) * self.vectors[at]
        self.vectors[at] = nn.functional.normalize(joined, dim=1)
        self.label[at], self.used[at] = y, self.now

    def _cosines(self, x: Tensor) -> Tensor:
        if self.vectors is None:
            self.vectors = x.new_zeros(len(x), self.cells, x.shape[1])
            self.label, self.used = self.label.to(x.device), self.used.to(x.device)
        return torch.einsum("bcw,bw->bc", self.vectors, nn.functional.normalize(x, dim=1))


@dataclass(frozen=True)
class PointStreams:
    """Streams of noisy points around the centres of some labels; label 0 is rare.

    It comes once, at step `once`; all other labels come again and again. A memory is asked at each step what the rare
    label looks like, without being told.
    """

    labels: int = 12
    """The rare label among them."""
    width: int = 16
    steps: int = 300
    once: int = 5
    """When the rare label comes."""
    noise: float = 0.6
    """Standard deviation in each direction; that of the centres is 1."""
    turn: float = 0.0
    """Radians that each centre has turned towards another point at the end of the stream: 0 for no drift."""

    def draw(
        self, streams: int, seed: int
    ) -> tuple[Float[Tensor, "batch time width"], Int[Tensor, "batch time"], Float[Tensor, "batch time width"]]:
        """Points, their labels, and at each step another point of the rare label, to ask about."""
        random = generator(seed, "points", 0)
        shape = streams, self.steps
        start, end = torch.randn(2, streams, self.labels, self.width, generator=random)
        angle = torch.linspace(0, self.turn, self.steps).view(1, -1, 1, 1)
        centres = angle.cos() * start.unsqueeze(1) + angle.sin() * end.unsqueeze(1)
        ys = torch.randint(1, self.labels, shape, generator=random)
        ys[:, self.once] = 0
        noise = self.noise * torch.randn(2, *shape, self.width, generator=random)
        points = centres.gather(2, ys.view(*shape, 1, 1).expand(-1, -1, 1, self.width)).squeeze(2)
        return points + noise[0], ys, centres[:, :, 0] + noise[1]


@dataclass(frozen=True, eq=False)
class Recall:
    """What a memory said at each step of some streams of points, before the step's label was revealed."""

    rare: np.ndarray
    """float (streams, steps): the probability of the rare label for a point of the rare label."""
    rare_right: np.ndarray
    """bool (streams, steps): whether it would have named it."""
    right: np.ndarray
    """bool (streams, steps): whether it named the step's own label."""


@torch.no_grad()
def recall(memory: Any, points: PointStreams, streams: int, seed: int) -> Recall:
    """Run a memory, an `LMN` of `Points` or a `RecentMemory`, through streams of points."""
    xs, ys, probes = points.draw(streams, seed)
    memory.begin(streams)
    rare, rare_right, right = [], [], []
    for x, y, probe in zip(xs.unbind(1), ys.unbind(1), probes.unbind(1), strict=True):
        p = memory.predict(probe)
        rare.append(p[:, 0])
        rare_right.append(p.argmax(1) == 0)
        right.append(memory.predict(x).argmax(1) == y)
        memory.observe(x, y)
    return Recall(*(torch.stack(each, 1).numpy() for each in (rare, rare_right, right)))


@torch.no_grad()
def ranks(memory: Any, xs: Float[Tensor, "batch time width"], ys: Int[Tensor, "batch time"]) -> np.ndarray:
    """float (streams, steps): the rank of each step's label in what a memory predicts; ties share their mean rank.

    memory: an `LMN` of `Points` or a `RecentMemory`.
    """
    memory.begin(len(ys))
    found = []
    for x, y in zip(xs.unbind(1), ys.unbind(1), strict=True):
        p = memory.predict(x)
        found.append(rank_of(p, p.gather(1, y.unsqueeze(1))))
        memory.observe(x, y)
    return torch.stack(found, 1).cpu().numpy()


def steps_since(ys: np.ndarray) -> np.ndarray:
    """int (streams, steps): how many steps ago the label of each step came last in its stream; 0 if it is the first."""
    found = np.zeros(ys.shape, np.int64)
    for stream, labels in enumerate(ys):
        last: dict[int, int] = {}
        for step, label in enumerate(labels.tolist()):
            found[stream, step] = step - last.get(label, step)
            last[label] = step
    return found


def labelled_memory(width: int, labels: int, **settings: Any) -> LMN:
    """LMN's memory alone, for vectors; settings of `LMNConfig`."""
    return LMN(Points(width, labels), LMNConfig(**({"theta": 1.0} | settings)))
