"""Checkpoints that FastDeploy's users quantised before: written here from the published layout, read by the
program, whose logits must be those of the same weights quantised while loading, to the bit.

The layout as Paddle's weight_quantize makes it on its CPU path, in that order: q [k, n]; rows of k permuted
within 16 (int8) or 32 (int4); turned to columns; columns interleaved in twos or fours every 64 rows; made
unsigned; values of a 32-bit word reordered. Usage: prequantized_test.py PROGRAM (the build's model_logits).
"""

import json
import os
import random
import struct
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "parity"))
from quantize_rule_test import bfloat16, float_of, quantise  # noqa: E402

HIDDEN, HEADS, KV_HEADS, HEAD_DIM, WIDE, EXPERTS, EXPERT_WIDE, SHARED, VOCAB, LAYERS = 128, 2, 1, 64, 192, 3, 64, 2, 97, 2
TOKENS = 12
CONFIG = {
    "architectures": ["Ernie4_5_MoeForCausalLM"], "model_type": "ernie4_5_moe", "hidden_act": "silu", "rms_norm_eps": 1e-5,
    "vocab_size": VOCAB, "hidden_size": HIDDEN, "intermediate_size": WIDE, "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "head_dim": HEAD_DIM, "max_position_embeddings": 512,
    "rope_theta": 500000.0, "use_bias": False, "tie_word_embeddings": False, "eos_token_id": 2, "moe_num_experts": EXPERTS,
    "moe_k": 2, "moe_intermediate_size": EXPERT_WIDE, "moe_num_shared_experts": SHARED, "moe_layer_start_index": 1,
}


def matrix(rows, columns, spread=0.1):
    return [[float_of(bfloat16(random.gauss(0, spread)) << 16) for _ in range(columns)] for _ in range(rows)]


def model():
    """{name: [out][in] or [n]} under transformers' names."""
    t = {"model.embed_tokens.weight": matrix(VOCAB, HIDDEN, 1.0), "model.norm.weight": matrix(1, HIDDEN)[0],
         "lm_head.weight": matrix(VOCAB, HIDDEN)}

    def mlp(prefix, wide):
        t[prefix + "gate_proj.weight"], t[prefix + "up_proj.weight"] = matrix(wide, HIDDEN), matrix(wide, HIDDEN)
        t[prefix + "down_proj.weight"] = matrix(HIDDEN, wide)

    for layer in range(LAYERS):
        p = f"model.layers.{layer}."
        for name in ("input_layernorm", "post_attention_layernorm"):
            t[f"{p}{name}.weight"] = [1.0 + w for w in matrix(1, HIDDEN)[0]]
        for name, rows in (("q", HEADS * HEAD_DIM), ("k", KV_HEADS * HEAD_DIM), ("v", KV_HEADS * HEAD_DIM)):
            t[f"{p}self_attn.{name}_proj.weight"] = matrix(rows, HIDDEN)
        t[f"{p}self_attn.o_proj.weight"] = matrix(HIDDEN, HEADS * HEAD_DIM)
        if layer == 0:
            mlp(p + "mlp.", WIDE)
            continue
        t[p + "mlp.gate.weight"] = matrix(EXPERTS, HIDDEN)
        t[p + "mlp.moe_statics.e_score_correction_bias"] = matrix(1, EXPERTS)
        for e in range(EXPERTS):
            mlp(f"{p}mlp.experts.{e}.", EXPERT_WIDE)
        mlp(p + "mlp.shared_experts.", EXPERT_WIDE * SHARED)
    return t


def layout(q, bits):
    """Bytes of q [out][in]."""
    n, k = len(q), len(q[0])
    rows, per_word, bundle = (16, 4, 2) if bits == 8 else (32, 8, 4)
    order = [8 * (t % per_word // 2) + t % 2 + 2 * (t // per_word) for t in range(rows)]
    values = []
    for first in range(0, n, bundle):
        for tile in range(0, k, 64):
            for feature in q[first:first + bundle]:
                values += [feature[r // rows * rows + order[r % rows]] for r in range(tile, tile + 64)]
    if bits == 8:
        words = [[values[i], values[i + 2], values[i + 1], values[i + 3]] for i in range(0, len(values), 4)]
        return bytes(v + 128 for word in words for v in word)
    out = bytearray()
    for i in range(0, len(values), 8):
        word = [values[i + j] + 8 for j in (0, 2, 4, 6, 1, 3, 5, 7)]
        out += bytes(word[j] | word[j + 1] << 4 for j in (0, 2, 4, 6))
    return bytes(out)


def f32(values):
    return struct.pack(f"<{len(values)}f", *values)


def bf16(values):
    return struct.pack(f"<{len(values)}H", *(bfloat16(v) for v in values))


def write(folder, tensors, config):
    """tensors: [(name, dtype, shape, bytes)]"""
    header, at = {}, 0
    for name, dtype, shape, data in tensors:
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    os.makedirs(folder)
    with open(os.path.join(folder, "model.safetensors"), "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(data for _, _, _, data in tensors))
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(config, f)


def flat(rows):
    return [v for row in rows for v in row]


def plain(name, value, transposed=False):
    if not isinstance(value[0], list):
        return name, "BF16", [len(value)], bf16(value)
    if transposed:
        value = list(zip(*value))
    wide = ".gate." in name or "correction_bias" in name
    return name, "F32" if wide else "BF16", [len(value), len(value[0])], (f32 if wide else bf16)(flat(value))


def kind_of(name, kinds):
    """Bits of a linear layer: None for what stays as stored."""
    if "_proj." not in name:
        return None
    return kinds["moe" if ".experts." in name else "dense"]


def prequantised(tensors, kinds, paddle):
    """As FastDeploy stores it; paddle: with Paddle's names and fused matrices."""
    groups = {}
    for name, value in tensors.items():
        fused = name
        if paddle:
            for parts, whole in ((("q_proj", "k_proj", "v_proj"), "qkv_proj"), (("gate_proj", "up_proj"), "up_gate_proj")):
                for part in parts:
                    fused = fused.replace("." + part, "." + whole)
        bits = kind_of(name, kinds)
        groups.setdefault(fused if bits else name, [bits, []])[1].append(value)
    out = []
    for name, (bits, values) in groups.items():
        stored = "ernie" + name[len("model"):] if paddle and name.startswith("model.") else name
        if bits is None:
            out.append(plain(stored, values[0], paddle and ("lm_head" in name or ".gate." in name)))
            continue
        rows = [quantise(row, bits, 0) for value in values for row in value]
        layer, k = stored[:-len(".weight")], len(values[0][0])
        out.append((layer + ".quant_weight", "I8", [len(rows) * bits // 8, k], layout([q for q, _ in rows], bits)))
        scales = [float_of(s[0] << 16) for _, s in rows]
        out.append((layer + ".weight_scale", "F32" if paddle else "BF16", [len(rows)], (f32 if paddle else bf16)(scales)))
    return out


def main(program):
    random.seed(7)
    tensors = model()

    def run(folder, quantization="none", fails=False):
        done = subprocess.run([program, folder, quantization, str(TOKENS)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if fails:
            assert done.returncode == 1, folder
            return done.stderr.decode()
        assert done.returncode == 0, done.stderr.decode()
        assert len(done.stdout) == 4 * TOKENS * VOCAB
        return done.stdout

    with tempfile.TemporaryDirectory() as base:
        whole = os.path.join(base, "bf16")
        write(whole, [plain(n, v) for n, v in tensors.items()], CONFIG)
        exact = run(whole)
        cases = [
            # On the command line, in config.json, bits. A command line's wint4 leaves dense layers in 8 bits.
            ({"quantization": "wint8"}, {"quantization": "wint8"}, {"dense": 8, "moe": 8}),
            ({"quantization": "wint4"}, {"quantization": "mix_quant", "dense_quant_type": "wint8", "moe_quant_type": "wint4"}, {"dense": 8, "moe": 4}),
            ({"quantization": "mix_quant", "dense_quant_type": "wint4", "moe_quant_type": "wint4"}, {"quantization": "wint4"}, {"dense": 4, "moe": 4}),
        ]
        for number, (flag, quantization, kinds) in enumerate(cases):
            online = run(whole, json.dumps(flag))
            assert online != exact
            for paddle in (False, True):
                folder = os.path.join(base, f"{number}{paddle}")
                stored = prequantised(tensors, kinds, paddle)
                config = {**CONFIG, "quantization_config": {**quantization, "is_quantized": True}}
                write(folder, stored, config)
                assert run(folder) == online, (quantization, paddle)
                assert run(folder, "wint4") == online, "config.json comes first"
                # What does not fit is refused by name.
                broken = [t for t in stored if not t[0].endswith("o_proj.weight_scale")]
                write(folder + "scale", broken, config)
                assert "self_attn.o_proj.weight_scale is missing; expected BF16 or F32 [128]" in run(folder + "scale", fails=True)
                turned = "layers.0.mlp.down_proj.quant_weight"
                broken = [(n, d, s[::-1] if n.endswith(turned) else s, b) for n, d, s, b in stored]
                write(folder + "shape", broken, config)
                error = run(folder + "shape", fails=True)
                assert f"{turned}: expected I8 or U8 [{HIDDEN * kinds['dense'] // 8}, {WIDE}], found I8 [{WIDE}, " in error, error
            # The same keys, to quantise while loading.
            folder = os.path.join(base, f"{number}online")
            write(folder, [plain(n, v) for n, v in tensors.items()], {**CONFIG, "quantization_config": {**quantization, "is_quantized": False}})
            assert run(folder) == online
        # One part as stored.
        half = run(whole, json.dumps({"quantization": "mix_quant", "dense_quant_type": None, "moe_quant_type": "wint8"}))
        assert half not in (exact, run(whole, "wint8"))
    print(f"{len(cases)} kinds, with transformers' and Paddle's names: the logits of {TOKENS} tokens are the same to the bit")


if __name__ == "__main__":
    main(sys.argv[1])
