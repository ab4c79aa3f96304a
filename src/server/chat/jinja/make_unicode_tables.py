#!/usr/bin/env python3
"""Writes unicode_tables.inc: what Python's str methods say about every code point. Run with Python 3.11 (Unicode 14)."""
import sys


def ranges(test):
    out, start = [], None
    for c in range(0x110001):
        hit = c < 0x110000 and not 0xD800 <= c < 0xE000 and test(chr(c))
        if hit and start is None:
            start = c
        elif not hit and start is not None:
            out.append((start, c - 1))
            start = None
    return out


def mapping(convert):
    """(first, last, step, delta) runs of one-to-one mappings, and the others as strings."""
    runs, special = [], []
    for c in range(0x110000):
        if 0xD800 <= c < 0xE000:
            continue
        to = convert(chr(c))
        if to == chr(c):
            continue
        if len(to) > 1:
            special.append((c, to))
            continue
        delta = ord(to) - c
        if runs and runs[-1][3] == delta:
            first, last, step, _ = runs[-1]
            if step == 0 and c - last in (1, 2):
                runs[-1] = (first, c, c - last, delta)
                continue
            if step and c - last == step:
                runs[-1] = (first, c, step, delta)
                continue
        runs.append((c, c, 0, delta))
    return [(a, b, s or 1, d) for a, b, s, d in runs], special


def wrap(items, out):
    line = ""
    for item in items:
        if len(line) + len(item) > 118:
            out.write(line.rstrip() + "\n")
            line = ""
        line += item + " "
    out.write(line.rstrip() + "\n")


def main(path):
    with open(path, "w") as out:
        out.write("// Made by make_unicode_tables.py.\n// clang-format off\n")
        tests = {"Space": str.isspace, "Unprintable": lambda c: not c.isprintable(), "Alpha": str.isalpha, "Decimal": str.isdecimal,
                 "Digit": str.isdigit, "Numeric": str.isnumeric, "Lower": str.islower, "Upper": str.isupper,
                 "TitleCase": lambda c: c.istitle() and not c.isupper()}
        for name, test in tests.items():
            out.write(f"constexpr Range k{name}[] = {{\n")
            wrap([f"{{0x{a:X}, 0x{b:X}}}," for a, b in ranges(test)], out)
            out.write("};\n")
        for name, convert in {"ToLower": str.lower, "ToUpper": str.upper, "ToTitle": str.title,
                              "ToFold": lambda c: c if c.casefold() == c.lower() else c.casefold()}.items():
            runs, special = mapping(convert)
            out.write(f"constexpr Run k{name}[] = {{\n")
            wrap([f"{{0x{a:X}, 0x{b:X}, {s}, {d}}}," for a, b, s, d in runs], out)
            out.write(f"}};\nconstexpr Special k{name}Special[] = {{\n")
            wrap(["{0x%X, \"%s\"}," % (c, "".join("\\x%02x" % b for b in to.encode())) for c, to in special], out)
            out.write("};\n")
        out.write("// clang-format on\n")


main(sys.argv[1] if len(sys.argv) > 1 else "unicode_tables.inc")
