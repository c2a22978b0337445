"""A whole training step as one CUDA graph: random numbers, episodes, forward, backward, optimizer and score.

An update of a small recurrent network is thousands of tiny operations, and launching each from Python takes a GPU
longer than doing it. A graph is launched at once. What it needs: the same shapes and the same tensors at each update,
no look at a value in between, and random numbers from generators that it knows, which are seeded again before each
replay: so the n-th batch is the same with a graph as without.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch

from lib.tasks.seeds import seed_of
from lib.training.update import Update

WARM_UP = 3  # updates done step by step before the capture: kernels are compiled and libraries set up in them


class WholeStep:
    """From the numbers of the batches to the next weights. Captured as a CUDA graph if asked, else the same code as it
    is, on any device.

    The first updates on a GPU, WARM_UP of them, are done step by step; the rest by replaying the graph.
    """

    def __init__(
        self, update: Update, samplers: Sequence[Any], compose: Callable[[list], Any], size: int, capture: bool
    ):
        """samplers: one for each learner, such as `lib.tasks.episodes.EpisodeSampler`, all on one device; compose:
        makes one batch of the random numbers that each of them drew; size: episodes in a batch of one learner.
        """
        self.update, self.samplers, self.compose, self.size = update, samplers, compose, size
        self.device = update.number.device
        self.generators = [torch.Generator(self.device) for _ in samplers]
        self.calls, self.graph = 0, None
        self.stream = None
        if capture:
            require_cuda(self.device)
            self.stream = torch.cuda.Stream(self.device)
            make_capturable(update.optimizer, self.device)

    def __call__(self, indices: Sequence[int]) -> None:
        """One update, on the batch of this index of each sampler."""
        if self.stream and self.calls == WARM_UP:
            self._capture()
        self.calls += 1
        for random, sampler, index in zip(self.generators, self.samplers, indices, strict=True):
            random.manual_seed(seed_of(sampler.seed, sampler.stream, index))
        if self.graph:
            self.graph.replay()
        elif self.stream:
            self._warm_up()
        else:
            self.step()

    def step(self) -> None:
        """What is captured: no argument, no result, nothing that waits for the device."""
        pairs = zip(self.samplers, self.generators, strict=True)
        self.update(self.compose([sampler.draw(random, self.size) for sampler, random in pairs]))

    def _warm_up(self) -> None:
        # On the stream of the capture, as PyTorch asks: what is set up here is set up for that stream.
        main = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(main)
        with torch.cuda.stream(self.stream), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*capturable=True")  # of steps before the capture
            self.step()
        main.wait_stream(self.stream)

    def _capture(self) -> None:
        """Record one update; nothing is computed. Raises ValueError where that fails."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self.device):
            for random in self.generators:
                graph.register_generator_state(random)
        # Gradients are made anew inside, in memory that the graph keeps.
        self.update.optimizer.zero_grad(set_to_none=True)
        main = torch.cuda.current_stream(self.device)
        try:
            with torch.cuda.device(self.device), torch.cuda.graph(graph, stream=self.stream):
                self.step()
        except RuntimeError as error:
            torch.cuda.set_stream(main)  # a capture that fails leaves its own stream in place
            raise ValueError(
                f"the training step cannot be captured as a CUDA graph here ({error}); try --unroll compiled or plain"
            ) from error
        self.graph = graph


def make_capturable(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """Let an optimizer, new or resumed, keep its count of steps on the device."""
    for group in optimizer.param_groups:
        group["capturable"] = True
    for state in optimizer.state.values():
        state["step"] = state["step"].to(device)


def require_cuda(device: torch.device) -> None:
    """Raises ValueError if no graph can be captured on `device`."""
    if device.type != "cuda":
        raise ValueError(f"a CUDA graph needs a CUDA device, not {device.type}; try --device cuda or --unroll auto")
