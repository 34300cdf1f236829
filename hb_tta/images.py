"""From whatever a person calls an image to 8-bit RGB pixels: every image enters through here."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import BinaryIO

import numpy as np
import PIL
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from hb_tta.device import is_out_of_memory
from hb_tta.errors import UserError
from hb_tta.file_index import ManyFilesIndex
from hb_tta.reading import open_regular, user_path

# The largest image that is read, in pixels; a small file may unpack to far more (a decompression
# bomb). It is the size at which Pillow itself begins to warn: a quarter of a gigabyte of RGB.
MAX_PIXELS = 89_478_485

# What Pillow may read a file as. It knows some 50 more, some of which it has other programs read
# (of an EPS it starts Ghostscript), whatever the file's name says.
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")

_FORMAT = 1  # counts the changes of which pixels an image is read as

_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N", "I")


@dataclass(frozen=True)
class KnownImage:
    """An image file whose pixels are known by their digest, so that naming it decodes nothing.

    Attributes:
        path: of the file.
        digest: what ``pixel_digest`` gave of it.
    """

    path: Path
    digest: str


ImageSource = str | os.PathLike[str] | bytes | Image.Image | KnownImage


def load_image(source: ImageSource, most_pixels: int | None = None) -> Image.Image:
    """Read an image as the eye sees it: 8-bit RGB, upright, on white.

    EXIF rotation is applied, an animation gives its first frame, transparency is flattened on
    white, 16-bit grey is scaled to 8 bits. Colour profiles are not applied. The same pixels come
    out whichever way an image comes in.

    Args:
        source: a path, the bytes of an image file, or a Pillow image (which stays as it is); a
            ``KnownImage`` is read from its path.
        most_pixels: of the largest image that is read; None: ``MAX_PIXELS``, the most there is.

    Returns:
        A new image of mode "RGB" without metadata.

    Raises:
        UserError: there is no such file, or it is no whole image of at most ``most_pixels``.
    """
    most_pixels = MAX_PIXELS if most_pixels is None else most_pixels
    if isinstance(source, Image.Image):
        return _normalised(source, "the image given", most_pixels)
    if isinstance(source, bytes):
        name = f"the image given as {len(source)} bytes"
        return _decoded(io.BytesIO(source), name, most_pixels)
    if isinstance(source, KnownImage):
        source = source.path
    if isinstance(source, (str, os.PathLike)):
        path = _path(source)
        with _opened(path) as file:
            return _decoded(file, f"the image {str(path)!r}", most_pixels)
    raise UserError(
        f"an image is a path, the bytes of a file or a Pillow image, not {type(source).__name__}:"
        " make one of an array with PIL.Image.fromarray"
    )


def pixel_digest(image: Image.Image) -> str:
    """The SHA-256 of an image's size and pixels, 64 hex digits: what stands for it in a key.

    Args:
        image: of mode "RGB", as ``load_image`` gives it.

    Raises:
        ValueError: another mode, whose bytes would mean other colours.
    """
    if image.mode != "RGB":
        raise ValueError(
            f"the digest is of an RGB image, not of mode {image.mode!r}: load_image it"
        )
    size = f"{image.width}x{image.height}\n".encode("ascii")
    return hashlib.sha256(size + image.tobytes()).hexdigest()


class PixelDigests:
    """``pixel_digest`` of whatever ``load_image`` takes; of a file that did not change, at a look.

    A file's digest is indexed beside the store (``FileIndex``), by Pillow's version too, which may
    move a decoder's rounding.
    """

    def __init__(self) -> None:
        name = f"pixels-{_FORMAT}-pillow-{PIL.__version__}.index"
        self._index = ManyFilesIndex(name, _file_pixels)

    def of(self, source: ImageSource) -> str:
        """The digest.

        Raises:
            UserError: see ``load_image``.
        """
        if isinstance(source, KnownImage):
            return source.digest
        if not isinstance(source, (str, os.PathLike)):
            return pixel_digest(load_image(source))
        try:
            return self._index.digest(_path(source))
        except (OSError, ValueError):  # no file whose times could be looked at
            return pixel_digest(load_image(source))

    def known(self, path: Path) -> KnownImage:
        """The image of a file, looked at once.

        Raises:
            UserError: see ``load_image``.
        """
        return KnownImage(path, self.of(path))

    def save(self) -> None:
        """Keep what was looked at for the next process."""
        self._index.save()


def _file_pixels(path: Path) -> str:
    return pixel_digest(load_image(path))


def _path(source: str | os.PathLike[str]) -> Path:
    return user_path(os.fsdecode(source))


def _opened(path: Path) -> BinaryIO:
    try:
        return open_regular(path)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"there is no image {str(path)!r}: check the path") from None
    except IsADirectoryError:
        raise UserError(f"{str(path)!r} is a folder, not an image: name a file in it") from None
    except ValueError:  # a null character, half a surrogate pair
        raise UserError(f"{str(path)!r} cannot be the path of an image: check it") from None
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENXIO):  # a socket has no other name
            raise UserError(
                f"{str(path)!r} is not a regular file: copy the image into one"
            ) from None
        raise UserError(
            f"the image {str(path)!r} cannot be read ({error.strerror}): check its permissions"
        ) from error


def _decoded(file: BinaryIO, name: str, most: int) -> Image.Image:
    if not file.seek(0, os.SEEK_END):
        raise UserError(f"{name} is empty: give an image file")
    file.seek(0)
    try:
        with _truncation_is_an_error(), warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(file, formats=_readable())
            if image.format == "PNG":
                image.verify()  # the checksums, at which the decoder does not look
                image = Image.open(file, formats=_readable())
    except UnidentifiedImageError:
        raise UserError(
            f"{name} is not an image in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}: convert it"
        ) from None
    except Image.DecompressionBombError:
        raise UserError(f"{name} has more than {MAX_PIXELS:,} pixels: make it smaller") from None
    except Exception as error:  # decoders meet broken files with every kind of exception
        raise _broken(name, error) from error
    with image:
        return _normalised(image, name, most)


@cache
def _readable() -> list[str]:
    """Those of ``FORMATS`` that this Pillow has; it loads most of its plugins late."""
    for plugin in ("Mpo", "WebP", "Tiff", "Avif"):
        with suppress(ImportError):  # Pillow before 11.3 has no AVIF
            import_module(f"PIL.{plugin}ImagePlugin")
    Image.preinit()
    return [name for name in FORMATS if name in Image.OPEN]


_truncation = threading.Lock()
_loading: list[bool] = []  # of every thread that loads, how Pillow stood before


@contextmanager
def _truncation_is_an_error() -> Iterator[None]:
    """Pillow's own default, which some libraries (lmms-eval) turn off for the whole process."""
    with _truncation:
        _loading.append(_loading[0] if _loading else ImageFile.LOAD_TRUNCATED_IMAGES)
        ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        yield
    finally:
        with _truncation:
            tolerated = _loading.pop()
            if not _loading:
                ImageFile.LOAD_TRUNCATED_IMAGES = tolerated


def _normalised(image: Image.Image, name: str, most: int) -> Image.Image:
    width, height = image.size
    if not width or not height:
        raise UserError(f"{name} is empty ({width}×{height} pixels): give one with pixels in it")
    if width * height > most:
        raise UserError(f"{name} is {width}×{height}, more than {most:,} pixels: make it smaller")
    try:
        with _truncation_is_an_error():
            image.load()
        return _plain(_flattened(_upright(_eight_bit(image, name))))
    except UserError:
        raise
    except Exception as error:
        raise _broken(name, error) from error


def _broken(name: str, error: Exception) -> UserError:
    reason = " ".join(str(error).split()) or type(error).__name__
    if is_out_of_memory(error):
        return UserError(
            f"{name} needs more memory to decode than there is: make it smaller, or give the "
            "process more"
        )
    return UserError(f"{name} is damaged or cut short ({reason}): get a whole copy of it")


def _eight_bit(image: Image.Image, name: str) -> Image.Image:
    """Scale 16-bit grey to 8 bits; Pillow's own conversion would cut it at 255."""
    if image.mode == "F":
        raise UserError(f"{name} has float pixels, of no stated range: save it with 8 bits")
    if image.mode not in _SIXTEEN_BIT:
        return image
    values_HW = np.asarray(image).astype(np.int64)
    if values_HW.min() < 0 or values_HW.max() > 65535:
        raise UserError(f"{name} has pixels beyond 16 bits: save it with 8 or 16 bits")
    scaled = Image.fromarray(((values_HW * 255 + 32767) // 65535).astype(np.uint8))
    with suppress(Exception):  # EXIF that cannot be read says nothing about the pixels
        scaled.info["exif"] = image.getexif().tobytes()
    return scaled


def _upright(image: Image.Image) -> Image.Image:
    with suppress(Exception):
        return ImageOps.exif_transpose(image)
    return image


def _flattened(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    if image.mode == "La":  # Pillow has no way from it to RGBA
        image = image.convert("LA")
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def _plain(image: Image.Image) -> Image.Image:
    """The pixels alone: an EXIF block left in place would have others turn the image once more."""
    plain = Image.new("RGB", image.size)
    plain.paste(image)
    return plain
