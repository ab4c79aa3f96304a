"""Chat templates that are not the model's: of requests (T1, T2) and of --chat-template; documents; default variables."""

import re
import subprocess
import time

import pytest

from conftest import BINARY, MODEL, ROOT, SANITIZED, ask, thinking

PLAIN = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"

# Each must end in 400 or as plain text, in bounded time and memory.
BOMBS = {
    "range": "{% for i in range(10**9) %}x{% endfor %}",
    "range of a list": "{{ range(10**9)|list|length }}",
    "nested loops": "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}x{% endfor %}{% endfor %}{% endfor %}",
    "repeated text": "{{ 'x' * 10**10 }}",
    "repeated list": "{{ ([0] * 10**9)|length }}",
    "doubling": "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x|length }}",
    "list in list": "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
    "indent of JSON": "{{ messages|tojson(indent=10**9) }}",
    "indent": "{{ 'a\nb'|indent(10**9) }}",
    "center": "{{ 'x'|center(10**9) }}",
    "format": "{{ '%1000000000d' % 1 }}",
    "format filter": "{{ '%1000000000s'|format('x') }}",
    "format method": "{{ '{:>1000000000}'.format(1) }}",
    "ljust": "{{ 'x'.ljust(10**9) }}",
    "zfill": "{{ 'x'.zfill(10**9) }}",
    "replace": "{% set a = 'x' * 100000 %}{% set b = a.replace('x', a) %}{{ b.replace('x', a)|length }}",
    "join": "{{ (('x' * 100000) | list | join('y' * 100000))|length }}",
    "power": "{{ 2 ** 10**9 }}",
    "power of powers": "{{ 9 ** 9 ** 9 ** 9 }}",
    "macro": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "macro tree": "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "recursive loop": "{% for i in [[[]]] recursive %}{{ loop([[[]]]) }}{% endfor %}",
    "parentheses": "{{ " + "(" * 20000 + "1" + ")" * 20000 + " }}",
    "lists": "{{ " + "[" * 20000 + "]" * 20000 + " }}",
    "minus": "{{ " + "-" * 30000 + "1 }}",
    "not": "{{ " + "not " * 15000 + "1 }}",
    "sum": "{{ " + "1+" * 20000 + "1 }}",
    "ifs": "{% if 1 %}" * 3000 + "{% endif %}" * 3000,
    "fors": "{% for a in [1, 2] %}" * 1000 + "x" + "{% endfor %}" * 1000,
    "class": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "attr filter": "{{ ''|attr('__class__') }}",
    "globals": "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "self": "{{ self.__init__.__globals__ }}",
    "lipsum": "{{ lipsum.__globals__ }}",
    "include": "{% include '/etc/passwd' %}",
    "import": "{% import 'os' as os %}{{ os }}",
    "extends": "{% extends '/etc/passwd' %}",
    "unclosed": "{% for m in messages %}",
    "unknown filter": "{{ 'x'|nothing }}",
    "raise": "{{ raise_exception('this much and no more') }}",
    "undefined call": "{{ nothing() }}",
    "divide": "{{ 1 // 0 }}",
    "NUL": "{{ '\0' }}\0",
}


def render(server, template=None, **fields):
    body = {"messages": ask("hi"), **fields}
    if template is not None:
        body["chat_template"] = template
    return server.http.post("/v1/chat/completions/render", json=body)


def peak_bytes(server):
    with open(f"/proc/{server.process.pid}/status", encoding="utf-8") as f:
        return int(re.search(r"VmHWM:\s+(\d+) kB", f.read())[1]) << 10


@pytest.fixture(scope="module")
def trusting():
    from conftest import Server
    server = Server("--trust-request-chat-template", "--max-chat-template-bytes", "65536", "--max-documents", "3")
    yield server
    assert server.stop() == 0, server.log_text()


def test_refused_unless_trusted(server):
    for template in (PLAIN, "", "{{"):
        for path in ("/v1/chat/completions", "/v1/chat/completions/render", "/tokenize"):
            reply = server.http.post(path, json={"messages": ask("hi"), "chat_template": template, "max_tokens": 1})
            assert reply.status_code == 400 and reply.json()["error"]["param"] == "chat_template", reply.text
            assert "--trust-request-chat-template" in reply.json()["error"]["message"]
    assert render(server, chat_template=None).status_code == 200
    assert render(server, chat_template=7).json()["error"]["param"] == "chat_template"


@pytest.mark.parametrize("name", ["messages", "tools", "documents", "add_generation_prompt", "bos_token", "eos_token", "image_token",
                                  "raise_exception", "strftime_now", "tokenize", "chat_template", "conversation", "return_dict",
                                  "continue_final_message", "tokenizer_kwargs", "max_length"])
def test_variables_cannot_shadow(server, trusting, name):
    for target in (server, trusting):
        for value in ([], "evil", True, None, {"a": 1}):
            reply = render(target, chat_template_kwargs={name: value})
            assert reply.status_code == 400 and reply.json()["error"]["param"] == "chat_template_kwargs", (name, value, reply.text)
            assert f"chat_template_kwargs.{name}" in reply.json()["error"]["message"]


def test_deep_and_large_variables(server):
    deep = "[" * 1000 + "]" * 1000
    body = '{"messages":[{"role":"user","content":"a"}],"chat_template_kwargs":{"x":%s}}' % deep
    reply = server.http.post("/v1/chat/completions/render", content=body)
    assert reply.status_code == 400 and "nested deeper" in reply.json()["error"]["message"]
    assert render(server, chat_template_kwargs={"unused": ["x" * 1000] * 1000}).status_code == 200


def test_a_template_of_the_request(trusting):
    reply = render(trusting, PLAIN + "|{{ color }}", chat_template_kwargs={"color": "red"}).json()
    assert reply["prompt"] == "<user>hi|red"
    own = render(trusting).json()
    assert own["prompt"] != reply["prompt"]
    tokens = trusting.http.post("/tokenize", json={"messages": ask("hi"), "chat_template": PLAIN}).json()["tokens"]
    assert trusting.http.post("/detokenize", json={"tokens": tokens}).json()["prompt"].strip() == "<user>hi"
    # The template's own text may hold control tokens, the user's never becomes one.
    (end,) = trusting.http.post("/tokenize", json={"prompt": "</s>", "add_special_tokens": False}).json()["tokens"]
    assert render(trusting, "</s>{{ messages[0].content }}", messages=ask("x")).json()["token_ids"][0] == end
    assert end not in render(trusting, "a{{ messages[0].content }}", messages=ask("</s>")).json()["token_ids"]
    # The next request has the server's again.
    assert render(trusting).json()["prompt"] == own["prompt"]
    answer = trusting.http.post("/v1/chat/completions", json={"messages": ask("Compute 45 + 11."), "chat_template": own["prompt"].replace("hi", "Compute 45 + 11."),
                                                              "temperature": 0, "max_tokens": 64, **thinking(False)})
    assert answer.status_code == 200 and answer.json()["choices"][0]["message"]["content"]


def test_bombs(trusting):
    render(trusting, PLAIN)
    before = peak_bytes(trusting)
    for name, template in BOMBS.items():
        begin = time.monotonic()
        reply = render(trusting, template)
        seconds = time.monotonic() - begin
        assert seconds < 20, f"{name}: {seconds} s"
        if reply.status_code == 200:
            assert len(reply.content) < 8 << 20, name
            assert not re.search(r"root:|subclasses|<class|uid=|0x[0-9a-f]{6}", reply.text), f"{name}: {reply.text[:200]}"
        else:
            error = reply.json()["error"]
            assert reply.status_code == 400 and error["param"] in ("chat_template", "messages"), f"{name}: {reply.text}"
            assert len(error["message"]) < 2000 and not re.search(r"0x[0-9a-f]{6}|\.cc", error["message"]), f"{name}: {reply.text[:2000]}"
    for name in ("range", "nested loops", "repeated text", "doubling", "macro", "macro tree", "class", "include", "unclosed", "raise", "parentheses"):
        assert render(trusting, BOMBS[name]).status_code == 400, name
    assert "this much and no more" in render(trusting, BOMBS["raise"]).json()["error"]["message"]
    if not SANITIZED:
        assert peak_bytes(trusting) - before < 256 << 20
    assert render(trusting, PLAIN).json()["prompt"] == "<user>hi"


def test_length_of_a_template(trusting):
    assert render(trusting, PLAIN + "{#" + "x" * (65536 - len(PLAIN) - 4) + "#}").status_code == 200
    reply = render(trusting, "x" * 65537)
    assert reply.status_code == 400 and "65537" in reply.text and "--max-chat-template-bytes" in reply.text


def test_documents(trusting):
    documents = [{"title": "A", "text": "one"}, {"title": "B", "text": "two"}]
    template = "{% for d in documents or [] %}[{{ d.title }}: {{ d.text }}]{% endfor %}{{ messages[0].content }}"
    assert render(trusting, template, documents=documents).json()["prompt"] == "[A: one][B: two]hi"
    for nothing in ([], None):
        assert render(trusting, template, documents=nothing).json()["prompt"] == "hi"
        assert render(trusting, documents=nothing).status_code == 200
    for bad in ([7], "x", {}, [["a"]]):
        assert render(trusting, template, documents=bad).json()["error"]["param"] == "documents"
    assert "--max-documents" in render(trusting, template, documents=documents * 2).json()["error"]["message"]
    reply = render(trusting, documents=documents)  # the model's template has no place for them
    assert reply.status_code == 400 and "does not read them" in reply.json()["error"]["message"]


def test_a_template_of_the_server(start_server, tmp_path):
    path = tmp_path / "mine.jinja"
    path.write_text("{{ bos_token }}FILE {{ messages[0].content }} {{ tone | default('none') }}")
    server = start_server("--chat-template", str(path), "--default-chat-template-kwargs", '{"tone": "calm"}')
    assert render(server).json()["prompt"].endswith("FILE hi calm")
    assert render(server, chat_template_kwargs={"tone": "loud"}).json()["prompt"].endswith("FILE hi loud")
    server = start_server("--chat-template", "TEXT {{ messages[0].content }}")
    assert render(server).json()["prompt"] == "TEXT hi"


def test_thinking_as_a_default(start_server):
    server = start_server("--default-chat-template-kwargs", '{"enable_thinking": false}', "--reasoning-parser", "ernie-45-vl")
    off, on = render(server, **thinking(False)).json()["prompt"], render(server, **thinking(True)).json()["prompt"]
    assert off != on and render(server).json()["prompt"] == off
    assert render(server, enable_thinking=True).json()["prompt"] == on
    assert render(server, metadata={"enable_thinking": True}).json()["prompt"] == on


def test_sampling_of_the_server(start_server, tmp_path):
    """--generation-config: the greedy answer of top_k 1 shows that a folder's values count."""
    (tmp_path / "generation_config.json").write_text('{"temperature": 5.0, "top_k": 1}')
    server = start_server("--generation-config", str(tmp_path))
    body = {"prompt": "Once upon a time", "max_tokens": 24, "ignore_eos": True}
    texts = {server.http.post("/v1/completions", json={**body, "seed": i}).json()["choices"][0]["text"] for i in range(3)}
    greedy = server.http.post("/v1/completions", json={**body, "temperature": 0}).json()["choices"][0]["text"]
    assert texts == {greedy}


@pytest.mark.parametrize("flags, words", [
    (["--chat-template", "/nowhere.jinja"], ["--chat-template /nowhere.jinja", "no such file"]),
    (["--chat-template", "{% if %}"], ["--chat-template", "line 1"]),
    (["--default-chat-template-kwargs", '{"messages": []}'], ["--default-chat-template-kwargs", "messages"]),
    (["--default-chat-template-kwargs", "[]"], ["--default-chat-template-kwargs", "must be a JSON object"]),
    (["--default-chat-template-kwargs", '{"enable_thinking": 1}'], ["--default-chat-template-kwargs", "true or false"]),
    (["--generation-config", "/nowhere"], ["--generation-config /nowhere", "auto, vllm"]),
])
def test_flags_that_cannot_be(flags, words):
    result = subprocess.run([BINARY, "serve", "--model", MODEL, *flags], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert result.returncode == 2, result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("fastdeploy serve: ")]
    assert len(errors) == 1 and all(word in errors[0] for word in words), result.stderr
