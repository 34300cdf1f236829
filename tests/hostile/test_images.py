"""Files that Pillow would hand to other programs, damage that decoders pass over, memory's end."""

from __future__ import annotations

import io
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from hb_tta.errors import UserError
from hb_tta.images import FORMATS, load_image


def encoded(format: str, size: tuple[int, int] = (24, 16), **options: object) -> bytes:
    file = io.BytesIO()
    values_HW3 = np.arange(size[0] * size[1] * 3).reshape(size[1], size[0], 3) % 251
    Image.fromarray(values_HW3.astype(np.uint8)).save(file, format, **options)
    return file.getvalue()


@pytest.mark.parametrize("format", ["EPS", "PDF", "ICO", "TGA", "PCX", "DDS", "SGI", "ICNS"])
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a"])
def test_a_format_that_is_not_on_the_list_is_refused_whatever_its_name(tmp_path, format, name):
    size = (32, 32) if format in ("ICNS", "ICO") else (24, 16)
    (tmp_path / name).write_bytes(encoded(format, size))
    with pytest.raises(UserError, match="is not an image in PNG, JPEG, .* or AVIF: convert it"):
        load_image(tmp_path / name)


def test_no_program_is_started_for_an_image(tmp_path, monkeypatch):
    started = []
    sys.addaudithook(lambda event, about: started.append(about) if event == KIND else None)
    (tmp_path / "a.png").write_bytes(encoded("EPS"))
    with pytest.raises(UserError, match="is not an image"):
        load_image(tmp_path / "a.png")
    with pytest.raises(UserError, match="is not an image"):
        load_image(encoded("EPS"))
    assert started == []


KIND = "subprocess.Popen"


@pytest.mark.parametrize("format", [name for name in FORMATS if name not in ("AVIF", "MPO")])
def test_the_listed_formats_are_read(format):
    assert load_image(encoded(format)).size == (24, 16)


def chunk(kind: bytes, body: bytes, *, damaged: bool = False) -> bytes:
    checksum = zlib.crc32(kind + body) ^ damaged
    return len(body).to_bytes(4, "big") + kind + body + checksum.to_bytes(4, "big")


@pytest.mark.parametrize("tolerant", [False, True], ids=["", "a library tolerates damage"])
@pytest.mark.parametrize("which", [b"IHDR", b"gAMA", b"IDAT"])
def test_a_checksum_of_a_png_that_is_wrong_is_damage(which, tolerant, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", tolerant)
    rows = b"".join(b"\0" + bytes(range(48)) for _ in range(16))
    header = b"".join(n.to_bytes(4, "big") for n in (16, 16)) + bytes((8, 2, 0, 0, 0))
    gamma = (45455).to_bytes(4, "big")
    parts = {b"IHDR": header, b"gAMA": gamma, b"IDAT": zlib.compress(rows), b"IEND": b""}
    png = b"\x89PNG\r\n\x1a\n"
    sound = png + b"".join(chunk(kind, body) for kind, body in parts.items())
    assert load_image(sound).size == (16, 16)
    damaged = b"".join(chunk(kind, body, damaged=kind == which) for kind, body in parts.items())
    with pytest.raises(UserError, match="is damaged or cut short|is not an image"):
        load_image(png + damaged)


LIMITED = """
import resource, sys
from hb_tta.errors import UserError
from hb_tta.images import load_image
load_image(sys.argv[2])  # what decoding imports
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
limit = used + 60_000_000
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    load_image(sys.argv[1])
except UserError as error:
    print(error)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_AS is Linux's")
@pytest.mark.parametrize("format", ["PNG", "BMP", "JPEG"])
def test_a_sound_image_without_the_memory_for_it_is_not_called_damaged(tmp_path, format):
    image, small = tmp_path / "large", tmp_path / "small"
    Image.new("RGB", (8000, 8000), "red").save(image, format)
    Image.new("RGB", (8, 8), "red").save(small, format)
    told = subprocess.run(
        [sys.executable, "-c", LIMITED, str(image), str(small)], capture_output=True, text=True
    )
    assert "needs more memory to decode than there is" in told.stdout, told.stderr
    assert str(image) in told.stdout and "damaged" not in told.stdout


def test_a_picture_in_memory_of_another_format_is_still_taken():
    """The list is of files; who holds pixels has decoded them."""
    with Image.open(io.BytesIO(encoded("ICO", (32, 32)))) as image:
        assert load_image(image).mode == "RGB"


def test_a_name_with_control_characters_is_told_in_one_line(tmp_path):
    path = Path(tmp_path, "a\x1b[2J\n.png")
    path.write_bytes(b"no image")
    with pytest.raises(UserError) as refused:
        load_image(path)
    assert str(refused.value).isprintable()
