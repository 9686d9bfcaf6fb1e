"""A folder of images read as a video: one image a frame, in the order of their numbers."""

import os
import re
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from gasmcast.video.errors import VideoReadError

_NUMBERED = re.compile(r"(.*?)(\d+)(\.(?:jpe?g|png))", re.IGNORECASE)


def list_images(folder: str) -> list[str]:
    """The names of a folder's images in the order of their numbers, those of one naming only.

    Raises:
        VideoReadError: Where there are none, or images of several namings: those of optical flow
            often lie beside the frames, and nobody wants a video of both.
    """
    try:
        names = [entry.name for entry in os.scandir(folder) if not entry.name.startswith(".")]
    except OSError as error:
        raise VideoReadError(folder, f"the folder cannot be listed: {error}") from error
    numbered = [match for name in names if (match := _NUMBERED.fullmatch(name))]
    if not numbered:
        raise VideoReadError(
            folder,
            "expected a video file or a folder of numbered images (img_00001.jpg, 1.png), got a "
            f"folder that holds none among its {len(names)} entries",
        )
    kinds = sorted({f"{match[1]}*{match[3]}" for match in numbered})
    if len(kinds) > 1:
        raise VideoReadError(
            folder,
            f"expected images of one naming, got {len(kinds)}: {', '.join(kinds[:4])}",
        )
    # By number, not by letters: 10 comes after 9. Equal numbers (1, 01) keep one order everywhere.
    return [match[0] for match in sorted(numbered, key=lambda match: (int(match[2]), match[0]))]


def decode(folder: str, names: Iterable[str]) -> Tensor:
    """Images of a folder, which must be of one size.

    Returns:
        uint8 [T, H, W, 3], RGB, upright.
    """
    images: list[Tensor] = []
    for name in names:
        image = decode_image(folder, name)
        if images and image.shape != images[0].shape:
            raise VideoReadError(
                folder,
                f"expected images of one size, got {name} of {_size(image)} after one of "
                f"{_size(images[0])}",
            )
        images.append(image)
    return torch.stack(images)


def decode_image(folder: str, name: str) -> Tensor:
    """One image: uint8 [H, W, 3], RGB, upright."""
    from PIL import Image, ImageOps

    try:
        # No other format, whatever the name says: PIL runs another program for some.
        with Image.open(os.path.join(folder, name), formats=("JPEG", "PNG")) as image:
            mode = image.mode
            pixels = np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except Exception as error:  # of a damaged picture or its EXIF PIL raises anything
        raise VideoReadError(folder, f"{name} does not decode: {error}") from error
    if mode.startswith(("I", "F")):  # which PIL cuts off at 255
        raise VideoReadError(folder, f"expected 8 bits a colour, got {name} of PIL's mode {mode}")
    return torch.from_numpy(pixels)


def _size(image: Tensor) -> str:
    return f"{image.size(1)} x {image.size(0)}"
