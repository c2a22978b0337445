"""LMN as the paper writes it: one stream, a dictionary of cells by label, a loop over everything, float64."""

import math
from dataclasses import dataclass, field

import numpy as np


@dataclass
class Cell:
    vector: np.ndarray
    weight: float
    written: int = 0


@dataclass
class Settings:
    labels: int
    cells: int
    margin: float
    decay: float
    sharpness: float
    strength: float
    theta: float | None
    kernel_weights_updates: bool
    zeros: bool
    budget: int | None
    evict: str
    every_state: bool


@dataclass
class Memory:
    settings: Settings
    cells: dict[int, list[Cell]] = field(default_factory=dict)
    written: dict[int, int] = field(default_factory=dict)

    def read(self, h, y):
        cells = self.cells[y]
        kernels = [math.exp(self.settings.sharpness * cosine(h, cell.vector)) for cell in cells]
        vector = sum(k / sum(kernels) * cell.vector for k, cell in zip(kernels, cells, strict=True))
        return vector, sum(k / sum(kernels) * cell.weight for k, cell in zip(kernels, cells, strict=True))

    def scores(self, h):
        s = np.zeros(self.settings.labels)
        for y in self.cells:
            vector, weight = self.read(h, y)
            s[y] = weight**self.settings.strength * math.exp(self.settings.sharpness * cosine(h, vector))
        return s / s.sum() if s.sum() > 0 else s

    def write(self, h, y, wrong, time):
        settings = self.settings
        if y not in self.cells:
            if settings.budget is not None and len(self.cells) == settings.budget // settings.cells:
                del self.cells[self.forgotten()]
            if settings.zeros:
                self.cells[y] = [Cell(np.zeros_like(h), 0.0) for _ in range(settings.cells)]
            else:
                self.cells[y], self.written[y] = [Cell(h.copy(), 1.0)], time
                return
        self.written[y] = time
        cells = self.cells[y]
        least = min(range(len(cells)), key=lambda j: (cells[j].weight, j))
        scale = settings.sharpness if settings.kernel_weights_updates else 1.0
        similar = [math.exp(scale * cosine(h, cell.vector)) for cell in cells]
        for cell, each in zip(cells, similar, strict=True):
            cell.vector = cell.vector + each / sum(similar) * h
            cell.weight = cell.weight * settings.decay + each / sum(similar)
        if wrong and len(cells) < settings.cells:
            cells.append(Cell(h.copy(), 1.0))
        elif wrong and len(cells) > 1:
            cells[least] = Cell(h.copy(), 1.0)

    def forgotten(self):
        if self.settings.evict == "oldest":
            return min(self.cells, key=lambda y: self.written[y])
        return min(self.cells, key=lambda y: (sum(cell.weight for cell in self.cells[y]), self.written[y]))


def cosine(a, b):
    lengths = math.sqrt(a @ a) * math.sqrt(b @ b)
    return float(a @ b) / lengths if lengths > 0 else 0.0


def best(values, y):
    """y alone has the highest value."""
    return all(values[y] > value for z, value in enumerate(values) if z != y)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gru(weights, x, mu):
    """weights: the arrays of a GRU whose gates stand in the order reset, update, new; x of all inputs together."""
    units = len(mu)
    from_x = weights["x"] @ x + weights["x_bias"]
    from_mu = weights["mu"] @ mu + weights["mu_bias"]
    reset = sigmoid(from_x[:units] + from_mu[:units])
    update = sigmoid(from_x[units : 2 * units] + from_mu[units : 2 * units])
    new = np.tanh(from_x[2 * units :] + reset * from_mu[2 * units :])
    return (1 - update) * new + update * mu


def stream(settings, hidden, logits, ys, combiner=None):
    """Everything about one stream: for each step P_t, r_t, s_t, θ_t over all labels, and the memory after it."""
    memory, labels = Memory(settings), settings.labels
    units = combiner["mu"].shape[1] if combiner else 0
    mu, outside = np.zeros((labels, units)), np.zeros(units)  # `outside`: of all labels that are not in memory
    last_r, last_s, network_error, memory_error = np.zeros(labels), np.zeros(labels), 0.0, 0.0
    steps = []
    for t, (h, z, y) in enumerate(zip(hidden, logits, ys, strict=True)):
        r = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
        s = memory.scores(h)
        theta = np.full(labels, settings.theta if settings.theta is not None else np.nan)
        if combiner:
            outside = gru(combiner, np.concatenate([h, [network_error, memory_error, 0.0, 0.0]]), outside)
            for label in range(labels):
                if label in memory.cells or settings.every_state:
                    x = np.concatenate([h, [network_error, memory_error, last_r[label], last_s[label]]])
                    mu[label] = gru(combiner, x, mu[label])
                else:
                    mu[label] = outside
                theta[label] = sigmoid(combiner["theta"] @ mu[label] + combiner["theta_bias"])
        p = (1 - theta) * r + theta * s
        p = p / p.sum() if p.sum() > 0 else np.full(labels, 1 / labels)
        network_error, memory_error, wrong = (float(not best(each, y)) for each in (r, s, p))
        other = max(p[z] for z in range(labels) if z != y)
        with np.errstate(divide="ignore", invalid="ignore"):
            enough = np.log(p[y]) - np.log(other) >= settings.margin
        before = set(memory.cells)
        if not enough:
            memory.write(h, y, wrong, t + 1)
        last_r, last_s = r, s.copy()
        if not settings.every_state:
            for changed in set(memory.cells) ^ before:  # came, or was forgotten and is like all others outside again
                last_s[changed], mu[changed] = 0.0, outside
        cells = {y: [(cell.vector, cell.weight) for cell in cells] for y, cells in memory.cells.items()}
        steps.append((p, r, s, theta, cells))
    return steps
