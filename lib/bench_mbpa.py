"""MbPA's benchmark: fits of the softmax layer beside the naive loop, on a text and to pictures, and the search.

All of it is on made-up keys, in clusters, as what a network gives them is. Times are of one query:

- on a text, the paper's setting: memory, K, T and words as in its appendix B. What `lib/methods/mbpa_text.py` does with
  given hidden states is timed, with its search, its neural cache and the likelihood of the word that came, on a part of
  the text whose memory is full (or on the whole text). The loop has its search too;
- to pictures: RMSprop on a layer of some sizes, search left out. The products that no form can do without are counted:
  RMSprop makes all weights differ from query to query;
- the search: faiss's exact index, ours, and lists of faiss, whose recall is measured. Without faiss, ours alone.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lib import ledger
from lib.baselines.neural_cache import Past
from lib.bench import SQUARE, Bench, Comparison, Measurement, measure
from lib.bench_steps import by_title, clock_of, digits, title_of
from lib.experiments.runs import fresh
from lib.memory.episodic import Context, ExactIndex, kernel_weights, nearest
from lib.memory.faiss_index import FaissIndex, recall
from lib.methods.mbpa import (
    Adapted,
    MbPAConfig,
    adapted_by_batch,
    adapted_by_dual,
    adapted_by_loop,
    adapted_by_vmap,
)
from lib.methods.mbpa_text import TextMbPA, TextMbPAConfig
from lib.report import duration, grouped
from lib.tasks.seeds import generator

ALL_WORDS = 82_430  # of Penn Treebank's test text
LOOP, VMAP, BATCH, DUAL = "naive loop", "vmap", "batch", "dual, in blocks of the text"
FAISS, EXACT, LISTS = "faiss's exact index", "our exact index", "lists of faiss"
TEXT, PICTURES, SEARCH = "a word of a text", "a picture", "a search"
OF_LOGITS, OF_LIKELIHOOD, RECALL = "largest difference of logits", "largest difference of log p", "recall"
FEW = 3  # repetitions of what takes seconds


@dataclass(frozen=True)
class TextCase:
    """The paper's setting for language, with this width of h."""

    width: int
    """268 is the paper's embedding, which a tied softmax layer has; 1194 its LSTM."""
    measured: int = 4_096
    """Words, after as many as the memory holds."""
    looped: int = 4
    """Of which the loop does so many."""
    fit: TextMbPAConfig = TextMbPAConfig()
    words: int = 10_000

    @property
    def title(self) -> str:
        """In words."""
        return (
            f"width {grouped(self.width)}, memory {grouped(self.fit.size)}, K {self.fit.fit.neighbours}, "
            f"{grouped(self.words)} words, timed on {grouped(self.measured)}"
        )


@dataclass(frozen=True)
class PicturesCase:
    """A softmax layer, fitted by RMSprop."""

    width: int
    classes: int
    queries: int = 64
    fit: MbPAConfig = MbPAConfig(neighbours=50, steps=5, rate=1e-3, optimizer="rmsprop")

    @property
    def title(self) -> str:
        """In words."""
        return f"{self.width} features, {grouped(self.classes)} classes, K {self.fit.neighbours}, T {self.fit.steps}"

    @property
    def flops(self) -> float:
        """Of the products for one query: at each step the outputs of K keys and the gradient; at last one output."""
        return 2.0 * self.width * self.classes * (2 * self.fit.neighbours * self.fit.steps + 1)


@dataclass(frozen=True)
class SearchCase:
    """Some queries at once among keys."""

    held: int
    queries: int
    width: int = 256
    k: int = 50

    @property
    def title(self) -> str:
        """In words."""
        return f"{grouped(self.held)} keys, {self.queries} at once, K {self.k}"


TEXTS = (TextCase(268, measured=8_192), TextCase(1194))
PICTURE_CASES = (
    *(PicturesCase(width, 100) for width in (64, 128, 256, 512)),
    *(PicturesCase(width, 1623, queries=16) for width in (64, 128)),  # Omniglot's characters
)
SEARCHES = tuple(SearchCase(held, queries) for held in (10_000, 100_000, 1_000_000) for queries in (1, 64))


def bench_mbpa(
    device: torch.device,
    repetitions: int,
    whole: bool = False,
    texts: tuple[TextCase, ...] = TEXTS,
    pictures: tuple[PicturesCase, ...] = PICTURE_CASES,
    searches: tuple[SearchCase, ...] = SEARCHES,
) -> Bench:
    """All comparisons. whole: time every word of a text as long as the test text of Penn Treebank."""
    found: dict[str, float] = {}
    comparisons = []
    for case in texts:
        case = replace(case, measured=ALL_WORDS) if whole else case
        comparisons.append(compare_on_text(case, 1 if whole else min(FEW, repetitions), device, found))
    comparisons += [compare_on_pictures(case, repetitions, device, found) for case in pictures]
    comparisons += [compare_search(case, repetitions, device, found) for case in searches]
    square = torch.ones(SQUARE, SQUARE, device=device)
    (product,) = measure({"product": lambda: square @ square}, max(repetitions, 10), device, clock_of(device))
    return Bench(
        method="mbpa",
        machine=ledger.describe_machine(device),
        commit=ledger.code_commit(),
        flops_per_second=2 * SQUARE**3 / product.median,
        comparisons=tuple(comparisons),
        scalings=(),
        found=found,
    )


class GivenStates(nn.Module):
    """A language model whose hidden states cost nothing. Its state is the number of steps taken."""

    def __init__(self, hidden: Float[Tensor, "1 steps width"], output: nn.Linear):
        super().__init__()
        self.given, self.output = hidden, output
        self.labels, self.hidden_size = output.out_features, output.in_features

    def hidden(self, xs: Int[Tensor, "1 time"], state: Any = None) -> tuple[Tensor, int]:
        """See `lib.methods.lmn.Network`."""
        start = state or 0
        return self.given[:, start : start + xs.shape[1]], start + xs.shape[1]

    def scores(self, hidden: Float[Tensor, "1 width"]) -> Float[Tensor, "1 labels"]:
        """See `lib.methods.lmn.Network`."""
        return self.output(hidden)


@torch.no_grad()
def compare_on_text(case: TextCase, repetitions: int, device: torch.device, found: dict[str, float]) -> Comparison:
    """The loop, and the dual form over blocks of a text; and how far what they say differs, into `found`."""
    size, fit = case.fit.size, case.fit.fit
    hidden = in_clusters(size + case.measured, case.width, "text", device).tanh()
    words = torch.randint(case.words, (len(hidden),), generator=generator(0, "bench words", 0)).to(device)
    output = fresh(lambda: nn.Linear(case.width, case.words), 0).to(device)
    learner = TextMbPA(GivenStates(hidden.unsqueeze(0), output), output, case.fit)
    past = Past(size, hidden[None, :size], words[None, :size])
    asked, came = words[None, size - 1 : -1], words[None, size:]

    def context_of(step: int) -> Context:
        keys = hidden[step - size : step]
        near = nearest(hidden[step : step + 1], keys, fit.neighbours)
        weights = kernel_weights(near.distances, fit.epsilon)
        return Context(keys[near.positions], words[step - size : step][near.positions], weights)

    def by(way: Callable[..., Adapted]) -> Tensor:
        """Logits, query after query: a text is read word by word."""
        steps = range(size, size + case.looped)
        return torch.cat([way(output, hidden[step : step + 1], context_of(step), fit).outputs for step in steps])

    loop, dual = by(adapted_by_loop), by(adapted_by_dual)
    parts, _ = learner.parts(asked, came, past)
    of_loop = loop.log_softmax(1).gather(1, came[0, : case.looped, None]).squeeze(1)
    title = title_of(TEXT, case.title)
    found[f"{OF_LOGITS}, {title}"] = (loop - dual).abs().max().item()
    found[f"{OF_LIKELIHOOD}, {title}"] = (of_loop - parts.fitted[0, : case.looped]).abs().max().item()
    ways = {LOOP: partial(by, adapted_by_loop), DUAL: lambda: learner.parts(asked, came, past)}
    timed = measure(ways, repetitions, device, clock_of(device))
    return Comparison(title, "queries", 1, a_query(timed, (case.looped, case.measured)))


def compare_on_pictures(
    case: PicturesCase, repetitions: int, device: torch.device, found: dict[str, float]
) -> Comparison:
    """The loop, vmap, and the gradient by hand; and how far the logits of the last differ from the loop's."""
    shown = in_clusters(case.queries * (case.fit.neighbours + 1), case.width, "pictures", device).relu()
    queries, keys = shown[: case.queries], shown[case.queries :].unflatten(0, (case.queries, -1))
    values = torch.randint(case.classes, keys.shape[:2], generator=generator(0, "bench classes", 0)).to(device)
    distances = (keys - queries.unsqueeze(1)).square().sum(2)
    context = Context(keys, values, kernel_weights(distances, case.fit.epsilon))
    output = fresh(lambda: nn.Linear(case.width, case.classes), 0).to(device)
    forms = {LOOP: adapted_by_loop, VMAP: adapted_by_vmap, BATCH: adapted_by_batch}
    ways = {name: partial(form, output, queries, context, case.fit) for name, form in forms.items()}
    title = title_of(PICTURES, case.title)
    found[f"{OF_LOGITS}, {title}"] = (ways[LOOP]().outputs - ways[BATCH]().outputs).abs().max().item()
    timed = measure(ways, repetitions, device, clock_of(device))
    return Comparison(title, "queries", 1, a_query(timed, (case.queries,) * len(timed)), case.flops)


def compare_search(case: SearchCase, repetitions: int, device: torch.device, found: dict[str, float]) -> Comparison:
    """faiss's exact index, where there is faiss and no GPU; ours; and lists of faiss with their recall."""
    keys = in_clusters(case.held, case.width, "keys", device)
    queries, squares = in_clusters(case.queries, case.width, "queries", device), keys.square().sum(1)
    ways = {EXACT: lambda: ExactIndex().candidates(queries, keys, case.k, squares)}
    title = title_of(SEARCH, case.title)
    if device.type == "cpu" and importlib.util.find_spec("faiss"):
        import faiss

        faiss.omp_set_num_threads(torch.get_num_threads())
        theirs, lists = faiss.IndexFlatL2(case.width), FaissIndex()
        theirs.add(keys.numpy())
        near = lists.candidates(queries, keys, case.k)
        found[f"{RECALL} of {LISTS}, {title}"] = recall(near, ways[EXACT]())
        ways = {FAISS: lambda: theirs.search(queries.numpy(), case.k), **ways}
        ways[LISTS] = lambda: lists.candidates(queries, keys, case.k)
    if case.held * case.queries > 2**24:
        repetitions = min(FEW, repetitions)
    timed = measure(ways, repetitions, device, clock_of(device))
    return Comparison(title, "queries", 1, a_query(timed, (case.queries,) * len(timed)))


def in_clusters(count: int, width: int, stream: str, device: torch.device) -> Float[Tensor, "count width"]:
    """Around 1000 centres, as far from them as these are from 0."""
    centres = torch.randn(1000, width, generator=generator(0, "bench centres", 0))
    random = generator(0, f"bench {stream}", 0)
    near = centres[torch.randint(len(centres), (count,), generator=random)]
    return near.add_(torch.randn(count, width, generator=random)).to(device)


def a_query(timed: tuple[Measurement, ...], queries: tuple[int, ...]) -> tuple[Measurement, ...]:
    """Seconds of one query, where a call does so many."""
    return tuple(
        Measurement(way.name, tuple(each / n for each in way.seconds), way.first / n)
        for way, n in zip(timed, queries, strict=True)
    )


def goals(
    bench: Bench,
    texts: tuple[TextCase, ...] = TEXTS,
    pictures: tuple[PicturesCase, ...] = PICTURE_CASES,
    searches: tuple[SearchCase, ...] = SEARCHES,
) -> str:
    """Sentences, in Markdown: what was to be reached, and what was."""
    compared, lines = by_title(bench), []
    for case in texts:
        title, measured = title_of(TEXT, case.title), "projected from those timed"
        if title not in compared:
            title = title_of(TEXT, replace(case, measured=ALL_WORDS).title)
            measured = "all of them timed"
        comparison = compared[title]
        way = comparison.ways[1]
        lines.append(
            f"- {title}: {digits(comparison.ratio(way))} times the loop's queries a second (goal: 100). "
            f"{grouped(ALL_WORDS)} words take {duration(way.median * ALL_WORDS)}, {measured} (goal: 10 minutes). "
            f"Logits differ by {bench.found[f'{OF_LOGITS}, {title}']:.1e}, log p by "
            f"{bench.found[f'{OF_LIKELIHOOD}, {title}']:.1e} at most (goal: 1e-4)."
        )
    for case in pictures:
        title = title_of(PICTURES, case.title)
        ratios = [f"{way.name} {digits(compared[title].ratio(way))}" for way in compared[title].ways[1:]]
        most = compared[title].ways[0].median * bench.flops_per_second / case.flops
        lines.append(
            f"- {title}: times the loop, {', '.join(ratios)} (goal: 10; the matrix products alone leave "
            f"{digits(most)}). Logits differ by {bench.found[f'{OF_LOGITS}, {title}']:.1e} at most."
        )
    for case in searches:
        title = title_of(SEARCH, case.title)
        seconds = {way.name: way.median for way in compared[title].ways}
        if FAISS not in seconds:
            lines.append(f"- {title}: not compared with faiss.")
            continue
        share = bench.found[f"{RECALL} of {LISTS}, {title}"]
        lines.append(
            f"- {title}: {digits(seconds[EXACT] / seconds[FAISS])} times the time of faiss's exact index (goal: 1.5 at "
            f"most); lists of faiss take {digits(seconds[LISTS] / seconds[FAISS])} and find {100 * share:.1f}%."
        )
    return "\n".join(lines)
