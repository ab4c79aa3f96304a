#!/usr/bin/env python3
"""fastdeploy against OpenVINO GenAI and llama.cpp on the CPU: same work, same dimensions, in turn, ratios.

Usage:
  bench/race.py --list
  bench/race.py --models DIR --llama-dir DIR --openvino-python PYTHON --openvino-models DIR [--rows 'prefill*,start-8bit'] [--out FILE]

Each round runs ours, then the row's peers; a side's figure of a round is the best of its repetitions there. The median over rounds
decides, against the faster peer; the best of all rounds stands beside it. `others` is the largest share of the machine's CPU time that
other programs (and the hypervisor) had during a run: above 5 % repeat the row.

--models has ernie-0.3b and ernie-moe-small (checkpoints in bf16) and their GGUFs <name>-BF16.gguf, -Q8_0, -Q4_0 of the same weights; where
<name>-wint8, <name>-wint4 or <name>-none (bf16) lies beside them, a packed checkpoint, ours loads that. --openvino-models has llama-0.3b-fp16, -int8, -int4,
exported by optimum-intel from a Llama of the same dimensions (symmetric; int4 in groups of 128, embedding int8).
"""

import argparse
import dataclasses
import datetime
import fnmatch
import http.client
import json
import os
import pathlib
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import typing

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
from server_process import free_port  # noqa: E402

DENSE, MOE = "ernie-0.3b", "ernie-moe-small"
QUANTIZATION = {"bf16": None, "8bit": "wint8", "4bit": "wint4"}
GGUF_TYPE = {"bf16": "BF16", "8bit": "Q8_0", "4bit": "Q4_0"}
OPENVINO_TYPE = {"bf16": "fp16", "8bit": "int8", "4bit": "int4"}
START_LIMIT_S = 120


class RaceError(Exception):
    """A program of the race is missing, failed or printed something else than expected."""


# ---- running and accounting ----


def machine_busy_s():
    """CPU seconds of everything on this machine since boot, with those that the hypervisor gave to others."""
    with open("/proc/stat", encoding="ascii") as f:
        user, nice, system, _idle, _iowait, irq, softirq, steal = (int(x) for x in f.readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def own_cpu_s():
    """Of this process and of the children that ended, with theirs."""
    return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))


def execute(argv):
    """(stdout, peak resident bytes of the largest process)"""
    argv = [str(word) for word in argv]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        except OSError as error:
            raise RaceError(f"{argv[0]}: {error.strerror}") from None
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0), err.seek(0)
        if process.returncode != 0:
            raise RaceError(f"code {process.returncode} from {' '.join(argv)}\n{err.read().decode(errors='replace')[-1500:]}")
        return out.read().decode(errors="replace"), usage.ru_maxrss * 1024


class Server:
    """A server process in a `with`; it is ended by SIGTERM, then peak_rss has bytes."""

    def __init__(self, argv):
        self.port = free_port()
        self.argv = [str(word) for word in argv] + ["--port", str(self.port)]

    def __enter__(self):
        self.log = tempfile.TemporaryFile()
        self.begin = time.monotonic()
        self.process = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        return self

    def __exit__(self, *_):
        os.kill(self.process.pid, signal.SIGTERM)  # send_signal() would reap one that ended, and wait4 then finds nothing
        _, status, usage = os.wait4(self.process.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        self.peak_rss = usage.ru_maxrss * 1024
        self.log.close()

    def ask(self, prompt_tokens):
        """Asks for one token behind so many ids until the server has loaded; seconds from exec to the token."""
        body = json.dumps({"prompt": list(range(5000, 5000 + prompt_tokens)), "max_tokens": 1, "temperature": 0})
        while True:
            status, reply = 503, b""
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=START_LIMIT_S)
            try:
                connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
                response = connection.getresponse()
                status, reply = response.status, response.read()
            except (OSError, http.client.HTTPException):
                pass  # the port is not open yet
            finally:
                connection.close()
            if status == 200:
                return time.monotonic() - self.begin
            if status != 503:  # 503: still loading
                raise RaceError(f"{status} {reply[:300]!r} from {' '.join(self.argv)}")
            if os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                self.log.seek(0)
                raise RaceError(f"it ended: {' '.join(self.argv)}\n{self.log.read().decode(errors='replace')[-1500:]}")
            if time.monotonic() > self.begin + START_LIMIT_S:
                raise RaceError(f"no answer after {START_LIMIT_S} s from {' '.join(self.argv)}")
            time.sleep(0.002)


def first_token(argv, repeat):
    seconds = []
    for _ in range(repeat):
        with Server(argv) as server:
            seconds.append(server.ask(4))
    return {"value": min(seconds), "all": seconds}


def account(measure):
    """measure()'s values with what they cost and what others did meanwhile."""
    busy, own, begin = machine_busy_s(), own_cpu_s(), time.monotonic()
    values = measure()
    wall, own = time.monotonic() - begin, own_cpu_s() - own
    others = max(0.0, machine_busy_s() - busy - own) / wall / os.cpu_count()
    return {**values, "others": round(others, 4), "wall_s": round(wall, 2), "cpu_s": round(own, 2),
            "load1": round(os.getloadavg()[0], 2)}


def json_lines(text):
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


# ---- the contestants: each returns a function that measures once and gives {"value": ..., ...} ----


class Ours:
    name = "ours"

    def __init__(self, args):
        self.args = args

    def model_flags(self, model, bits):
        kind = QUANTIZATION[bits]
        packed = pathlib.Path(self.args.models) / f"{model}-{kind or 'none'}"
        if packed.is_dir():
            head = json.loads((packed / "config.json").read_text())["quantization_config"].get("lm_head")
            if kind and self.args.head and head != self.args.head:
                raise RaceError(f"--head {self.args.head}: {packed.name} is packed with its head in {head or 'bf16'}; pack it anew or move it away")
            return ["--model", str(packed)]
        flags = ["--model", os.path.join(self.args.models, model)]
        if kind:
            # Both peers' files have the tied embedding in integers too.
            flags += ["--quantization", kind, "--quantize-lm-head", self.args.head or "wint8"]
        return flags

    def bench(self, model, bits, test, *flags):
        def measure():
            text, rss = execute([self.args.binary, "bench", *self.model_flags(model, bits), "--threads", self.args.threads,
                                 "--json", *flags, *self.args.binary_flags])
            lines = json_lines(text)
            found = next((line for line in lines if line.get("test") == test), None)
            if found is None:
                raise RaceError(f"fastdeploy bench printed no {test}: {text[-500:]}")
            return {"value": found["tokens_per_second"], "share_of_roofline": found["share_of_roofline"], "limits": lines[0],
                    "peak_rss_mb": round(rss / 1e6, 1)}
        return measure

    def prefill(self, model, bits, tokens, repeat):
        return self.bench(model, bits, f"pp{tokens}", "--prompt-tokens", tokens, "--output-tokens", 0, "--repeat", repeat)

    def decode(self, model, bits, depth, tokens, repeat):
        test = f"tg{tokens}@d{depth}" if depth else f"tg{tokens}"
        return self.bench(model, bits, test, "--prompt-tokens", 16, "--depth", depth, "--output-tokens", tokens, "--repeat", repeat)

    def batch(self, model, bits, streams, repeat):
        return self.bench(model, bits, f"tg64@d64@b{streams}", "--prompt-tokens", 16, "--depth", 64, "--batch", streams,
                          "--output-tokens", 64, "--repeat", repeat)

    def serving(self, bits):
        def measure():
            with Server(self.server(bits, 656, 8)) as server:
                server.ask(4)
                text, _ = execute([sys.executable, ROOT / "bench" / "serving.py", "--url", f"http://127.0.0.1:{server.port}",
                                   "--model", os.path.join(self.args.models, DENSE), "--streams", 8, "--requests", self.args.requests,
                                   "--prompt-tokens", 512, "--output-tokens", 128, "--warmup", 2, "--processes", 1])
            line = json_lines(text)[-1]
            return {"value": line["output_tokens_per_s"], "gap_p99_ms": line["itl_ms"]["p99"], "ttft_mean_ms": line["ttft_ms"]["mean"],
                    "all": line, "peak_rss_mb": round(server.peak_rss / 1e6, 1)}
        return measure

    def server(self, bits, length, sequences):
        return [self.args.binary, "serve", *self.model_flags(DENSE, bits), "--threads", self.args.threads,
                "--max-num-seqs", sequences, "--max-model-len", length, "--no-enable-prefix-caching", *self.args.binary_flags]  # the peers keep none either

    def start(self, bits):
        return lambda: first_token(self.server(bits, 656, 8), self.args.start_repeat)

    def peak_rss(self, bits):
        def measure():  # not by `bench`, which measures the machine with a buffer larger than the model
            with Server(self.server(bits, 2112, 1)) as server:
                server.ask(2048)
            return {"value": server.peak_rss / 1e6}
        return measure


class Llama:
    name = "llama.cpp"

    def __init__(self, args):
        self.args = args

    def command(self, program, model, bits):
        if self.args.llama_dir is None:
            raise RaceError("--llama-dir names the folder of llama-bench, llama-batched-bench and llama-server")
        return [os.path.join(self.args.llama_dir, program), "-m", os.path.join(self.args.models, f"{model}-{GGUF_TYPE[bits]}.gguf"),
                "-t", self.args.threads]

    def bench(self, model, bits, *flags):
        def measure():
            text, rss = execute([*self.command("llama-bench", model, bits), "-o", "jsonl", *flags])
            samples = json_lines(text)[0]["samples_ts"]
            return {"value": max(samples), "all": samples, "peak_rss_mb": round(rss / 1e6, 1)}
        return measure

    def prefill(self, model, bits, tokens, repeat):
        return self.bench(model, bits, "-p", tokens, "-n", 0, "-r", repeat)

    def decode(self, model, bits, depth, tokens, repeat):
        return self.bench(model, bits, "-p", 0, "-n", tokens, "-d", depth, "-r", repeat)

    def batch(self, model, bits, streams, repeat):
        def measure():
            text, rss = execute([*self.command("llama-batched-bench", model, bits), "-tb", self.args.threads, "-c", 8192, "-b", 2048,
                                 "-ub", 512, "-npp", 64, "-ntg", 64, "-npl", ",".join([str(streams)] * repeat),
                                 "--output-format", "jsonl"])
            rates = [line["speed_tg"] for line in json_lines(text)]
            return {"value": max(rates), "all": rates, "peak_rss_mb": round(rss / 1e6, 1)}
        return measure

    def start(self, bits):
        return lambda: first_token([*self.command("llama-server", DENSE, bits), "-tb", self.args.threads, "-np", 8, "-c", 8 * 656],
                                   self.args.start_repeat)

    def peak_rss(self, bits):
        measure = self.bench(DENSE, bits, "-p", 2048, "-n", 0, "-r", 1)
        return lambda: {"value": measure()["peak_rss_mb"]}


class OpenVino:
    """groups, sdpa: see race_openvino.py; both are chosen for each row so that OpenVINO is fastest."""

    def __init__(self, args, groups=None, sdpa=False):
        self.args = args
        self.flags = ["--groups", groups] * (groups is not None) + ["--sdpa"] * sdpa
        self.name = "OpenVINO" + f" dq{groups}" * (groups is not None) + " SDPA" * sdpa

    def run(self, bits, *flags):
        def measure():
            if self.args.openvino_python is None or self.args.openvino_models is None:
                raise RaceError("--openvino-python names a Python that has openvino-genai, --openvino-models the folder of its models")
            model = os.path.join(self.args.openvino_models, f"llama-0.3b-{OPENVINO_TYPE[bits]}")
            text, rss = execute([self.args.openvino_python, ROOT / "bench" / "race_openvino.py", model, *flags, "--threads",
                                 self.args.threads, *self.flags])
            line = json_lines(text)[-1]
            return {"value": line.pop("tokens_per_s"), **line, "peak_rss_mb": round(rss / 1e6, 1)}
        return measure

    def prefill(self, _model, bits, tokens, repeat):
        return self.run(bits, "prefill", "--prompt", tokens, "--repeat", repeat)

    def decode(self, _model, bits, depth, tokens, repeat):
        return self.run(bits, "decode", "--prompt", max(depth, 4), "--output", tokens, "--repeat", repeat)

    def batch(self, _model, bits, streams, repeat):
        return self.run(bits, "batch", "--streams", streams, "--prompt", 64, "--output", 64, "--repeat", repeat)

    def serving(self, bits):
        return self.run(bits, "serve", "--streams", 8, "--requests", self.args.requests, "--prompt", 512, "--output", 128)


# ---- the rows ----


@dataclasses.dataclass
class Row:
    name: str
    bar: float
    aim: float
    sides: list[tuple[str, typing.Callable]]  # (name, measure); ours first
    unit: str = "tok/s"
    less_is_better: bool = False
    gap_limit_ms: float | None = None  # of ours, at p99


def make_rows(args):
    ours, llama = Ours(args), Llama(args)
    coarse, coarsest = OpenVino(args, groups=128), OpenVino(args, groups=1024)
    plain, sdpa = OpenVino(args), OpenVino(args, sdpa=True)
    rows = []

    def add(name, bar, aim, peers, work, *values, **more):
        """`work` names the method that every side has."""
        sides = [(side.name, getattr(side, work)(*values)) for side in (ours, *peers)]
        rows.append(Row(name, bar, aim, sides, **more))

    add("prefill512-8bit", 1.0, 1.25, [coarse, coarsest], "prefill", DENSE, "8bit", 512, 3)
    add("prefill2048-8bit", 1.1, 1.4, [coarse, coarsest], "prefill", DENSE, "8bit", 2048, 2)
    add("prefill512-bf16", 0.95, 1.05, [plain], "prefill", DENSE, "bf16", 512, 3)
    add("prefill2048-bf16", 1.0, 1.2, [plain], "prefill", DENSE, "bf16", 2048, 2)
    for bits in ("8bit", "4bit"):
        add(f"decode-empty-{bits}", 1.1, 1.3, [llama], "decode", DENSE, bits, 0, 128, 3)
    for bits in ("8bit", "4bit"):
        add(f"decode-2048-{bits}", 1.5, 2.0, [sdpa, llama], "decode", DENSE, bits, 2048, 64, 1)
    for bits in ("8bit", "4bit"):
        for streams in (16, 32):
            add(f"batch{streams}-{bits}", 1.1, 1.5, [coarse], "batch", DENSE, bits, streams, 2)
    for bits in ("8bit", "4bit"):
        add(f"serving-{bits}", 1.1, 1.6, [coarse], "serving", bits, gap_limit_ms=400.0)
    for bits in QUANTIZATION:
        add(f"moe-prefill512-{bits}", 1.5, 2.5, [llama], "prefill", MOE, bits, 512, 2)
        add(f"moe-prefill2048-{bits}", 1.5, 2.5, [llama], "prefill", MOE, bits, 2048, 1)
        add(f"moe-decode-empty-{bits}", 1.5, 2.5, [llama], "decode", MOE, bits, 0, 128, 2)
        add(f"moe-decode-2048-{bits}", 1.5, 2.5, [llama], "decode", MOE, bits, 2048, 64, 1)
        add(f"moe-batch16-{bits}", 1.5, 2.5, [llama], "batch", MOE, bits, 16, 2)
    for bits in QUANTIZATION:
        add(f"start-{bits}", 0.7, 0.4, [llama], "start", bits, unit="s", less_is_better=True)
    for bits in ("8bit", "4bit"):
        add(f"rss2048-{bits}", 1.0, 0.8, [llama], "peak_rss", bits, unit="MB", less_is_better=True)
    return rows


def run_row(row, args):
    """All rounds of a row; returns {side: [record of a round]}."""
    records = {name: [] for name, _ in row.sides}
    for number in range(1, args.rounds + 1):
        for name, measure in row.sides:
            record = account(measure)
            records[name].append(record)
            if args.out:
                now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
                line = {"row": row.name, "side": name, "round": number, "unit": row.unit, "time": now, **record}
                with open(args.out, "a", encoding="utf-8") as f:
                    f.write(json.dumps(line) + "\n")
            if args.verbose:
                print(f"  round {number} {name:18} {record['value']:9.4g} {row.unit}, others {record['others']:.1%}", flush=True)
    return records


HEADER = (f"{'row':21}{'ours: median':>13}{'best':>9}  {'peer: median':>12}{'best':>9}  {'ratio':>6}{'of bests':>9}{'bar':>6}{'aim':>6}"
          f"  {'':5}{'others':>6}  peer")


def row_lines(row, records):
    """One line for each peer, the fastest first and judged."""
    pick_best = min if row.less_is_better else max
    median = {side: statistics.median(r["value"] for r in runs) for side, runs in records.items()}
    best = {side: pick_best(r["value"] for r in runs) for side, runs in records.items()}
    peers = sorted((side for side in records if side != "ours"), key=median.get, reverse=not row.less_is_better)
    lines = []
    for i, peer in enumerate(peers):
        ratio = median["ours"] / median[peer]
        reached = (lambda limit: ratio <= limit) if row.less_is_better else (lambda limit: ratio >= limit)
        verdict = "" if i else "aim" if reached(row.aim) else "bar" if reached(row.bar) else "below"
        if i == 0 and row.less_is_better and verdict == "below":
            verdict = "above"
        others = max(r["others"] for side in ("ours", peer) for r in records[side])
        line = (f"{row.name:21}{median['ours']:13.4g}{best['ours']:9.4g}  {median[peer]:12.4g}{best[peer]:9.4g}  {ratio:6.3f}"
                f"{best['ours'] / best[peer]:9.3f}{row.bar:6.2f}{row.aim:6.2f}  {verdict:5}{others:6.1%}  {peer} ({row.unit})")
        if row.gap_limit_ms is not None:
            gap = {side: statistics.median(r["gap_p99_ms"] for r in records[side]) for side in ("ours", peer)}
            line += (f"; gap p99 {gap['ours']:.0f} ms, peer {gap[peer]:.0f} ms, limit {row.gap_limit_ms:.0f} ms: "
                     f"{'holds' if gap['ours'] <= row.gap_limit_ms else 'broken'}")
        lines.append(line)
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=str(ROOT / "build" / "release" / "fastdeploy"))
    parser.add_argument("--binary-flags", type=str.split, default=[], help="more flags of fastdeploy bench and serve, in one word")
    parser.add_argument("--head", choices=["wint8", "wint4"],
                        help="what ours keeps the head in beside quantised weights (wint8, or as a packed checkpoint has it)")
    parser.add_argument("--models", help="folder of checkpoints and GGUFs")
    parser.add_argument("--llama-dir", help="folder of llama.cpp's programs")
    parser.add_argument("--openvino-python", help="a Python interpreter that has openvino-genai")
    parser.add_argument("--openvino-models", help="folder of the exported models")
    parser.add_argument("--rows", default="*", help="names or patterns, with commas between; see --list")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--requests", type=int, default=32, help="of a serving run")
    parser.add_argument("--start-repeat", type=int, default=2, help="starts of a round")
    parser.add_argument("--out", help="file to which every run is appended as a JSON line")
    parser.add_argument("--verbose", action="store_true", help="a line for each run")
    parser.add_argument("--list", action="store_true", help="the rows, their bars and peers")
    args = parser.parse_args()
    rows = [row for row in make_rows(args) if any(fnmatch.fnmatch(row.name, pattern) for pattern in args.rows.split(","))]
    if not rows:
        parser.error(f"--rows {args.rows}: no row has such a name; --list shows them")
    if args.list:
        for row in rows:
            print(f"{row.name:21} bar {row.bar:.2f} aim {row.aim:.2f}  {', '.join(name for name, _ in row.sides[1:])}")
        return 0
    if args.models is None:
        parser.error("--models names the folder of checkpoints and GGUFs")
    failed = 0
    print(HEADER, flush=True)
    for row in rows:
        try:
            print("\n".join(row_lines(row, run_row(row, args))), flush=True)
        except RaceError as error:
            print(f"{row.name}: {error}", file=sys.stderr, flush=True)
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
