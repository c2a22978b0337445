"""The training loop, its checkpoints and its progress: nothing here knows a method."""

from lib.training.loop import TrainingConfig, evaluate, pick_device, train

__all__ = ["TrainingConfig", "evaluate", "pick_device", "train"]
