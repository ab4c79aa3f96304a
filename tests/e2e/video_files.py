"""Videos of the tests: those of tests/media with what they hold, GIFs made here, and what becomes of them by FastDeploy's rules."""

import base64
import math
import pathlib
import struct

ROOT = pathlib.Path(__file__).resolve().parents[2]
MEDIA = ROOT / "tests" / "media"

# Frames and seconds, as tests/media/make.py makes them; all are 64 x 48.
READ = {"h264.mp4": (100, 4.0), "h264_audio.mp4": (50, 2.0), "h264_bt709.mp4": (10, 0.4), "h264_full_range.mp4": (10, 0.4),
        "h264_open_gop.mkv": (100, 4.0), "h264_fragmented.mp4": (60, 2.4), "h264_variable_rate.mp4": (60, 7.0 * 60 / 59),
        "hevc.mp4": (40, 1.6), "hevc_10bit.mkv": (40, 1.6), "vp8.webm": (60, 2.4), "vp9.webm": (60, 2.0), "av1.webm": (30, 1.2),
        "mpeg4.avi": (60, 2.4), "mjpeg.avi": (20, 0.8), "animated.gif": (30, 3.0), "animated.webp": (30, 3.0),
        "h264_rotate90.mov": (10, 0.4), "h264_rotate180.mov": (10, 0.4), "h264_rotate270.mov": (10, 0.4),
        "still.gif": (1, 0.1), "still.webp": (1, 0.1)}
REFUSED = {"jpeg2000.mov": "coded as jpeg2000", "prores.mov": "coded as prores"}


def data_url(data, kind="video/mp4"):
    return f"data:{kind};base64," + base64.b64encode(data).decode()


def video_part(data, **options):
    """data: bytes, or a URL."""
    return {"type": "video_url", "video_url": {"url": data if isinstance(data, str) else data_url(data), **options}}


# --- what becomes of them: an account of its own of the rules --------------------------------------------------------------------

def fitted(width, height, min_pixels, max_pixels, factor=28):
    """(width, height) after resizing."""
    to = [max(factor, round(side / factor) * factor) for side in (width, height)]
    if to[0] * to[1] > max_pixels:
        by = math.sqrt(width * height / max_pixels)
        return tuple(max(factor, math.floor(side / by / factor) * factor) for side in (width, height))
    if to[0] * to[1] < min_pixels:
        by = math.sqrt(min_pixels / (width * height))
        return tuple(math.ceil(side * by / factor) * factor for side in (width, height))
    return tuple(to)


def tokens_of(width, height, min_pixels, max_pixels):
    """Of a picture, or of a pair of frames."""
    w, h = fitted(width, height, min_pixels, max_pixels)
    return w // 28 * (h // 28)


def sampled(total, seconds, fps=2.0, min_frames=1, max_frames=180, target_frames=-1):
    """How many frames are looked at; by time their number hardly depends on where in its step a frame is taken."""
    wanted = target_frames
    if target_frames <= 0:
        wanted = int(seconds * fps)
        if min_frames <= wanted <= max_frames:
            return total if wanted >= total else math.ceil(seconds * fps)
        wanted = min_frames if wanted < min_frames else max_frames
    return min(wanted, total)


def video_tokens(frames, width=64, height=48, min_pixels=7056, max_pixels=28224):
    """An odd frame at the end is doubled."""
    return (frames + 1) // 2 * tokens_of(width, height, min_pixels, max_pixels)


# --- GIFs ------------------------------------------------------------------------------------------------------------------------

def _one_colour(pixels, value):
    """LZW of `pixels` equal pixels: each code is one pixel longer than the one before."""
    bits, filled = 0, 0

    def put(code, width):
        nonlocal bits, filled
        bits |= code << filled
        filled += width

    left = pixels
    while left > 0:
        put(4, 3)  # clear
        following, width, length = 6, 3, 1
        while left > 0:
            length = min(length, left)
            put(value if length == 1 else length + 4, width)
            left -= length
            length += 1
            # The reader adds a code with every code but the first.
            if length > 2:
                following += 1
            if following == 1 << width and width < 12:
                width += 1
            if following >= 4095:
                put(4, width)
                following, width, length = 6, 3, 1
        put(5, width)
    data = bits.to_bytes((filled + 7) // 8, "little")
    return b"".join(bytes([len(data[i:i + 255])]) + data[i:i + 255] for i in range(0, len(data), 255)) + b"\0"


def gif_video(width, height, frames, colours=(b"\x10\x10\x10", b"\xf0\x40\x40"), delay_cs=4):
    """Frames in turn of two colours. A row short of the canvas, so that each frame needs those before it."""
    head = (b"GIF89a" + struct.pack("<HHBBB", width, height, 0xf1, 0, 0) + colours[0] + colours[1] + bytes(6) +
            b"!\xff\x0bNETSCAPE2.0\x03\x01\0\0\0")
    shown = [b"!\xf9\x04\x04" + struct.pack("<H", delay_cs) + b"\0\0," + struct.pack("<HHHHB", 0, 0, width, height - 1, 0) + b"\2" +
             _one_colour(width * (height - 1), value) for value in (0, 1)]
    return head + shown[0] + b"".join(shown[n % 2] for n in range(1, frames)) + b";"
