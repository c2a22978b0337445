"""LMN's benchmark: against a dense form, by what is in memory, and against learners that retune their weights.

All of it is of one stream, at one step after the other: predict, then observe. Weights and vectors are random, and the
margin is never large enough, so that every step writes. What is timed:

- the memory alone: its read (equations 2 and 3) and its write (figure 2);
- the whole step: `predict` and `observe`, with the network's softmax layer over all labels, which every form has.

`observe` is timed after `predict`, of which LMN keeps what it needs; so does the dense form. A learner that retunes its
weights does more in `observe` than in `predict`, and «both» is the fair comparison with it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call

from lib import ledger
from lib.baselines.maml import MAML, MAMLConfig, PlainState
from lib.baselines.rei import Rei, ReiConfig
from lib.baselines.sequence import TokenNetwork, TokenNetworkConfig
from lib.bench import SQUARE, Bench, Comparison, Measurement, Scaling, measure
from lib.bench_lmn_dense import DenseLMN, MaskMemory, TableMemory
from lib.bench_lmn_dense import scores as dense_scores
from lib.experiments.runs import fresh
from lib.methods.lmn import LMN, LMNConfig
from lib.report import Row, Table, grouped
from lib.tasks.seeds import generator
from lib.tasks.streams import Scored

WIDTH = 50
DENSE_STEPS, STEPS, STREAM = 3, 20, 40  # timed at a time: beside a dense form, LMN alone, a stream of check-ins
PLACES = 30  # of the person whose check-ins the stream is
TRAINED = (8, 40)  # streams and steps of a training update
MOST_MASKED = 50_000_000  # entries of a mask of labels by cells: 200 MB in float32, several times
TABLE, MASK, SPARSE = "dense: a table of all labels", "dense: a mask of labels by cells", "LMN: the occupied cells"
READ, WRITE, PREDICT, OBSERVE = PARTS = ("memory's read", "memory's write", "predict", "observe")
BOTH, TRAIN = "predict and observe", "a training update"


@dataclass(frozen=True)
class Case:
    """What is in memory."""

    labels: int
    held: int
    """Labels in memory, each with all of its cells."""
    cells: int = 1
    theta: float | None = None
    """Of LMN-fixed; None for the combiner."""

    @property
    def title(self) -> str:
        """In words."""
        many = f"{self.cells} cells" if self.cells > 1 else "a cell"
        fixed = "" if self.theta is None else ", θ fixed"
        return f"{grouped(self.labels)} labels, {grouped(self.held)} in memory, {many} each{fixed}"


CASES = (
    *(Case(1_000, held) for held in (100, 1_000)),
    *(Case(10_000, held) for held in (100, 1_000, 10_000)),
    *(Case(40_000, held) for held in (100, 1_000, 40_000)),
    *(Case(40_000, held, cells=3) for held in (100, 1_000)),
    Case(40_000, 100, theta=0.5),
)
HELD = (100, 300, 1_000, 3_000, 10_000, 40_000)  # at the largest number of labels
LABELS = (1_000, 3_000, 10_000, 40_000)  # with the smallest number of labels in memory
VOCABULARIES = (4_318, 40_000)  # the first is that of the check-ins of New York at hand


class Steps(NamedTuple):
    """A way of doing the same steps; both take the number of the step."""

    ask: Callable[[int], object]
    tell: Callable[[int], object]
    begin: Callable[[], object] = lambda: None
    """Before each repetition."""


def bench_lmn(
    device: torch.device,
    repetitions: int,
    cases: tuple[Case, ...] = CASES,
    held: tuple[int, ...] = HELD,
    labels: tuple[int, ...] = LABELS,
    vocabularies: tuple[int, ...] = VOCABULARIES,
) -> Bench:
    """LMN beside the dense forms, its growth with labels in memory and with all labels, and beside other learners.

    cases: of the first. held, labels: the values of the growth. vocabularies: of the last.
    """
    comparisons = [found for case in cases for found in compare_with_dense(case, repetitions, device)]
    for vocabulary in vocabularies:
        comparisons += compare_adaptation(vocabulary, repetitions, device, train=vocabulary == min(vocabularies))
    square = torch.ones(SQUARE, SQUARE, device=device)
    (product,) = measure({"product": lambda: square @ square}, max(repetitions, 10), device, clock_of(device))
    return Bench(
        method="lmn",
        machine=ledger.describe_machine(device),
        commit=ledger.code_commit(),
        flops_per_second=2 * SQUARE**3 / product.median,
        comparisons=tuple(comparisons),
        scalings=(
            *growth("held", {value: Case(max(labels), value) for value in held}, repetitions, device),
            *growth("labels", {value: Case(value, min(held)) for value in labels}, repetitions, device),
        ),
    )


def measure_steps(
    ways: dict[str, Steps], steps: int, repetitions: int, device: torch.device
) -> tuple[tuple[Measurement, ...], tuple[Measurement, ...], tuple[Measurement, ...]]:
    """Time asking, telling, and both, in seconds a step. The ways take turns of `steps` steps, after one that is not
    timed: it fetches into the caches what the other ways drove out."""
    clock = clock_of(device)

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return clock()

    def a_turn(way: Steps) -> tuple[float, float, float]:
        way.begin()
        way.ask(0)
        way.tell(0)
        asking = telling = 0.0
        for n in range(steps):
            start = now()
            way.ask(n)
            asked = now()
            way.tell(n)
            asking, telling = asking + asked - start, telling + now() - asked
        return asking / steps, telling / steps, (asking + telling) / steps

    first = {name: a_turn(way) for name, way in ways.items()}
    turns: dict[str, list[tuple[float, float, float]]] = {name: [] for name in ways}
    for _ in range(repetitions):
        for name, way in ways.items():
            turns[name].append(a_turn(way))
    return tuple(
        tuple(Measurement(name, tuple(turn[what] for turn in turns[name]), first[name][what]) for name in ways)
        for what in range(3)
    )


def clock_of(device: torch.device) -> Callable[[], float]:
    """Processor time where one thread does it all: other processes must not count. Else the clock on the wall."""
    return time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter


def compare_with_dense(case: Case, repetitions: int, device: torch.device) -> list[Comparison]:
    """The parts of a case: the table of all labels first, to which the ratios are; the mask where it fits."""
    lmn = filled(case, device)
    dense = {TABLE: TableMemory}
    if case.labels * case.held * case.cells <= MOST_MASKED:
        dense[MASK] = MaskMemory
    memories = {name: dense_memory(lmn, form) for name, form in dense.items()}
    of_memory = {name: memory_steps(case, memory, lmn.config) for name, memory in memories.items()}
    whole = {name: whole_steps(case, dense_lmn(lmn, memory)) for name, memory in memories.items()}
    of_memory[SPARSE], whole[SPARSE] = memory_steps(case, lmn.memory, lmn.config), whole_steps(case, lmn)
    read, write, _ = measure_steps(of_memory, DENSE_STEPS, repetitions, device)
    timed = (read, write, *measure_steps(whole, DENSE_STEPS, repetitions, device))
    return [
        Comparison(_title(part, case.title), "steps", 1, times)
        for part, times in zip((*PARTS, BOTH), timed, strict=True)
    ]


def growth(size: str, cases: dict[int, Case], repetitions: int, device: torch.device) -> tuple[Scaling, ...]:
    """The four parts of LMN alone, at each value of one size."""
    lmns = {str(value): (case, filled(case, device)) for value, case in cases.items()}
    of_memory = {name: memory_steps(case, lmn.memory, lmn.config) for name, (case, lmn) in lmns.items()}
    whole = {name: whole_steps(case, lmn) for name, (case, lmn) in lmns.items()}
    timed = [measure_steps(ways, STEPS, repetitions, device)[:2] for ways in (of_memory, whole)]
    return tuple(
        Scaling(size, SPARSE, tuple(cases), times, task=part)
        for part, times in zip(PARTS, [each for pair in timed for each in pair], strict=True)
    )


def filled(case: Case, device: torch.device) -> LMN:
    """An LMN with a stream that has begun, and as many labels in memory as the case says, as writes would leave it."""
    network = fresh(lambda: TokenNetwork(TokenNetworkConfig(case.labels, WIDTH, WIDTH)), 0)
    config = LMNConfig(cells=case.cells, theta=case.theta, margin=torch.inf)
    lmn = fresh(lambda: LMN(network, config), 0).to(device)
    lmn.begin(1)
    random, memory, n = generator(0, "bench memory", 0), lmn.memory, case.held
    order = torch.randperm(case.labels, generator=random)[:n].to(device)
    at = torch.arange(n, device=device)
    memory.rows, memory.clock = n, n
    memory.vectors = torch.randn(1, n, case.cells, WIDTH, generator=random).to(device)
    memory.weights = 1 + torch.rand(1, n, case.cells, generator=random).to(device)
    memory.count = torch.full((1, n), case.cells, device=device)
    memory.label, memory.written = order.unsqueeze(0), at.unsqueeze(0) + 1
    memory.row_of[0, order], memory.used[:] = at, n
    mu = torch.randn(1, n + 1, lmn.state.mu.shape[2], generator=random).tanh().to(device)
    lmn.state = lmn.state._replace(mu=mu, given=lmn.state.given.new_zeros(1, n + 1, 2))
    return lmn


def dense_memory(lmn: LMN, form: type[MaskMemory] | type[TableMemory]) -> MaskMemory | TableMemory:
    """The cells of an LMN whose labels all have all of their cells, in a dense memory."""
    held, labels = lmn.memory, lmn.network.labels
    own = held.row_labels[0]
    dense = form(labels, lmn.network.hidden_size, held.cells, held.vectors)
    if isinstance(dense, MaskMemory):
        dense.label = own.repeat_interleave(held.cells)
        dense.vectors, dense.weights = held.vectors[0].flatten(0, 1).clone(), held.weights[0].flatten().clone()
    else:
        dense.vectors[own], dense.weights[own], dense.held[own] = held.vectors[0], held.weights[0], True
    return dense


def dense_lmn(lmn: LMN, memory: MaskMemory | TableMemory) -> DenseLMN:
    """The dense form of an LMN, from the same combiner's states."""
    dense, own = DenseLMN(lmn, memory), lmn.memory.row_labels[0]
    dense.mu[:] = lmn.state.mu[:, -1:]
    dense.mu[:, own] = lmn.state.mu[:, :-1]
    return dense


def observed(case: Case, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """h, x and y of some steps: inputs at random, labels of those in memory."""
    random = generator(0, "bench steps", 0)
    hidden = torch.randn(STEPS, 1, WIDTH, generator=random)
    order = torch.randperm(case.labels, generator=generator(0, "bench memory", 0))[: case.held]
    ys = order[torch.randint(case.held, (STEPS, 1), generator=random)]
    return tuple(each.to(device) for each in (hidden, torch.randint(case.labels, (STEPS, 1), generator=random), ys))


def memory_steps(case: Case, memory: Any, config: LMNConfig) -> Steps:
    """Read for h, write under y, always as after a wrong prediction."""
    hs, _, ys = observed(case, memory.vectors.device)
    yes = torch.ones(1, dtype=torch.bool, device=hs.device)
    if isinstance(memory, MaskMemory | TableMemory):
        return Steps(
            lambda n: dense_scores(hs[n, 0], *memory.read(hs[n, 0], config.sharpness), config),
            lambda n: memory.write(hs[n, 0], ys[n, 0], yes[0], config.decay),
        )
    return Steps(
        lambda n: memory.scores(hs[n], config.sharpness, config.strength),
        lambda n: memory.write(hs[n], ys[n], yes, yes, config.decay),
    )


def whole_steps(case: Case, learner: LMN | DenseLMN) -> Steps:
    """Predict for x, observe y."""
    device = next(learner.network.parameters()).device
    _, xs, ys = observed(case, device)
    return Steps(lambda n: learner.predict(xs[n]), lambda n: learner.observe(xs[n], ys[n]))


def compare_adaptation(labels: int, repetitions: int, device: torch.device, train: bool) -> list[Comparison]:
    """LMN first, to which the ratios are: a person's check-ins from the first on; and training updates, if wanted."""
    learners = {name: learner.to(device) for name, learner in make_learners(labels).items()}
    random = generator(0, "bench check-ins", labels)
    places = torch.randperm(labels, generator=random)[:PLACES]
    visits = places[torch.randint(PLACES, (STREAM + 1, 1), generator=random)].to(device)

    def stream(learner: Any) -> Steps:
        return Steps(
            lambda n: learner.predict(visits[n]),
            lambda n: learner.observe(visits[n], visits[n + 1]),
            lambda: learner.begin(1),
        )

    ways = {name: stream(learner) for name, learner in learners.items()}
    timed = measure_steps(ways, STREAM, repetitions, device)
    found = [
        Comparison(_title(part, _stream_title(labels)), "steps", 1, times)
        for part, times in zip((PREDICT, OBSERVE, BOTH), timed, strict=True)
    ]
    if train:
        batch = places[torch.randint(PLACES, (TRAINED[0], TRAINED[1] + 1), generator=random)].to(device)
        # LMN-fixed has no training.
        updates = {name: partial(train_once, each, batch) for name, each in learners.items() if name != "LMN-fixed"}
        timed = measure(updates, repetitions, device, clock_of(device))
        found.append(Comparison(_title(TRAIN, _training_title(labels)), "updates", 1, timed))
    return found


class MAMLByAutograd(MAML):
    """MAML in its plain form, with PyTorch's derivative of all weights at each step. One stream at a time."""

    def forward(self, xs: Int[Tensor, "batch time"], ys: Int[Tensor, "batch time"], unroll: Any = None) -> Scored:
        """As MAML's, always in the plain form."""
        return super().forward(xs, ys, "plain")

    def initial_state(self, batch_size: int) -> PlainState:
        """Fresh weights, and an LSTM that has seen nothing."""
        return self.initial_plain_state(batch_size)

    def logits(self, x: Int[Tensor, " batch"], state: PlainState) -> Float[Tensor, "batch labels"]:
        """What is predicted to follow x, with the weights as they are now."""
        weights = {name: each + state.changes[name][0] for name, each in self.network.named_parameters()}
        return functional_call(self.network, weights, (x, state.hidden, state.cell))[0]

    def advance(self, x: Int[Tensor, " batch"], y: Int[Tensor, " batch"], state: PlainState) -> PlainState:
        """The LSTM after x, and its weights after the gradient for y."""
        return self.plain_step(x, y, state)[1]


def make_learners(labels: int) -> dict[str, nn.Module]:
    """The methods of table 2 that adapt, at the paper's sizes, and the network that LMN adapts."""

    def network() -> TokenNetwork:
        return TokenNetwork(TokenNetworkConfig(labels, WIDTH, WIDTH))

    makers: dict[str, Callable[[], nn.Module]] = {
        "LMN": lambda: LMN(network(), LMNConfig()),
        "LMN-fixed": lambda: LMN(network(), LMNConfig(theta=0.5)),
        "the network alone": network,
        "Rei": lambda: Rei(ReiConfig(labels, WIDTH, WIDTH, WIDTH)),
        "MAML, first order": lambda: MAML(MAMLConfig(labels, WIDTH, WIDTH)),
        "MAML, first order, by autograd": lambda: MAMLByAutograd(MAMLConfig(labels, WIDTH, WIDTH)),
    }
    return {name: fresh(make, 0) for name, make in makers.items()}


def train_once(learner: nn.Module, tokens: Tensor) -> None:
    """Loss and gradient of a batch of streams; the optimizer is left out."""
    learner.train().zero_grad(set_to_none=True)
    (-learner(tokens[:, :-1], tokens[:, 1:]).log_likelihood.mean()).backward()
    learner.eval()


def dense_table(bench: Bench, cases: tuple[Case, ...] = CASES) -> Table:
    """LMN's steps a second in each part, and how many times as many as the dense forms do."""
    found, shown, rows = _by_title(bench), (*PARTS, BOTH), []
    for case in cases:
        parts = [{way.name: way.median for way in found[_title(part, case.title)].ways} for part in shown]
        rows.append(Row(case.title, "LMN, steps/s", tuple(grouped(round(1 / part[SPARSE])) for part in parts)))
        for name, source in ((TABLE, "times the dense table"), (MASK, "times the dense mask")):
            ratios = tuple(_digits(part[name] / part[SPARSE]) for part in parts if name in part)
            rows.append(Row(case.title, source, ratios))  # without cells where the mask does not fit
    caption = (
        "LMN, and how many times as many steps it does as the dense forms: over a table of all labels, and over a mask "
        f"of labels by cells, where that fits; {_machine(bench)}"
    )
    return Table(caption, shown, tuple(rows), ("memory", "what"))


def adaptation_table(bench: Bench, vocabularies: tuple[int, ...] = VOCABULARIES) -> Table:
    """Milliseconds a step of each learner on the same stream, and of a training update, with their ratios to LMN's."""
    found = _by_title(bench)
    rows = []
    for labels in vocabularies:
        parts = [found[_title(part, _stream_title(labels))] for part in (PREDICT, OBSERVE, BOTH)]
        training = found.get(_title(TRAIN, _training_title(labels)))
        for i, way in enumerate(parts[0].ways):
            cells = [*(_milliseconds(part.ways[i]) for part in parts), _times(parts[-1], parts[-1].ways[i])]
            trained = [each for each in training.ways if each.name == way.name] if training else []
            cells += [_milliseconds(trained[0]), _times(training, trained[0])] if trained else ["–", "–"]
            rows.append(Row(way.name, f"{grouped(labels)} labels", tuple(cells)))
    caption = (
        f"Milliseconds a step of one stream, {STREAM} check-ins at {PLACES} places, and milliseconds of the loss and "
        f"gradient of {TRAINED[0]} streams of {TRAINED[1]}; «times LMN»: how many times LMN's time; {_machine(bench)}"
    )
    columns = ("predict", "observe", "both", "both, times LMN", "a training update", "update, times LMN")
    return Table(caption, columns, tuple(rows), ("learner", "stream"))


def _by_title(bench: Bench) -> dict[str, Comparison]:
    return {each.title: each for each in bench.comparisons}


def _title(part: str, of: str) -> str:
    return f"{part}: {of}"


def _stream_title(labels: int) -> str:
    return f"{grouped(labels)} labels, {STREAM} check-ins at {PLACES} places"


def _training_title(labels: int) -> str:
    return f"{grouped(labels)} labels, {TRAINED[0]} streams of {TRAINED[1]} check-ins"


def _digits(number: float) -> str:
    """Two digits or more: 0.034, 3.4, 34, 3 421."""
    return grouped(round(number)) if number >= 10 else f"{number:.2g}"


def _milliseconds(way: Measurement) -> str:
    return _digits(1000 * way.median)


def _times(comparison: Comparison, way: Measurement) -> str:
    return _digits(1 / comparison.ratio(way))


def _machine(bench: Bench) -> str:
    machine = bench.machine
    return f"{machine['name']}, {machine['threads']} threads, torch {machine['torch']}, medians"
