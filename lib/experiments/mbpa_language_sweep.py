"""The sweep of appendix B of Sprechmann et al. 2018, and the test of what it chose.

The LSTM reads a text once. At some of its words it is then known, for each setting of the fit and of the cache, what
MbPA and the cache say of the word that followed; how they are mixed is chosen afterwards at no cost:

    p(w) = (1 - λ_mbpa - λ_cache) p_LSTM(w) + λ_mbpa p_MbPA(w) + λ_cache p_cache(w)

What was computed is kept in the folder of the run, under a name made of all that it depends on, so that a run that was
broken off goes on where it was.
"""

import hashlib
import itertools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from tqdm import tqdm

from lib.baselines.language import LanguageModel
from lib.baselines.neural_cache import cache_at
from lib.config import to_dict
from lib.methods.mbpa import MbPAConfig
from lib.methods.mbpa_likely import TOGETHER, fitted_at, log_totals, neighbours_at
from lib.training.checkpoint import load_extra, save_checkpoint

PIECE = 1_000  # words whose log-likelihoods are kept in one file
FORM = 1  # to be raised when another thing is computed, so that nothing kept earlier is taken for it
CHECKED = 50  # words at which the fit of the likely words is compared with that of all
BLOCKS = 100  # stretches of a text whose means give standard errors: words near each other gain alike
ROWS = {"lstm-cache": "cache", "lstm-mbpa": "mbpa", "lstm-mbpa-cache": "both"}  # of table 2, and what they mix


@dataclass(frozen=True)
class SweepConfig:
    """What is tried, and on how many words; the defaults are the paper's grid on all of them."""

    sizes: tuple[int, ...] = (500, 1_000, 5_000)
    """N, steps that memory and cache look back (paper: these)."""
    neighbours: tuple[int, ...] = (256, 512)
    """K (paper: these)."""
    shares: tuple[float, ...] = (0.0, 0.05, 0.1, 0.15)
    """λ_mbpa and λ_cache (paper: these)."""
    steps: tuple[int, ...] = (1, 5, 10)
    """T (paper: these)."""
    rates: tuple[float, ...] = (0.01, 0.1, 0.15, 0.2, 0.5, 1.0)
    """α (paper: these)."""
    priors: tuple[float, ...] = (0.01, 0.1)
    """β other than 0, tried with the N and K that are best at 0 (paper: tuned, values not given)."""
    sharpnesses: tuple[float, ...] = (0.05, 0.1, 0.2, 0.3, 0.5)
    """θ of the cache (paper: silent)."""
    wider_neighbours: tuple[int, ...] = (16, 64)
    """K beyond the paper's grid, for rows of their own."""
    wider_rates: tuple[float, ...] = (2.0,)
    """α beyond the paper's grid."""
    wider_shares: tuple[float, ...] = (0.2, 0.3, 0.4)
    """λ beyond the paper's grid."""
    likely: int = 4_096
    """Words that move in a fit: the likeliest and those of the neighbours (paper: all). What this changes is recorded
    as `exactness`."""
    tuning_every: int = 1
    """Of the validation text, each so-manieth word is scored; memory and cache hold all that came before it."""
    test_every: int = 1
    """Of the test text."""


@dataclass(frozen=True)
class Setting:
    """One point of the grid; 0 for what a row has no use for."""

    size: int
    sharpness: float = 0.0
    cache_share: float = 0.0
    neighbours: int = 0
    steps: int = 0
    rate: float = 0.0
    prior: float = 0.0
    share: float = 0.0


@dataclass(frozen=True, eq=False)
class Words:
    """Some words of a text, and what the LSTM, the cache and MbPA say of them: log-likelihoods in nats."""

    output: nn.Linear
    hidden: Float[Tensor, "time width"]
    """Of all steps of the text."""
    words: Int[Tensor, " time"]
    """What followed each step."""
    log_total: Float[Tensor, " time"]
    """What `log_totals` gives."""
    at: Int[Tensor, " scored"]
    """The steps that are scored."""
    likely: int
    folder: Path
    identity: dict[str, Any]
    """All that the columns depend on, besides their settings."""
    progress: bool = False

    @classmethod
    def read(
        cls,
        model: LanguageModel,
        tokens: Int[Tensor, " words"],
        every: int,
        likely: int,
        folder: Path,
        identity: dict[str, Any],
        progress: bool = False,
    ) -> "Words":
        """Let the LSTM read a text from a fresh start; each so-manieth word is scored, the first after half of them."""
        with torch.no_grad():
            pieces, state = [], None
            for piece in tokens[:-1].split(1_000):
                hidden, state = model.hidden(piece.unsqueeze(0), state)
                pieces.append(hidden[0])
        at = torch.arange(every // 2, len(tokens) - 1, every, device=tokens.device)
        identity = identity | {"weights": weights_digest(model), "every": every, "likely": likely}
        hidden = torch.cat(pieces)
        totals = log_totals(model.softmax, hidden)
        return cls(model.softmax, hidden, tokens[1:], totals, at, likely, folder, identity, progress)

    @torch.no_grad()
    def network(self) -> Float[Tensor, " scored"]:
        """The LSTM's."""
        hidden, words = self.hidden[self.at], self.words[self.at]
        pairs = zip(hidden.split(PIECE), words.split(PIECE), strict=True)
        return torch.cat([-nn.functional.cross_entropy(self.output(h), w, reduction="none") for h, w in pairs])

    def cache(self, size: int, sharpnesses: Sequence[float]) -> Float[Tensor, "scored sharpnesses"]:
        """The cache's, for some θ; the LSTM's where the cache is empty."""
        found = cache_at(self.hidden, self.words, self.at, size, sharpnesses)
        return torch.where(found.isnan(), self.network().unsqueeze(1), found)

    def fitted(
        self, size: int, neighbours: int, prior: float, rates: Sequence[float], steps: Sequence[int]
    ) -> Float[Tensor, "scored rates steps"]:
        """MbPA's, for some α and T."""
        fit = MbPAConfig(neighbours=neighbours, prior=prior)
        pieces = list(self.at.split(PIECE))
        if self.progress:
            pieces = tqdm(pieces, desc=f"N {size}, K {neighbours}, β {prior:g}", leave=False, dynamic_ncols=True)

        def found(at: Tensor) -> Tensor:
            settings = (size, fit, rates, steps, self.likely)
            return fitted_at(self.output, self.hidden, self.words, at, *settings, self.log_total)

        what = {"size": size, "fit": to_dict(fit), "rates": list(rates), "steps": list(steps)}
        return torch.cat(
            [self._kept(what | {"from": int(at[0]), "words": len(at)}, lambda at=at: found(at)) for at in pieces]
        )

    def _kept(self, what: dict[str, Any], compute: Callable[[], Tensor]) -> Tensor:
        details = {"identity": self.identity, "what": what, "form": FORM}
        name = hashlib.sha256(json.dumps(details, sort_keys=True).encode()).hexdigest()[:20]
        path = self.folder / f"{name}.safetensors"
        if path.exists():
            return load_extra(path)["log_likelihood"].to(self.at.device)  # its name is that of all it depends on
        found = compute()
        save_checkpoint(path, nn.Identity(), details, extra={"log_likelihood": found})
        return found


def weights_digest(model: nn.Module) -> str:
    """sha256 of a network's weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@dataclass(eq=False)
class Sweep:
    """What each setting says of some words of the validation text, and which setting is best there."""

    config: SweepConfig
    words: Words

    def __post_init__(self):
        self.network = self.words.network().double().exp()
        self.caches: dict[int, Tensor] = {}
        self.fits: dict[tuple[int, int, float], Tensor] = {}

    def grid(self, mixes: str, wider: bool = False) -> dict[str, tuple]:
        """What is tried of each field of a setting. mixes: `cache`, `mbpa` or `both` with the LSTM; wider: more than
        the paper's."""
        config = self.config
        shares = (*config.shares, *(config.wider_shares if wider else ()))
        grid: dict[str, tuple] = {"size": config.sizes}
        if mixes != "cache":
            grid["neighbours"] = (*(config.wider_neighbours if wider else ()), *config.neighbours)
            grid["rate"] = (*config.rates, *(config.wider_rates if wider else ()))
            grid |= {"steps": config.steps, "share": shares}
        if mixes != "mbpa":
            grid |= {"sharpness": config.sharpnesses, "cache_share": shares}
        return grid

    def best(self, mixes: str, wider: bool = False) -> tuple[Setting, float]:
        """The setting of the lowest perplexity, and this. β other than 0 is tried with the N and K that are best
        without it."""
        grid = self.grid(mixes, wider)
        found = self._lowest(grid)
        if mixes == "cache":
            return found
        size, neighbours = (found[0].size,), (found[0].neighbours,)
        with_prior = grid | {"size": size, "neighbours": neighbours, "prior": self.config.priors}
        return min(found, self._lowest(with_prior), key=lambda each: each[1])

    def at_ends(self, setting: Setting, mixes: str, wider: bool = False) -> list[str]:
        """Which of a setting's values are the smallest or the largest that were tried, other than 0."""
        grid = self.grid(mixes, wider) | ({} if mixes == "cache" else {"prior": (0.0, *self.config.priors)})
        values = {name: getattr(setting, name) for name in grid}
        return [name for name, tried in grid.items() if values[name] and values[name] in (min(tried), max(tried))]

    def perplexity(self, setting: Setting) -> float:
        """Of the mixture, on the words that are scored."""
        config, p = self.config, (1 - setting.share - setting.cache_share) * self.network
        if setting.cache_share:
            cache = self._cache(setting.size)[:, config.sharpnesses.index(setting.sharpness)]
            p = p + setting.cache_share * cache
        if setting.share:
            at = self._rates().index(setting.rate), config.steps.index(setting.steps)
            p = p + setting.share * self._fit(setting.size, setting.neighbours, setting.prior)[:, *at]
        return math.exp(-p.log().mean().item())

    def tried(self) -> dict[str, list[dict[str, float]]]:
        """For a record: each setting of the cache, and of every fit that was made, with its best share of the paper's
        grid."""

        def line(settings: list[Setting]) -> dict[str, float]:
            perplexity, best = min(((self.perplexity(each), each) for each in settings), key=lambda pair: pair[0])
            return {k: v for k, v in to_dict(best).items() if v} | {"perplexity": round(perplexity, 3)}

        config = self.config
        caches = itertools.product(config.sizes, config.sharpnesses)
        fits = itertools.product(self.fits, self._rates(), config.steps)
        return {
            "cache": [line([Setting(n, sharpness, share) for share in config.shares]) for n, sharpness in caches],
            "mbpa": [
                line([Setting(n, 0, 0, k, steps, rate, prior, share) for share in config.shares])
                for (n, k, prior), rate, steps in fits
            ],
        }

    def _lowest(self, grid: dict[str, tuple]) -> tuple[Setting, float]:
        settings = (Setting(**dict(zip(grid, values, strict=True))) for values in itertools.product(*grid.values()))
        return min(((each, self.perplexity(each)) for each in settings), key=lambda pair: pair[1])

    def _rates(self) -> tuple[float, ...]:
        return (*self.config.rates, *self.config.wider_rates)

    def _cache(self, size: int) -> Float[Tensor, "scored sharpnesses"]:
        if size not in self.caches:
            self.caches[size] = self.words.cache(size, self.config.sharpnesses).double().exp()
        return self.caches[size]

    def _fit(self, *key) -> Float[Tensor, "scored rates steps"]:
        if key not in self.fits:
            self.fits[key] = self.words.fitted(*key, self._rates(), self.config.steps).double().exp()
        return self.fits[key]


def log_likelihood(words: Words, setting: Setting) -> Float[Tensor, " scored"]:
    """log p(w) of the mixture in one setting, in nats."""
    p = (1 - setting.share - setting.cache_share) * words.network().double().exp()
    if setting.cache_share:
        p = p + setting.cache_share * words.cache(setting.size, [setting.sharpness])[:, 0].double().exp()
    if setting.share:
        fit = words.fitted(setting.size, setting.neighbours, setting.prior, [setting.rate], [setting.steps])
        p = p + setting.share * fit[:, 0, 0].double().exp()
    return p.log()


def exactness(words: Words, setting: Setting) -> dict[str, float]:
    """What it changes, in nats, that only the likely words move: mean and largest difference at some words."""
    some = replace(words, at=words.at[:: max(1, len(words.at) // CHECKED)][:CHECKED], progress=False)
    fit = (setting.size, setting.neighbours, setting.prior, [setting.rate], [setting.steps])
    exact = replace(some, likely=words.output.out_features, identity=words.identity | {"likely": "all"})
    of_some = words.identity | {"checked": CHECKED}
    difference = replace(some, identity=of_some).fitted(*fit) - exact.fitted(*fit)
    found = {"mean": difference.mean().item(), "largest": difference.abs().max().item(), "words": len(some.at)}
    return {"likely": words.likely, **found}


def reach(words: Words, size: int, neighbours: int, rate: float) -> dict[str, float]:
    """How far one step of the paper's setting reaches, in the mean over some words: the largest weight, the sum of the
    kernel's values by which the weights are divided, and by how much the log-likelihood of what came changes, in nats
    and either way. Words without a past are left out."""
    some = replace(words, at=words.at[words.at > neighbours], progress=False)
    fit = MbPAConfig(neighbours=neighbours)
    nearest, total = [], []
    for at in some.at.split(TOGETHER):
        positions, weights = neighbours_at(some.hidden, at, size, fit)
        most, which = weights.max(1)
        there = some.hidden[positions.gather(1, which.unsqueeze(1)).squeeze(1)]
        nearest.append(most)
        total.append(1 / (fit.epsilon + (there - some.hidden[at]).square().sum(1)) / most)
    fitted = some.fitted(size, neighbours, 0.0, [rate], [1])[:, 0, 0]
    return {
        "largest_weight": torch.cat(nearest).mean().item(),
        "kernel_sum": torch.cat(total).mean().item(),
        "change": (fitted - some.network()).abs().mean().item(),
        "words": len(some.at),
    }


def behind_best(words: Words, best: Setting, other: Setting) -> dict[str, Any]:
    """How far a setting is behind the best of the grid on the validation text: nats a word with their standard error,
    in pairs. The best was chosen by these very words, which flatters it."""
    lost, error = with_error(log_likelihood(words, best) - log_likelihood(words, other))
    return {"setting": to_dict(other), "behind": lost, "error": error}


def with_error(differences: Float[Tensor, " words"]) -> tuple[float, float]:
    """Mean over the words of a text, in their order, and its standard error by the means of stretches of it."""
    means = torch.stack([part.mean() for part in differences.double().tensor_split(min(BLOCKS, len(differences)))])
    return differences.double().mean().item(), means.std().item() / len(means) ** 0.5


def table2(sweep: Sweep, test: Words, wider: bool) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The rows of table 2 with what was chosen for them, and their log-likelihoods on the test text.

    A row's `gain` is its perplexity's below the LSTM's, with its standard error; see `add_leads` for `ahead`.
    """
    lstm = test.network().double()
    found, rows = {"lstm": lstm}, {"lstm": row_of(lstm, None, sweep.perplexity(Setting(0)))}
    for row, mixes in ROWS.items():
        setting, validation = sweep.best(mixes, wider)
        found[row] = log_likelihood(test, setting)
        rows[row] = row_of(found[row], lstm, validation)
        rows[row] |= {"setting": to_dict(setting), "at_end": sweep.at_ends(setting, mixes, wider)}
    add_leads(rows, found)
    return rows, found


def add_leads(rows: dict[str, dict[str, Any]], found: dict[str, Tensor]) -> None:
    """To each row but the LSTM's: by how many nats a word it is `ahead` of each other one, with the standard error.

    found: the rows' log-likelihoods of the same words.
    """
    for name, row in rows.items():
        if name != "lstm":
            row["ahead"] = {o: list(with_error(found[name] - found[o])) for o in found if o != name}


def row_of(
    log_likelihood: Float[Tensor, " words"], lstm: Float[Tensor, " words"] | None, validation: float | None
) -> dict[str, Any]:
    """Perplexities of a row, and its gain on the LSTM if it is not the LSTM itself."""
    row: dict[str, Any] = {"validation_perplexity": validation, "perplexity": perplexity_of(log_likelihood)}
    if lstm is not None:
        _, error = with_error(log_likelihood - lstm)
        row |= {"gain": perplexity_of(lstm) - row["perplexity"], "gain_error": row["perplexity"] * error}
    return row


def perplexity_of(log_likelihood: Float[Tensor, " words"]) -> float:
    """exp of the mean negative log-likelihood."""
    return math.exp(-log_likelihood.double().mean().item())
