"""Permuted digits: the same images, an order of pixels for each task, and none of a test or validation in training."""

import dataclasses

import pytest
import torch

from lib.data.mnist import make_digits
from lib.tasks.permutations import PermutationConfig, PermutedDigits

CONFIG = PermutationConfig(tasks=3, examples=200, validation=50, test=40)


@pytest.fixture(scope="module")
def digits():
    return make_digits("train"), make_digits("test")


def make(digits, seed: int = 0, **changes) -> PermutedDigits:
    return PermutedDigits(dataclasses.replace(CONFIG, **changes), *digits, seed)


def rows(xs: torch.Tensor) -> set[bytes]:
    return {row.numpy().tobytes() for row in xs}


def test_a_task_is_an_order_of_pixels(digits):
    tasks, plain = make(digits), torch.from_numpy(digits[1].images[:40]).flatten(1) / 255
    orders = [tasks.permutation(task) for task in range(3)]
    assert all(sorted(order.tolist()) == list(range(784)) for order in orders)
    assert not torch.equal(orders[0], orders[1])
    for task, order in enumerate(orders):
        images = tasks.images(task, "test")
        torch.testing.assert_close(images.xs, plain[:, order])
        assert images.ys.tolist() == digits[1].labels[:40].tolist()


def test_no_image_is_both_trained_on_and_validated_with(digits):
    tasks = make(digits, examples=1900, validation=100)

    def unpermuted(task: int, part: str) -> set[bytes]:
        images = tasks.images(task, part)
        return rows(images.xs[:, tasks.permutation(task).argsort()])

    held_out = unpermuted(0, "validation")
    assert held_out == unpermuted(1, "validation") and len(held_out) == 100
    for task in range(2):
        assert not held_out & unpermuted(task, "train")


def test_each_task_has_images_of_its_own_to_train_on(digits):
    tasks = make(digits)
    first, second = tasks.images(0, "train"), tasks.images(1, "train")
    assert first.xs.shape == (200, 784) and first.xs.min() >= 0 and first.xs.max() <= 1
    assert first.ys.tolist() != second.ys.tolist()


def test_batches_are_a_function_of_seed_task_and_update(digits):
    tasks, again, other = make(digits), make(digits), make(digits, seed=1)
    images = tasks.images(1, "train")
    one, two = tasks.batch(1, 7, 16, images), again.batch(1, 7, 16, again.images(1, "train"))
    assert torch.equal(one.xs, two.xs) and torch.equal(one.ys, two.ys)
    assert not torch.equal(one.xs, tasks.batch(1, 8, 16, images).xs)
    assert not torch.equal(tasks.permutation(0), other.permutation(0))


def test_what_is_not_there_is_refused(digits):
    with pytest.raises(ValueError, match="there is no task 3: there are 3, from 0 on"):
        make(digits).permutation(3)
    with pytest.raises(ValueError, match="2000 and 500 digits, and 2050 to train on"):
        make(digits, examples=2000)
