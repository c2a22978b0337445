"""Equations 1 to 10 of Mureja et al. (2017) in float64 NumPy: one function a step, loops over batch and slots.

Written from the paper and slow on purpose: what the fast code is held to. Where the paper leaves a choice: both
memories are written first, with the weights that steps before t made, and then read; ties of usage go to the lowest
slot; the controller is the LSTM of Santoro et al., from its reference, and the three vectors are made from its cell.
Two readings are chosen by the caller, as the config names them: `label_write` and `answer_from`.
"""

import math
from dataclasses import dataclass

import numpy as np

from tests.methods.reference_mann import lstm_step, probabilities, sigmoid  # noqa: F401

EPSILON = 1e-8  # added to squared lengths: the cosine with an empty slot is 0, not 0/0


@dataclass
class Weights:
    """Everything that is learnt; `gates` as in `reference_mann.Weights`, over (x, y, r, h_{t-1})."""

    gates: dict[str, tuple[np.ndarray, np.ndarray]]
    key: tuple[np.ndarray, np.ndarray]  # (M, H) and (M,), as the next two
    feature: tuple[np.ndarray, np.ndarray]
    label: tuple[np.ndarray, np.ndarray]
    gate: tuple[np.ndarray | None, float]  # (H,) or None where α is one learnt number, and that number
    output: tuple[np.ndarray, np.ndarray]  # (C, H + M), or (C, M) of what was read alone, and (C,)


@dataclass
class Stream:
    """What one episode carries from step to step."""

    hidden: np.ndarray
    cell: np.ndarray
    feature_memory: np.ndarray
    label_memory: np.ndarray
    usage: np.ndarray
    read_weights: np.ndarray
    write_weights: np.ndarray
    label_weights: np.ndarray
    read: np.ndarray


def start(hidden_size: int, slots: int, width: int) -> Stream:
    """The stream before step 1: everything is zero."""
    memories = (np.zeros((slots, width)), np.zeros((slots, width)))
    weights = (np.zeros(slots), np.zeros(slots), np.zeros(slots))
    return Stream(np.zeros(hidden_size), np.zeros(hidden_size), *memories, np.zeros(slots), *weights, np.zeros(width))


def step(weights: Weights, stream: Stream, x: np.ndarray, label: np.ndarray, *, decay, label_write, answer_from):
    """One time step: x (D,), the label of the step before as a vector (C,) -> logits (C,) and the new stream."""
    slots, width = stream.feature_memory.shape
    inputs = np.concatenate([x, label, stream.read])
    hidden, cell = lstm_step(weights.gates, inputs, stream.hidden, stream.cell)
    key, feature, written_label = (
        matrix @ cell + bias for matrix, bias in (weights.key, weights.feature, weights.label)
    )
    matrix, alpha = weights.gate
    openness = sigmoid(alpha if matrix is None else float(matrix @ hidden) + alpha)

    least_used = 0  # equation 5, the lowest slot in a tie
    for i in range(slots):
        if stream.usage[i] < stream.usage[least_used]:
            least_used = i

    write_weights = np.zeros(slots)
    features, labels = stream.feature_memory.copy(), stream.label_memory.copy()
    for m in range(width):
        features[least_used, m] = 0.0  # equation 7
    for i in range(slots):
        is_least_used = 1.0 if i == least_used else 0.0
        write_weights[i] = openness * stream.read_weights[i] + (1.0 - openness) * is_least_used  # equation 6
        for m in range(width):
            features[i, m] += write_weights[i] * feature[m]  # equation 8
    label_weights = stream.write_weights if label_write == "recursive" else write_weights  # equation 9
    for i in range(slots):
        for m in range(width):
            labels[i, m] += label_weights[i] * written_label[m]  # equation 10

    similarity = []  # equation 1
    for i in range(slots):
        dot = sum(key[m] * features[i, m] for m in range(width))
        key_length = math.sqrt(sum(key[m] ** 2 for m in range(width)) + EPSILON)
        slot_length = math.sqrt(sum(features[i, m] ** 2 for m in range(width)) + EPSILON)
        similarity.append(math.exp(dot / (key_length * slot_length)))
    read_weights = np.array([each / sum(similarity) for each in similarity])  # equation 2
    read = np.zeros(width)
    for i in range(slots):
        for m in range(width):
            read[m] += read_weights[i] * labels[i, m]  # equation 3
    usage = np.array([decay * stream.usage[i] + write_weights[i] + read_weights[i] for i in range(slots)])  # equation 4

    matrix, bias = weights.output
    logits = matrix @ (read if answer_from == "memory" else np.concatenate([hidden, read])) + bias
    kept = (read_weights, write_weights, label_weights)
    return logits, Stream(hidden, cell, features, labels, usage, *kept, read)


def episode(weights: Weights, xs: np.ndarray, ys: np.ndarray, *, hidden_size, slots, width, classes, **readings):
    """Whole episodes: xs (B, T, D), ys (B, T) -> logits (B, T, C) and, per episode, the stream after each step."""
    logits = np.zeros((*ys.shape, classes))
    streams: list[list[Stream]] = []
    for b in range(len(xs)):
        stream = start(hidden_size, slots, width)
        streams.append([])
        for t in range(xs.shape[1]):
            label = np.zeros(classes)  # the null label at step 1
            if t > 0:
                label[ys[b, t - 1]] = 1.0
            logits[b, t], stream = step(weights, stream, xs[b, t], label, **readings)
            streams[b].append(stream)
    return logits, streams
