"""A search that looks only into parts of a large episodic memory, by faiss, which is optional.

Keys are cut into lists, each around a centre that k-means found; a query is compared with the keys of the lists whose
centres are nearest to it. What it misses, `recall` measures. Needs `pip install -r requirements-faiss.txt`.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lib.memory.episodic import ExactIndex

ITERATIONS = 10  # of k-means
PER_LIST = 64  # keys that k-means sees, at most, for each list


class FaissIndex:
    """Of a memory that is filled and then asked: it is built anew whenever the keys were written to.

    probes: lists that are looked into for a query; more find more and take longer. lists: how many there are, by
    default the root of the number of keys. All is done on the CPU, in float32. Raises ValueError if faiss is missing
    or a number is not positive.
    """

    def __init__(self, probes: int = 16, lists: int | None = None):
        try:
            import faiss
        except ImportError as error:
            raise ValueError(
                "FaissIndex needs faiss, which is not installed: pip install -r requirements-faiss.txt"
            ) from error
        if probes < 1 or (lists is not None and lists < 1):
            raise ValueError(f"at least one list must be made and looked into, not {lists} and {probes}")
        self._faiss, self.probes, self.lists = faiss, probes, lists
        self._index, self._built_of = None, None

    def candidates(
        self, queries: Float[Tensor, "queries width"], keys: Float[Tensor, "held width"], k: int
    ) -> Int[Tensor, "queries k"]:
        """Positions of k keys near each query. A query whose lists hold fewer is answered by all distances."""
        self._faiss.omp_set_num_threads(torch.get_num_threads())
        # The tensor itself is kept, so that no other can come to lie at its address.
        version = (keys.data_ptr(), keys._version, keys.shape)
        if self._built_of is None or self._built_of[1] != version:
            self._index, self._built_of = self._build(keys), (keys, version)
        self._index.nprobe = min(self.probes, self._index.nlist)
        _, found = self._index.search(queries.detach().cpu().float().numpy(), k)
        positions = torch.from_numpy(found).to(queries.device)
        short = (positions < 0).any(1)
        if short.any():
            positions[short] = ExactIndex().candidates(queries[short], keys, k)
        return positions

    def _build(self, keys: Tensor):
        lists = min(self.lists or math.isqrt(len(keys)), len(keys))
        centres = self._faiss.IndexFlatL2(keys.shape[1])
        index = self._faiss.IndexIVFFlat(centres, keys.shape[1], lists)
        index.cp.niter, index.cp.min_points_per_centroid, index.cp.max_points_per_centroid = ITERATIONS, 1, PER_LIST
        as_array = keys.detach().cpu().float().contiguous().numpy()
        index.train(as_array)
        index.add(as_array)
        return index


def recall(found: Int[Tensor, "queries k"], true: Int[Tensor, "queries k"]) -> float:
    """The share of the true neighbours that are among those found."""
    return (found.unsqueeze(2) == true.unsqueeze(1)).any(1).float().mean().item()
