"""Episodic memory: a circular buffer of keys and values, read by the nearest keys (Sprechmann et al. 2018, section 2).

| here | paper | where |
| --- | --- | --- |
| `EpisodicMemory` | M, of fixed size, the oldest overwritten first | section 2 |
| `nearest` | the K nearest neighbours by Euclidean distance | section 2 |
| `nearest_earlier` | the same, of the steps of a text among the last N before each | section 4.3 |
| `kernel_weights` | w_k ∝ kern(h_k, q) = 1 / (ε + ‖h_k - q‖²) | above equation 2 |
| `Context` | C = {(h_k, v_k, w_k)} | section 2 |
"""

import ctypes
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from lib import kernels

DISTANCES_AT_ONCE = 2**24  # 64 MB
IN_CACHE = 2**18  # distances, or numbers of keys, that a CPU's cache holds: 1 MB
MANY = 2**18  # numbers of keys for which a kernel is built
CANCELS = 0.1  # of ‖h‖² + ‖q‖²: a distance below it has too few digits if it is computed from these and h·q
TOGETHER = 64  # queries that at least meet the keys together, where there are so many


class Neighbours(NamedTuple):
    """Of each query the nearest keys, the nearest first."""

    positions: Int[Tensor, "queries k"]
    """Where in the memory they are."""
    distances: Float[Tensor, "queries k"]
    """‖h_k - q‖², computed from the difference: near 0 the kernel needs every digit."""


class Context(NamedTuple):
    """What is retrieved for each query: C of the paper."""

    keys: Float[Tensor, "queries k width"]
    values: Shaped[Tensor, "queries k *value"]
    weights: Float[Tensor, "queries k"]
    """Sum to 1 for each query."""


@runtime_checkable
class Index(Protocol):
    """What finds candidates among keys; it may miss some."""

    def candidates(
        self, queries: Float[Tensor, "queries width"], keys: Float[Tensor, "held width"], k: int
    ) -> Int[Tensor, "queries k"]:
        """Positions of keys near each query, in any order."""


class ExactIndex:
    """All distances by matrix products, so many at once that they fit in memory. squares: ‖h‖² of the keys."""

    def __init__(self, at_once: int = DISTANCES_AT_ONCE):
        self.at_once = at_once

    @torch.no_grad()
    def candidates(
        self,
        queries: Float[Tensor, "queries width"],
        keys: Float[Tensor, "held width"],
        k: int,
        squares: Float[Tensor, " held"] | None = None,
    ) -> Int[Tensor, "queries k"]:
        """Positions of the k nearest keys of each query, the nearest first."""
        squares = keys.square().sum(1) if squares is None else squares
        some = max(1, self.at_once // max(len(keys), 1))
        if some >= min(len(queries), TOGETHER):  # few enough keys to meet them all with several queries
            parts = [self._closeness(each, keys, squares).topk(k, largest=False) for each in queries.split(some)]
            return _joined([part.indices for part in parts])
        return _joined([self._merged(each, keys, k, squares) for each in queries.split(TOGETHER)])

    def _merged(self, queries: Tensor, keys: Tensor, k: int, squares: Tensor) -> Tensor:
        """Block by block of the keys: the best of each block compete with the best so far."""
        size, best, found = max(k, self.at_once // len(queries)), None, None
        for start in range(0, len(keys), size):
            block, norms = keys[start : start + size], squares[start : start + size]
            distances, at = self._closeness(queries, block, norms).topk(min(k, len(block)), largest=False)
            at = at + start
            if best is not None:
                distances, at = torch.cat([best, distances], 1), torch.cat([found, at], 1)
                distances, order = distances.topk(k, largest=False)
                at = at.gather(1, order)
            best, found = distances, at
        return found

    def _closeness(self, queries: Tensor, keys: Tensor, squares: Tensor) -> Tensor:
        """‖h‖² - 2 h·q: ‖q‖² is the same for all keys of a query, and is left out."""
        if queries.is_cuda:
            return torch.addmm(squares, queries, keys.T, alpha=-2)
        # On a CPU keys times queries is up to four times faster than queries times keys, where queries are few. It
        # comes out the wrong way round; a block of it is turned while a cache holds it.
        closeness, some = queries.new_empty(len(queries), len(keys)), max(1, IN_CACHE // len(queries))
        for turned, block, norms in zip(
            closeness.split(some, dim=1), keys.split(some), squares.split(some), strict=True
        ):
            torch.add(norms, torch.mm(block, queries.T).T, alpha=-2, out=turned)
        return closeness


def _joined(parts: list[Tensor]) -> Tensor:
    """One after the other; a single one is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def nearest(
    queries: Float[Tensor, "queries width"],
    keys: Float[Tensor, "held width"],
    k: int,
    *,
    index: Index | None = None,
    squares: Float[Tensor, " held"] | None = None,
) -> Neighbours:
    """The k nearest keys of each query, or all keys where there are fewer.

    index: what finds them, by default all distances; squares: ‖h‖² of the keys, where it is known. Of keys at the same
    distance any may come first. Raises ValueError if k is not positive.
    """
    if k < 1:
        raise ValueError(f"at least one neighbour must be asked for, not {k}")
    k = min(k, len(keys))
    if k == 0 or not len(queries):
        none = torch.zeros(len(queries), k, dtype=torch.int64, device=queries.device)
        return Neighbours(none, queries.new_zeros(len(queries), k))
    if index is None and _read_by_kernel(queries, keys):
        distances, positions = _distances_of_one(queries, keys).topk(k, largest=False)
        return Neighbours(positions, distances)
    if index is None:
        positions = ExactIndex().candidates(queries, keys, k, squares)
    else:
        positions = index.candidates(queries, keys, k)
    distances, order = distances_to(queries, keys, positions).sort(dim=1)
    return Neighbours(positions.gather(1, order), distances)


def _read_by_kernel(queries: Tensor, keys: Tensor) -> bool:
    """Whether there is one query on a CPU, and enough keys in one piece that are worth a kernel."""
    few = len(queries) > 1 or keys.numel() < MANY
    if few or keys.is_cuda or not keys.is_contiguous() or keys.dtype != queries.dtype:
        return False
    return keys.dtype in kernels.C_NAMES and kernels.available("nearest", keys.dtype)


def _distances_of_one(query: Float[Tensor, "1 width"], keys: Float[Tensor, "held width"]) -> Float[Tensor, "1 held"]:
    """‖h - q‖² of all keys, from differences, in the time that it takes to read them."""
    distances, query = keys.new_empty(1, len(keys)), query.contiguous()
    sizes = (ctypes.c_int64(each) for each in (torch.get_num_threads(), *keys.shape))
    arrays = (ctypes.c_void_p(each.data_ptr()) for each in (keys, query, distances))
    kernels.load("nearest", keys.dtype).distances_of_one(*sizes, *arrays)
    return distances


def distances_to(
    queries: Float[Tensor, "queries width"], keys: Float[Tensor, "held width"], positions: Int[Tensor, "queries k"]
) -> Float[Tensor, "queries k"]:
    """‖h - q‖² of each query and some keys, from differences; a few queries at a time."""
    numbers = max(1, positions.shape[1] * queries.shape[1])  # of the keys of a query
    some = max(1, (DISTANCES_AT_ONCE if queries.is_cuda else IN_CACHE) // numbers)
    pairs = zip(queries.split(some), positions.split(some), strict=True)
    return _joined([(keys[at] - q.unsqueeze(1)).square_().sum(2) for q, at in pairs])


class EarlierSteps(NamedTuple):
    """Of some steps of a text the nearest of the steps before each."""

    positions: Int[Tensor, "queries k"]
    """Where in the text they are: the nearest first, but for rounding."""
    weights: Float[Tensor, "queries k"]
    """Of the kernel. 0 for what fills up the k where fewer are in memory; all are 0 where nothing is."""
    products: Float[Tensor, "queries k"]
    """h_k·q"""


def nearest_earlier(
    hidden: Float[Tensor, "time width"], at: Int[Tensor, " queries"], size: int, k: int, epsilon: float
) -> EarlierSteps:
    """For each of some steps of one text, `at` and rising, the k nearest of the `size` steps before it.

    All of them meet one stretch of the text, from the first that any of them sees: let them be near each other.
    """
    first, last = max(0, int(at[0]) - size), int(at[-1]) + 1
    past, queries, seen = hidden[first:last], hidden[at], torch.arange(first, last, device=hidden.device)
    hidden_from_it = (seen >= at.unsqueeze(1)) | (seen < at.unsqueeze(1) - size)
    products, squares = queries @ past.T, past.square().sum(1)
    closeness = torch.add(squares, products, alpha=-2).masked_fill_(hidden_from_it, torch.inf)
    positions = closeness.topk(min(k, len(past)), largest=False).indices
    both = squares[positions] + queries.square().sum(1, keepdim=True)
    distances = both - 2 * products.gather(1, positions)
    for some in (distances < CANCELS * both).nonzero().split(max(1, DISTANCES_AT_ONCE // past.shape[1])):
        i, nth = some.unbind(1)
        distances[i, nth] = (past[positions[i, nth]] - queries[i]).square_().sum(1)
    distances.masked_fill_(hidden_from_it.gather(1, positions), torch.inf)
    weights = kernel_weights(distances, epsilon).nan_to_num_(0.0)  # with no past at all, 0 / 0
    return EarlierSteps(first + positions, weights, products.gather(1, positions))


def kernel_weights(distances: Float[Tensor, "queries k"], epsilon: float) -> Float[Tensor, "queries k"]:
    """w_k ∝ 1 / (ε + ‖h_k - q‖²), normalised over the neighbours of each query."""
    closeness = 1 / (epsilon + distances)
    return closeness / closeness.sum(1, keepdim=True)


class EpisodicMemory:
    """A circular buffer of (key, value) on one device, empty at first: when it is full, the oldest goes first.

    Writes change the tensors in place, as those of the labelled memory do: a million keys are not copied for one more.
    value: shape of a value, () for a class. like: a tensor of the device and kind of the keys. kind: of the values, by
    default int64 for classes and that of the keys for others. Raises ValueError if the capacity is not positive.
    """

    def __init__(
        self,
        capacity: int,
        width: int,
        value: tuple[int, ...] = (),
        *,
        like: Tensor,
        kind: torch.dtype | None = None,
        index: Index | None = None,
    ):
        if capacity < 1:
            raise ValueError(f"a memory needs room for at least one key, not {capacity}")
        kind = kind or (like.dtype if value else torch.int64)
        self.capacity, self.index = capacity, index
        self.written = 0
        """How many were ever written."""
        self._keys = like.new_zeros(capacity, width)
        self._squares = like.new_zeros(capacity)
        self._values = torch.zeros(capacity, *value, dtype=kind, device=like.device)

    def __len__(self) -> int:
        return min(self.written, self.capacity)

    @property
    def keys(self) -> Float[Tensor, "held width"]:
        """h of all that is held, by position: once the memory is full, no longer in the order of writing."""
        return self._keys[: len(self)]

    @property
    def values(self) -> Shaped[Tensor, "held *value"]:
        """v of all that is held, by position."""
        return self._values[: len(self)]

    @torch.no_grad()
    def append(
        self, keys: Float[Tensor, "some width"], values: Shaped[Tensor, "as_many *value"]
    ) -> Int[Tensor, " written"]:
        """Write pairs one after the other; where they went: of more than there is room for, the last ones.

        Raises ValueError for shapes that do not fit.
        """
        if keys.shape[1:] != self._keys.shape[1:] or values.shape != (len(keys), *self._values.shape[1:]):
            expected = f"keys (some, {self._keys.shape[1]}) and values (some, *{tuple(self._values.shape[1:])})"
            raise ValueError(f"expected {expected}, got {tuple(keys.shape)} and {tuple(values.shape)}")
        skipped = max(0, len(keys) - self.capacity)
        keys, values = keys[skipped:], values[skipped:]
        first = self.written + skipped
        at = torch.arange(first, first + len(keys), device=self._keys.device) % self.capacity
        self._keys[at] = keys.to(self._keys)
        self._squares[at] = self._keys[at].square().sum(1)
        self._values[at] = values.to(self._values)
        self.written = first + len(keys)
        return at

    def remove(self, position: int) -> None:
        """Forget one pair; the others keep their order of writing, from position 0 on.

        Raises ValueError for a position that is not in use.
        """
        held = len(self)
        if not 0 <= position < held:
            raise ValueError(f"there is no pair {position}: the memory holds {held}")
        order = self.in_order()
        order = order[order != position]
        for tensor in (self._keys, self._squares, self._values):
            tensor[: held - 1] = tensor[order]
        self.written = held - 1

    def in_order(self) -> Int[Tensor, " held"]:
        """Positions from the oldest to the newest."""
        first = self.written - len(self)
        return torch.arange(first, self.written, device=self._keys.device) % self.capacity

    def nearest(self, queries: Float[Tensor, "queries width"], k: int) -> Neighbours:
        """The k nearest keys of each query, or all where fewer are held."""
        return nearest(queries, self.keys, k, index=self.index, squares=self._squares[: len(self)])

    def context(self, queries: Float[Tensor, "queries width"], k: int, epsilon: float) -> Context:
        """C of each query: the k nearest keys with their values and weights."""
        found = self.nearest(queries, k)
        return Context(
            self._keys[found.positions], self._values[found.positions], kernel_weights(found.distances, epsilon)
        )
