"""What it costs to adapt: LMN beside the learners of table 2 that retune their weights, on the same stream.

A learner that retunes its weights does more in `observe` than in `predict`: «both» is the fair comparison.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call

from lib.baselines.maml import MAML, MAMLConfig, PlainState
from lib.baselines.rei import Rei, ReiConfig
from lib.baselines.sequence import TokenNetwork, TokenNetworkConfig
from lib.bench import Bench, Comparison, Measurement, measure
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
from lib.tasks.streams import Scored

STREAM, PLACES = 40, 30  # check-ins of the stream, places of the person whose they are
RETUNED = ("Rei", "MAML, first order", "MAML, first order, by autograd")  # learners that retune weights
TRAINED = (8, 40)  # streams and steps of a training update
TRAIN = "a training update"
VOCABULARIES = (4_318, 40_000)  # the first is that of the check-ins of New York at hand


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
        Comparison(title_of(part, _stream_title(labels)), "steps", 1, times)
        for part, times in zip((PREDICT, OBSERVE, BOTH), timed, strict=True)
    ]
    if train:
        batch = places[torch.randint(PLACES, (TRAINED[0], TRAINED[1] + 1), generator=random)].to(device)
        # LMN-fixed has no training.
        updates = {name: partial(train_once, each, batch) for name, each in learners.items() if name != "LMN-fixed"}
        timed = measure(updates, repetitions, device, clock_of(device))
        found.append(Comparison(title_of(TRAIN, _training_title(labels)), "updates", 1, timed))
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


def adaptation_table(bench: Bench, vocabularies: tuple[int, ...] = VOCABULARIES) -> Table:
    """Milliseconds a step of each learner on the same stream, and of a training update, with their ratios to LMN's."""
    found = by_title(bench)
    rows = []
    for labels in vocabularies:
        parts = [found[title_of(part, _stream_title(labels))] for part in (PREDICT, OBSERVE, BOTH)]
        training = found.get(title_of(TRAIN, _training_title(labels)))
        for i, way in enumerate(parts[0].ways):
            cells = [*(_milliseconds(part.ways[i]) for part in parts), _times(parts[-1], parts[-1].ways[i])]
            trained = [each for each in training.ways if each.name == way.name] if training else []
            cells += [_milliseconds(trained[0]), _times(training, trained[0])] if trained else ["–", "–"]
            rows.append(Row(way.name, f"{grouped(labels)} labels", tuple(cells)))
    caption = (
        f"Milliseconds a step of one stream, {STREAM} check-ins at {PLACES} places, and milliseconds of the loss and "
        f"gradient of {TRAINED[0]} streams of {TRAINED[1]}; «times LMN»: how many times LMN's time; {machine_of(bench)}"
    )
    columns = ("predict", "observe", "both", "both, times LMN", "a training update", "update, times LMN")
    return Table(caption, columns, tuple(rows), ("learner", "stream"))


def in_short(bench: Bench, vocabularies: tuple[int, ...] = VOCABULARIES) -> str:
    """A sentence, in Markdown, for each number of labels: how long a step of the others takes beside LMN's."""
    found, lines = by_title(bench), []
    for labels in vocabularies:
        both = found[title_of(BOTH, _stream_title(labels))]
        lmn, *others = both.ways
        times = "; ".join(f"{way.name} {_times(both, way)}" for way in others)
        retuned = [way for way in others if way.name in RETUNED]
        ahead = [way.name for way in retuned if way.median > lmn.median]
        behind = [way.name for way in retuned if way.median <= lmn.median]
        verdict = "LMN is faster than all of them that retune weights"
        if behind:
            verdict = f"LMN is slower than: {'; '.join(behind)}; faster than: {'; '.join(ahead) or 'none'}"
        step = f"a step of LMN takes {_milliseconds(lmn)} ms"
        lines.append(f"- With {grouped(labels)} labels {step}. In multiples of it: {times}. **{verdict}.**")
    return "\n".join(lines)


def _stream_title(labels: int) -> str:
    return f"{grouped(labels)} labels, {STREAM} check-ins at {PLACES} places"


def _training_title(labels: int) -> str:
    return f"{grouped(labels)} labels, {TRAINED[0]} streams of {TRAINED[1]} check-ins"


def _milliseconds(way: Measurement) -> str:
    return digits(1000 * way.median)


def _times(comparison: Comparison, way: Measurement) -> str:
    return digits(1 / comparison.ratio(way))
