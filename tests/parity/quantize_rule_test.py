"""Which bytes a weight becomes, stated once more and on its own, without anything of the program.

float32 arithmetic is that of IEEE 754: double arithmetic rounded by struct, which is exact for one quotient
or product of two float32 numbers. Usage: quantize_rule_test.py PROGRAM, the build's quantize_rows.
"""

import math
import random
import struct
import subprocess
import sys

INF = float("inf")


def float32(x):
    return struct.unpack("<f", struct.pack("<f", x))[0]


def bits_of(x):
    return struct.unpack("<I", struct.pack("<f", x))[0]


def float_of(bits):
    return struct.unpack("<f", struct.pack("<I", bits))[0]


def bfloat16(x):
    """Nearest, ties to even, as the 16 bits."""
    if math.isnan(x):
        return 0x7FC0
    bits = bits_of(x)
    low, rest = bits >> 16, bits & 0xFFFF
    return low + (rest > 0x8000 or (rest == 0x8000 and low % 2 == 1))


def round_half_away(x):
    return int(math.copysign(math.floor(abs(x) + 0.5), x))  # exact: x is a float32 below 2^7


def quantise(row, bits, group_size):
    """q and the bits of the bfloat16 scales of one output feature."""
    limit = 127 if bits == 8 else 7
    q, scales = [], []
    step = group_size or len(row)
    for begin in range(0, len(row), step):
        group = row[begin:begin + step]
        absmax = max(abs(w) if w == w else INF for w in group)
        if absmax == INF:  # NaN or infinite weights: the feature is NaN
            scales.append(None)
            q += [0] * len(group)
            continue
        scale = bfloat16(float32(absmax / limit))
        scales.append(scale)
        if scale == 0:
            q += [0] * len(group)
        else:
            q += [round_half_away(float32(float32(w / absmax) * limit)) for w in group]
    return q, scales


def extreme_rows(k):
    tiny, least = float_of(1), float_of(0x00800000)
    yield [0.0] * k
    yield [-0.0] * k
    yield [tiny * (j % 5) for j in range(k)]  # denormal, the scale is 0
    yield [least * (j % 300) for j in range(k)]  # the scale is denormal
    yield [float_of(0x7F7FFFFF) * (1 if j % 3 else -0.3) for j in range(k)]
    yield [1e30 if j == k // 2 else random.gauss(0, 1) for j in range(k)]
    yield [-1.0 if j % 2 else 1.0 for j in range(k)]
    for limit in (7, 127):  # halves of a step, both signs, and their neighbours in float32
        yield [1.0] + [float_of(bits_of((j % limit + 0.5) / limit) + random.randint(-1, 1)) * random.choice((-1, 1))
                       for j in range(k - 1)]
        yield [float(limit)] + [(j % limit + 0.5) * random.choice((-1, 1)) for j in range(k - 1)]
        yield [3.0] + [3.0 * (j % limit + 0.5) / limit for j in range(k - 1)]
    for bad in (INF, -INF, float("nan")):
        yield [bad if j == k - 1 else random.gauss(0, 1) for j in range(k)]


def main(program):
    random.seed(5)
    cases = []
    for k in (1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 64, 95, 129, 255, 1000):
        rows = list(extreme_rows(k))
        for spread in (1e-3, 1.0, 1e8):
            rows += [[random.gauss(0, spread) for _ in range(k)] for _ in range(4)]
        for source in (0, 1):
            kept = [[float_of(bfloat16(w) << 16) if source == 0 else float32(w) for w in row] for row in rows]
            for bits, group_size in ((8, 0), (4, 0), (8, 32), (4, 32), (4, 64), (4, 128)):
                cases.append((kept, k, bits, group_size, source))
    stdin = b""
    for rows, k, bits, group_size, source in cases:
        stdin += struct.pack("<5i", len(rows), k, bits, group_size, source)
        for row in rows:
            stdin += struct.pack(f"<{k}f", *row) if source else struct.pack(f"<{k}H", *(bits_of(w) >> 16 for w in row))
    out = subprocess.run([program], input=stdin, stdout=subprocess.PIPE, check=True).stdout
    isas, at, features = struct.unpack_from("<i", out)[0], 4, 0
    for rows, k, bits, group_size, source in cases:
        expected = [quantise(row, bits, group_size) for row in rows]
        for isa in range(isas):
            where = f"k {k}, bits {bits}, group {group_size}, {'f32' if source else 'bf16'}, instruction set {isa}"
            for i, (q, _) in enumerate(expected):
                found = list(struct.unpack_from(f"<{k}b", out, at))
                at += k
                wrong = [j for j in range(k) if found[j] != q[j]]
                assert not wrong, f"{where}, feature {i}: {rows[i][wrong[0]]!r} became {found[wrong[0]]}, not {q[wrong[0]]}"
                features += 1
            for i, (_, scales) in enumerate(expected):
                found = struct.unpack_from(f"<{len(scales)}H", out, at)
                at += 2 * len(scales)
                for have, want in zip(found, scales):
                    is_nan = have & 0x7FFF > 0x7F80
                    assert is_nan if want is None else have == want, f"{where}, feature {i}: scale {have:#x}, not {want}"
    assert at == len(out)
    print(f"{features} features of {len(cases)} matrices are the rule's to the byte")


if __name__ == "__main__":
    main(sys.argv[1])
