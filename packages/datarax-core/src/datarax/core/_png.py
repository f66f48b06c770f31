"""PNG files of small pictures, by the standard library alone."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np
from jaxtyping import UInt8

COLOR_TYPES = {1: 0, 3: 2, 4: 6}


def png(image: UInt8[np.ndarray, "height width channel"]) -> bytes:
    """The PNG file of a picture.

    Args:
      image: gray, RGB or RGBA: 1, 3 or 4 channels.

    References:
      Portable Network Graphics (third edition), W3C, sections 5 and 11.
    """
    height, width, channels = image.shape
    header = struct.pack(">IIBBBBB", width, height, 8, COLOR_TYPES[channels], 0, 0, 0)
    # Each line begins with the number of its filter; 0 is none.
    lines = np.pad(image.reshape(height, width * channels), ((0, 0), (1, 0)))
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes())), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def data_uri(image: UInt8[np.ndarray, "height width channel"]) -> str:
    """The picture as the source of an `<img>`."""
    return f"data:image/png;base64,{base64.b64encode(png(image)).decode()}"
