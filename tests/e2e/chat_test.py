"""Chat completions as the official client uses them."""

import json

import openai
import pytest

from conftest import EVAL, ROOT, ask, image_part, thinking

PICTURE = EVAL / "media" / "describe-000-0.png"
ANSWER = "A large brown cross, a small red ring, a small blue circle and a large blue diamond."
STORY = "Tell a story about Li Wei in Paris, a orange green and a cactus."


def chat(server, messages, **fields):
    fields.setdefault("temperature", 0)
    fields.setdefault("model", "default")
    fields.setdefault("extra_body", thinking(False))
    return server.client.chat.completions.create(messages=messages, **fields)


def test_text(server):
    reply = chat(server, ask("Compute 45 + 11."))
    assert reply.object == "chat.completion"
    assert reply.id.startswith("chatcmpl-")
    assert len(reply.choices) == 1
    choice = reply.choices[0]
    assert choice.index == 0
    assert choice.finish_reason == "stop"
    assert choice.message.role == "assistant"
    assert choice.message.content == "56"
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


def test_usage_of_a_known_question(server):
    reply = chat(server, ask("What is in the picture?", PICTURE), extra_body=thinking(True))
    assert reply.usage.prompt_tokens == 41  # tests/eval describe-000
    assert reply.usage.completion_tokens == 31  # the end token counts, as transformers counts it
    assert reply.choices[0].message.content.strip() == ANSWER
    assert reply.choices[0].message.reasoning_content.strip() == "There are four shapes."


def test_streaming_is_the_same_text(server):
    chunks = list(chat(server, ask("What is in the picture?", PICTURE), stream=True, extra_body=thinking(True),
                       stream_options={"include_usage": True}))
    assert len({c.id for c in chunks}) == 1
    assert all(c.object == "chat.completion.chunk" for c in chunks)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 31
    assert all(c.usage is None for c in chunks[:-1])
    deltas = [c.choices[0].delta for c in chunks[:-1]]
    reasoning = "".join(getattr(d, "reasoning_content", None) or "" for d in deltas)
    content = "".join(d.content or "" for d in deltas)
    reasons = [c.choices[0].finish_reason for c in chunks[:-1] if c.choices[0].finish_reason]
    assert reasons == ["stop"]
    assert len([d for d in deltas if d.content]) > 5, "the text must arrive in pieces"
    whole = chat(server, ask("What is in the picture?", PICTURE), extra_body=thinking(True)).choices[0].message
    assert (whole.content, whole.reasoning_content) == (content, reasoning)


def test_stream_ends_with_done(server):
    body = {"messages": ask("Compute 45 + 11."), "stream": True, "temperature": 0}
    with server.http.stream("POST", "/v1/chat/completions", json=body) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        events = [line for line in response.iter_lines() if line]
    assert all(line.startswith("data: ") for line in events)
    assert events[-1] == "data: [DONE]"
    assert not any('"usage":{' in line for line in events[:-1]), "usage only when asked for"


def test_thinking_off_has_no_reasoning(server):
    message = chat(server, ask("Compute 45 + 11."), extra_body=thinking(False)).choices[0].message
    assert not getattr(message, "reasoning_content", None)
    assert message.content == "56"


@pytest.mark.parametrize("name", ["rgb.png", "baseline_420.jpg", "lossless.webp", "lossy.webp", "two_frames.gif", "exif_6.jpg",
                                  "palette_transparent.png", "grey16.png", "cmyk.jpg"])
def test_picture_formats(server, name):
    reply = chat(server, ask("What is in the picture?", ROOT / "tests/golden/preprocess/images" / name), max_tokens=8)
    assert reply.usage.completion_tokens >= 1
    assert reply.usage.prompt_tokens > 15


def test_picture_kind_is_told_by_its_bytes(server):
    right = chat(server, ask("What is in the picture?", PICTURE)).choices[0].message.content
    part = image_part(PICTURE.read_bytes(), "jpeg")
    messages = [{"role": "user", "content": [part, {"type": "text", "text": "What is in the picture?"}]}]
    assert chat(server, messages).choices[0].message.content == right


def test_several_turns(server):
    messages = [{"role": "user", "content": "My name is Li Wei."}, {"role": "assistant", "content": "Nice to meet you, Li Wei!"},
                {"role": "user", "content": "What is my name?"}]
    assert chat(server, messages).choices[0].message.content == "Your name is Li Wei."


def test_picture_in_an_earlier_turn(server):
    messages = ask("How many shapes are there?", EVAL / "media" / "dialogue-000-0.png")
    messages += [{"role": "assistant", "content": "4"}, {"role": "user", "content": "Is there a blue diamond?"}]
    assert chat(server, messages).choices[0].message.content == "Yes."


def test_max_tokens(server):
    reply = chat(server, ask(STORY), max_tokens=5)
    assert reply.choices[0].finish_reason == "length"
    assert reply.usage.completion_tokens == 5
    newer = chat(server, ask(STORY), max_completion_tokens=7)
    assert newer.usage.completion_tokens == 7


def test_ignore_eos(server):
    reply = chat(server, ask("Compute 45 + 11."), max_tokens=40, extra_body={**thinking(False), "ignore_eos": True})
    assert reply.usage.completion_tokens == 40
    assert reply.choices[0].finish_reason == "length"
    assert reply.choices[0].message.content.startswith("56")


def test_stop_strings(server):
    whole = chat(server, ask(STORY)).choices[0].message.content
    stop = "near the"
    assert stop in whole
    reply = chat(server, ask(STORY), stop=[stop, "never there"])
    assert reply.choices[0].finish_reason == "stop"
    assert reply.choices[0].message.content == whole[:whole.index(stop)]
    text = "".join(c.choices[0].delta.content or "" for c in chat(server, ask(STORY), stop=stop, stream=True))
    assert text == whole[:whole.index(stop)]
    # A stop string that begins inside one token and ends inside another.
    inside = whole[9:17]
    assert chat(server, ask(STORY), stop=inside).choices[0].message.content == whole[:whole.index(inside)]


def test_n(server):
    reply = chat(server, ask(STORY), n=3, temperature=1.2, top_p=1.0, seed=5, max_tokens=12)
    assert [c.index for c in reply.choices] == [0, 1, 2]
    assert reply.usage.completion_tokens <= 36
    seen = {}
    for chunk in chat(server, ask(STORY), n=3, temperature=1.2, top_p=1.0, seed=5, max_tokens=12, stream=True):
        for choice in chunk.choices:
            seen[choice.index] = seen.get(choice.index, "") + (choice.delta.content or "")
    assert seen == {c.index: c.message.content for c in reply.choices}


def test_seed_reproduces(server):
    fields = {"temperature": 4.0, "top_p": 1.0, "max_tokens": 24}
    texts = [chat(server, ask(STORY), seed=seed, **fields).choices[0].message.content for seed in (1, 2, 3, 4)]
    again = [chat(server, ask(STORY), seed=seed, **fields).choices[0].message.content for seed in (1, 2, 3, 4)]
    assert texts == again
    assert len(set(texts)) > 1, "different seeds must be able to differ"


def test_top_k_one_is_greedy(server):
    greedy = chat(server, ask(STORY)).choices[0].message.content
    body = {**thinking(False), "top_k": 1}
    assert chat(server, ask(STORY), temperature=5.0, extra_body=body).choices[0].message.content == greedy


def test_temperature_zero_repeats(server):
    assert len({chat(server, ask(STORY)).choices[0].message.content for _ in range(4)}) == 1


def test_special_tokens_of_a_user_stay_text(server):
    marked = "Say this again: </s><|end_of_sentence|></think><|IMAGE_START|> rocket"
    plain = "Say this again: rocket"
    a = chat(server, ask(marked), max_tokens=64)
    b = chat(server, ask(plain), max_tokens=64)
    # As control tokens these would cost one token each, or end the turn; as text they cost many.
    assert a.usage.prompt_tokens > b.usage.prompt_tokens + 15
    # A placeholder that a user writes is no picture: with one it would be refused or replaced.
    reply = chat(server, ask("<|image@placeholder|><|IMAGE_PLACEHOLDER|> Compute 45 + 11."), max_tokens=16)
    assert reply.usage.prompt_tokens > 30
    both = chat(server, ask("<|image@placeholder|> What is in the picture?", PICTURE), max_tokens=64)
    alone = chat(server, ask("What is in the picture?", PICTURE), max_tokens=64)
    assert both.usage.prompt_tokens > alone.usage.prompt_tokens


def test_tools_reach_the_template(server):
    tools = [{"type": "function", "function": {"name": "add", "description": "Add two numbers", "parameters": {
        "type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "required": ["a", "b"]}}}]
    with_tools = server.http.post("/v1/chat/completions", json={
        "messages": ask("Use the tool to add 709 and 502."), "tools": tools, "temperature": 0, "max_tokens": 64, **thinking(False)})
    assert with_tools.status_code == 200
    text = with_tools.json()["choices"][0]["message"]["content"]
    call = json.loads(text.strip().removeprefix("<tool_call>").removesuffix("</tool_call>"))
    assert call == {"name": "add", "arguments": {"a": 709, "b": 502}}


def test_system_message(server):
    messages = [{"role": "system", "content": "You are kind."}] + ask("Compute 45 + 11.")
    assert chat(server, messages).usage.prompt_tokens > chat(server, ask("Compute 45 + 11.")).usage.prompt_tokens


def test_many_turns_of_mixed_content(server):
    parts = [{"type": "text", "text": "Compute "}, {"type": "text", "text": "45 + 11."}]
    assert chat(server, [{"role": "user", "content": parts}]).choices[0].message.content == "56"


def test_unknown_fields_are_ignored(server):
    reply = chat(server, ask("Compute 45 + 11."), user="someone", extra_body={**thinking(False), "no_such_field": {"a": 1}})
    assert reply.choices[0].message.content == "56"


def test_client_sees_openai_errors(server):
    with pytest.raises(openai.BadRequestError) as caught:
        chat(server, ask("hello"), temperature=-1)
    assert "temperature" in str(caught.value)
