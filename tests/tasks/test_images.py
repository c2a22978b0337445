"""The bank's one resampling against Pillow doing the same in four stages, and what each argument must mean."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from PIL import Image

from lib.tasks.images import BLOCK, MAX_ANGLE, MAX_SHIFT, ImageBank, PlainBank
from tests.cases import random_cases, seeds
from tests.tasks.drawings import strokes

CLASSES, DRAWINGS = 12, 4
IMAGES = strokes(CLASSES, DRAWINGS)


@pytest.fixture(scope="module")
def bank():
    return ImageBank(IMAGES)


def in_stages(image: np.ndarray, turn: int = 0, angle: float = 0.0, shift=(0.0, 0.0)) -> np.ndarray:
    """Rotate about the centre, translate, shrink by averaging areas, turn: one after the other, with Pillow."""
    page = Image.fromarray(image.astype(np.float32))
    page = page.rotate(math.degrees(angle), resample=Image.Resampling.BICUBIC)
    page = page.transform(
        (105, 105), Image.Transform.AFFINE, (1, 0, -shift[0], 0, 1, -shift[1]), Image.Resampling.BILINEAR
    )
    small = np.asarray(page.resize((20, 20), Image.Resampling.BOX))
    return np.rot90(small, turn)


@pytest.mark.parametrize("turn", [0, 1, 2, 3])
def test_all_at_once_is_like_pillow_in_stages(bank, turn):
    random = np.random.default_rng(turn)
    classes, drawings = np.divmod(np.arange(CLASSES * DRAWINGS), DRAWINGS)
    count = len(classes)
    angles, shifts = random.uniform(-MAX_ANGLE, MAX_ANGLE, count), random.uniform(-MAX_SHIFT, MAX_SHIFT, (count, 2))
    found = bank.draw(
        torch.tensor(classes),
        torch.tensor(drawings),
        torch.full((count,), turn),
        torch.tensor(angles, dtype=torch.float32),
        torch.tensor(shifts, dtype=torch.float32),
    ).reshape(-1, 20, 20)
    for i in range(count):
        expected = in_stages(IMAGES[classes[i], drawings[i]], turn, angles[i], shifts[i])
        assert np.abs(found[i].numpy() - expected).mean() < 0.03
        assert np.corrcoef(found[i].flatten(), expected.flatten())[0, 1] > 0.98


@pytest.mark.parametrize(
    "mistake",
    [
        {"angle": -1.0},
        {"shift": (-1.0, 1.0)},
        {"shift": (1.0, -1.0)},
        {"turn": -1},
    ],
    ids=["angle", "shift right", "shift down", "turn"],
)
def test_the_comparison_with_pillow_catches_a_wrong_direction(bank, mistake):
    """With the direction of one argument turned round the images no longer agree."""
    turn, angle, shift = 1, 0.19, (6.0, 8.0)
    arguments = (torch.arange(CLASSES), torch.zeros(CLASSES, dtype=torch.int64), torch.full((CLASSES,), turn))
    found = bank.draw(*arguments, torch.full((CLASSES,), angle), torch.tensor(shift).expand(CLASSES, 2)).reshape(
        -1, 20, 20
    )
    wrong_turn, wrong_angle = turn * mistake.get("turn", 1), angle * mistake.get("angle", 1.0)
    wrong_shift = tuple(s * sign for s, sign in zip(shift, mistake.get("shift", (1, 1)), strict=True))

    def correlation(c, *how):
        return np.corrcoef(found[c].flatten(), in_stages(IMAGES[c, 0], *how).flatten())[0, 1]

    assert min(correlation(c, turn, angle, shift) for c in range(CLASSES)) > 0.98
    assert max(correlation(c, wrong_turn, wrong_angle, wrong_shift) for c in range(CLASSES)) < 0.95


def test_quarter_turns_are_those_of_numpy_when_nothing_else_is_asked(bank):
    classes, drawings = torch.arange(CLASSES), torch.zeros(CLASSES, dtype=torch.int64)
    upright = bank.draw(classes, drawings).reshape(-1, 20, 20).numpy()
    for turn in range(4):
        turned = bank.draw(classes, drawings, torch.full((CLASSES,), turn)).reshape(-1, 20, 20).numpy()
        np.testing.assert_allclose(turned, np.rot90(upright, turn, axes=(1, 2)), atol=1e-4)
    assert np.abs(np.rot90(upright, 1, axes=(1, 2)) - np.rot90(upright, 3, axes=(1, 2))).max() > 0.1


def blob_bank(x: int, y: int) -> ImageBank:
    """One drawing: a small square of ink around column x and row y."""
    image = np.zeros((1, 1, 105, 105), dtype=np.uint8)
    image[0, 0, y - 4 : y + 5, x - 4 : x + 5] = 1
    return ImageBank(image)


def centre_of_ink(bank: ImageBank, **how) -> tuple[float, float]:
    """(column, row) in pixels of the 105-pixel original, from the centre of the image; right and down are positive."""
    one = torch.zeros(1, dtype=torch.int64)
    drawn = bank.draw(one, one, **how).reshape(20, 20)
    places = (torch.arange(20) + 0.5) * 105 / 20 - 52.5
    return ((drawn.sum(0) @ places) / drawn.sum()).item(), ((drawn.sum(1) @ places) / drawn.sum()).item()


def test_a_shift_moves_to_the_right_and_down_by_pixels_of_the_original():
    bank = blob_bank(52, 52)
    x, y = centre_of_ink(bank, shifts=torch.tensor([[7.0, -4.0]]))
    assert x == pytest.approx(7, abs=0.6)
    assert y == pytest.approx(-4, abs=0.6)


def test_a_positive_angle_is_counter_clockwise_and_the_shift_comes_after_it():
    bank = blob_bank(82, 52)  # 30 pixels right of the centre
    angle = math.pi / 16
    x, y = centre_of_ink(bank, angles=torch.tensor([angle]))
    assert x == pytest.approx(30 * math.cos(angle), abs=0.6)
    assert y == pytest.approx(-30 * math.sin(angle), abs=0.6)  # up
    x, y = centre_of_ink(bank, angles=torch.tensor([angle]), shifts=torch.tensor([[0.0, 10.0]]))
    assert x == pytest.approx(30 * math.cos(angle), abs=0.6)
    assert y == pytest.approx(10 - 30 * math.sin(angle), abs=0.6)


def test_the_quarter_turn_comes_last_and_is_counter_clockwise():
    bank = blob_bank(82, 52)
    x, y = centre_of_ink(bank, quarter_turns=torch.tensor([1]), shifts=torch.tensor([[0.0, 10.0]]))
    assert (x, y) == (pytest.approx(10, abs=0.6), pytest.approx(-30, abs=0.6))


def test_the_amount_of_ink_is_kept(bank):
    classes, drawings = torch.arange(CLASSES), torch.zeros(CLASSES, dtype=torch.int64)
    drawn = bank.draw(classes, drawings, torch.full((CLASSES,), 1), torch.full((CLASSES,), 0.15))
    np.testing.assert_allclose(drawn.mean(1), IMAGES[:, 0].mean((1, 2)), rtol=0.03)


def test_what_leaves_the_image_is_gone_and_what_enters_is_blank():
    bank = ImageBank(np.ones((1, 1, 105, 105), dtype=np.uint8))
    one = torch.zeros(1, dtype=torch.int64)
    drawn = bank.draw(one, one, shifts=torch.tensor([[21.0, 0.0]])).reshape(20, 20)
    assert (drawn[:, :3] < 0.01).all()
    assert (drawn[1:-1, 5:-1] > 0.99).all()


@random_cases(10)
@given(seeds)
def test_pixels_are_between_zero_and_one(seed):
    bank = ImageBank(IMAGES[:3])
    random = torch.Generator().manual_seed(seed)
    drawn = bank.draw(
        torch.randint(3, (2, 5), generator=random),
        torch.randint(DRAWINGS, (2, 5), generator=random),
        torch.randint(4, (2, 5), generator=random),
        (torch.rand(2, 5, generator=random) - 0.5) * 4,
        (torch.rand(2, 5, 2, generator=random) - 0.5) * 60,
    )
    assert drawn.shape == (2, 5, 400)
    assert drawn.dtype == torch.float32
    assert drawn.min() >= 0
    assert drawn.max() <= 1


def test_many_images_at_once_are_the_same_as_one_at_a_time(bank):
    random = torch.Generator().manual_seed(0)
    count = 2 * BLOCK + 5
    classes = torch.randint(CLASSES, (count,), generator=random)
    drawings = torch.randint(DRAWINGS, (count,), generator=random)
    angles = torch.rand(count, generator=random)
    together = bank.draw(classes, drawings, None, angles)
    for i in (0, BLOCK - 1, BLOCK, count - 1):
        alone = bank.draw(classes[i : i + 1], drawings[i : i + 1], None, angles[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone)


@pytest.mark.parametrize("shape", [(3, 105, 105), (2, 3, 28, 28), (2, 3, 105, 14)])
def test_images_of_another_size_are_refused(shape):
    with pytest.raises(ValueError, match="expected images .*105"):
        ImageBank(np.zeros(shape, dtype=np.uint8))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_gpu_draws_the_same_images(bank):
    classes, drawings = torch.arange(CLASSES), torch.zeros(CLASSES, dtype=torch.int64)
    turns, angles = torch.full((CLASSES,), 3), torch.full((CLASSES,), 0.1)
    on_gpu = ImageBank(IMAGES, "cuda").draw(classes.cuda(), drawings.cuda(), turns.cuda(), angles.cuda())
    assert on_gpu.device.type == "cuda"
    torch.testing.assert_close(on_gpu.cpu(), bank.draw(classes, drawings, turns, angles), atol=1e-3, rtol=0)


def test_a_plain_bank_shows_its_images_as_they_are_and_only_so():
    images = np.random.default_rng(0).integers(0, 256, (3, 2, 28, 28), dtype=np.uint8)
    bank = PlainBank(images)
    classes, drawings = torch.tensor([2, 0]), torch.tensor([1, 1])
    shown = bank.draw(classes, drawings)
    assert shown.shape == (2, 400)
    assert shown.min() >= 0
    assert shown.max() <= 1
    for found, image in zip(shown, (images[2, 1], images[0, 1]), strict=True):
        expected = Image.fromarray(image).resize((20, 20), Image.Resampling.BILINEAR)
        assert np.abs(found.numpy().reshape(20, 20) - np.asarray(expected) / 255).max() < 0.01
    with pytest.raises(ValueError, match="as they are"):
        bank.draw(classes, drawings, angles=torch.zeros(2))
