"""/v1/messages as Anthropic's own client uses it."""

import asyncio
import base64
import json

import anthropic
import httpx
import pytest
from anthropic.types import Message, RawMessageStreamEvent
from pydantic import TypeAdapter

from conftest import BASE_FLAGS, CLIENT_TIMEOUT_S, EVAL, Server, ask, questions, thinking
from tool_calls_test import expected

PICTURE = EVAL / "media" / "describe-000-0.png"
ANSWER = "A large brown cross, a small red ring, a small blue circle and a large blue diamond."
STORY = "Tell a story about Li Wei in Paris, a orange green and a cactus."
GREEDY = {"temperature": 0}  # the client has no argument for it any more: extra_body
THINKS = {"type": "enabled", "budget_tokens": 200}
TOOL_QUESTIONS = [q for q in questions() if q["task"] == "tool"]


def client_of(server, kind=anthropic.Anthropic, **fields):
    return kind(base_url=server.url, max_retries=0, timeout=CLIENT_TIMEOUT_S, **{"api_key": "none", **fields})


@pytest.fixture
def client(server):
    with client_of(server) as client:
        yield client


def arguments(**fields):
    extra = {**GREEDY, **fields.pop("extra_body", {})}
    return {"model": "default", "max_tokens": 300, "extra_body": extra, **fields}


def create(client, messages, **fields):
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    return client.messages.create(**arguments(messages=messages, **fields))


def png(path=PICTURE):
    return {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": base64.b64encode(path.read_bytes()).decode()}}


def text_of(message):
    return "".join(b.text for b in message.content if b.type == "text")


def thought_of(message):
    return "".join(b.thinking for b in message.content if b.type == "thinking")


def chat(server, **fields):
    reply = server.http.post("/v1/chat/completions", json={"temperature": 0, "max_tokens": 300, **fields})
    assert reply.status_code == 200, reply.text
    return reply.json()


def test_text(server, client):
    message = create(client, "Compute 45 + 11.", system="Be short.")
    assert message.id.startswith("msg_") and message.type == "message" and message.role == "assistant"
    (block,) = message.content
    assert block.type == "text" and block.text == "56"
    assert message.stop_reason == "end_turn" and message.stop_sequence is None
    same = chat(server, messages=[{"role": "system", "content": "Be short."}, *ask("Compute 45 + 11.")], **thinking(False))
    usage = message.usage
    assert usage.input_tokens + usage.cache_read_input_tokens == same["usage"]["prompt_tokens"]
    assert usage.output_tokens == same["usage"]["completion_tokens"]
    blocks = [{"type": "text", "text": "Be short.", "cache_control": {"type": "ephemeral"}}]
    assert text_of(create(client, [{"role": "user", "content": [{"type": "text", "text": "Compute 45 + 11."}]}], system=blocks)) == "56"


def test_cached_and_other_tokens_are_the_prompt(client):
    words = " ".join(f"word{i}" for i in range(300))
    first = create(client, words, max_tokens=2)
    again = create(client, words, max_tokens=2)
    total = [m.usage.input_tokens + m.usage.cache_read_input_tokens for m in (first, again)]
    assert total[0] == total[1]
    with client.messages.stream(model="default", max_tokens=2, messages=[{"role": "user", "content": words}]) as stream:
        events = list(stream)
    usage = events[0].message.usage
    assert usage.input_tokens + usage.cache_read_input_tokens == total[0]


def raw_events(server, body):
    """[(event, data)] as they stand on the wire."""
    events, name = [], None
    with server.http.stream("POST", "/v1/messages", json={**body, "stream": True}) as response:
        assert response.status_code == 200 and response.headers["content-type"].startswith("text/event-stream")
        for line in response.iter_lines():
            if line.startswith("event: "):
                name = line[7:]
            elif line.startswith("data: "):
                events.append((name, json.loads(line[6:])))
            else:
                assert line == ""
    return events


def test_events_and_their_order(server):
    body = {"max_tokens": 300, "temperature": 0, "thinking": THINKS,
            "messages": [{"role": "user", "content": [png(), {"type": "text", "text": "What is in the picture?"}]}]}
    events = raw_events(server, body)
    assert all(name == data["type"] for name, data in events)
    names = [name for name, _ in events]
    assert names[:3] == ["message_start", "ping", "content_block_start"] and names[-2:] == ["message_delta", "message_stop"]
    assert names.count("content_block_start") == names.count("content_block_stop") == 2
    deltas = [data["delta"]["type"] for name, data in events if name == "content_block_delta"]
    thoughts = deltas.count("thinking_delta")
    assert deltas == ["thinking_delta"] * thoughts + ["signature_delta"] + ["text_delta"] * (len(deltas) - thoughts - 1)
    union = TypeAdapter(RawMessageStreamEvent)
    for name, data in events:
        if name != "ping":  # the client drops it before it looks
            union.validate_python(data, strict=True, extra="forbid")
    reply = server.http.post("/v1/messages", json=body)
    Message.model_validate(reply.json(), strict=True, extra="forbid")
    assert reply.headers["request-id"] == reply.headers["x-request-id"]


STREAMED = [dict(messages=text, thinking=on, **extra) for text in ("Compute 45 + 11.", STORY)
            for on in ({"type": "disabled"}, THINKS, {"type": "adaptive"}, {**THINKS, "display": "omitted"})
            for extra in ({}, {"stop_sequences": ["e"]}, {"max_tokens": 201}, {"extra_body": {"seed": 1, "min_p": 0.1, "temperature": 1}})]


def test_streaming_is_the_same(client):
    for fields in STREAMED:
        whole = create(client, **fields)
        messages = [{"role": "user", "content": fields["messages"]}]
        with client.messages.stream(**arguments(**{**fields, "messages": messages})) as stream:
            final = stream.get_final_message()
        strip = lambda m: {**m.to_dict(), "id": "", "usage": m.usage.output_tokens}
        got, want = strip(final), strip(whole)
        got = {k: v for k, v in got.items() if k in want}
        got["content"] = [{k: v for k, v in b.items() if k != "parsed_output"} for b in got["content"]]
        assert got == want, fields


def test_text_stream_helper(client):
    with client.messages.stream(**arguments(messages=[{"role": "user", "content": STORY}])) as stream:
        text = "".join(stream.text_stream)
    assert text == text_of(create(client, STORY)) and len(text) > 20


def test_stop_reasons(client):
    message = create(client, STORY, stop_sequences=["zzz", "e"])
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "e") and "e" not in text_of(message)
    message = create(client, STORY, max_tokens=3)
    assert (message.stop_reason, message.stop_sequence, message.usage.output_tokens) == ("max_tokens", None, 3)


def test_a_full_context_is_not_max_tokens(client):
    length = 4096  # BASE_FLAGS
    count_of = lambda words: client.messages.count_tokens(model="default", messages=[{"role": "user", "content": words}]).input_tokens
    words = "one " * (1000 * 3900 // count_of("one " * 1000))
    count = count_of(words)
    assert 3500 < count < length - 8
    message = create(client, words, max_tokens=1000, extra_body={"ignore_eos": True})
    assert message.stop_reason == "model_context_window_exceeded" and message.usage.output_tokens == length - count


def test_thinking(server, client):
    content = [png(), {"type": "text", "text": "What is in the picture?"}]
    message = create(client, [{"role": "user", "content": content}], thinking=THINKS)
    assert [b.type for b in message.content] == ["thinking", "text"] and message.content[0].signature
    assert thought_of(message).strip() == "There are four shapes." and text_of(message).strip() == ANSWER
    assert 0 < message.usage.output_tokens_details.thinking_tokens < message.usage.output_tokens
    # Without the field a model does not think, with "adaptive" the server's default says.
    assert [b.type for b in create(client, "Compute 45 + 11.").content] == ["text"]
    adaptive = create(client, "Compute 45 + 11.", thinking={"type": "adaptive"})
    default = chat(server, messages=ask("Compute 45 + 11."))["choices"][0]["message"]
    assert thought_of(adaptive) == (default["reasoning_content"] or "") and text_of(adaptive) == default["content"]
    short = create(client, "Compute 45 + 11.", thinking={"type": "enabled", "budget_tokens": 1})
    assert short.usage.output_tokens_details.thinking_tokens <= 2
    # The turn goes back as it came.
    turns = [{"role": "user", "content": content}, message.to_param(), {"role": "user", "content": "Compute 45 + 11."}]
    assert text_of(create(client, turns)).strip()


def test_pictures(server, client):
    same = chat(server, messages=ask("What is in the picture?", PICTURE), **thinking(False))["usage"]["prompt_tokens"]
    url = {"type": "image", "source": {"type": "url", "url": "data:image/png;base64," + png()["source"]["data"]}}
    for picture in (png(), url):
        message = create(client, [{"role": "user", "content": [picture, {"type": "text", "text": "What is in the picture?"}]}])
        assert text_of(message).strip() == ANSWER
        assert message.usage.input_tokens + message.usage.cache_read_input_tokens == same


def tools_of(question):
    return [{"name": t["function"]["name"], "description": t["function"].get("description", ""),
             "input_schema": t["function"].get("parameters", {"type": "object"})} for t in question["tools"]]


@pytest.fixture(scope="module", params=["hermes", "ernie-45-vl-thinking", "ernie-x1"])
def tool_server(request):
    server = Server(*BASE_FLAGS, "--tool-call-parser", request.param)
    yield server
    assert server.stop() == 0, server.log_text()


def split_system(messages):
    system = [m["content"] for m in messages if m["role"] == "system"]
    return {"messages": [m for m in messages if m["role"] != "system"], **({"system": system[0]} if system else {})}


def test_tools_loop(tool_server):
    with client_of(tool_server) as client:
        called = 0
        for question in TOOL_QUESTIONS:
            fields = {"model": "default", "max_tokens": 256, "extra_body": GREEDY, "tools": tools_of(question), **split_system(question["messages"]),
                      "thinking": {"type": "enabled" if question["enable_thinking"] else "disabled",
                                   **({"budget_tokens": 200} if question["enable_thinking"] else {})}}
            message = client.messages.create(**fields)
            with client.messages.stream(**fields) as stream:
                final = stream.get_final_message()
            shape = lambda m: [(b.type, getattr(b, "text", None), getattr(b, "thinking", None), getattr(b, "input", None)) for b in m.content]
            assert shape(final) == shape(message) and final.stop_reason == message.stop_reason
            want = expected(question)
            calls = [b for b in message.content if b.type == "tool_use"]
            if want is None:
                assert not calls and message.stop_reason == "end_turn" and text_of(message).strip() == question["answer"]
                continue
            called += 1
            (call,) = calls
            assert (call.name, call.input) == want and call.id.startswith("toolu_") and message.stop_reason == "tool_use"
            for result in ("1211", [{"type": "text", "text": "1211"}]):
                turns = [*fields["messages"], message.to_param(),
                         {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": result}]}]
                counted = client.messages.count_tokens(model="default", tools=fields["tools"], messages=turns).input_tokens
                reply = client.messages.create(**{**fields, "messages": turns, "thinking": {"type": "disabled"}})
                assert reply.content and counted > 10
        assert called >= 5


def test_a_picture_in_a_tool_result(tool_server):
    with client_of(tool_server) as client:
        call = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}
        turns = [{"role": "user", "content": "What is in the picture?"}, {"role": "assistant", "content": [call]},
                 {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": [png()]}]}]
        without = [*turns[:2], {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1"}]}]
        count = lambda messages: client.messages.count_tokens(model="default", messages=messages).input_tokens
        assert count(turns) > count(without) + 8
        assert create(client, turns).content


def test_count_tokens(server, client):
    for messages in ([{"role": "user", "content": "Compute 45 + 11."}],
                     [{"role": "user", "content": [png(), {"type": "text", "text": "What is in the picture?"}]}],
                     [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]):
        count = client.messages.count_tokens(model="default", messages=messages, system="Be short.")
        usage = create(client, messages, system="Be short.", max_tokens=1).usage
        assert count.input_tokens == usage.input_tokens + usage.cache_read_input_tokens
    long = client.messages.count_tokens(model="default", messages=[{"role": "user", "content": "one " * 20000}])
    assert long.input_tokens > 4096, "what does not fit is counted, too"
    begun = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert client.messages.count_tokens(model="default", messages=begun).input_tokens > 0
    reply = server.http.post("/v1/messages/count_tokens", json={"messages": ask("a"), "nonsense": 1})
    assert reply.headers["x-fastdeploy-ignored"] == "nonsense" and set(reply.json()) == {"input_tokens"}


def test_async(server):
    async def ask_all():
        async with client_of(server, anthropic.AsyncAnthropic) as client:
            create = lambda a: client.messages.create(model="default", max_tokens=50, extra_body=GREEDY,
                                                      messages=[{"role": "user", "content": f"Compute {a} + 11."}])
            messages = await asyncio.gather(*(create(a) for a in (45, 20, 30)))
            async with client.messages.stream(model="default", max_tokens=50, extra_body=GREEDY,
                                              messages=[{"role": "user", "content": "Compute 45 + 11."}]) as stream:
                return messages, await stream.get_final_message()
    messages, final = asyncio.run(ask_all())
    assert text_of(messages[0]) == text_of(final) == "56" and all(m.content for m in messages)


def test_beta_and_query(client):
    message = client.beta.messages.create(model="default", max_tokens=50, extra_body=GREEDY, betas=["context-1m-2025-08-07"],
                                          messages=[{"role": "user", "content": "Compute 45 + 11."}])
    assert message.content[0].text == "56"


def test_models(client, server):
    models = list(client.models.list())
    assert len(models) >= 1 and models[0].type == "model" and models[0].max_input_tokens == 4096
    assert client.models.retrieve(models[0].id).created_at == models[0].created_at
    error = refused(lambda: client.models.retrieve("other"), anthropic.NotFoundError, "not_found_error", "other")
    assert error.status_code == 404
    assert server.http.get("/v1/models").json()["object"] == "list"  # without the header: OpenAI's


def refused(call, kind, type_, *words):
    with pytest.raises(kind) as caught:
        call()
    body = caught.value.body
    assert set(body) == {"type", "error", "request_id"} and body["type"] == "error" and set(body["error"]) == {"type", "message"}
    assert body["error"]["type"] == type_, body
    assert body["request_id"] == caught.value.request_id
    for word in words:
        assert word in body["error"]["message"], body
    return caught.value


def test_errors(client):
    bad, invalid = anthropic.BadRequestError, "invalid_request_error"
    refused(lambda: create(client, "a", max_tokens=0), bad, invalid, "max_tokens", "4096")
    refused(lambda: create(client, "a", extra_body={"temperature": "warm"}), bad, invalid, "temperature", "warm")
    refused(lambda: create(client, [{"role": "user", "content": [{"type": "video"}]}]), bad, invalid, "messages[0].content[0].type")
    refused(lambda: create(client, "a", thinking={"type": "enabled", "budget_tokens": 300}), bad, invalid, "budget_tokens")
    refused(lambda: create(client, "a", tool_choice={"type": "any"}), bad, invalid, "structured output")
    refused(lambda: create(client, "one " * 20000), bad, invalid, "maximum context length is 4096")
    refused(lambda: create(client, [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]), bad, invalid, "assistant")
    broken = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
    error = refused(lambda: create(client, [{"role": "user", "content": [{"type": "text", "text": "x"}, broken]}], system="s"),
                    anthropic.APIStatusError, invalid)
    assert error.status_code == 415
    assert error.body["error"]["message"].startswith("messages[0].content[1].source"), error.body
    refused(lambda: client.post("/v1/messages/batches", cast_to=object, body={}), anthropic.NotFoundError, "not_found_error", "/v1/messages")


def test_every_refusal_has_the_shape(start_server):
    server = start_server(*BASE_FLAGS, "--api-key", "secret", "--served-model-name", "tiny", "--max-body-bytes", "4096",
                          "--max-concurrency", "1", "--allowed-hosts", "127.0.0.1")
    with client_of(server, api_key="secret") as client, client_of(server, api_key="wrong") as stranger:
        fields = {"model": "tiny", "max_tokens": 50, "extra_body": GREEDY}
        assert text_of(create(client, "Compute 45 + 11.", **fields)) == "56"
        refused(lambda: create(stranger, "a"), anthropic.AuthenticationError, "authentication_error", "API key")
        refused(lambda: create(client, "a", model="other"), anthropic.NotFoundError, "not_found_error", "other", "tiny")
        large = refused(lambda: create(client, "x" * 5000, **fields), anthropic.APIStatusError, "request_too_large", "--max-body-bytes")
        assert large.status_code == 413
        wrong_method = refused(lambda: client.get("/v1/messages", cast_to=object), anthropic.APIStatusError, "invalid_request_error", "POST")
        assert wrong_method.status_code == 405
        foreign = httpx.post(server.url + "/v1/messages", json={}, headers={"Host": "elsewhere.example", "x-api-key": "secret"})
        assert foreign.status_code == 403 and foreign.json()["error"]["type"] == "permission_error"
        not_json = httpx.post(server.url + "/v1/messages", content=b"{", headers={"x-api-key": "secret"})
        assert not_json.status_code == 400 and not_json.json()["error"]["type"] == "invalid_request_error"
        with client.messages.stream(**{**fields, "max_tokens": 4000, "extra_body": {"ignore_eos": True}},
                                    messages=[{"role": "user", "content": "a"}]) as stream:
            next(iter(stream))
            full = refused(lambda: create(client, "a", **fields), anthropic.RateLimitError, "rate_limit_error", "--max-concurrency")
            assert full.response.headers["retry-after"] == "1"
        openai_shape = httpx.post(server.url + "/v1/chat/completions", json={}, headers={"x-api-key": "wrong"})
        assert set(openai_shape.json()) == {"error"} and "code" in openai_shape.json()["error"]


def test_unknown_fields(server, start_server):
    body = {"max_tokens": 5, "messages": ask("a"), "temprature": 1}
    reply = server.http.post("/v1/messages", json=body)
    assert reply.status_code == 200 and reply.headers["x-fastdeploy-ignored"] == "temprature"
    strict = start_server(*BASE_FLAGS, "--strict-requests")
    reply = strict.http.post("/v1/messages", json=body)
    assert reply.status_code == 400 and "did you mean temperature?" in reply.json()["error"]["message"]
