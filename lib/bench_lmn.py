"""LMN's benchmark: against a dense form, by what is in memory, and against learners that retune their weights.

All of it is of one stream, at one step after the other: predict, then observe. Weights and vectors are random, and the
margin is never large enough, so that every step writes. What is timed:

- the memory alone: its read (equations 2 and 3) and its write (figure 2);
- the whole step: `predict` and `observe`, with the network and its layer over all labels, which every form has;
- what LMN adds: the same where the network's h and logits are given.

`observe` is timed after `predict`, of which LMN keeps what it needs; so does the dense form.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lib.baselines.sequence import TokenNetwork, TokenNetworkConfig
from lib.bench import Bench, Comparison, Measurement, Scaling, finished
from lib.bench_lmn_adaptation import VOCABULARIES, compare_adaptation
from lib.bench_lmn_dense import DenseLMN, MaskMemory, TableMemory
from lib.bench_lmn_dense import scores as dense_scores
from lib.bench_steps import (
    BOTH,
    OBSERVE,
    PREDICT,
    WIDTH,
    Steps,
    by_title,
    clock_of,
    digits,
    machine_of,
    measure_steps,
    title_of,
)
from lib.experiments.runs import fresh
from lib.methods.lmn import LMN, LMNConfig
from lib.report import Row, Table, grouped
from lib.tasks.seeds import generator

DENSE_STEPS, STEPS = 3, 20  # timed at a time: beside a dense form, LMN alone
MOST_MASKED = 50_000_000  # entries of a mask of labels by cells: 200 MB in float32, several times
TABLE, MASK, SPARSE = "dense: a table of all labels", "dense: a mask of labels by cells", "LMN: the occupied cells"
PARTS = ("memory's read", "memory's write", PREDICT, OBSERVE)
ADDED = "both, h and logits given"


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
    scalings = (
        *growth("held", {value: Case(max(labels), value) for value in held}, repetitions, device),
        *growth("labels", {value: Case(value, min(held)) for value in labels}, repetitions, device),
    )
    return finished("lmn", comparisons, scalings, repetitions, device, clock_of(device))


def compare_with_dense(case: Case, repetitions: int, device: torch.device) -> list[Comparison]:
    """The parts of a case: the table of all labels first, to which the ratios are; the mask where it fits."""
    lmn = filled(case, device)
    dense = {TABLE: TableMemory}
    if case.labels * case.held * case.cells <= MOST_MASKED:
        dense[MASK] = MaskMemory
    memories = {name: dense_memory(lmn, form) for name, form in dense.items()}
    of_memory = {name: memory_steps(case, memory, lmn.config) for name, memory in memories.items()}
    of_memory[SPARSE] = memory_steps(case, lmn.memory, lmn.config)
    read, write, _ = measure_steps(of_memory, DENSE_STEPS, repetitions, device)

    def whole() -> tuple[tuple[Measurement, ...], ...]:
        ways = {name: whole_steps(case, dense_lmn(lmn, memory)) for name, memory in memories.items()}
        return measure_steps(ways | {SPARSE: whole_steps(case, lmn)}, DENSE_STEPS, repetitions, device)

    timed = (read, write, *whole())
    lmn.network, lmn.state = GivenNetwork(case.labels).to(device), lmn.state._replace(network=None)
    *_, added = whole()
    return [
        Comparison(title_of(part, case.title), "steps", 1, times)
        for part, times in zip((*PARTS, BOTH, ADDED), (*timed, added), strict=True)
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


class GivenNetwork(nn.Module):
    """A network that costs nothing: the same h and logits at every step."""

    def __init__(self, labels: int):
        super().__init__()
        self.labels, self.hidden_size = labels, WIDTH
        random = generator(0, "bench given", 0)
        self.h = nn.Parameter(torch.randn(1, 1, WIDTH, generator=random), requires_grad=False)
        self.logits = nn.Parameter(torch.randn(1, labels, generator=random), requires_grad=False)

    def hidden(self, xs: Int[Tensor, "1 1"], state: Any = None) -> tuple[Tensor, Any]:
        """See `lib.methods.lmn.Network`."""
        return self.h, state

    def scores(self, hidden: Float[Tensor, "1 width"]) -> Float[Tensor, "1 labels"]:
        """See `lib.methods.lmn.Network`."""
        return self.logits


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


def goal(bench: Bench, cases: tuple[Case, ...] = CASES, times: float = 20.0) -> str:
    """Sentences, in Markdown, on where LMN does `times` as many steps as the dense forms, and where it does not."""
    found, lines = by_title(bench), []
    for name, words in ((MASK, "a mask of labels by cells"), (TABLE, "a table of all labels")):
        for part, what in ((BOTH, "The whole step"), (ADDED, "What LMN adds to the network")):
            ratios = {}
            for case in cases:
                medians = {way.name: way.median for way in found[title_of(part, case.title)].ways}
                if name in medians:
                    ratios[case] = medians[name] / medians[SPARSE]
            below = [f"{digits(ratio)} at {case.title}" for case, ratio in ratios.items() if ratio < times]
            reached = f"{len(ratios) - len(below)} of {len(ratios)}"
            lines.append(
                f"- {what}, beside {words}: {times:g} times or more in {reached} cases"
                + (f"; below it, {'; '.join(below)}." if below else ".")
            )
    return "\n".join(lines)


def dense_table(bench: Bench, cases: tuple[Case, ...] = CASES) -> Table:
    """LMN's steps a second in each part, and how many times as many as the dense forms do."""
    found, shown, rows = by_title(bench), (*PARTS, BOTH, ADDED), []
    for case in cases:
        parts = [{way.name: way.median for way in found[title_of(part, case.title)].ways} for part in shown]
        rows.append(Row(case.title, "LMN, steps/s", tuple(grouped(round(1 / part[SPARSE])) for part in parts)))
        for name, source in ((TABLE, "times the dense table"), (MASK, "times the dense mask")):
            ratios = tuple(digits(part[name] / part[SPARSE]) for part in parts if name in part)
            rows.append(Row(case.title, source, ratios))  # without cells where the mask does not fit
    caption = (
        "LMN, and how many times as many steps it does as the dense forms: over a table of all labels, and over a mask "
        f"of labels by cells, where that fits; {machine_of(bench)}"
    )
    return Table(caption, shown, tuple(rows), ("memory", "what"))
