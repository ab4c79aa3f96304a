#!/usr/bin/env python3
"""One measurement of OpenVINO GenAI on the CPU, as bench/race.py asks for it: prints one JSON line.

Usage (with a Python that has openvino-genai):
  bench/race_openvino.py MODEL prefill --prompt 512 --repeat 3        tokens_per_s of the prompt to its first token
  bench/race_openvino.py MODEL decode --prompt 2048 --output 64       tokens_per_s behind the first token
  bench/race_openvino.py MODEL batch --streams 16 --prompt 64         the same, all streams together
  bench/race_openvino.py MODEL serve --streams 8 --requests 32 --prompt 512 --output 128

MODEL: a folder that optimum-intel exported. Prompts are random token ids, the end token is ignored, choice is greedy. --groups: so
many activations share a scale where the weights are integers (OpenVINO's default: 32). --sdpa: the pipeline without pages, for one
sequence at a time only. serve runs in this process, a closed loop of --streams requests without HTTP and without text.
"""

import argparse
import json
import statistics
import time

import numpy as np
import openvino as ov
import openvino_genai as genai

CACHE_GB = 1


def generation(tokens):
    config = genai.GenerationConfig()
    config.max_new_tokens = tokens
    config.ignore_eos = True
    config.eos_token_id = -1
    config.do_sample = False
    return config


def draw_prompt(rng, tokens):
    return ov.Tensor(rng.integers(1000, 40000, (1, tokens)).astype(np.int64))


class Paged:
    """The continuous batching pipeline. step() is driven from here, so the moment of every token is known."""

    def __init__(self, model, properties, step_tokens):
        config = genai.SchedulerConfig()
        config.cache_size = CACHE_GB
        config.max_num_batched_tokens = step_tokens
        config.enable_prefix_caching = False
        config.dynamic_split_fuse = True
        self.pipeline = genai.ContinuousBatchingPipeline(model, config, "CPU", properties)
        self.requests = 0

    def add(self, prompt, tokens):
        self.requests += 1
        return self.pipeline.add_request(self.requests, prompt, generation(tokens))

    def token_times(self, prompt, tokens):
        handle, times = self.add(prompt, tokens), []
        while self.pipeline.has_non_finished_requests():
            self.pipeline.step()
            times += [time.monotonic()] * drain(handle)
        return times


def drain(handle):
    """How many tokens came since the last look."""
    return sum(len(output.generated_ids) for output in handle.read().values()) if handle.can_read() else 0


class Plain:
    """The pipeline of one sequence; its streamer is called for every token."""

    def __init__(self, model, properties):
        self.pipeline = genai.LLMPipeline(model, "CPU", ATTENTION_BACKEND="SDPA", **properties)

    def token_times(self, prompt, tokens):
        times = []

        class Clock(genai.StreamerBase):
            def write(self, _):
                times.append(time.monotonic())
                return genai.StreamingStatus.RUNNING

            def end(self):
                pass

        self.pipeline.generate(prompt, generation(tokens), Clock())
        return times


def measure_prefill(args, pipe, rng):
    rates = []
    for _ in range(args.repeat):
        prompt, begin = draw_prompt(rng, args.prompt), time.monotonic()
        rates.append(args.prompt / (pipe.token_times(prompt, 1)[0] - begin))
    return {"tokens_per_s": max(rates), "all": rates}


def measure_decode(args, pipe, rng):
    rates = []
    for _ in range(args.repeat):
        times = pipe.token_times(draw_prompt(rng, args.prompt), args.output + 1)
        assert len(times) == args.output + 1, f"{len(times)} tokens for {args.output + 1}"
        rates.append(args.output / (times[-1] - times[0]))
    return {"tokens_per_s": max(rates), "all": rates}


def measure_batch(args, pipe, rng):
    rates = []
    for _ in range(args.repeat):
        handles = [pipe.add(draw_prompt(rng, args.prompt), args.output + 1) for _ in range(args.streams)]
        pipe.pipeline.step()  # all prompts: they fit one step
        begun, begin, steps = sum(drain(h) for h in handles), time.monotonic(), 0
        assert begun == args.streams, f"the first step gave {begun} tokens to {args.streams} streams"
        while pipe.pipeline.has_non_finished_requests():
            pipe.pipeline.step()
            steps += 1
        seconds = time.monotonic() - begin
        assert steps == args.output, f"{steps} steps for {args.output} tokens"
        rates.append(args.streams * args.output / seconds)
    return {"tokens_per_s": max(rates), "all": rates}


def measure_serving(args, pipe, rng):
    for _ in range(2):
        pipe.token_times(draw_prompt(rng, args.prompt), 8)
    prompts = [draw_prompt(rng, args.prompt) for _ in range(args.requests)]
    running, begin, finished, waits, gaps, tokens = [], time.monotonic(), 0, [], [], 0
    while finished < args.requests:
        while prompts and len(running) < args.streams:
            running.append([pipe.add(prompts.pop(), args.output), time.monotonic(), 0])
        pipe.pipeline.step()
        now = time.monotonic()
        for stream in running:
            handle, last, got = stream
            new = drain(handle)
            if new == 0:
                continue
            (gaps if got else waits).append(now - last)
            stream[1:] = [now, got + new]
            tokens += new
            finished += got + new >= args.output
        running = [stream for stream in running if stream[2] < args.output]
    seconds = time.monotonic() - begin
    gaps.sort()
    return {"tokens_per_s": tokens / seconds, "seconds": seconds, "ttft_mean_ms": statistics.fmean(waits) * 1e3,
            "gap_p99_ms": gaps[-(-len(gaps) * 99 // 100) - 1] * 1e3}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("work", choices=["prefill", "decode", "batch", "serve"])
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--output", type=int, default=64)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--requests", type=int, default=32)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--groups", type=int)
    parser.add_argument("--sdpa", action="store_true")
    args = parser.parse_args()
    if args.sdpa and args.work in ("batch", "serve"):
        parser.error(f"{args.work} needs the paged pipeline, without --sdpa")
    properties = {"INFERENCE_NUM_THREADS": args.threads, "ENABLE_HYPER_THREADING": True}
    if args.groups:
        properties["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = str(args.groups)
    # Serving takes prompts in pieces, so that running sequences do not wait long; the others take them whole.
    pipe = Plain(args.model, properties) if args.sdpa else Paged(args.model, properties, 256 if args.work == "serve" else 4096)
    rng = np.random.default_rng(7)
    pipe.token_times(draw_prompt(rng, 64), 4)
    work = {"prefill": measure_prefill, "decode": measure_decode, "batch": measure_batch, "serve": measure_serving}[args.work]
    print(json.dumps(work(args, pipe, rng)))


if __name__ == "__main__":
    main()
