"""PNG files made by hand, for tests and measurements: right ones and wrong ones, without a picture library."""

import random
import struct
import zlib


def png_chunk(kind, data, crc=None):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data) if crc is None else crc)


def png(width, height, rows=b"", depth=8, color=2, extra=b"", level=9, header_crc=None):
    """rows: as they are compressed, the filter's byte before each. extra: chunks between header and data. Nothing is checked."""
    return (b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0), header_crc) + extra +
            png_chunk(b"IDAT", zlib.compress(rows, level)) + png_chunk(b"IEND", b""))


def noise_png(seed, side):
    """A square picture of noise; each seed has its own."""
    rng = random.Random(seed)
    return png(side, side, b"".join(b"\0" + rng.randbytes(3 * side) for _ in range(side)), level=1)


def grey_png(side, level):
    """A square picture of one level; cheap to make and to send, and as expensive to decode as any of its size."""
    return png(side, side, (b"\0" + bytes([level]) * side) * side, color=0, level=1)
