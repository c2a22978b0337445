"""MbPA: an output network whose weights are fitted for one query, then forgotten (Sprechmann et al. 2018).

| here | paper | equation |
| --- | --- | --- |
| `MbPA.embed`, `MbPA.output` | f_γ and g_θ | 1 |
| `MbPA.memory` | M, in `lib/memory/episodic.py` | section 2 |
| `Context` | C = {(h_k, v_k, w_k)} of a query q = f_γ(x) | section 2 |
| `adapted_by_loop` and what is as fast as it can be, in `mbpa_fit.py` | g of θ_x = θ + Δ_total | 2 to 4, algorithm 1 |
| `from_memory` | p_mem, the attention on what is retrieved | 9 |
| `mixture` | λ p_param + (1 - λ) p_mem | 5 |
"""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from lib.memory.episodic import Context, EpisodicMemory, Index
from lib.methods.mbpa_fit import (
    Adapted,
    MbPAConfig,
    adapted_by_batch,
    adapted_by_dual,
    adapted_by_first_dual,
    adapted_by_loop,
    adapted_by_vmap,
    fit_loss,
    fitter,
    in_parts,
    mover,
    untouched,
)

__all__ = [
    "Adapted",
    "MbPA",
    "MbPAConfig",
    "adapted_by_batch",
    "adapted_by_dual",
    "adapted_by_first_dual",
    "adapted_by_loop",
    "adapted_by_vmap",
    "fit_loss",
    "fitter",
    "from_memory",
    "mixture",
    "mover",
]
KEYS_AT_ONCE = 2**24  # numbers of the keys and values that are retrieved at once: 64 MB


def from_memory(context: Context, labels: int) -> Float[Tensor, "queries labels"]:
    """p_mem(v | q): of each class the weight of the neighbours that bear it (equation 9)."""
    p = context.weights.new_zeros(len(context.weights), labels)
    return p.scatter_add(1, context.values, context.weights)


def mixture(
    network_p: Float[Tensor, "*any labels"], memory_p: Float[Tensor, "*any labels"], share: float
) -> Float[Tensor, "*any labels"]:
    """λ p_param + (1 - λ) p_mem (equation 5). share: λ, the network's."""
    return share * network_p + (1 - share) * memory_p


class MbPA(nn.Module):
    """A network in two parts and an episodic memory. Training is that of any network, by `forward`; once the two
    parts stay as they are, `observe` fills the memory and `predict` fits θ to each query and forgets it again.

    embed: f_γ, `nn.Identity()` for keys that are the inputs themselves; output: g_θ. Nothing here changes their
    weights. width: of the keys; labels: number of classes, or None to predict numbers; values: how many, then; index:
    what searches the memory, by default all distances.

    `episode` is the view of whole streams. It is no `forward` with a gradient, as other methods have: nothing is learnt
    through the fit.
    """

    def __init__(
        self,
        embed: nn.Module,
        output: nn.Module,
        config: MbPAConfig,
        *,
        width: int,
        capacity: int,
        labels: int | None,
        values: int = 1,
        index: Index | None = None,
    ):
        super().__init__()
        self.embed, self.output, self.config = embed, output, config
        self.width, self.capacity, self.labels, self.values = width, capacity, labels, values
        self.index = index
        self.memory: EpisodicMemory | None = None

    def forward(self, xs: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch outputs"]:
        """The parametric network, equation 1: logits, or numbers."""
        return self.output(self.embed(xs))

    def begin(self, batch_size: int = 1) -> None:
        """Start with an empty memory, which all inputs of a batch share."""
        like = next(self.output.parameters())
        value = () if self.labels is not None else (self.values,)
        self.memory = EpisodicMemory(self.capacity, self.width, value, like=like, index=self.index)

    @torch.no_grad()
    def predict(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch outputs"]:
        """p(y | x, θ_x) (equation 2), or the fitted network's numbers. Changes nothing: ask as often as you like."""
        outputs = self.adapted(x).outputs
        return outputs if self.labels is None else torch.softmax(outputs, dim=1)

    @torch.no_grad()
    def observe(self, x: Float[Tensor, "batch ..."], y: Shaped[Tensor, "batch *value"]) -> None:
        """Write each pair (f_γ(x), y) to the memory."""
        self._begun().append(self.embed(x), y)

    @torch.no_grad()
    def adapted(self, x: Float[Tensor, "batch ..."]) -> Adapted:
        """The fitted network's outputs: logits, or numbers; from an empty memory, those of the network as it is.
        Some queries at a time, so that what is retrieved for them is bounded."""
        return self._adapted(self.embed(x))

    def _adapted(self, queries: Tensor) -> Adapted:
        memory, config = self._begun(), self.config
        if not len(memory) or not config.steps:
            return untouched(self.output, queries)
        fit = fitter(self.output, config, self.labels is not None)

        def part(q: Tensor) -> Adapted:
            return fit(self.output, q, memory.context(q, config.neighbours, config.epsilon), config)

        values = 1 if self.labels is not None else self.values
        return in_parts(part, max(1, KEYS_AT_ONCE // (config.neighbours * (self.width + values))), queries)

    @torch.no_grad()
    def episode(
        self, xs: Float[Tensor, "batch time ..."], ys: Shaped[Tensor, "batch time *value"]
    ) -> Float[Tensor, "batch time outputs"]:
        """A batch of streams from an empty memory, which they share: what `adapted` gives at each step before `observe`
        is told its labels. All inputs are embedded at once; the memory stays as the last step left it."""
        self.begin(len(xs))
        keys, found = self.embed(xs.flatten(0, 1)).unflatten(0, xs.shape[:2]), []
        for now, y in zip(keys.unbind(1), ys.unbind(1), strict=True):
            found.append(self._adapted(now).outputs)
            self.memory.append(now, y)
        return torch.stack(found, dim=1)

    def _begun(self) -> EpisodicMemory:
        if self.memory is None:
            raise RuntimeError("there is no memory yet: call mbpa.begin() first")
        return self.memory
