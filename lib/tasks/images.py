"""A bank of character images on the training device, rotated, shifted and shrunk in one resampling.

Santoro et al. 2016 rotate and translate the 105-pixel image, shrink it to 20 x 20 and then turn whole classes by
multiples of 90 degrees. All four are one affine map; the bank keeps each image averaged over the area of one small
pixel, so that resampling it at 400 points shrinks it without aliasing.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

ORIGINAL_SIZE = 105  # pixels of a side, as drawn
SIZE = 20  # pixels of a side, as the networks see it
BANK_SIZE = 42  # pixels of a side, as stored: one for 2.5 x 2.5 of the original
BLOCK = 64  # images resampled at once on a CPU: what fits its cache
MAX_ANGLE = math.pi / 16  # of the random rotation of each image
MAX_SHIFT = 10  # pixels of the original, of the random translation of each image


class ImageBank:
    """The images of some classes, ready to be drawn from.

    images: uint8 (classes, drawings, 105, 105), ink = 1. Memory: 1.8 kB an image on `device`.
    """

    def __init__(self, images: np.ndarray, device: torch.device | str = "cpu"):
        if images.ndim != 4 or images.shape[2:] != (ORIGINAL_SIZE, ORIGINAL_SIZE):
            raise ValueError(
                f"expected images (classes, drawings, {ORIGINAL_SIZE}, {ORIGINAL_SIZE}), got {images.shape}"
            )
        self.classes, self.drawings = images.shape[:2]
        self.device = torch.device(device)
        flat = torch.from_numpy(np.ascontiguousarray(images)).flatten(0, 1)
        self.pixels = torch.cat([_shrink(part) for part in flat.split(BLOCK)]).to(self.device)
        centres = (2 * torch.arange(SIZE, device=self.device) + 1) / SIZE - 1
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        self.points = torch.stack([x.flatten(), y.flatten(), torch.ones(SIZE * SIZE, device=self.device)])

    def draw(
        self,
        classes: Int[Tensor, "*batch"],
        drawings: Int[Tensor, "*batch"],
        quarter_turns: Int[Tensor, "*batch"] | None = None,
        angles: Float[Tensor, "*batch"] | None = None,
        shifts: Float[Tensor, "*batch 2"] | None = None,
    ) -> Float[Tensor, "*batch 400"]:
        """The asked images as flat 20 x 20 vectors in [0, 1], ink = 1.

        quarter_turns: 0 to 3, counter-clockwise, after all else; angles: radians, counter-clockwise; shifts: pixels of
        the 105-pixel image, to the right and down. What is left out is zero.
        """
        shape = classes.shape
        index = (classes * self.drawings + drawings).flatten()
        zeros = torch.zeros(len(index), device=self.device)
        angle = zeros if angles is None else angles.flatten()
        turn = zeros if quarter_turns is None else quarter_turns.flatten() * (math.pi / 2)
        shift = torch.zeros(len(index), 2, device=self.device) if shifts is None else shifts.reshape(-1, 2)
        maps = _sampling_map(angle, turn, shift * (2 / ORIGINAL_SIZE))
        block = BLOCK if self.device.type == "cpu" else len(index)
        drawn = [self._resample(i, m) for i, m in zip(index.split(block), maps.split(block), strict=True)]
        return torch.cat(drawn).reshape(*shape, SIZE * SIZE)

    def _resample(self, index: Tensor, maps: Tensor) -> Tensor:
        grid = (maps @ self.points).transpose(1, 2).reshape(-1, SIZE, SIZE, 2)
        return F.grid_sample(self.pixels.index_select(0, index).unsqueeze(1).float(), grid, align_corners=False) / 255


class PlainBank:
    """Small images that are shown as they are, in place of an `ImageBank`.

    images: uint8 (classes, drawings, height, width), 0 to 255, ink bright; shrunk to 20 x 20.
    """

    def __init__(self, images: np.ndarray, device: torch.device | str = "cpu"):
        self.classes, self.drawings = images.shape[:2]
        self.device = torch.device(device)
        flat = torch.from_numpy(np.ascontiguousarray(images)).flatten(0, 1).unsqueeze(1).float() / 255
        shrunk = F.interpolate(flat, size=(SIZE, SIZE), mode="bilinear", antialias=True, align_corners=False)
        self.pixels = shrunk.flatten(1).to(self.device)

    def draw(
        self,
        classes: Int[Tensor, "*batch"],
        drawings: Int[Tensor, "*batch"],
        quarter_turns: Tensor | None = None,
        angles: Tensor | None = None,
        shifts: Tensor | None = None,
    ) -> Float[Tensor, "*batch 400"]:
        """The asked images as flat 20 x 20 vectors in [0, 1]. Raises ValueError if they are to be moved."""
        if not (quarter_turns is None and angles is None and shifts is None):
            raise ValueError("these images can only be shown as they are: quarter_turns=False, jitter=False")
        return self.pixels[classes * self.drawings + drawings]


def _shrink(images: Tensor) -> Tensor:
    """uint8 {0, 1} (n, 105, 105) to uint8 0..255 (n, 42, 42): averaged over 5 x 5 pixels, the area of a small pixel."""
    # The same linear map on rows and on columns, read off by applying it to the identity.
    averaged = F.avg_pool1d(torch.eye(ORIGINAL_SIZE), kernel_size=5, stride=1, padding=2)
    shrink = F.interpolate(averaged.unsqueeze(0), size=BANK_SIZE, mode="linear", align_corners=False)[0]
    return (shrink.T @ (images.float() * 255) @ shrink).round().to(torch.uint8)


def _sampling_map(angle: Tensor, turn: Tensor, shift: Tensor) -> Tensor:
    """The affine map (n, 2, 3) from a point of the result to the point of the source that it shows.

    The image is rotated by `angle`, shifted, then turned; the map undoes this in reverse. Coordinates: x right, y down.
    """

    def undo(a: Tensor) -> Tensor:
        cos, sin = torch.cos(a), torch.sin(a)
        return torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)

    unrotate = undo(angle)
    linear = unrotate @ undo(turn)
    offset = -unrotate @ shift.unsqueeze(-1)
    return torch.cat([linear, offset], dim=-1)
