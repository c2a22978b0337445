"""Trains a tiny MANN twice, plain and compiled, and prints the losses and the number of compiled graphs as JSON."""

import json

import torch

from lib.methods import online
from lib.training import TrainingConfig, train
from tests.training.tiny import TinyTask, tiny_mann

CONFIG = TrainingConfig(
    updates=6, batch_size=2, learning_rate=1e-3, log_every=1, validate_every=6, validation_batches=1, checkpoint_every=1
)

if __name__ == "__main__":
    torch.set_num_threads(1)
    online.CHUNK = 2  # two steps compile faster than ten
    found = {}
    for compile in (False, True):
        learner = tiny_mann()
        result = train(learner, TinyTask(length=4), CONFIG, compile=compile, progress=False)
        found["compiled" if compile else "plain"] = [line["loss"] for line in result.log] + [
            result.log[-1]["validation"]["loss"],
            sum(p.detach().abs().sum().item() for p in learner.parameters()),
        ]
    found["graphs"] = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    print(json.dumps(found))
