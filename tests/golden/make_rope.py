"""Rope scaling: what transformers makes of each kind.

rope/frequencies.json: `cases`, each a text config (`config`, of the style its name says), `max_model_len`, and
transformers' `inv_freq` and `attention_factor` for a sequence of that length.
rope/logits.safetensors: `<kind>.logits` fp32 [positions, vocab] of models/ernie4_5 with rope/configs.json's
changes, for the prompt that rope/configs.json names, at the positions that cases/ernie4_5 has of it.
Computed in fp32, eager attention. Run with transformers 5; nothing else here depends on it."""
import json, os
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, Ernie4_5Config, logging
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

logging.set_verbosity_error()
HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "rope")


def longrope(half, **more):
    return dict(rope_type="longrope", short_factor=[1.0 + 0.01 * i for i in range(half)],
                long_factor=[1.0 + 0.37 * i * (1 + i % 3) for i in range(half)], **more)


# name: (head_dim, max_position_embeddings, theta, scaling, served length, beside the scaling)
CASES = {
    "default": (128, 131072, 500000.0, None, 131072, {}),
    "linear": (128, 4096, 10000.0, dict(rope_type="linear", factor=4.0), 16384, {}),
    "linear_old_name": (64, 2048, 500000.0, dict(type="linear", factor=2.5), 5120, {}),
    "dynamic": (128, 4096, 10000.0, dict(rope_type="dynamic", factor=4.0), 16384, {}),
    "dynamic_128k": (64, 8192, 500000.0, dict(type="dynamic", factor=16.0), 131072, {}),
    "dynamic_not_beyond": (128, 4096, 10000.0, dict(rope_type="dynamic", factor=4.0), 4096, {}),
    "dynamic_between": (96, 4096, 10000.0, dict(rope_type="dynamic", factor=2.0), 5000, {}),
    "yarn": (128, 32768, 1000000.0, dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=32768), 131072, {}),
    "yarn_old_name": (64, 131072, 500000.0, dict(type="yarn", factor=32.0, original_max_position_embeddings=4096), 131072, {}),
    "yarn_by_lengths": (128, 131072, 10000.0, dict(rope_type="yarn", factor=None, original_max_position_embeddings=4096), 131072, {}),
    "yarn_mscale": (64, 163840, 10000.0, dict(rope_type="yarn", factor=40, mscale=0.707, mscale_all_dim=1.0, beta_fast=32, beta_slow=1,
                                              original_max_position_embeddings=4096), 163840, {}),
    "yarn_equal_mscale": (64, 163840, 10000.0, dict(rope_type="yarn", factor=40, mscale=1.0, mscale_all_dim=1.0,
                                                    original_max_position_embeddings=4096), 163840, {}),
    "yarn_one_mscale": (64, 163840, 10000.0, dict(rope_type="yarn", factor=40, mscale=0.5, original_max_position_embeddings=4096), 163840, {}),
    "yarn_attention_factor": (128, 131072, 150000.0, dict(rope_type="yarn", factor=8.0, attention_factor=1.25, beta_fast=16.0, beta_slow=2.0,
                                                          original_max_position_embeddings=16384), 131072, {}),
    "yarn_not_truncated": (64, 131072, 150000.0, dict(rope_type="yarn", factor=32.0, beta_fast=32.0, beta_slow=1.0, truncate=False,
                                                      original_max_position_embeddings=4096), 131072, {}),
    "yarn_short_original": (64, 512, 500000.0, dict(rope_type="yarn", factor=8.0, original_max_position_embeddings=64), 512, {}),
    "yarn_original_beside": (128, 131072, 10000.0, dict(rope_type="yarn", factor=16.0), 131072, dict(original_max_position_embeddings=8192)),
    "longrope": (96, 131072, 10000.0, longrope(48), 131072, dict(original_max_position_embeddings=4096)),
    "longrope_short": (96, 131072, 10000.0, longrope(48), 4096, dict(original_max_position_embeddings=4096)),
    "longrope_factor": (64, 65536, 500000.0, longrope(32, factor=16.0, original_max_position_embeddings=4096), 65536, {}),
    "longrope_attention_factor": (64, 65536, 500000.0, longrope(32, attention_factor=1.1, original_max_position_embeddings=4096), 65536, {}),
    "longrope_factor_one": (64, 4096, 500000.0, longrope(32, original_max_position_embeddings=4096), 4096, {}),
    "llama3": (128, 131072, 500000.0, dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                           original_max_position_embeddings=8192), 131072, {}),
    "llama3_32": (64, 131072, 500000.0, dict(rope_type="llama3", factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                             original_max_position_embeddings=8192), 131072, {}),
    "llama3_wide": (64, 512, 10000.0, dict(rope_type="llama3", factor=8.0, low_freq_factor=0.5, high_freq_factor=6.0,
                                           original_max_position_embeddings=64), 512, {}),
}
# Those whose logits are kept: changes of models/ernie4_5/config.json that bend the frequencies within 200 tokens, and the served length.
MODELS = {
    "linear": (dict(max_position_embeddings=64, rope_scaling=dict(rope_type="linear", factor=4.0)), 256),
    "dynamic": (dict(max_position_embeddings=64, rope_scaling=dict(type="dynamic", factor=4.0)), 200),
    "yarn": (dict(max_position_embeddings=256, rope_theta=10000.0,
                  rope_scaling=dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=64)), 256),
    "longrope": (dict(max_position_embeddings=256, original_max_position_embeddings=64, rope_scaling=longrope(32)), 256),
    "longrope_short": (dict(max_position_embeddings=256, original_max_position_embeddings=64, rope_scaling=longrope(32)), 64),
    "llama3": (dict(max_position_embeddings=512, rope_theta=10000.0,
                    rope_scaling=dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                      original_max_position_embeddings=64)), 512),
}


def frequencies(name):
    head_dim, most, theta, scaling, length, beside = CASES[name]
    base = dict(hidden_size=4 * head_dim, num_attention_heads=4, num_key_value_heads=2, head_dim=head_dim, max_position_embeddings=most,
                vocab_size=32, intermediate_size=32, num_hidden_layers=1, **beside)
    config = Ernie4_5Config(**base, rope_parameters=dict(scaling or dict(rope_type="default"), rope_theta=theta))
    kind = config.rope_parameters["rope_type"]
    if kind == "default":
        values, factor = 1.0 / (theta ** (torch.arange(0, head_dim, 2, dtype=torch.float) / head_dim)), 1.0
    else:
        values, factor = ROPE_INIT_FUNCTIONS[kind](config, seq_len=length)
    # Half of the files in the style before transformers 5, half in its own.
    new = sum(map(ord, name)) % 2
    rope = dict(rope_parameters=dict(scaling or {}, rope_theta=theta)) if new else dict(rope_theta=theta, rope_scaling=scaling)
    return dict(name=name, style="rope_parameters" if new else "rope_scaling", config=dict(model_type="ernie4_5", **base, **rope),
                max_model_len=length, attention_factor=float(factor), inv_freq=[float(v) for v in values])


@torch.no_grad()
def main():
    os.makedirs(OUT, exist_ok=True)
    with open(os.path.join(OUT, "frequencies.json"), "w") as f:
        f.write('{"cases": [\n' + ",\n".join(json.dumps(frequencies(name)) for name in CASES) + "\n]}\n")
    golden = load_file(os.path.join(HERE, "cases", "ernie4_5.safetensors"))
    folder = os.path.join(HERE, "models", "ernie4_5")
    stored, store, plain = json.load(open(os.path.join(folder, "config.json"))), {}, {}
    for name, (changes, length) in MODELS.items():
        prompt = "p7" if name == "longrope_short" else "p200"
        fields = {**stored, **changes}
        fields["rope_parameters"] = dict(fields.pop("rope_scaling"), rope_theta=fields.pop("rope_theta"))
        config = AutoConfig.for_model(fields.pop("model_type"), **fields)
        model = AutoModelForCausalLM.from_pretrained(folder, config=config, dtype=torch.float32, attn_implementation="eager").eval()
        positions = golden[prompt + ".positions"]
        logits = model(golden[prompt + ".input_ids"].long()[None]).logits[0][positions.long()]
        store[name + ".logits"] = logits.contiguous()
        moved = float((logits - golden[prompt + ".logits"]).abs().max())
        print(name, prompt, "kind", config.rope_parameters["rope_type"], "moved by", round(moved, 3), flush=True)
        assert moved > 0.1 or name == "longrope_short"
    save_file(store, os.path.join(OUT, "logits.safetensors"))
    with open(os.path.join(OUT, "configs.json"), "w") as f:
        json.dump({name: dict(changes=changes, max_model_len=length, prompt="p7" if name == "longrope_short" else "p200")
                   for name, (changes, length) in MODELS.items()}, f, indent=1)
        f.write("\n")


if __name__ == "__main__":
    main()
