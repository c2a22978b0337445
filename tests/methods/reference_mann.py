"""Equations 2 to 24 of Santoro et al. (2016) in float64 NumPy: one function a step, loops over batch, heads and slots.

Written from the paper alone and slow on purpose: what the fast code is held to. Where the paper leaves a choice:
the memory is written first, with the weights that steps before t made, and then read; each of the n heads reads and
writes, with a key for each or with one key for both; ties of usage go to the lowest slot; `write_to="all"` is the n-hot
vector of equation 6 for every head, `write_to="own"` gives head j the j-th least used slot alone; the n least used
slots are set to zero before the write.
"""

import math
from dataclasses import dataclass

import numpy as np

EPSILON = 1e-8  # added to squared lengths: the cosine with an empty slot is 0, not 0/0


def sigmoid(a: float) -> float:
    return 1.0 / (1.0 + math.exp(-a)) if a >= 0 else math.exp(a) / (1.0 + math.exp(a))


def cosine(key: np.ndarray, row: np.ndarray) -> float:
    """Equations 2 and 17: K(k, M(i)) for one key (M,) and one slot (M,)."""
    dot = key_length = row_length = 0.0
    for k, m in zip(key, row, strict=True):
        dot += k * m
        key_length += k * k
        row_length += m * m
    return dot / (math.sqrt(key_length + EPSILON) * math.sqrt(row_length + EPSILON))


def softmax(scores: np.ndarray) -> np.ndarray:
    """Scores (N,) to weights (N,) that sum to 1."""
    exponentials = [math.exp(score - max(scores)) for score in scores]
    return np.array([e / sum(exponentials) for e in exponentials])


def read_weight(key: np.ndarray, memory: np.ndarray) -> np.ndarray:
    """Equations 3 and 18: key (M,), memory (N, M) -> (N,)."""
    return softmax(np.array([cosine(key, memory[i]) for i in range(len(memory))]))


def read_vector(weight: np.ndarray, memory: np.ndarray) -> np.ndarray:
    """Equations 4 and 19: weight (N,), memory (N, M) -> (M,)."""
    total = np.zeros(memory.shape[1])
    for i in range(len(memory)):
        total += weight[i] * memory[i]
    return total


def next_usage(usage: np.ndarray, read_weights: np.ndarray, write_weights: np.ndarray, decay: float) -> np.ndarray:
    """Equations 5 and 20: usage (N,), read and write weights (n, N) summed over the heads -> (N,)."""
    result = np.zeros(len(usage))
    for i in range(len(usage)):
        result[i] = decay * usage[i]
        for head in range(len(read_weights)):
            result[i] += read_weights[head, i]
        for head in range(len(write_weights)):
            result[i] += write_weights[head, i]
    return result


def least_used_slots(usage: np.ndarray, n: int) -> list[int]:
    """Equations 6 and 21 with ties broken: the n slots of least usage, least first, the lower slot first in a tie."""
    left = list(range(len(usage)))
    chosen = []
    for _ in range(n):
        best = left[0]
        for i in left[1:]:
            if usage[i] < usage[best]:
                best = i
        chosen.append(best)
        left.remove(best)
    return chosen


def write_weight(gate: float, read_before: np.ndarray, least_used: np.ndarray) -> np.ndarray:
    """Equations 7 and 22 for one head: α, w_r of the step before (N,), w_lu of the step before (N,) -> (N,)."""
    openness = sigmoid(gate)
    return np.array([openness * r + (1.0 - openness) * u for r, u in zip(read_before, least_used, strict=True)])


def erase(memory: np.ndarray, slots: list[int]) -> np.ndarray:
    """«Prior to writing, the least used location is set to zero»: memory (N, M) with the given slots zeroed."""
    result = memory.copy()
    for i in slots:
        result[i] = 0.0
    return result


def write(memory: np.ndarray, write_weights: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Equations 8 and 23: memory (N, M), write weights (n, N), keys (n, M) -> (N, M)."""
    result = memory.copy()
    for i in range(len(memory)):
        for head in range(len(keys)):
            result[i] += write_weights[head, i] * keys[head]
    return result


@dataclass
class Stream:
    """What one episode carries from step to step: the controller's hidden and cell state (H,), the memory (N, M), the
    usage (N,), the weights (n, N) and the vectors that were read, concatenated (n * M,)."""

    hidden: np.ndarray
    cell: np.ndarray
    memory: np.ndarray
    usage: np.ndarray
    read_weights: np.ndarray
    write_weights: np.ndarray
    read: np.ndarray


@dataclass
class Weights:
    """Everything that is learnt. `gates[g]` is the pair (matrix over (x, y, r, h_{t-1}), bias) of gate g in "forget",
    "input", "output" and "update" for an LSTM; the pair "hidden" over (x, y, r) for a feed-forward controller."""

    gates: dict[str, tuple[np.ndarray, np.ndarray]]
    read_key_matrix: np.ndarray  # (n * M, H)
    read_key_bias: np.ndarray  # (n * M,)
    write_key_matrix: np.ndarray  # (n * M, H); the same as for reading where one key serves both
    write_key_bias: np.ndarray  # (n * M,)
    gate_matrix: np.ndarray | None  # (n, H); None: a learnt number per head
    gate_bias: np.ndarray  # (n,)
    output_matrix: np.ndarray  # (C, H + n * M)
    output_bias: np.ndarray  # (C,)


def lstm_step(gates: dict, inputs: np.ndarray, hidden: np.ndarray, cell: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Equations 9 to 15: inputs (D,), hidden and cell (H,) -> the new hidden and cell state."""
    seen = np.concatenate([inputs, hidden])
    before = {name: matrix @ seen + bias for name, (matrix, bias) in gates.items()}
    new_hidden, new_cell = np.zeros(len(hidden)), np.zeros(len(hidden))
    for j in range(len(hidden)):
        forget, keep = sigmoid(before["forget"][j]), sigmoid(before["input"][j])
        new_cell[j] = forget * cell[j] + keep * math.tanh(before["update"][j])
        new_hidden[j] = sigmoid(before["output"][j]) * math.tanh(new_cell[j])
    return new_hidden, new_cell


def start(hidden_size: int, slots: int, width: int, n: int) -> Stream:
    """The stream before step 1: everything is zero."""
    return Stream(
        hidden=np.zeros(hidden_size),
        cell=np.zeros(hidden_size),
        memory=np.zeros((slots, width)),
        usage=np.zeros(slots),
        read_weights=np.zeros((n, slots)),
        write_weights=np.zeros((n, slots)),
        read=np.zeros(n * width),
    )


def step(
    weights: Weights,
    stream: Stream,
    x: np.ndarray,
    label: np.ndarray,
    *,
    decay: float,
    write_to: str,
    activation=math.tanh,
) -> tuple[np.ndarray, Stream]:
    """One time step: x (D,), the label of the step before as a vector (C,) -> logits (C,) and the new stream."""
    slots, width = stream.memory.shape
    n = len(stream.read_weights)
    inputs = np.concatenate([x, label, stream.read])
    if "hidden" in weights.gates:  # a feed-forward controller: no state, its layer is the query
        matrix, bias = weights.gates["hidden"]
        hidden = np.array([activation(a) for a in matrix @ inputs + bias])
        cell, query = stream.cell, hidden
    else:
        hidden, cell = lstm_step(weights.gates, inputs, stream.hidden, stream.cell)
        query = cell
    read_keys = (weights.read_key_matrix @ query + weights.read_key_bias).reshape(n, width)
    write_keys = (weights.write_key_matrix @ query + weights.write_key_bias).reshape(n, width)
    gate = weights.gate_bias if weights.gate_matrix is None else weights.gate_matrix @ hidden + weights.gate_bias

    chosen = least_used_slots(stream.usage, n)  # w_lu of step t - 1
    write_weights = np.zeros((n, slots))
    for head in range(n):
        least_used = np.zeros(slots)
        for slot in [chosen[head]] if write_to == "own" else chosen:
            least_used[slot] = 1.0
        write_weights[head] = write_weight(gate[head], stream.read_weights[head], least_used)
    memory = write(erase(stream.memory, chosen), write_weights, write_keys)

    read_weights = np.zeros((n, slots))
    reads = np.zeros((n, width))
    for head in range(n):
        read_weights[head] = read_weight(read_keys[head], memory)
        reads[head] = read_vector(read_weights[head], memory)
    read = reads.reshape(n * width)
    usage = next_usage(stream.usage, read_weights, write_weights, decay)
    logits = weights.output_matrix @ np.concatenate([hidden, read]) + weights.output_bias
    return logits, Stream(hidden, cell, memory, usage, read_weights, write_weights, read)


def episode(weights: Weights, xs: np.ndarray, ys: np.ndarray, *, hidden_size, slots, width, n, classes, **reading):
    """Whole episodes: xs (B, T, D), ys (B, T) -> logits (B, T, C) and, per episode, the stream after each step."""
    logits = np.zeros((*ys.shape, classes))
    streams: list[list[Stream]] = []
    for b in range(len(xs)):
        stream = start(hidden_size, slots, width, n)
        streams.append([])
        for t in range(xs.shape[1]):
            label = np.zeros(classes)  # the null label at step 1
            if t > 0:
                label[ys[b, t - 1]] = 1.0
            logits[b, t], stream = step(weights, stream, xs[b, t], label, **reading)
            streams[b].append(stream)
    return logits, streams


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Equation 24: logits (C,) -> (C,)."""
    return softmax(logits)
