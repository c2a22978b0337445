"""MbPA's benchmark: fits of the softmax layer beside the naive loop, on a text and to pictures, and the search.

All of it is on made-up keys, in clusters, as what a network gives them is. Times are of one query:

- on a text, the paper's setting: memory, K, T and words as in its appendix B. What `lib/methods/mbpa_text.py` does with
  given hidden states is timed, with its search, its neural cache and the likelihood of the word that came, on a part of
  the text whose memory is full (or on the whole text). The loop has its search too. The logits of the path that is
  timed are compared with the loop's;
- to pictures, search left out: RMSprop on a layer of some sizes, and gradient descent on the two layers of the permuted
  digits. Of RMSprop the products are counted that no form can do without, for it makes all weights differ from query to
  query; of gradient descent those of the dual form;
- the search: faiss's exact index; ours, with the distances, as MbPA needs it and faiss gives it; and lists of faiss,
  whose recall is measured. Without faiss, ours alone.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lib.baselines.neural_cache import Past
from lib.bench import Bench, Comparison, Measurement, finished, measure
from lib.bench_steps import by_title, clock_of, digits, title_of
from lib.experiments.runs import fresh
from lib.memory.episodic import Context, kernel_weights, nearest, nearest_earlier
from lib.memory.faiss_index import FaissIndex, recall
from lib.methods.mbpa import (
    Adapted,
    MbPAConfig,
    adapted_by_batch,
    adapted_by_first_dual,
    adapted_by_loop,
    adapted_by_vmap,
)
from lib.methods.mbpa_text import TextMbPA, TextMbPAConfig
from lib.report import duration, grouped, unbroken
from lib.tasks.seeds import generator

ALL_WORDS = 82_430  # of Penn Treebank's test text
LOOP, VMAP, BATCH, DUAL = "naive loop", "vmap", "batch", "dual, in blocks of the text"
FIRST_DUAL = "dual of the first layer"
FAISS, EXACT, LISTS = "faiss's exact index", "our exact search, with distances", "lists of faiss"
TEXT, PICTURES, SEARCH = "a word of a text", "a picture", "a search"
OF_LOGITS, OF_LIKELIHOOD, RECALL = "largest difference of logits", "largest difference of log p", "recall"
TIMES_ON_TEXT, TIMES_ON_PICTURES, MINUTES, TIMES_OF_FAISS, CLOSE = 100, 10, 10, 1.5, 1e-4  # what is to be reached
FEW = 3  # repetitions of what takes seconds


@dataclass(frozen=True)
class TextCase:
    """The paper's setting for language, with this width of h."""

    width: int
    """268 is the paper's embedding, which a tied softmax layer has; 1194 its LSTM."""
    measured: int = 4_096
    """Words, after as many as the memory holds."""
    looped: int = 4
    """Of which the loop is timed on so many."""
    compared: int = 128
    """Of which so many are compared with the loop's."""
    fit: TextMbPAConfig = TextMbPAConfig()
    words: int = 10_000

    def __post_init__(self):
        if max(self.looped, self.compared) > self.measured:
            raise ValueError(f"the loop does {self.looped} and {self.compared} words, of {self.measured} measured")

    @property
    def title(self) -> str:
        """In words."""
        return (
            f"width {grouped(self.width)}, memory {grouped(self.fit.size)}, K {self.fit.fit.neighbours}, "
            f"{grouped(self.words)} words, timed on {grouped(self.measured)}"
        )


@dataclass(frozen=True)
class PicturesCase:
    """A softmax layer, fitted by RMSprop with the number of steps that was chosen for table 1."""

    width: int
    classes: int
    queries: int = 64
    fit: MbPAConfig = MbPAConfig(neighbours=50, steps=20, rate=1e-3, optimizer="rmsprop")
    hidden: int = 0
    """Units of a layer before it, which is fitted too; 0: none."""

    @property
    def title(self) -> str:
        """In words."""
        features = f"{self.width} features" + (f", {self.hidden} units" if self.hidden else "")
        return f"{features}, {grouped(self.classes)} classes, K {self.fit.neighbours}, T {self.fit.steps}"

    @property
    def by_hand(self) -> tuple[str, Callable[..., Adapted]]:
        """The form that is written for such a network, and its name."""
        return (FIRST_DUAL, adapted_by_first_dual) if self.hidden else (BATCH, adapted_by_batch)

    def network(self) -> nn.Module:
        """Fresh."""
        if not self.hidden:
            return nn.Linear(self.width, self.classes)
        return nn.Sequential(nn.Linear(self.width, self.hidden), nn.ReLU(), nn.Linear(self.hidden, self.classes))

    @property
    def flops(self) -> float:
        """Of the products for one query: at each step the outputs of K keys and the gradient; at last one output. With
        two layers: what the first gives for the keys and the query, the keys' products, and at each step these with c,
        then outputs, the gradient, and the way back."""
        k, steps = self.fit.neighbours, self.fit.steps
        if not self.hidden:
            return 2.0 * self.width * self.classes * (2 * k * steps + 1)
        once = (k + 1) * self.width * (self.hidden + k) + k * self.hidden + self.hidden * self.classes
        return 2.0 * (once + steps * k * self.hidden * (k + 3 * self.classes))


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
    PicturesCase(784, 10, 16, MbPAConfig(neighbours=50, steps=20, rate=0.01), hidden=400),  # permuted digits
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
    return finished("mbpa", comparisons, (), repetitions, device, clock_of(device), found=found)


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

    def by_loop(count: int) -> Tensor:
        """Logits, query after query: a text is read word by word."""
        found = []
        for at in torch.arange(size, size + count, device=device).split(1):
            near = nearest_earlier(hidden, at, size, fit.neighbours, fit.epsilon)
            context = Context(hidden[near.positions], words[near.positions], near.weights)
            found.append(adapted_by_loop(output, hidden[at], context, fit).outputs)
        return torch.cat(found)

    count = case.compared
    blocks = learner.blocks(hidden[: size + count], words[: size + count], size, (fit.rate,))
    loop, timed_form = by_loop(count), torch.cat([block.fitted[0] for block in blocks])
    parts, _ = learner.parts(asked, came, past)
    of_loop = loop.log_softmax(1).gather(1, came[0, :count, None]).squeeze(1)
    title = title_of(TEXT, case.title)
    found[f"{OF_LOGITS} of {count} words, {title}"] = (loop - timed_form).abs().max().item()
    found[f"{OF_LIKELIHOOD} of {count} words, {title}"] = (of_loop - parts.fitted[0, :count]).abs().max().item()
    ways = {LOOP: partial(by_loop, case.looped), DUAL: lambda: learner.parts(asked, came, past)}
    timed = measure(ways, repetitions, device, clock_of(device))
    return Comparison(title, "queries", 1, a_query(timed, (case.looped, case.measured)))


def compare_on_pictures(
    case: PicturesCase, repetitions: int, device: torch.device, found: dict[str, float]
) -> Comparison:
    """The loop, vmap, and the form by hand; and how far the logits of these two differ from the loop's."""
    shown = in_clusters(case.queries * (case.fit.neighbours + 1), case.width, "pictures", device).relu()
    queries, keys = shown[: case.queries], shown[case.queries :].unflatten(0, (case.queries, -1))
    values = torch.randint(case.classes, keys.shape[:2], generator=generator(0, "bench classes", 0)).to(device)
    distances = (keys - queries.unsqueeze(1)).square().sum(2)
    context = Context(keys, values, kernel_weights(distances, case.fit.epsilon))
    output = fresh(case.network, 0).to(device)
    forms = dict([(LOOP, adapted_by_loop), (VMAP, adapted_by_vmap), case.by_hand])
    ways = {name: partial(form, output, queries, context, case.fit) for name, form in forms.items()}
    title = title_of(PICTURES, case.title)
    loop, *others = (way().outputs for way in ways.values())
    found[f"{OF_LOGITS}, {title}"] = max((loop - other).abs().max().item() for other in others)
    timed = measure(ways, repetitions, device, clock_of(device))
    return Comparison(title, "queries", 1, a_query(timed, (case.queries,) * len(timed)), case.flops)


def compare_search(case: SearchCase, repetitions: int, device: torch.device, found: dict[str, float]) -> Comparison:
    """faiss's exact index, where there is faiss and no GPU; ours; and lists of faiss with their recall."""
    keys = in_clusters(case.held, case.width, "keys", device)
    queries, squares = in_clusters(case.queries, case.width, "queries", device), keys.square().sum(1)
    ways = {EXACT: lambda: nearest(queries, keys, case.k, squares=squares)}
    title = title_of(SEARCH, case.title)
    if device.type == "cpu" and importlib.util.find_spec("faiss"):
        import faiss

        faiss.omp_set_num_threads(torch.get_num_threads())
        theirs, lists = faiss.IndexFlatL2(case.width), FaissIndex()
        theirs.add(keys.numpy())
        near = lists.candidates(queries, keys, case.k)
        found[f"{RECALL} of {LISTS}, {title}"] = recall(near, ways[EXACT]().positions)
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


@dataclass(frozen=True)
class Reached:
    """What one case says about a goal."""

    case: str
    yes: bool | None
    """None where it was not measured."""
    measured: str = ""
    """In words."""


def goals(
    bench: Bench,
    texts: tuple[TextCase, ...] = TEXTS,
    pictures: tuple[PicturesCase, ...] = PICTURE_CASES,
    searches: tuple[SearchCase, ...] = SEARCHES,
) -> str:
    """A numbered list, in Markdown: each goal, whether it was reached or missed, and by how much in each case."""
    compared = by_title(bench)
    text_titles = [_timed_title(case, compared) for case in texts]
    of_texts = [(title, compared.get(title)) for title in text_titles]
    of_pictures = [(title_of(PICTURES, case.title), case) for case in pictures]
    judged = [
        (
            f"A text: at least {TIMES_ON_TEXT} times the naive loop's queries a second",
            [_times_the_loop(title, found, DUAL, TIMES_ON_TEXT) for title, found in of_texts],
        ),
        (
            f"A text of {grouped(ALL_WORDS)} words: under {MINUTES} minutes",
            [_all_words(title, found) for title, found in of_texts],
        ),
        *(
            (
                f"Pictures by {way}: at least {TIMES_ON_PICTURES} times the naive loop's queries a second",
                [
                    _times_the_loop(title, compared.get(title), way, TIMES_ON_PICTURES, _bound(bench, title, case))
                    for title, case in of_pictures
                    if way in (VMAP, case.by_hand[0])
                ],
            )
            for way in (VMAP, BATCH, FIRST_DUAL)
        ),
        (
            f"The search: at most {TIMES_OF_FAISS} times the time of faiss's exact index",
            [_beside_faiss(bench, title_of(SEARCH, case.title)) for case in searches],
        ),
        (
            f"Logits equal to the naive loop's up to {CLOSE:g}",
            [
                *(
                    _close(bench, title, f" of {case.compared} words")
                    for title, case in zip(text_titles, texts, strict=True)
                ),
                *(_close(bench, title) for title, _ in of_pictures),
            ],
        ),
    ]
    lines = []
    for number, (goal, cases) in enumerate((each for each in judged if each[1]), 1):
        lines.append(f"{number}. {goal}: {_verdict(cases)}.")
        lines += [
            f"    - {each.case}: {each.measured + ', ' if each.measured else ''}{_WORD[each.yes]}" for each in cases
        ]
    return unbroken("\n".join(lines))


_WORD = {True: "reached", False: "missed", None: "not measured"}


def _verdict(cases: list[Reached]) -> str:
    """Of a goal: reached if it was in every case."""
    known = [each.yes for each in cases if each.yes is not None]
    if not known:
        return "**not measured**"
    missed, left_out = known.count(False), len(cases) - len(known)
    verdict = f"**missed** in {missed} of {len(known)} cases" if missed else "**reached**"
    return verdict + (f"; {left_out} not measured" if left_out else "")


def _timed_title(case: TextCase, compared: dict[str, Comparison]) -> str:
    """Of a text, a part of which was timed, or all of it."""
    title, whole = (title_of(TEXT, each.title) for each in (case, replace(case, measured=ALL_WORDS)))
    return whole if whole in compared else title


def _times_the_loop(title: str, found: Comparison | None, name: str, times: float, bound: str = "") -> Reached:
    ways = {way.name: way for way in found.ways} if found else {}
    if name not in ways:
        return Reached(title, None)
    ratio = found.ratio(ways[name])
    return Reached(title, ratio >= times, f"{digits(ratio)} times the loop{bound}")


def _bound(bench: Bench, title: str, case: PicturesCase) -> str:
    """How many times the loop would be possible if the matrix products alone took time."""
    found = by_title(bench).get(title)
    if found is None:
        return ""
    return f" (the matrix products alone leave {digits(found.ways[0].median * bench.flops_per_second / case.flops)})"


def _all_words(title: str, found: Comparison | None) -> Reached:
    if found is None:
        return Reached(title, None)
    seconds = found.ways[1].median * ALL_WORDS
    how = "all of them timed" if f"timed on {grouped(ALL_WORDS)}" in title else "projected from those timed"
    return Reached(title, seconds < 60 * MINUTES, f"{duration(seconds)}, {how}")


def _beside_faiss(bench: Bench, title: str) -> Reached:
    found = by_title(bench).get(title)
    seconds = {way.name: way.median for way in found.ways} if found else {}
    if FAISS not in seconds or EXACT not in seconds:
        return Reached(title, None)
    ratio, share = seconds[EXACT] / seconds[FAISS], bench.found[f"{RECALL} of {LISTS}, {title}"]
    lists = f"lists of faiss take {digits(seconds[LISTS] / seconds[FAISS])} and find {100 * share:.1f}%"
    return Reached(title, ratio <= TIMES_OF_FAISS, f"{digits(ratio)} times the time of faiss ({lists})")


def _close(bench: Bench, title: str, of: str = "") -> Reached:
    """of: how much was compared, where that is not all."""
    found = bench.found.get(f"{OF_LOGITS}{of}, {title}")
    if found is None:
        return Reached(title, None)
    return Reached(title, found <= CLOSE, f"largest difference{of} {found:.1e}")
