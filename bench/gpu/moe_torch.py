#!/usr/bin/env python3
"""PyTorch's best for the experts of one ERNIE-4.5-21B-A3B layer, to run beside bench_gpu_moe.

    python3 bench/gpu/moe_torch.py

Hidden 2560, 64 experts of 1536, top 6, bfloat16, uniform routing that changes from call to call; rows are sorted by expert beforehand,
as for the two products of bench_gpu_moe. SETS sets of weights take turns: no call finds its own in the L2 cache. Methods, where this
PyTorch has them: the grouped product, a loop of products over the experts that have rows, torch.bmm over all experts with rows padded to
the longest, and for few tokens a compiled gather of the chosen weights. Every figure is the median of 15 spans of several calls between
two CUDA events; up to 64 tokens a CUDA graph of the calls is timed too, and the better counts.
"""
import statistics

import torch
import torch.nn.functional as F

HIDDEN, EXPERTS, WIDTH, TOP_K = 2560, 64, 1536, 6
SETS = 4  # of 1.5 GB: far beyond the cache even where one token chooses six experts
ROUTINGS = 8
DEVICE, DTYPE = "cuda", torch.bfloat16


def routing(tokens, generator):
    """Rows of each expert for `tokens` tokens that choose TOP_K different experts uniformly."""
    chosen = torch.rand(tokens, EXPERTS, generator=generator).topk(TOP_K, dim=1).indices
    return torch.bincount(chosen.flatten(), minlength=EXPERTS)


class Case:
    """One routing: the same rows for every method, sorted by expert."""

    def __init__(self, tokens, generator):
        counts = routing(tokens, generator)
        self.counts = counts.tolist()
        self.hit = [e for e, n in enumerate(self.counts) if n]
        self.ends = counts.cumsum(0).to(torch.int32).to(DEVICE)
        rows = tokens * TOP_K
        self.expert_of_row = torch.repeat_interleave(torch.arange(EXPERTS), counts).to(DEVICE)
        self.longest = max(self.counts)
        # Where a row lies when every expert has `longest` rows.
        starts = counts.cumsum(0) - counts
        within = torch.arange(rows) - torch.repeat_interleave(starts, counts)
        self.padded_at = (torch.repeat_interleave(torch.arange(EXPERTS), counts) * self.longest + within).to(DEVICE)


def span_ms(fn, calls, capture):
    """Median milliseconds of a call fn(i)."""
    def spans(run):
        times = []
        for _ in range(18):
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            run()
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end) / calls)
        return statistics.median(times[3:])

    def run_all():
        for i in range(calls):
            fn(i)

    run_all()
    torch.cuda.synchronize()
    best = spans(run_all)
    if not capture:
        return best
    try:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            run_all()
        return min(best, spans(graph.replay))
    except RuntimeError:  # something in it cannot be captured; the eager time stands
        torch.cuda.synchronize()
        return best


def swiglu(x):
    gate, up = x.chunk(2, dim=-1)
    return F.silu(gate) * up


def activation():
    """Compiled where a compiler is found, else as it is."""
    compiled = torch.compile(swiglu, dynamic=True)
    try:
        compiled(torch.randn(8, 2 * WIDTH, dtype=DTYPE, device=DEVICE))
        return compiled
    except RuntimeError as problem:
        print(f"# SwiGLU is not compiled: {str(problem).splitlines()[0][:100]}")
        return swiglu


grouped_mm = getattr(F, "grouped_mm", None) or getattr(torch, "_grouped_mm", None)


def grouped(x, weights, case):
    return grouped_mm(x, weights.transpose(1, 2), offs=case.ends)


def loop(x, weights, case):
    parts = x.split([case.counts[e] for e in case.hit])
    return torch.cat([part @ weights[e].T for part, e in zip(parts, case.hit)])


def padded_bmm(x, weights, case):
    wide = x.new_zeros(EXPERTS * case.longest, x.shape[1])
    wide[case.padded_at] = x
    out = torch.bmm(wide.view(EXPERTS, case.longest, -1), weights.transpose(1, 2))
    return out.view(EXPERTS * case.longest, -1)[case.padded_at]


@torch.compile(dynamic=False)
def gather_rows(x, weights, expert_of_row):
    # Compiled: the gathered weights are read where they lie, one row of x against one matrix.
    return (weights[expert_of_row] * x[:, None, :]).sum(-1, dtype=torch.float32).to(x.dtype)


def gathered(x, weights, case):
    return gather_rows(x, weights, case.expert_of_row)


METHODS = {"loop": loop, "padded bmm": padded_bmm}
if grouped_mm is not None:
    METHODS = {"grouped_mm": grouped, **METHODS}


def copy_bandwidth():
    a, b = (torch.empty(2 << 30, dtype=torch.uint8, device=DEVICE) for _ in range(2))
    return 2 * a.numel() / span_ms(lambda _: b.copy_(a), 1, False) * 1e-9


def product_rate():
    a, b = (torch.randn(8192, 8192, dtype=DTYPE, device=DEVICE) for _ in range(2))
    return 2 * 8192**3 / span_ms(lambda _: a @ b.T, 4, False) * 1e-9


def reference_error(method, case, x, weights):
    """Largest deviation from float32 products, relative to their rms."""
    expected = torch.cat([part.float() @ weights[e].float().T
                          for part, e in zip(x.split([case.counts[e] for e in case.hit]), case.hit)])
    return ((method(x, weights, case).float() - expected).abs().max() / expected.square().mean().sqrt()).item()


def main():
    generator = torch.Generator().manual_seed(1)
    torch.manual_seed(1)
    bandwidth, rate, act = copy_bandwidth(), product_rate(), activation()
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, copy {bandwidth:.2f} TB/s (read + write), "
          f"8192^3 bf16 {rate:.0f} TFLOP/s")
    gate_up = [torch.randn(EXPERTS, 2 * WIDTH, HIDDEN, dtype=DTYPE, device=DEVICE) * 0.02 for _ in range(SETS)]
    down = [torch.randn(EXPERTS, HIDDEN, WIDTH, dtype=DTYPE, device=DEVICE) * 0.02 for _ in range(SETS)]
    print(f"{'tokens':>7} {'experts':>8} {'method':>12} | {'gate_up + SwiGLU':>26} | {'down':>26} | {'both':>26}")
    for tokens in (8192, 64, 16, 1):
        cases = [Case(tokens, generator) for _ in range(ROUTINGS)]
        hit = statistics.mean(len(c.hit) for c in cases)
        pairs = tokens * TOP_K
        rows = torch.randn(pairs, HIDDEN, dtype=DTYPE, device=DEVICE)
        activated = torch.randn(pairs, WIDTH, dtype=DTYPE, device=DEVICE)
        methods = dict(METHODS)
        if tokens <= 16:
            methods["gather"] = gathered
        for name, method in methods.items():
            calls = 2 if tokens >= 1024 else 16
            capture = tokens < 1024

            def step(i, part):
                case, w = cases[i % ROUTINGS], i % SETS
                if part == "down":
                    return method(activated, down[w], case)
                middle = act(method(rows, gate_up[w], case))
                return middle if part == "gate_up" else method(middle, down[w], case)

            try:
                error = max(reference_error(method, cases[0], rows, gate_up[0]),
                            reference_error(method, cases[0], activated, down[0]))
                if error > 0.1:
                    print(f"{tokens:7} {hit:8.1f} {name:>12} | wrong: off by {error:.2f} of the rms")
                    continue
                columns = []
                for part, features in (("gate_up", 2 * WIDTH), ("down", HIDDEN), ("both", 0)):
                    ms = span_ms(lambda i: step(i, part), calls, capture)
                    weights = 3 * WIDTH * HIDDEN if part == "both" else features * (HIDDEN if part == "gate_up" else WIDTH)
                    flops, size = 2 * pairs * weights, hit * weights * 2
                    columns.append(f"{ms * 1e3:9.1f} us {flops / ms * 1e-9:5.0f} TF {100 * size / ms * 1e-9 / bandwidth:4.0f}%")
                print(f"{tokens:7} {hit:8.1f} {name:>12} | " + " | ".join(f"{c:>26}" for c in columns), flush=True)
            except (RuntimeError, AssertionError) as problem:
                print(f"{tokens:7} {hit:8.1f} {name:>12} | {str(problem).splitlines()[0][:100]}", flush=True)
                torch.cuda.synchronize()


if __name__ == "__main__":
    main()
