"""fastdeploy run, chat, inspect, bench, --help, --version."""

import json
import os
import pty
import select
import signal
import subprocess
import time

import pytest

from conftest import BINARY, EVAL, MODEL, ROOT

PICTURE = str(EVAL / "media" / "describe-000-0.png")
QUESTION = "What is in the picture?"
ANSWER = "A large brown cross, a small red ring, a small blue circle and a large blue diamond."
STORY = "Tell a story about Li Wei in Paris, a orange green and a cactus."


def command(*args, stdin=None, timeout=120):
    return subprocess.run([BINARY, *args], capture_output=True, text=True, timeout=timeout, cwd=ROOT, input=stdin or "")


def test_version_and_help():
    assert command("--version").stdout.startswith("fastdeploy ")
    top = command("--help")
    assert top.returncode == 0
    for name in ("serve", "run", "chat", "bench", "quantize", "inspect", "doctor"):
        assert name in top.stdout
        page = command(name, "--help")
        assert page.returncode == 0 and "--model" in page.stdout
    serve = command("serve", "--help").stdout
    for flag in ("--port", "--max-model-len", "--quantization", "--quantize-lm-head", "--limit-mm-per-prompt", "--max-body-bytes", "--threads", "--cpu-affinity", "--cpu-isa"):
        assert flag in serve
    assert command().returncode == 2
    wrong = command("serv")
    assert wrong.returncode == 2 and "did you mean 'serve'?" in wrong.stderr


def test_run_with_a_picture():
    result = command("run", MODEL, QUESTION, "--image", PICTURE, "--temperature", "0")
    assert result.returncode == 0, result.stderr
    assert result.stdout == ANSWER + "\n"  # a pipe gets the answer alone
    assert "There are four shapes." in result.stderr


def test_run_flags():
    plain = command("run", "--model", MODEL, "Compute 45 + 11.", "--temperature=0", "--no-thinking")
    assert (plain.returncode, plain.stdout, plain.stderr) == (0, "56\n", "")
    several = command("run", MODEL, "What is in picture 3?", "--temperature", "0", "--no-thinking",
                      *[a for i in range(3) for a in ("--image", str(next((EVAL / "media").glob(f"multi_image-000-{i}.*"))))])
    assert several.stdout == "A small blue diamond.\n"
    cut = command("run", MODEL, STORY, "--max-tokens", "5", "--no-thinking", "--temperature", "0")
    assert cut.returncode == 0 and "5 tokens" in cut.stderr
    seeds = [command("run", MODEL, STORY, "--no-thinking", "--seed", "7", "--temperature", "1.5", "--top-p", "1", "--max-tokens", "20").stdout
             for _ in range(2)]
    assert seeds[0] == seeds[1] != ""
    stopped = command("run", MODEL, STORY, "--no-thinking", "--temperature", "0", "--stop", "in Paris", "--system", "You are kind.")
    assert stopped.returncode == 0 and "in Paris" not in stopped.stdout


def videos():
    """Single questions of tests/eval about a video: (file, question, thinks, answer)."""
    for line in (EVAL / "questions.jsonl").read_text().splitlines():
        q = json.loads(line)
        if q["task"] == "video" and len(q["messages"]) == 1:
            video, text = q["messages"][0]["content"]
            yield str(EVAL / video["video_url"]["url"]), text["text"], q["enable_thinking"], q["answer"]


def test_run_with_a_video():
    asked = list(videos())
    assert len(asked) >= 6
    for path, question, thinks, answer in asked[:4]:
        result = command("run", MODEL, question, "--video", path, "--temperature", "0", "--thinking" if thinks else "--no-thinking")
        assert (result.returncode, result.stdout) == (0, answer + "\n"), result.stderr
    path, question, _, answer = next(v for v in asked if not v[2])
    for flags in (("--video-frames", "4"), ("--video-fps", "4"), ("--image", PICTURE)):
        result = command("run", MODEL, question, "--video", path, "--temperature", "0", "--no-thinking", *flags)
        assert result.returncode == 0 and result.stdout.strip(), result.stderr
    gif = command("run", MODEL, "What?", "--video", str(ROOT / "tests" / "media" / "animated.gif"), "--no-thinking", "--max-tokens", "4")
    assert gif.returncode == 0, gif.stderr
    prores = command("run", MODEL, "What?", "--video", str(ROOT / "tests" / "media" / "prores.mov"), "--no-thinking")
    assert prores.returncode == 1 and "prores" in prores.stderr and "H.264" in prores.stderr


def test_run_reads_standard_input():
    result = command("run", MODEL, "--no-thinking", "--temperature", "0", stdin="Compute 45 + 11.\n")
    assert (result.returncode, result.stdout) == (0, "56\n")
    dash = command("run", MODEL, "-", "--no-thinking", "--temperature", "0", stdin="Compute 45 + 11.")
    assert dash.stdout == "56\n"
    assert command("run", MODEL).returncode == 2


def test_run_errors(tmp_path):
    for args, code, words in [
        ((MODEL, "x", "--image", "no-such.png"), 1, ["--image", "no-such.png"]),
        ((MODEL, "x", "--image", str(tmp_path)), 1, ["directory"]),
        ((MODEL, "x", "--image", __file__), 1, []),
        ((MODEL, "x", "--video", "no-such.mp4"), 1, ["--video", "no-such.mp4", "No such file"]),
        ((MODEL, "x", "--video", str(tmp_path)), 1, ["--video", "directory"]),
        ((MODEL, "x", "--video", __file__), 1, ["no video", "MP4"]),
        ((MODEL, "x", "--video", PICTURE), 1, ["no video", "picture"]),
        ((MODEL, "x", "--image", str(EVAL / "media" / "video-000-0.mp4")), 1, ["MP4 video"]),
        ((MODEL, "x", "--video-fps", "0"), 2, ["--video-fps 0"]),
        ((MODEL, "x", "--video-fps", "2", "--video-frames", "16"), 2, ["--video-fps and --video-frames"]),
        (("no-such-model", "x"), 1, ["no such directory"]),
        ((MODEL, "x", "--temperature", "cold"), 2, ["--temperature cold"]),
        ((MODEL, "x", "--max-tokens", "0"), 2, ["--max-tokens 0"]),
        ((MODEL, "x", "--imag", "y"), 2, ["did you mean --image?"]),
        ((MODEL, "x", "--thinking", "--no-thinking"), 2, ["--thinking"]),
        ((MODEL, "word " * 9000), 1, ["8192"]),
        ((), 2, ["--model"]),
    ]:
        result = command("run", *args)
        assert result.returncode == code, (args, result.stderr)
        assert len(result.stderr.splitlines()) == 1, result.stderr
        for word in words:
            assert word in result.stderr


def test_run_on_a_terminal_shows_reasoning_dim():
    master, terminal = pty.openpty()
    process = subprocess.Popen([BINARY, "run", MODEL, QUESTION, "--image", PICTURE, "--temperature", "0"], stdout=terminal,
                               stderr=terminal, stdin=terminal, cwd=ROOT)
    os.close(terminal)
    text = read_all(master)
    assert process.wait(timeout=60) == 0
    assert "\x1b[2mThere are four shapes." in text and "\x1b[0m" in text
    assert text.replace("\r\n", "\n").endswith(ANSWER + "\n")
    assert "loading weights" in text and "MB/s" in text


def read_all(fd):
    text = b""
    while True:
        try:
            part = os.read(fd, 65536)
        except OSError:  # Linux reports the other end's close as an error
            break
        if not part:
            break
        text += part
    os.close(fd)
    return text.decode()


def test_run_stops_at_the_first_ctrl_c():
    process = subprocess.Popen([BINARY, "run", MODEL, STORY, "--temperature", "100", "--top-p", "1", "--seed", "3", "--max-tokens", "8000",
                                "--no-thinking"],
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=ROOT)
    assert process.stdout.read(1)  # it answers
    process.send_signal(signal.SIGINT)
    process.stdout.read()
    assert process.wait(timeout=30) in (0, 130)


def chat(lines, *flags, code=0):
    result = command("chat", MODEL, "--temperature", "0", "--no-thinking", *flags, stdin="".join(line + "\n" for line in lines))
    assert result.returncode == code, result.stderr
    return result


def media(name):
    return str(next((EVAL / "media").glob(name + ".*")))


def test_chat_remembers_the_turns_before():
    talk = chat(["My name is Li Wei.", "What is my name?"])
    assert talk.stdout == "Nice to meet you, Li Wei!\nYour name is Li Wei.\n" and talk.stderr == ""
    forgotten = chat(["My name is Li Wei.", "/new", "What is my name?"])
    assert forgotten.stdout.splitlines()[1] != "Your name is Li Wei." and "a new conversation" in forgotten.stderr
    undone = chat(["My name is Li Wei.", "My name is Anna.", "/undo", "What is my name?", "/undo", "/undo", "/undo"])
    assert undone.stdout.splitlines()[-1] == "Your name is Li Wei."
    assert "1 turn left" in undone.stderr and "nothing to undo" in undone.stderr
    thinking = command("chat", MODEL, "--temperature", "0", stdin="My name is Anna.\n\nWhat is my name?")  # no newline at the end
    assert thinking.stdout.splitlines()[-1] == "Your name is Anna." and "The user said Anna." in thinking.stderr


def test_chat_with_pictures():
    talk = chat([f"/image {media('dialogue-002-0')}", "Which color does the circle have?", "How many red shapes are there?"])
    assert talk.stdout == "Cyan.\n1\n"
    several = chat([f"/image '{media(f'multi_image-004-{i}')}'" for i in range(4)] + ["What is in picture 1?"])
    assert several.stdout == "A small cyan circle and a small brown square.\n"
    by_flag = chat(["Which color does the circle have?"], "--image", media("dialogue-002-0"))
    assert by_flag.stdout == "Cyan.\n"


def test_chat_with_videos(tmp_path):
    path, question, _, answer = next(v for v in videos() if not v[2])
    (tmp_path / "text.mp4").write_text("hello world\n" * 20)
    talk = chat(["My name is Ben.", f"/video {tmp_path}/no.mp4", f"/video {tmp_path}/text.mp4", "What changes in the video?",
                 f"/video {path}", question], code=1)
    assert talk.stdout == f"Nice to meet you, Ben!\n{answer}\n"
    errors = [line for line in talk.stderr.splitlines() if line.startswith("fastdeploy chat: ")]
    assert len(errors) == 2 and "no.mp4: No such file" in errors[0], talk.stderr
    assert "no video" in errors[1] and "taken back, 1 turn kept" in errors[1], talk.stderr
    by_flag = chat([question], "--video", path)
    assert by_flag.stdout == answer + "\n"


def test_chat_goes_on_after_errors(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG nothing")
    picture = media("dialogue-002-0")
    talk = chat(["My name is Leo.", "/imag x.png", "/image", f"/image {tmp_path}/no.png", f"/video {tmp_path}/no.mp4", f"/image {tmp_path}",
                 f"/image {tmp_path}/broken.png", "What is in the picture?",  # refused when asked
                 f"/image {picture}", f"/image {picture}", "What is in the picture?",  # one too many
                 "word " * 9000,  # longer than the context
                 "/help", "What is my name?", "/quit", "not read"], "--limit-mm-per-prompt", '{"image": 1}', code=1)
    assert talk.stdout == "Nice to meet you, Leo!\nYour name is Leo.\n"
    errors = [line for line in talk.stderr.splitlines() if line.startswith("fastdeploy chat: ")]
    expected = [["did you mean /image?"], ["/image needs a file"], ["no.png: No such file"], ["no.mp4: No such file"], ["is a directory"],
                ["png", "question is taken back, 1 turn kept"], ["--limit-mm-per-prompt", "taken back, 1 turn kept"], ["8192", "/undo and /clear make room"]]
    assert len(errors) == len(expected), talk.stderr
    for error, words in zip(errors, expected):
        for word in words:
            assert word in error.lower() or word in error
    assert "/video PATH" in talk.stderr


def test_chat_usage():
    for args, code, words in [
        ((), 2, ["--model"]),
        ((MODEL, "a question"), 2, ["'a question'", "fastdeploy run"]),
        ((MODEL, "--video", "no-such.mp4"), 1, ["--video", "no-such.mp4"]),
        (("no-such-model",), 1, ["no such directory"]),
        ((MODEL, "--limit-mm-per-prompt", "3"), 2, ["--limit-mm-per-prompt"]),
    ]:
        result = command("chat", *args)
        assert result.returncode == code and len(result.stderr.splitlines()) == 1, result.stderr
        for word in words:
            assert word in result.stderr


class Terminal:
    """fastdeploy chat on a terminal of its own, so that its Ctrl-C is a signal."""

    def __init__(self, *flags):
        pid, self.fd = pty.fork()
        if pid == 0:
            os.chdir(ROOT)
            os.execv(BINARY, [BINARY, "chat", MODEL, *flags])
        self.pid, self.text, self.seen = pid, "", 0

    def type(self, text):
        os.write(self.fd, text.encode())

    def expect(self, words, timeout_s=60):
        """Reads until `words` come behind what was expected before."""
        deadline = time.monotonic() + timeout_s
        while words not in self.text[self.seen:]:
            ready, _, _ = select.select([self.fd], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"{words!r} did not come: {self.text[self.seen:]!r}"
            self.text += os.read(self.fd, 65536).decode(errors="replace")
        self.seen = self.text.index(words, self.seen) + len(words)

    def exit_code(self):
        try:
            while os.read(self.fd, 65536):
                pass
        except OSError:  # Linux reports the other end's close as an error
            pass
        os.close(self.fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


RANDOM_TALK = ("--temperature", "100", "--top-p", "1", "--seed", "3", "--no-thinking")  # never ends by itself


def test_chat_on_a_terminal():
    terminal = Terminal("--temperature", "0")
    terminal.expect("Ctrl-D ends")
    terminal.expect("> ")
    terminal.type(f"/image {media('dialogue-002-0')}\n")
    terminal.expect("[1 attached] > ")
    terminal.type("Which color does the circle have?\n")
    terminal.expect("\x1b[2m")  # it thinks
    terminal.expect("\x1b[0m")
    terminal.expect("Cyan.")
    terminal.expect("> ")
    terminal.type("/nothing\n")
    terminal.expect("there is no command /nothing")
    terminal.expect("> ")
    terminal.type("\x04")
    assert terminal.exit_code() == 0


def test_ctrl_c_stops_the_answer_and_the_next_one_ends():
    terminal = Terminal(*RANDOM_TALK)
    terminal.expect("> ")
    terminal.type(STORY + "\n")
    terminal.expect(STORY)  # the echo
    terminal.expect("\n")
    while len(terminal.text) < terminal.seen + 20:  # it answers
        terminal.text += os.read(terminal.fd, 65536).decode(errors="replace")
    terminal.type("\x03")
    terminal.expect("[stopped; what came of it is kept")
    terminal.expect("> ")
    terminal.type("/undo\n")
    terminal.expect("0 turns left")
    terminal.expect("> ")
    terminal.type("\x03")
    assert terminal.exit_code() == 130


@pytest.mark.parametrize("sign, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_chat_from_a_pipe(sign, code):
    process = subprocess.Popen([BINARY, "chat", MODEL, *RANDOM_TALK], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, cwd=ROOT)
    process.stdin.write((STORY + "\n" + STORY + "\n").encode())
    process.stdin.flush()
    assert process.stdout.read(1)
    process.send_signal(sign)
    process.stdout.read()
    assert process.wait(timeout=60) == code


def test_inspect():
    result = command("inspect", MODEL)
    assert result.returncode == 0
    for text in ("ernie4_5_vl_moe", "15708240", "413 tensors", "3 files", "31.5 MB", "model.layers.0.mlp.down_proj.weight", "[256, 768]",
                 "model-00001-of-00003.safetensors"):
        assert text in result.stdout
    tensors = [line.split()[0] for line in result.stdout.splitlines() if ".safetensors" in line and line.startswith(("model.", "vision"))]
    index = json.loads(open(os.path.join(MODEL, "model.safetensors.index.json"), encoding="utf-8").read())
    assert sorted(tensors) == sorted(index["weight_map"])


def test_inspect_json():
    listing = json.loads(command("inspect", "--model", MODEL, "--json").stdout)
    assert listing["parameters"] == 15708240
    assert listing["config"]["num_layers"] == 6
    index = json.loads(open(os.path.join(MODEL, "model.safetensors.index.json"), encoding="utf-8").read())
    assert {t["name"]: t["file"] for t in listing["tensors"]} == index["weight_map"]
    assert sum(t["bytes"] for t in listing["tensors"]) == listing["bytes"]


def test_inspect_other_families_and_errors(tmp_path):
    other = command("inspect", "tests/golden/models/qwen3")
    assert other.returncode == 0 and "not one this program can run" in other.stdout
    assert command("inspect", str(tmp_path / "no")).returncode == 1
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 7)
    broken = command("inspect", str(tmp_path))
    assert broken.returncode == 1 and "model.safetensors" in broken.stderr
    assert command("inspect").returncode == 2


@pytest.mark.parametrize("name", ["tools/demo.py"])
def test_demo(name):
    result = subprocess.run(["python3", str(ROOT / name), BINARY], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    assert "answer: A large brown cross, a small red ring, " in result.stdout


def test_bench_prints_json_lines():
    result = command("bench", MODEL, "--json", "--prompt-tokens", "32,200", "--depth", "0,100", "--batch", "1,6", "--output-tokens", "24",
                     "--repeat", "1", "--max-num-batched-tokens", "96", "--device", "cpu")
    assert result.returncode == 0, result.stderr
    limits, *lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert limits["read_bytes_per_second"] > 1e8 and limits["bf16_flop_per_second"] > 1e8
    tests = {line["test"]: line for line in lines}
    assert {"pp32", "pp200", "tg24", "tg24@b6", "tg24@d100", "tg24@d100@b6"} <= set(tests)
    for name, line in tests.items():
        assert line["seconds"] > 0 and line["floor_seconds"] > 0 and line["floor"] in ("bandwidth", "arithmetic")
        assert line["share_of_roofline"] == pytest.approx(line["floor_seconds"] / line["seconds"])
        assert ("ttft_seconds" in line) == name.startswith("pp")
        tokens = int(name.split("@")[0][2:]) * (6 if name.endswith("@b6") else 1)
        assert line["tokens_per_second"] == pytest.approx(tokens / line["seconds"])
    assert tests["pp200"]["ttft_seconds"] == tests["pp200"]["seconds"]


def test_bench_says_when_pages_do_not_suffice():
    result = command("bench", MODEL, "--num-kv-pages", "10", "--batch", "4", "--depth", "512", "--prompt-tokens", "32",
                     "--output-tokens", "8", "--repeat", "1", "--device", "cpu")
    assert result.returncode == 1
    assert "--batch 4 at --depth 512" in result.stderr and "there are 10" in result.stderr
