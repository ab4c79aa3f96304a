#!/usr/bin/env python3
"""Writes the tables of docs/COMPATIBILITY.md from the tables of the program, so that they cannot differ.

    tools/compatibility.py [--check] [BINARY]

Flags come from `fastdeploy serve --help` and apps/fastdeploy_flags.cc, variables from apps/environment.cc, endpoints from
src/server/http/routes.cc, request fields from src/server/openai/request_schema.cc, metrics from src/server/metrics/metric_table.cc. --check only compares and exits 1 on a difference.
"""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/COMPATIBILITY.md"
KINDS = {"kNoteValue": "without effect", "kNoteSwitch": "without effect", "kRefuseValue": "refused", "kRefuseSwitch": "refused"}


def constants(text):
    """{"kGrammar": "structured output ..."}"""
    found = re.findall(r'constexpr (?:const char\*|std::string_view) (k\w+) =\s*((?:"(?:[^"\\]|\\.)*"\s*)+);', text)
    return {name: join_literals(value) for name, value in found}


def join_literals(text):
    return "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', text)).replace('\\"', '"')


def cell(text):
    return text.replace("|", "\\|").strip()


def flags(binary):
    help_text = subprocess.run([binary, "serve", "--help"], capture_output=True, text=True, check=True).stdout
    source = (ROOT / "apps/fastdeploy_flags.cc").read_text()
    names = constants(source)
    rows = {}
    for match in re.finditer(r'^\s+--([a-z0-9-]+)((?: [^\s].*?)?)(?:\s{2,}|\n\s{20,})(.*(?:\n\s{20,}.*)*)', help_text, re.M):
        rows[match[1]] = ("works", re.sub(r"\s+", " ", match[3]))
    table = source[source.index("kFlags[] = {"):source.index("\n};", source.index("kFlags[] = {"))]
    for name, kind, allowed, sentence in re.findall(
            r'\{"([a-z0-9-]+)", Kind::(\w+), "([^"]*)",\s*(k\w+|(?:"(?:[^"\\]|\\.)*"\s*)+)(?:, true)?\}', table):
        sentence = names.get(sentence) or join_literals(sentence)
        state = f"only {' or '.join(f'`{a}`' for a in allowed.split('|'))}" if kind == "kOnly" else KINDS[kind]
        rows[name] = (state, sentence)
    assert len(re.findall(r"Kind::", table)) == len([r for r in rows.values() if r[0] != "works"]), "a line of kFlags was not understood"
    lines = ["| flag | state | what it does, or why not |", "|---|---|---|"]
    return lines + [f"| `--{name}` | {state} | {cell(why)} |" for name, (state, why) in sorted(rows.items())]


def variables():
    source = (ROOT / "apps/environment.cc").read_text()
    names = constants(source)
    lines = ["| variable | state | what it does, or why not |", "|---|---|---|"]
    for name, works, why in re.findall(r'^    \{"(\w+)", (true|false),\s*(k\w+|(?:"(?:[^"\\]|\\.)*"\s*)+)\},$', source, re.M):
        lines.append(f"| `{name}` | {'works' if works == 'true' else 'without effect'} | {cell(names.get(why) or join_literals(why))} |")
    return lines


def endpoints():
    source = (ROOT / "src/server/http/routes.cc").read_text()
    methods = {name: value for name, value in re.findall(r'constexpr const char\* (k\w+) = "([^"]+)";', source)}
    access = {"kPublic": "everybody", "kKey": "API key", "kAdmin": "admin key"}
    lines = ["| path | methods | needs | what it does |", "|---|---|---|---|"]
    for path, allowed, who, why in re.findall(
            r'\{RouteKind::\w+, "([^"]+)", (k\w+|"[^"]+"), Access::(\w+),\s*"([^"]+)"\}', source):
        allowed = methods.get(allowed, allowed.strip('"'))
        lines.append(f"| `{path}` | {', '.join(m.strip() for m in allowed.split(',') if m.strip() not in ('HEAD', 'OPTIONS'))} | {access[who]} | {cell(why)} |")
    return lines


def fields():
    source = (ROOT / "src/server/openai/request_schema.cc").read_text()
    kinds = {"c": "chat", "t": "completions", "k": "tokenize", "d": "detokenize", "a": "abort", "r": "responses", "m": "messages", "e": "embeddings",
             "p": "pooling"}
    lines = ["| field | requests | meaning |", "|---|---|---|"]
    for name, letters, why in re.findall(r'\{"(\w+)", FieldType::\w+, "(\w+)",\s*"((?:[^"\\]|\\.)*)"\}', source):
        lines.append(f"| `{name}` | {', '.join(kinds[c] for c in letters)} | {cell(why.replace(chr(92) + chr(34), chr(34)))} |")
    return lines


def metrics():
    source = (ROOT / "src/server/metrics/metric_table.cc").read_text()
    names = constants(source)
    kinds = {"kC": "counter", "kG": "gauge", "kH": "histogram"}
    rows = {}
    for name, kind, label, why in re.findall(
            r'^    \{"([a-z0-9_:]+)", k\w+, (k[CGH]), B::k\w+,\s*"([^"]*)",\s*(k\w+|(?:"(?:[^"\\]|\\.)*"\s*)+)\},$', source, re.M):
        row = rows.setdefault(name, [kinds[kind], [], names.get(why) or join_literals(why)])
        if label:
            row[1].append(label.replace("=", '="') + '"')
    table = source[source.index("kRows[] = {"):source.index("\n};", source.index("kRows[] = {"))]
    assert len(re.findall(r"\bB::k", table)) == sum(max(1, len(row[1])) for row in rows.values()), "a line of kRows was not understood"
    lines = ["| metric | kind | meaning |", "|---|---|---|"]
    return lines + [f"| `{name}` | {kind} | {cell(why)}{': ' + ', '.join(f'`{label}`' for label in labels) if labels else ''} |"
                    for name, (kind, labels, why) in rows.items()]


def main():
    arguments = [a for a in sys.argv[1:] if a != "--check"]
    binary = arguments[0] if arguments else str(ROOT / "build/release/fastdeploy")
    before = text = PAGE.read_text()
    for name, lines in (("flags", flags(binary)), ("variables", variables()), ("endpoints", endpoints()), ("fields", fields()),
                        ("metrics", metrics())):
        assert len(lines) > 5, name
        text, count = re.subn(rf"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)",
                              lambda m, body="\n".join(lines): m[1] + body + "\n" + m[2], text, flags=re.S)
        assert count == 1, name
    if "--check" in sys.argv:
        if text != before:
            print("docs/COMPATIBILITY.md is not what the program says; run tools/compatibility.py")
        return int(text != before)
    PAGE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
