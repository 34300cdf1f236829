"""Image files: sound ones of every format with some bytes changed, and formats we do not take."""

from __future__ import annotations

import io
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from fuzz import Part, Trial
from fuzz.mutating import mutated
from hb_tta.images import load_image, pixel_digest

TAKEN = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
NOT_TAKEN = ("EPS", "PCX", "ICO", "TGA", "SGI", "DDS", "PDF", "IM")


def picture() -> Image.Image:
    grid_HW = np.arange(24 * 16).reshape(24, 16)
    values_HW3 = np.stack([grid_HW % 256, grid_HW * 7 % 256, grid_HW * 31 % 256], -1)
    return Image.fromarray(values_HW3.astype(np.uint8))


def deep_grey() -> Image.Image:
    return Image.fromarray((np.arange(24 * 16).reshape(24, 16) * 170).astype(np.uint16))


def written(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


@cache
def sound_files() -> dict[str, bytes]:
    image = picture()
    files = {format: written(image, format) for format in (*TAKEN, *NOT_TAKEN)}
    text = PngImagePlugin.PngInfo()
    text.add_text("comment", "x" * 100)
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated
    files |= {
        "PNG alpha": written(image.convert("RGBA"), "PNG", pnginfo=text, exif=exif),
        "PNG palette": written(image.quantize(8), "PNG", transparency=3),
        "PNG grey 16": written(deep_grey(), "PNG"),
        "JPEG rotated": written(image, "JPEG", exif=exif, quality=90),
        "JPEG progressive": written(image, "JPEG", progressive=True),
        "JPEG CMYK": written(image.convert("CMYK"), "JPEG"),
        "GIF animated": written(image, "GIF", save_all=True, append_images=[image.rotate(180)]),
        "TIFF deflated": written(image, "TIFF", compression="tiff_adobe_deflate"),
        "WEBP lossless": written(image.convert("RGBA"), "WEBP", lossless=True),
    }
    return files


def whole_png(data: bytes) -> bool:
    """Whether every chunk up to IEND has the checksum that it states."""
    place = 8
    while place + 12 <= len(data):
        end = place + 8 + int.from_bytes(data[place : place + 4], "big")
        body, stated = data[place + 4 : end], data[end : end + 4]
        if len(stated) < 4 or zlib.crc32(body) != int.from_bytes(stated, "big"):
            return False
        if body[:4] == b"IEND":
            return True
        place = end + 4
    return False


@st.composite
def files(draw: st.DrawFn) -> tuple[str, bytes]:
    name = draw(st.sampled_from(sorted(sound_files())))
    return name, draw(mutated(sound_files()[name]))


def lay(drawn: tuple[str, bytes], folder: Path) -> Trial:
    name, data = drawn
    path = folder / "picture.png"  # a name proves nothing
    path.write_bytes(data)

    def wrong(image: Image.Image) -> str | None:
        if image.mode != "RGB" or image.info:
            return f"it is {image.mode} with {image.info}"
        if name in NOT_TAKEN:
            return f"a file of {name} is taken for an image"
        if pixel_digest(load_image(data)) != pixel_digest(image):
            return "its bytes give other pixels than its path"
        sound = pixel_digest(load_image(sound_files()[name]))
        if name.startswith("PNG") and not whole_png(data) and pixel_digest(image) != sound:
            return "its checksums show the damage, and other pixels come out"
        return None

    return Trial(lambda: load_image(path), wrong)


PART = Part("images", count=3000, inputs=files(), lay=lay, warm=sound_files)
