"""The picture formats beyond preprocess/: pictures/. Needs Pillow and numpy, and odd_jpegs (see its first line) for the JPEG files.

    python make_pictures.py ODD_JPEGS_PROGRAM     writes pictures/ and its expected.json
    python make_pictures.py sweep BENCH_PICTURES  compares many random pictures with what build/release/bench/bench_pictures decodes

Expected: sha256 of Pillow's pixels by the colour rule `ernie` (README, preprocess), or `error`: Pillow or we refuse the file."""
import hashlib, io, json, os, struct, subprocess, sys, tempfile, zlib
import numpy as np
from PIL import Image

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "pictures")


def to_rgb(image):
    if image.mode == "I;16": image = image.point(lambda v: v * (1 / 256)).convert("L")
    if image.mode in ("RGBA", "LA") or (image.mode == "P" and "transparency" in image.info):
        rgba = image.convert("RGBA")
        if rgba.getchannel("A").getextrema()[0] < 255:
            white = Image.new("RGBA", rgba.size, (255, 255, 255))
            white.paste(rgba, (0, 0), rgba)
            image = white
    return image.convert("RGB")


def noise(h, w, channels, seed, depth=8):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:h, 0:w]
    smooth = [np.sin(0.3 * x * (c + 1) + 0.2 * y) for c in range(channels)]
    v = (np.stack(smooth, -1) * 0.45 + 0.5) * (2**depth - 1) + rng.normal(0, 2**depth / 40, (h, w, channels))
    return v.clip(0, 2**depth - 1).astype(np.uint16 if depth == 16 else np.uint8)


# ------------------------------------------------------------------------------------------------ PNG by hand
def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def scanlines(samples, bits, rng):
    """Filtered rows of [h, w, channels] samples; every filter type occurs."""
    h, w, c = samples.shape
    if bits == 16: raw = samples.astype(">u2").reshape(h, -1).view(np.uint8).reshape(h, -1)
    elif bits == 8: raw = samples.astype(np.uint8).reshape(h, -1)
    else: raw = np.stack([np.packbits(((r[:, None] >> np.arange(bits - 1, -1, -1)) & 1).astype(np.uint8).ravel()) for r in samples.reshape(h, -1)])
    step = max(1, c * bits // 8)
    out, above = b"", np.zeros(raw.shape[1], np.int32)
    for row in raw.astype(np.int32):
        kind = int(rng.integers(0, 5))
        left = np.concatenate([np.zeros(step, np.int32), row[:-step] if step < len(row) else row[:0]])[:len(row)]
        corner = np.concatenate([np.zeros(step, np.int32), above[:-step] if step < len(row) else above[:0]])[:len(row)]
        p = left + above - corner
        pa, pb, pc = abs(p - left), abs(p - above), abs(p - corner)
        paeth = np.where((pa <= pb) & (pa <= pc), left, np.where(pb <= pc, above, corner))
        out += bytes([kind]) + ((row - [0, left, above, (left + above) // 2, paeth][kind]) & 255).astype(np.uint8).tobytes()
        above = row
    return out


ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def png(samples, colour, bits, interlaced=False, extra=b"", seed=1, tail=b""):
    h, w, _ = samples.shape
    rng = np.random.default_rng(seed)
    if interlaced:
        parts = [samples[y::dy, x::dx] for y, x, dy, dx in ADAM7]
        data = b"".join(scanlines(p, bits, rng) for p in parts if p.size)
    else: data = scanlines(samples, bits, rng)
    packed = zlib.compress(data, 9)
    half = len(packed) // 2
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, bits, colour, 0, 0, int(interlaced))) + extra
            + chunk(b"IDAT", packed[:half]) + chunk(b"IDAT", packed[half:]) + chunk(b"IEND", b"") + tail)


def png_files():
    ramp = chunk(b"PLTE", bytes(range(0, 256, 17)) * 3)  # 16 colours
    some = lambda c, bits, n: noise(19, 23, c, n, 16 if bits == 16 else 8) if bits >= 8 else noise(19, 23, c, n) >> (8 - bits)
    for name, colour, c in (("grey", 0, 1), ("rgb", 2, 3), ("palette", 3, 1), ("grey_alpha", 4, 2), ("rgba", 6, 4)):
        for bits in {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4), 4: (8, 16), 6: (8, 16)}[colour]:
            for interlaced in (False, True):
                yield f"{name}_{bits}{'_interlaced' if interlaced else ''}.png", png(some(c, bits, bits + colour), colour, bits, interlaced, ramp if colour == 3 else b"")
    yield "palette_4_alpha_interlaced.png", png(some(1, 4, 40), 3, 4, True, ramp + chunk(b"tRNS", bytes(range(0, 250, 25))))
    yield "palette_2_alpha.png", png(some(1, 2, 41), 3, 2, False, ramp + chunk(b"tRNS", b"\0\x80\xff"))
    yield "grey_1_trns.png", png(some(1, 1, 42), 0, 1, False, chunk(b"tRNS", b"\0\1"))
    yield "grey_16_trns.png", png(some(1, 16, 43), 0, 16, False, chunk(b"tRNS", b"\x40\0"))
    yield "rgb_16_trns.png", png(some(3, 16, 44), 2, 16, False, chunk(b"tRNS", b"\0\0\0\0\0\0"))
    yield "gamma_and_profile.png", png(some(3, 8, 45), 2, 8, False, chunk(b"gAMA", struct.pack(">I", 100000)) + chunk(b"sRGB", b"\0") + chunk(b"pHYs", b"\0\0\0\1\0\0\0\2\0"))
    yield "trailing_garbage.png", png(some(3, 8, 46), 2, 8, tail=b"garbage" * 9)
    control = lambda n, w, h: chunk(b"fcTL", struct.pack(">IIIIIHHBB", n, w, h, 0, 0, 1, 10, 0, 0))
    frame = zlib.compress(scanlines(some(4, 8, 48), 8, np.random.default_rng(2)))
    for first in (True, False):  # whether the still picture is the first frame
        still = png(some(4, 8, 47), 6, 8, False, chunk(b"acTL", struct.pack(">II", 2 if first else 1, 0)) + (control(0, 23, 19) if first else b""))
        n = int(first)
        yield f"animated_{'with' if first else 'beside'}_still.png", still[:-12] + control(n, 23, 19) + chunk(b"fdAT", struct.pack(">I", n + 1) + frame) + still[-12:]


# ------------------------------------------------------------------------------------------------ GIF by hand
def lzw(indices, bits):
    """Codes of one size: a clear code before the table grows."""
    clear, size, out, acc, have = 1 << bits, bits + 1, bytearray(), 0, 0
    for n, v in enumerate(list(indices)):
        for code in ([clear] if n % (clear - 2) == 0 else []) + [int(v)]:
            acc |= code << have; have += size
            while have >= 8: out.append(acc & 255); acc >>= 8; have -= 8
    acc |= (clear + 1) << have; have += size
    while have > 0: out.append(acc & 255); acc >>= 8; have -= 8
    return bytes([bits]) + b"".join(bytes([len(out[i:i + 255])]) + out[i:i + 255] for i in range(0, len(out), 255)) + b"\0"


def gif(screen, box, colours=8, local=False, table=True, transparent=None, interlaced=False, background=0, before=b"", version=b"GIF89a", seed=3):
    w, h = box[2:]
    bits = colours.bit_length() - 1
    palette = np.random.default_rng(seed).integers(0, 256, 3 * colours).astype(np.uint8).tobytes()
    indices = noise(h, w, 1, seed)[:, :, 0] >> (8 - bits)
    if interlaced: indices = np.concatenate([indices[0::8], indices[4::8], indices[2::4], indices[1::2]])
    out = version + struct.pack("<HHBBB", *screen, (0x80 | bits - 1) if table else 0, background, 0) + (palette if table else b"") + before
    if transparent is not None: out += b"\x21\xf9\x04\x01\0\0" + bytes([transparent]) + b"\0"
    out += b"\x2c" + struct.pack("<HHHHB", *box, (0x80 | bits - 1 if local else 0) | (0x40 if interlaced else 0)) + (palette[::-1] if local else b"")
    return out + lzw(indices.ravel(), bits) + b";"


def gif_files():
    yield "global.gif", gif((23, 19), (0, 0, 23, 19))
    yield "local.gif", gif((23, 19), (0, 0, 23, 19), local=True)
    yield "local_only.gif", gif((23, 19), (0, 0, 23, 19), local=True, table=False)
    yield "no_table.gif", gif((23, 19), (0, 0, 23, 19), table=False)
    yield "transparent.gif", gif((23, 19), (0, 0, 23, 19), transparent=2)
    yield "offset.gif", gif((31, 27), (5, 3, 20, 15))
    yield "offset_transparent.gif", gif((31, 27), (5, 3, 20, 15), transparent=4)
    yield "offset_background.gif", gif((31, 27), (5, 3, 20, 15), background=6)
    yield "offset_local_transparent.gif", gif((31, 27), (5, 3, 20, 15), local=True, transparent=4)
    yield "beyond_the_screen.gif", gif((10, 8), (5, 3, 20, 15))
    yield "interlaced.gif", gif((23, 19), (0, 0, 23, 19), interlaced=True)
    yield "interlaced_offset.gif", gif((31, 27), (5, 3, 20, 15), interlaced=True, transparent=1, colours=16)
    yield "comment_87.gif", gif((23, 19), (0, 0, 23, 19), version=b"GIF87a")
    yield "comment.gif", gif((23, 19), (0, 0, 23, 19), before=b"\x21\xfe\x05hello\0\x21\xff\x0bNETSCAPE2.0\x03\x01\0\0\0")


# ------------------------------------------------------------------------------------------------ WebP and JPEG
def other_files(program):
    def saved(im, **kw):
        b = io.BytesIO(); im.save(b, **kw); return b.getvalue()
    rgb = lambda n: Image.fromarray(noise(19, 23, 3, n)); rgba = lambda n: Image.fromarray(noise(19, 23, 4, n))
    yield "animated.webp", saved(rgb(60), format="WEBP", save_all=True, append_images=[rgb(61)], lossless=True)
    yield "animated_alpha.webp", saved(rgba(62), format="WEBP", save_all=True, append_images=[rgba(63)], lossless=True)
    yield "animated_lossy.webp", saved(rgb(64), format="WEBP", save_all=True, append_images=[rgb(65)], quality=60)
    ex = Image.Exif(); ex[0x0112] = 8
    yield "exif_8.webp", saved(rgb(66), format="WEBP", lossless=True, exif=ex)
    ex[0x0112] = 7
    yield "exif_7.png", saved(rgb(67), format="PNG", exif=ex)
    yield "trailing_garbage.jpg", saved(rgb(68), format="JPEG", quality=90) + b"garbage" * 9
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([program, folder], check=True)
        for name in sorted(os.listdir(folder)):
            yield name, open(os.path.join(folder, name), "rb").read()
    precise = bytearray(saved(rgb(69), format="JPEG", quality=90))
    precise[precise.index(b"\xff\xc0") + 4] = 12
    yield "precision_12.jpg", bytes(precise)
    lossless = bytearray(saved(rgb(70), format="JPEG", quality=90))
    lossless[lossless.index(b"\xff\xc0") + 1] = 0xC3
    yield "lossless_process.jpg", bytes(lossless)


def main():
    if sys.argv[1] == "sweep": return sweep(sys.argv[2])
    os.makedirs(OUT, exist_ok=True)
    rows = []
    for name, data in [*png_files(), *gif_files(), *other_files(sys.argv[1])]:
        open(os.path.join(OUT, name), "wb").write(data)
        row = dict(file=name)
        try:
            im = to_rgb(Image.open(io.BytesIO(data)))
            row |= dict(width=im.width, height=im.height, sha256=hashlib.sha256(im.tobytes()).hexdigest())
        except Exception as e: row |= dict(error=str(e) or type(e).__name__)
        rows.append(row)
    open(os.path.join(OUT, "expected.json"), "w").write("[\n" + ",\n".join(json.dumps(r) for r in rows) + "\n]\n")


def sweep(program):
    rng = np.random.default_rng(11)
    files = []
    with tempfile.TemporaryDirectory() as folder:
        def put(ext, data): files.append(os.path.join(folder, f"{len(files):05d}.{ext}")); open(files[-1], "wb").write(data)
        for n in range(600):
            h, w = (int(v) for v in rng.integers(1, 90, 2))
            a = noise(h, w, 4, n)
            im = Image.fromarray(a[:, :, :3])
            b = io.BytesIO()
            kind = n % 6
            if kind < 3:
                mode = ("RGB", "L", "CMYK")[int(rng.integers(0, 3))]
                im.convert(mode).save(b, "JPEG", quality=int(rng.integers(1, 100)), subsampling=int(rng.integers(0, 3)), progressive=bool(rng.integers(0, 2)), optimize=bool(rng.integers(0, 2)))
                put("jpg", b.getvalue())
            elif kind == 3:
                colour, c = ((0, 1), (2, 3), (4, 2), (6, 4))[int(rng.integers(0, 4))]
                bits = (8, 16)[int(rng.integers(0, 2))]
                put("png", png(noise(h, w, c, n, bits), colour, bits, bool(rng.integers(0, 2)), seed=n))
            elif kind == 4:
                (Image.fromarray(a) if rng.integers(0, 2) else im).save(b, "WEBP", quality=int(rng.integers(0, 100)), lossless=bool(rng.integers(0, 2)), method=int(rng.integers(0, 7)))
                put("webp", b.getvalue())
            else:
                x, y = (int(v) for v in rng.integers(0, 9, 2))
                put("gif", gif((w + int(rng.integers(0, 9)), h + int(rng.integers(0, 9))), (x, y, w, h), 2 ** int(rng.integers(2, 9)), bool(rng.integers(0, 2)), True,
                               int(rng.integers(0, 4)) if rng.integers(0, 2) else None, bool(rng.integers(0, 2)), seed=n))
        ours = subprocess.run([program, "--checksums", *files], capture_output=True, text=True, check=True).stdout.split()
        wrong = {}
        for path, mark in zip(files, ours, strict=True):
            want = hashlib.sha256(to_rgb(Image.open(path)).tobytes()).hexdigest()
            if mark != want: wrong.setdefault(path.rsplit(".")[-1], []).append(os.path.basename(path))
        print(f"{len(files)} pictures; other pixels than Pillow's:", {k: (len(v), v[:5]) for k, v in wrong.items()} or "none")


if __name__ == "__main__":
    main()
