#!/usr/bin/env python3
"""PyTorch's best attention for the shapes of bench_gpu_attention (contiguous keys, not pages), to run beside it.

    python3 bench/gpu/attention_torch.py
"""
import statistics

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

flush = torch.empty(256 << 20, dtype=torch.uint8, device="cuda")


def median_ms(fn):
    for _ in range(3):
        fn()
    times = []
    for _ in range(21):
        flush.zero_()
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        fn()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end))
    return statistics.median(times)


def shape(name, batch, heads, kv_heads, queries, keys, dim, causal):
    def random(h, n):
        return torch.randn(batch, h, n, dim, device="cuda", dtype=torch.bfloat16)

    q, k, v = random(heads, queries), random(kv_heads, keys), random(kv_heads, keys)
    flops = 4 * batch * heads * queries * keys * dim * (0.5 if causal else 1)
    size = batch * kv_heads * keys * dim * 4
    for backend in (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION):
        try:
            with sdpa_kernel(backend):
                ms = median_ms(lambda: scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=heads != kv_heads))
        except RuntimeError as error:
            print(f"{name:44} {backend.name:16} {str(error).splitlines()[0][:60]}")
            continue
        print(f"{name:44} {backend.name:16} {ms:9.4f} ms {size / ms * 1e-9:6.2f} TB/s {flops / ms * 1e-9:7.1f} TFLOP/s")


print(torch.cuda.get_device_name(), "PyTorch", torch.__version__)
shape("decode 64 x 8K, 20/4 heads of 128", 64, 20, 4, 1, 8192, 128, False)
shape("decode 16 x 2K, 20/4 heads of 128", 16, 20, 4, 1, 2048, 128, False)
shape("decode 1 x 128K, 20/4 heads of 128", 1, 20, 4, 1, 131072, 128, False)
shape("prefill 8K, 20/4 heads of 128", 1, 20, 4, 8192, 8192, 128, True)
shape("prefill 8K, 64/8 heads of 128", 1, 64, 8, 8192, 8192, 128, True)
shape("16 pictures of 5476 patches, 16 heads of 80", 16, 16, 16, 5476, 5476, 80, False)
shape("1 picture of 5476 patches, 16 heads of 80", 1, 16, 16, 5476, 5476, 80, False)
