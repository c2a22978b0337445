"""MbPA as its paper writes it, one query at a time, in float64 and with loops: what the fast code is held to."""

import math

import numpy as np


def kernel_weights(query: np.ndarray, keys: np.ndarray, epsilon: float) -> np.ndarray:
    """w_k of all keys, normalised."""
    closeness = [1 / (epsilon + sum((a - b) ** 2 for a, b in zip(key, query, strict=True))) for key in keys]
    return np.array(closeness) / sum(closeness)


def nearest(query: np.ndarray, keys: np.ndarray, k: int) -> list[int]:
    """Positions of the k nearest keys, the nearest first."""
    distances = [math.dist(key, query) for key in keys]
    return sorted(range(len(keys)), key=lambda i: distances[i])[:k]


def softmax(logits: np.ndarray) -> np.ndarray:
    """Of one vector."""
    exponentials = np.exp(logits - logits.max())
    return exponentials / exponentials.sum()


def gradients(theta: np.ndarray, keys: np.ndarray, values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """∇ Σ_k w_k (-log p(v_k | h_k)) of θ = (W | b): of a softmax layer for classes, of a linear one for numbers."""
    total = np.zeros_like(theta)
    for key, value, weight in zip(keys, values, weights, strict=True):
        inputs = np.append(key, 1.0)
        outputs = theta @ inputs
        if values.ndim == 1:
            error = softmax(outputs)
            error[value] -= 1
        else:
            error = outputs - value
        total += weight * np.outer(error, inputs)
    return total


def fitted(theta, keys, values, weights, *, optimizer, steps, rate, prior=0.0, decay=0.9, square=0.0) -> np.ndarray:
    """θ_x after the last step of algorithm 1."""
    own, mean, squares = theta.copy(), np.zeros_like(theta), np.full_like(theta, square)
    if optimizer == "adam":
        squares = np.zeros_like(theta)
    for step in range(1, steps + 1):
        gradient = gradients(own, keys, values, weights)
        if optimizer == "sgd":
            change = rate * gradient
        elif optimizer == "rmsprop":
            squares = decay * squares + (1 - decay) * gradient**2
            change = rate * gradient / (np.sqrt(squares) + 1e-8)
        else:
            mean = 0.9 * mean + 0.1 * gradient
            squares = 0.999 * squares + 0.001 * gradient**2
            change = rate * (mean / (1 - 0.9**step)) / (np.sqrt(squares / (1 - 0.999**step)) + 1e-8)
        own = own - change - prior * (own - theta)
    return own
