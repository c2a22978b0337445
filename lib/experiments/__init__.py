"""Every table and figure of the papers, by its name in the paper: `EXPERIMENTS["mann.table1"]`."""

from lib.experiments import (
    flmn,
    lmn_fewshot,
    lmn_language,
    lmn_omniglot,
    lmn_sequences,
    lmn_table1,
    mann,
    mann_regression,
    mbpa_incremental,
    mbpa_language,
    mbpa_permuted,
    mbpa_readings,
    mbpa_sensitivity,
    mbpa_toy,
)
from lib.experiments.base import PROFILES, Experiment, RunOptions

MODULES = (
    mann,
    mann_regression,
    flmn,
    lmn_table1,
    lmn_sequences,
    lmn_omniglot,
    lmn_fewshot,
    lmn_language,
    mbpa_toy,
    mbpa_permuted,
    mbpa_incremental,
    mbpa_sensitivity,
    mbpa_readings,
    mbpa_language,
)
EXPERIMENTS: dict[str, Experiment] = {
    experiment.name: experiment for module in MODULES for experiment in module.EXPERIMENTS
}


def find_experiment(name: str) -> Experiment:
    """An experiment by name. Raises ValueError that lists the names of the same method, or else the methods."""
    if name in EXPERIMENTS:
        return EXPERIMENTS[name]
    by_method = {}
    for known in EXPERIMENTS:
        by_method.setdefault(known.split(".")[0], []).append(known)
    names = by_method.get(name.split(".")[0])
    likely = f"known: {', '.join(names)}" if names else f"known are those of {', '.join(by_method)}"
    raise ValueError(f"there is no experiment {name!r}; {likely}; `python -m lib list` shows all")


__all__ = ["EXPERIMENTS", "PROFILES", "Experiment", "RunOptions", "find_experiment"]
