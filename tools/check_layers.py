#!/usr/bin/env python3
"""Fails when the tree breaks its own rules: an upward include, a forbidden folder name, a file that is too long.

Tiers and their order are docs/ARCHITECTURE.md's. Inside a tier a folder may include itself and the folders listed for it below.
Run from anywhere: tools/check_layers.py [ROOT]; exits 1 and prints one line per finding.
"""

import os
import re
import sys

TIERS = ["base", "compute", "model", "engine", "server"]
FORBIDDEN_FOLDERS = {"common", "core", "framework", "util", "utils", "misc", "helper", "helpers", "manager"}
MAX_FILE_LINES = 800
MAX_README_LINES = 30
CODE = (".h", ".cc", ".cu", ".cuh", ".inc", ".py", ".sh", ".js")
CHECKED = ("src", "apps", "bench", "tests", "tools", "cmake")

# folder -> folders of the same tier it may include ("" is the tier's own root). Folders not listed may include every folder of their tier.
INSIDE = {
    "compute/tensor": ["compute/kernels/cuda"],  # device.h: memory on a device
    "compute/kernels/cpu": ["compute/tensor"],
    "compute/kernels/cuda": ["compute/tensor"],
    "compute/kernels/reference": ["compute/tensor"],
    "compute/ops": ["compute/tensor", "compute/kernels/cpu", "compute/kernels/cuda"],
    "model/config": [],
    "model/weights": ["model/config"],
    "model/quant": ["model/config"],
    "model/layers": ["model/quant", "model/weights", "model/config", "model"],
    "model/vision": ["model/layers", "model/quant", "model/weights", "model/config", "model"],
    "engine/plan": [],
    "engine/kvcache": ["engine/plan"],
    "engine/scheduler": ["engine/kvcache", "engine/plan"],
    "engine/sampling": ["engine/plan"],
    "engine/executor": ["engine/sampling", "engine/plan"],
    "server/text": [],
    "server/metrics": [],
    "server/chat": ["server/text"],
    "server/multimodal": ["server/text", "server/chat"],
    "server/openai": ["server/text", "server/chat", "server/multimodal", "server/metrics"],
    "server/messages": ["server/openai"],
    "server/responses": ["server/text", "server/chat", "server/multimodal", "server/metrics", "server/openai"],
    "server/http": ["server/messages", "server/openai", "server/responses", "server/metrics"],
}
# Knows no tensors and no devices: the scheduler and the page bookkeeping must run in a unit test without either.
NEVER = {"engine/scheduler": ("compute/", "model/model.h"), "engine/kvcache": ("compute/", "model/")}

INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.M)


def folder_of(path):
    """src-relative folder, cut at the depth that INSIDE speaks of."""
    folder = os.path.dirname(path)
    while folder and folder not in INSIDE and folder.count("/") > 1:
        folder = os.path.dirname(folder)
    return folder


def check_includes(root, path, text, findings):
    inside_src = path.startswith("src/")
    own = path[4:] if inside_src else path
    is_test = path.endswith("_test.cc") or path.startswith(("tests/", "bench/"))
    for match in INCLUDE.finditer(text):
        target = match.group(1)
        line = text.count("\n", 0, match.start()) + 1
        where = f"{path}:{line}"
        if target.startswith("compute/kernels/reference/") and not is_test and not own.startswith("compute/kernels/reference"):
            findings.append(f"{where}: {target} defines the answers and is for tests only")
        if not inside_src:
            continue
        if target.startswith(("apps/", "tests/", "bench/")) and not is_test:
            findings.append(f"{where}: src/ may not include {target}")
            continue
        if target.split("/")[0] not in TIERS:
            if os.path.exists(os.path.join(root, os.path.dirname(path), target)):
                findings.append(f"{where}: include {target} by its path from src/")
            continue
        own_tier, tier = own.split("/")[0], target.split("/")[0]
        if TIERS.index(tier) > TIERS.index(own_tier):
            findings.append(f"{where}: {own_tier}/ may not include {target}: the arrow points from server to base")
            continue
        own_folder, folder = folder_of(own), folder_of(target)
        if tier == own_tier and own_folder in INSIDE and folder != own_folder and not is_test:
            if folder not in INSIDE[own_folder]:
                findings.append(f"{where}: {own_folder}/ may not include {target}")
        for banned in NEVER.get(own_folder, ()):
            if target.startswith(banned) and not is_test:
                findings.append(f"{where}: {own_folder}/ may not include {target}: it knows ids only")


def main():
    root = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(__file__), ".."))
    findings = []
    for top in CHECKED:
        for directory, folders, files in os.walk(os.path.join(root, top)):
            folders[:] = sorted(f for f in folders if f not in ("__pycache__", ".venv"))
            relative = os.path.relpath(directory, root)
            if os.path.basename(relative) in FORBIDDEN_FOLDERS:
                findings.append(f"{relative}: a folder name that says nothing; name what is in it")
            if relative.startswith("src/") and any(f.endswith((".h", ".cc")) for f in files) and "README.md" not in files:
                findings.append(f"{relative}: has no README.md")
            for name in sorted(files):
                path = os.path.join(relative, name)
                if name == "README.md" and relative.startswith("src"):
                    with open(os.path.join(root, path), encoding="utf-8") as f:
                        lines = f.read().count("\n")
                    if lines > MAX_README_LINES:
                        findings.append(f"{path}: {lines} lines, the limit is {MAX_README_LINES}")
                if not name.endswith(CODE):
                    continue
                with open(os.path.join(root, path), encoding="utf-8") as f:
                    text = f.read()
                lines = text.count("\n")
                if lines > MAX_FILE_LINES:
                    findings.append(f"{path}: {lines} lines, the limit is {MAX_FILE_LINES}")
                if name.endswith((".h", ".cc", ".cu", ".cuh", ".inc")):
                    check_includes(root, path, text, findings)
    for finding in findings:
        print(finding)
    print(f"check_layers: {len(findings)} finding(s)" if findings else "check_layers: clean")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
