"""A newcomer's mistakes and what the program answers, word for word.

tests/e2e/newcomer/NAME.txt holds each answer: what is wrong, the number, the limit, the flag or field, an example. What differs from run to run
stands as {PORT}, {SIZE}, {COUNT} or {MODEL}. NEWCOMER_UPDATE=1 writes the files anew; read the difference before committing it.
"""

import json
import os
import pathlib
import re
import socket
import subprocess

import pytest

from conftest import BINARY, EVAL, MODEL, ROOT, ask, free_port, image_part

TEXTS = pathlib.Path(__file__).parent / "newcomer"
CHAT = "/v1/chat/completions"
PICTURE = image_part(EVAL / "media" / "describe-000-0.png")


def plain(text, *replaced):
    """The text without what differs from run to run."""
    for old, new in replaced:
        text = text.replace(old, new)
    text = re.sub(r"\b\d+(\.\d+)? (B|kB|KB|MB|GB|TB|KiB|MiB|GiB|TiB)\b", "{SIZE}", text)
    return text.replace(MODEL, "{MODEL}").replace(str(ROOT), "{ROOT}")


def check(name, text):
    path = TEXTS / f"{name}.txt"
    if os.environ.get("NEWCOMER_UPDATE"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def serve(*args, model=MODEL):
    """(exit code, the lines) of a server that must not start."""
    result = subprocess.run([BINARY, "serve", str(model), *args], capture_output=True, text=True, timeout=120, cwd=ROOT)
    return result.returncode, result.stderr


@pytest.fixture(scope="module")
def tiny():
    """A server with a name, a key and the default of one picture a request."""
    from conftest import Server
    server = Server("--served-model-name", "tiny", "--api-key", "secret", "--max-model-len", "4096")
    server.http.headers["Authorization"] = "Bearer secret"
    yield server
    assert server.stop() == 0


REQUESTS = {
    "wrong_model_name": (CHAT, {"model": "gpt-4o", "messages": ask("Hello")}),
    "bad_path": ("/chat/completions", {"messages": ask("Hello")}),
    "too_long": (CHAT, {"messages": ask("rocket " * 6000)}),
    "too_many_pictures": (CHAT, {"messages": [{"role": "user", "content": [PICTURE, PICTURE, {"type": "text", "text": "What?"}]}]}),
    "wrong_field_type": (CHAT, {"messages": ask("Hello"), "temperature": "0.7"}),
    "wrong_field_type_integer": (CHAT, {"messages": ask("Hello"), "max_tokens": "many"}),
    "value_out_of_range": (CHAT, {"messages": ask("Hello"), "temperature": 101}),
    "missing_messages": (CHAT, {"model": "tiny"}),
    "prompt_for_messages": (CHAT, {"prompt": "Hello"}),
    "missing_prompt": ("/v1/completions", {"max_tokens": 5}),
    "messages_for_prompt": ("/v1/completions", {"messages": ask("Hello")}),
    "messages_as_text": (CHAT, {"messages": "Hello"}),
    "no_json": (CHAT, b"{'messages': []}"),
}


@pytest.mark.parametrize("name", list(REQUESTS))
def test_request(tiny, name):
    path, body = REQUESTS[name]
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    reply = tiny.http.post(path, content=content, headers={"Content-Type": "application/json"})
    error = reply.json()["error"]
    check(name, f"{reply.status_code} {error['code']}, param {error['param']}\n{plain(error['message'])}\n")


@pytest.mark.parametrize("name, headers", [("no_key", {"Authorization": ""}), ("wrong_key", {"Authorization": "Bearer sk-123"})])
def test_key(tiny, name, headers):
    reply = tiny.http.post(CHAT, json={"messages": ask("Hello")}, headers=headers)
    error = reply.json()["error"]
    assert "secret" not in reply.text and "sk-123" not in reply.text
    check(name, f"{reply.status_code} {error['code']}, param {error['param']}\n{error['message']}\n")


def test_get_where_post_is_meant(tiny):
    reply = tiny.http.get(CHAT)
    error = reply.json()["error"]
    assert reply.headers["allow"] == "POST, OPTIONS"
    check("wrong_method", f"{reply.status_code} {error['code']}, param {error['param']}\n{error['message']}\n")


def check_start(name, code, text, *replaced):
    """Exit code 2 and one line."""
    assert code == 2 and text.count("\n") == 1, (code, text)
    check(name, f"exit code {code}\n{plain(text, *replaced)}")


def test_port_in_use():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        port = str(taken.getsockname()[1])
        code, text = serve("--port", port)
        check_start("port_in_use", code, text, (port, "{PORT}"), (str(int(port) + 1), "{PORT + 1}"))


@pytest.mark.parametrize("name, args", [
    ("unknown_flag", ["--prot", "8000"]), ("flag_without_value", ["--port"]), ("flag_out_of_range", ["--port", "99999"]), ("flag_of_wrong_type", ["--max-model-len", "long"]),
    ("longer_than_the_model", ["--max-model-len", "100000"]),
])
def test_flag(name, args):
    check_start(name, *serve(*args))


def test_folder_that_is_not_there():
    check_start("no_such_model", *serve("--port", "0", model="models/no-such-model"))


def counts(text):
    """Limits that follow from how much memory the machine has just now."""
    return re.sub(r"to at most \d+|utilization to [\d.]+", lambda m: re.sub(r"[\d.]+$", "{COUNT}", m[0]), text)


def test_out_of_memory_by_pages():
    code, text = serve("--port", "0", "--num-kv-pages", "1000000000")
    assert not re.search(r"loading|weights:", text)  # refused before a weight is read
    check_start("out_of_memory_pages", code, counts(text))


def test_out_of_memory_by_length():
    code, text = serve("--port", "0", "--max-model-len", "8192", "--gpu-memory-utilization", "0.001")
    check_start("out_of_memory_length", code, counts(text))


def test_out_of_memory_by_weights(tmp_path):
    """A checkpoint of many times the memory: told from config.json alone, before anything is allocated."""
    config = json.loads((ROOT / "tests/golden/models/ernie4_5/config_transformers5.json").read_text())
    config |= {"hidden_size": 16384, "intermediate_size": 65536, "num_hidden_layers": 400}
    for file in pathlib.Path(MODEL).iterdir():
        if file.name != "config.json" and file.suffix != ".safetensors":
            (tmp_path / file.name).symlink_to(file)
    (tmp_path / "config.json").write_text(json.dumps(config))
    code, text = serve("--port", str(free_port()), "--load-format", "dummy", model=tmp_path)
    lines = [line for line in text.splitlines(keepends=True) if line.startswith("fastdeploy serve:")]
    check_start("out_of_memory_weights", code, counts("".join(lines)), (str(tmp_path), "{MODEL}"))


def test_each_text_says_enough():
    """One line that names the field, flag or path at fault, and an example, a limit or the way out."""
    texts = {path.stem: path.read_text() for path in TEXTS.glob("*.txt")}
    assert len(texts) >= 20
    for name, text in texts.items():
        head, message = text.split("\n", 1)
        assert re.match(r"exit code 2|4\d\d \w+, param ", head), name
        assert message.count("\n") == 1 and 20 < len(message) < 900, name
        assert re.search(r"--[a-z]|for example|example:|did you mean|allowed|must be|does not exist|Bearer KEY", message), (name, message)
