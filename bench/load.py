#!/usr/bin/env python3
"""From a checkpoint's files to a server that is ready: bytes per second.

    python3 bench/load.py --binary build/cuda-portable/fastdeploy --device cuda:0 [--layers 4] [--folder DIR]

Writes a checkpoint of ERNIE-4.5-21B-A3B's dimensions with fewer layers (--layers 4: 5.8 GB; 28 are the whole model) and meaningless
weights, starts a server on it twice and prints what its log says of loading: first with the files out of the page cache, if the system
lets go of them, then from the cache. Python's standard library only.
"""

import argparse
import json
import os
import pathlib
import random
import re
import shutil
import struct
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tools"))
from server_process import MODEL, ROOT, ServerProcess, find_binary  # noqa: E402

CONFIG = ROOT / "bench" / "configs" / "ernie-4.5-21b-a3b" / "config.json"
SHARD_BYTES = 4 << 30
TOKENIZER_FILES = ("tokenizer.model", "tokenizer_config.json", "added_tokens.json", "special_tokens_map.json")


def tensors(config):
    """(name, type, shape) of every tensor."""
    hidden, vocab, d = config["hidden_size"], config["vocab_size"], config["head_dim"]
    q, kv = config["num_attention_heads"] * d, config["num_key_value_heads"] * d
    yield "model.embed_tokens.weight", "BF16", [vocab, hidden]
    for layer in range(config["num_hidden_layers"]):
        p = f"model.layers.{layer}."
        yield p + "input_layernorm.weight", "BF16", [hidden]
        yield p + "post_attention_layernorm.weight", "BF16", [hidden]
        for name, rows, columns in (("q", q, hidden), ("k", kv, hidden), ("v", kv, hidden), ("o", hidden, q)):
            yield f"{p}self_attn.{name}_proj.weight", "BF16", [rows, columns]
        mlps = {p + "mlp.": config["intermediate_size"]}
        if layer >= config["moe_layer_start_index"]:
            width, experts = config["moe_intermediate_size"], config["moe_num_experts"]
            mlps = {f"{p}mlp.experts.{e}.": width for e in range(experts)}
            mlps[p + "mlp.shared_experts."] = width * config["moe_num_shared_experts"]
            yield p + "mlp.gate.weight", "F32", [experts, hidden]
            yield p + "mlp.moe_statics.e_score_correction_bias", "F32", [1, experts]
        for mlp, width in mlps.items():
            yield mlp + "gate_proj.weight", "BF16", [width, hidden]
            yield mlp + "up_proj.weight", "BF16", [width, hidden]
            yield mlp + "down_proj.weight", "BF16", [hidden, width]
    yield "model.norm.weight", "BF16", [hidden]


def size_bytes(kind, shape):
    count = 1
    for n in shape:
        count *= n
    return count * (4 if kind == "F32" else 2)


def write_shard(path, entries, noise):
    header, at = {}, 0
    for name, kind, shape in entries:
        end = at + size_bytes(kind, shape)
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for begin in range(0, at, len(noise)):
            file.write(noise[:min(len(noise), at - begin)])
        file.flush()
        os.fsync(file.fileno())


def write_checkpoint(folder, layers):
    config = json.loads(CONFIG.read_text(encoding="utf-8"))
    config["num_hidden_layers"] = layers
    config["moe_layer_end_index"] = layers - 1
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    for name in TOKENIZER_FILES:
        shutil.copy(pathlib.Path(MODEL) / name, folder / name)
    # Small numbers in both types: the upper half of a float32 is a bfloat16.
    noise = bytes(b for _ in range(1 << 19) for b in (random.getrandbits(8), random.choice((0x3c, 0xbc)))) * 16
    shards, sizes = [[]], [0]
    for entry in tensors(config):
        if sizes[-1] + size_bytes(*entry[1:]) > SHARD_BYTES and shards[-1]:
            shards.append([])
            sizes.append(0)
        shards[-1].append(entry)
        sizes[-1] += size_bytes(*entry[1:])
    weight_map = {}
    for i, shard in enumerate(shards):
        name = f"model-{i + 1:05}-of-{len(shards):05}.safetensors"
        write_shard(folder / name, shard, noise)
        weight_map.update({entry[0]: name for entry in shard})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}), encoding="utf-8")
    return sum(sizes)


def forget(folder):
    """Asks the system to drop the files from its cache."""
    for path in folder.glob("*.safetensors"):
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=find_binary())
    parser.add_argument("--device", default="auto")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--folder", help="where the checkpoint is written; default: a temporary folder")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = pathlib.Path(name)
        total = write_checkpoint(folder, args.layers)
        print(f"{total / 1e9:.1f} GB of weights, {args.layers} layers")
        for state in ("files not in memory", "files in memory"):
            if state.startswith("files not"):
                forget(folder)
            with ServerProcess(args.binary, "--device", args.device, "--max-model-len", "4096", model=folder) as server:
                seconds = server.start_seconds
                log = server.log_tail(200)
            line = re.findall(r"loading weights: [^%\"]* GB in [^\"]*", log)
            print(f"{state}: {line[-1] if line else 'no line about loading'}; ready after {seconds:.2f} s")


if __name__ == "__main__":
    main()
