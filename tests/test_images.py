"""Every kind of image that people have, and every kind of file that is none."""

import io
import os
import shutil
import struct
import sys
import tempfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageSequence

from hb_tta import images
from hb_tta.errors import UserError
from hb_tta.file_index import FileIndex
from hb_tta.images import MAX_PIXELS, PixelDigests, load_image, pixel_digest

RED, WHITE = (255, 0, 0), (255, 255, 255)
ORIENTATION = 0x0112


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def picture(mode: str = "RGB", size: tuple[int, int] = (6, 4)) -> Image.Image:
    """A picture without symmetries."""
    values = np.arange(size[0] * size[1] * 3, dtype=np.uint8).reshape(size[1], size[0], 3)
    return Image.fromarray(values * 3).convert(mode)


def pixels(image: Image.Image) -> list[tuple[int, int, int]]:
    """Row by row, from the left."""
    assert image.mode == "RGB"
    return [tuple(pixel) for pixel in np.asarray(image).reshape(-1, 3).tolist()]


def reds(image: Image.Image) -> list[int]:
    return [red for red, _, _ in pixels(image)]


def png(width: int, height: int, depth: int, rows: bytes) -> bytes:
    """An RGB PNG of any claimed size and of depths that Pillow does not write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


# ── Ways in ──────────────────────────────────────────────────────────────────────────────────────


def test_the_same_pixels_whichever_way_they_come_in(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(encoded(picture()))
    ways: list[Any] = [path, str(path), path.read_bytes(), Image.open(path), picture()]
    for way in ways:
        loaded = load_image(way)
        assert type(loaded) is Image.Image and loaded.mode == "RGB"
        assert pixels(loaded) == pixels(picture())


def test_a_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    picture().save(tmp_path / "picture.png")
    assert pixels(load_image("~/picture.png")) == pixels(picture())


def test_the_image_given_stays_as_it_is() -> None:
    given = picture("RGBA")
    before = given.tobytes()
    given.getexif()[ORIENTATION] = 6
    loaded = load_image(given)
    loaded.putpixel((0, 0), RED)
    assert (given.mode, given.size, given.tobytes()) == ("RGBA", (6, 4), before)
    plain = picture()
    load_image(plain).putpixel((0, 0), RED)
    assert pixels(plain) == pixels(picture())


def test_loading_twice_changes_nothing() -> None:
    rotated = picture("RGBA")
    rotated.getexif()[ORIENTATION] = 6
    once = load_image(rotated)
    assert pixels(load_image(once)) == pixels(once)


# ── Kinds of images ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
def test_exif_rotation_is_applied_and_forgotten(orientation: int, format: str) -> None:
    as_taken = np.asarray(picture())
    undone = {  # what a viewer does to show it upright (EXIF 2.3, table 6)
        1: as_taken,
        2: as_taken[:, ::-1],
        3: as_taken[::-1, ::-1],
        4: as_taken[::-1],
        5: as_taken.transpose(1, 0, 2),
        6: np.rot90(as_taken, -1),
        7: as_taken[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(as_taken),
    }[orientation]
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options = {"lossless": True} if format == "WEBP" else {}
    data = encoded(picture(), format, exif=exif, **options)
    for way in (data, Image.open(io.BytesIO(data))):
        loaded = load_image(way)
        assert np.array_equal(np.asarray(loaded), undone)
        assert not loaded.info and not loaded.getexif()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_exif_that_is_garbage_is_ignored() -> None:
    data = encoded(picture(), exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff garbage")
    assert pixels(load_image(data)) == pixels(picture())


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "La", "RGBa"])
def test_transparency_is_flattened_on_white(mode: str) -> None:
    image = Image.new("L" if mode in ("LA", "La") else "RGB", (3, 1))  # black
    if mode == "PA":
        image = image.convert("P")
    image.putalpha(Image.frombytes("L", (3, 1), bytes([0, 255, 128])))
    row = np.asarray(load_image(image.convert(mode)))[0].astype(int)
    assert np.abs(row - np.array([[255] * 3, [0] * 3, [127] * 3])).max() <= 1


def test_a_palette_with_transparency() -> None:
    indexed = Image.new("P", (2, 1), 0)
    indexed.putpalette([*RED, 0, 0, 255])
    indexed.putpixel((1, 0), 1)
    for format in ("PNG", "GIF"):
        loaded = load_image(encoded(indexed, format, transparency=0))
        assert pixels(loaded) == [WHITE, (0, 0, 255)]
    loaded = load_image(encoded(indexed, transparency=bytes([0, 128])))  # an alpha a colour
    assert pixels(loaded) == [WHITE, (127, 127, 255)]


@pytest.mark.parametrize(("mode", "key", "value"), [("RGB", RED, RED), ("L", 7, 7)])
def test_a_transparent_colour(mode: str, key: Any, value: Any) -> None:
    image = Image.new(mode, (2, 1), value)
    image.putpixel((1, 0), 0)
    loaded = load_image(encoded(image, transparency=key))
    assert pixels(loaded) == [WHITE, (0, 0, 0)]


@pytest.mark.parametrize("mode", ["1", "L", "P", "YCbCr", "HSV", "RGBX", "LAB"])
def test_other_modes_are_their_colours(mode: str) -> None:
    image = picture(mode)
    assert pixels(load_image(image)) == pixels(image.convert("RGB"))


def test_one_bit_is_black_and_white() -> None:
    image = Image.new("1", (2, 1), 0)
    image.putpixel((1, 0), 1)
    assert pixels(load_image(encoded(image))) == [(0, 0, 0), WHITE]


def test_cmyk() -> None:
    ink = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    for format in ("JPEG", "TIFF"):
        pixel = np.asarray(load_image(encoded(ink, format)))[4, 4].astype(int)
        assert np.abs(pixel - RED).max() <= 3


SIXTEEN = np.array([[0, 128, 129, 257, 32768, 65534, 65535]])
EIGHT = [0, 0, 1, 1, 128, 255, 255]  # nearest to value / 257


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B", "I"])
def test_sixteen_bits_are_scaled(mode: str) -> None:
    kind = {"I": "<i4", "I;16B": ">u2"}.get(mode, "<u2")
    image = Image.frombytes(mode, (7, 1), SIXTEEN.astype(kind).tobytes())
    assert reds(load_image(image)) == EIGHT


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_files_of_sixteen_bits(format: str) -> None:
    image = Image.fromarray(SIXTEEN.astype(np.uint16))
    loaded = load_image(encoded(image, format))
    assert reds(loaded) == EIGHT


def test_colours_of_sixteen_bits() -> None:
    row = b"\0" + struct.pack(">6H", 65535, 32768, 0, 257, 514, 65280)
    assert pixels(load_image(png(2, 1, 16, row))) == [(255, 128, 0), (1, 2, 255)]


def test_sixteen_bits_and_a_rotation() -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    loaded = load_image(encoded(Image.fromarray(SIXTEEN.astype(np.uint16)), exif=exif))
    assert loaded.size == (1, 7)
    assert reds(loaded) == EIGHT


@pytest.mark.parametrize(
    ("image", "what"),
    [
        (Image.new("I", (2, 2), 70_000), "beyond 16 bits"),
        (Image.new("I", (2, 2), -1), "beyond 16 bits"),
        (Image.new("F", (2, 2), 0.5), "no stated range"),
    ],
)
def test_pixels_of_unclear_meaning_are_refused(image: Image.Image, what: str) -> None:
    with pytest.raises(UserError, match=what):
        load_image(image)


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_an_animation_gives_its_first_frame(format: str) -> None:
    frames = [Image.new("RGB", (5, 5), colour) for colour in (RED, (0, 255, 0), (0, 0, 255))]
    options = {"lossless": True} if format == "WEBP" else {}
    data = encoded(frames[0], format, save_all=True, append_images=frames[1:], **options)
    assert len(list(ImageSequence.Iterator(Image.open(io.BytesIO(data))))) == 3
    assert load_image(data).getpixel((2, 2)) == RED


# ── Bad input ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("width", "height"), [(MAX_PIXELS + 1, 1), (12_000, 12_000), (50_000, 50_000)]
)
def test_a_decompression_bomb_is_not_unpacked(width: int, height: int) -> None:
    with pytest.raises(UserError, match=f"more than {MAX_PIXELS:,} pixels: make it smaller"):
        load_image(png(width, height, 8, bytes(1000)))


def test_the_limit_itself_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 24)
    assert load_image(picture(size=(6, 4))).size == (6, 4)
    with pytest.raises(UserError, match="5×5"):
        load_image(picture(size=(5, 5)))


def test_truncation_is_an_error_whatever_other_libraries_set(monkeypatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 80).save(buffer, "PNG")
    with pytest.raises(UserError):
        load_image(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    assert ImageFile.LOAD_TRUNCATED_IMAGES


def test_truncation_is_an_error_in_every_thread(monkeypatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    whole = encoded(Image.effect_noise((256, 256), 80))
    cut = whole[: len(whole) // 2]

    def refused(data: bytes) -> bool:
        try:
            load_image(data)
        except UserError:
            return True
        return False

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(refused, [whole, cut] * 40)) == [False, True] * 40
    assert ImageFile.LOAD_TRUNCATED_IMAGES


def test_a_file_that_did_not_change_is_known_without_being_read(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(FileIndex, "_FRESH_NS", 0)  # it has just been written
    monkeypatch.setattr(FileIndex, "_SMALL", -1)  # and is known by its times
    path = tmp_path / "a.png"
    picture().save(path)
    digests = PixelDigests()
    known = digests.known(path)
    assert known.digest == digests.of(picture()) == pixel_digest(load_image(known))
    digests.save()
    read: list[str] = []
    listening = True
    sys.addaudithook(lambda event, about: _hear(event, about, read) if listening else None)
    assert PixelDigests().of(str(path)) == known.digest and read == []
    picture().transpose(Image.Transpose.ROTATE_180).save(path)
    read.clear()
    assert PixelDigests().of(path) != known.digest and read == [str(path)]
    listening = False
    for missing in (tmp_path / "none.png", tmp_path, "a\0b"):
        with pytest.raises(UserError):
            PixelDigests().of(missing)


def _hear(event: str, about: tuple, read: list[str]) -> None:
    if event == "open" and str(about[0]).endswith("a.png"):
        read.append(str(about[0]))


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"])
def test_a_truncated_image(format: str, tmp_path: Path) -> None:
    data = encoded(Image.effect_noise((64, 64), 90).convert("RGB"), format)
    path = tmp_path / "cut.img"
    for keep in (len(data) // 2, len(data) * 9 // 10):
        path.write_bytes(data[:keep])
        with pytest.raises(UserError, match="cut.img"):
            load_image(path)


def test_a_truncated_image_that_is_already_open() -> None:
    data = encoded(Image.effect_noise((64, 64), 90))
    with pytest.raises(UserError, match="the image given is damaged or cut short"):
        load_image(Image.open(io.BytesIO(data[: len(data) // 2])))


@pytest.mark.parametrize("size", [(0, 0), (0, 5), (5, 0)])
def test_an_image_without_pixels(size: tuple[int, int]) -> None:
    with pytest.raises(UserError, match="is empty"):
        load_image(Image.new("RGB", size))


@pytest.mark.parametrize("content", [b"hello", b"\x00" * 100, b"<svg/>", b"%PDF-1.7"])
def test_not_an_image(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file.png"
    path.write_bytes(content)
    with pytest.raises(UserError, match="file.png.*is not an image"):
        load_image(path)
    with pytest.raises(UserError, match=f"{len(content)} bytes.*is not an image"):
        load_image(content)


def test_no_bytes(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    for source in (tmp_path / "empty.png", b""):
        with pytest.raises(UserError, match="is empty"):
            load_image(source)


def test_paths_that_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    for path, what in (
        (tmp_path / "missing.png", "there is no image .*missing.png.*check the path"),
        (tmp_path / "file" / "x.png", "there is no image"),
        (tmp_path, "is a folder"),
        (tmp_path / "pipe", "not a regular file"),
        ("/dev/zero", "not a regular file"),
        ("https://example.org/cat.png", "there is no image 'https"),
        ("", "there is no image|is a folder"),
        ("a\0b", "cannot be the path"),
        ("x" * 5000, "cannot be read"),
    ):
        with pytest.raises(UserError, match=what) as raised:
            load_image(path)
        assert len(str(raised.value)) < 6000 and "\n" not in str(raised.value)


def test_a_file_that_may_not_be_read() -> None:
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    picture().save(folder / "secret.png")
    (folder / "secret.png").chmod(0)
    root = not os.geteuid()
    try:
        if root:  # permissions do not hold for root
            os.seteuid(65534)
        with pytest.raises(UserError, match="secret.png.*Permission denied.*permissions"):
            load_image(folder / "secret.png")
    finally:
        if root:
            os.seteuid(0)
        shutil.rmtree(folder)


def test_things_that_are_no_source() -> None:
    for source in (np.zeros((4, 4, 3), np.uint8), None, 3):
        with pytest.raises(UserError, match=f"not {type(source).__name__}"):
            load_image(source)  # type: ignore[arg-type]


SEEDS = [
    encoded(picture(mode, (16, 16)), format)
    for mode, format in [("RGB", "PNG"), ("P", "GIF"), ("RGB", "JPEG"), ("RGBA", "TIFF")]
] + [encoded(picture(), "WEBP"), encoded(picture("P", (16, 16)), "BMP")]


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of odd metadata
@settings(deadline=None)
@given(st.sampled_from(SEEDS), st.data())
def test_a_damaged_file_is_an_image_or_a_sentence(whole: bytes, data: st.DataObject) -> None:
    content = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert load_image(bytes(content)).mode == "RGB"
    except UserError as error:
        assert "\n" not in str(error)


# ── Digests ──────────────────────────────────────────────────────────────────────────────────────


def test_digest_is_of_size_and_pixels() -> None:
    # printf '2x1\n\xff\x00\x00\x00\x00\xff' | sha256sum
    image = Image.new("RGB", (2, 1), RED)
    image.putpixel((1, 0), (0, 0, 255))
    assert pixel_digest(image) == "9683f07a71309c36ecf53e8a108b6070c8703d8532b11ddc72246c182f901be0"


def test_digest_tells_pixels_and_shapes_apart() -> None:
    grey = [Image.new("RGB", size, (9, 9, 9)) for size in [(4, 6), (6, 4), (12, 2), (24, 1)]]
    other = Image.new("RGB", (4, 6), (9, 9, 9))
    other.putpixel((3, 5), (9, 9, 10))
    assert len({pixel_digest(image) for image in [*grey, other]}) == 5


def test_digest_does_not_depend_on_the_file() -> None:
    files = [encoded(picture(), "PNG"), encoded(picture(), "BMP"), encoded(picture(), "TIFF")]
    assert len({pixel_digest(load_image(file)) for file in files}) == 1


def test_digest_refuses_other_modes() -> None:
    with pytest.raises(ValueError, match="RGBA"):
        pixel_digest(picture("RGBA"))
