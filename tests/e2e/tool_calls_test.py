"""Tool calls as the official client uses them, on the tool questions of tests/eval."""

import json

import openai
import pytest

from conftest import BASE_FLAGS, Server, questions, thinking

ASKED = [q for q in questions() if q["task"] == "tool"]


@pytest.fixture(scope="module", params=["hermes", "ernie-45-vl-thinking", "ernie-x1"])
def tool_server(request):
    server = Server(*BASE_FLAGS, "--tool-call-parser", request.param)
    yield server
    assert server.stop() == 0, server.log_text()


def create(server, question, **fields):
    extra = {**thinking(question["enable_thinking"]), **fields.pop("extra_body", {})}
    return server.client.chat.completions.create(model="default", messages=question["messages"], tools=question["tools"],
                                                 temperature=0, max_tokens=256, extra_body=extra, **fields)


def expected(question):
    """(name, arguments) of the call in tests/eval, or None."""
    text = question["reply"].split("</think>")[-1].strip()
    if not text.startswith("<tool_call>"):
        return None
    call = json.loads(text.removeprefix("<tool_call>").removesuffix("</tool_call>"))
    return call["name"], call["arguments"]


def streamed(server, question):
    """(reasoning, content, [(name, arguments)], finish reason), with OpenAI's order of pieces checked."""
    reasoning, content, calls, finish = "", "", [], None
    for chunk in create(server, question, stream=True):
        for choice in chunk.choices:
            delta = choice.delta
            reasoning += getattr(delta, "reasoning_content", None) or ""
            content += delta.content or ""
            for piece in delta.tool_calls or []:
                if piece.id is not None:
                    assert piece.index == len(calls) and piece.type == "function" and piece.function.arguments == ""
                    calls.append([piece.function.name, ""])
                else:
                    assert piece.index == len(calls) - 1 and piece.function.name is None
                    calls[-1][1] += piece.function.arguments
            finish = choice.finish_reason or finish
    return reasoning, content, [tuple(c) for c in calls], finish


def test_there_are_calls():
    assert len(ASKED) == 8 and sum(expected(q) is not None for q in ASKED) >= 5


def test_calls_of_eval(tool_server):
    for question in ASKED:
        reply = create(tool_server, question)
        message = reply.choices[0].message
        want = expected(question)
        if want is None:
            assert message.tool_calls is None and reply.choices[0].finish_reason == "stop"
            assert message.content.strip() == question["answer"]
        else:
            (call,) = message.tool_calls
            assert call.type == "function" and call.id.startswith("chatcmpl-tool-")
            assert (call.function.name, json.loads(call.function.arguments)) == want
            assert message.content is None and reply.choices[0].finish_reason == "tool_calls"
        reasoning = getattr(message, "reasoning_content", None) or ""
        assert bool(reasoning) == question["enable_thinking"]
        calls = [(c.function.name, c.function.arguments) for c in message.tool_calls or []]
        assert streamed(tool_server, question) == (reasoning, message.content or "", calls, reply.choices[0].finish_reason)


def test_round_trip(tool_server):
    """The call goes back as the client got it, with a result; the model sees both."""
    question = next(q for q in ASKED if expected(q))
    message = create(tool_server, question).choices[0].message
    call = message.tool_calls[0]
    turns = question["messages"] + [message.model_dump(exclude_none=True),
                                    {"role": "tool", "tool_call_id": call.id, "content": "1211"}]
    reply = create(tool_server, {**question, "messages": turns, "enable_thinking": False})
    assert reply.choices[0].message.content or reply.choices[0].message.tool_calls
    first = create(tool_server, {**question, "enable_thinking": False})
    assert reply.usage.prompt_tokens > first.usage.prompt_tokens + 10, "call and result are in the prompt"


def test_a_call_cut_off_stays_text(tool_server):
    question = next(q for q in ASKED if expected(q) and not q["enable_thinking"])
    reply = create(tool_server, question, extra_body={"max_completion_tokens": 6})
    message = reply.choices[0].message
    assert reply.choices[0].finish_reason == "length" and message.tool_calls is None
    assert message.content.startswith("<tool_call>")


def test_tool_choice(tool_server):
    question = next(q for q in ASKED if expected(q) and not q["enable_thinking"])
    assert create(tool_server, question, tool_choice="auto", parallel_tool_calls=True).choices[0].message.tool_calls
    none = create(tool_server, question, tool_choice="none").choices[0]
    assert none.message.tool_calls is None and none.finish_reason == "stop"
    for fields, param in [({"tool_choice": "required"}, "tool_choice"),
                          ({"tool_choice": {"type": "function", "function": {"name": "add"}}}, "tool_choice"),
                          ({"parallel_tool_calls": False}, "parallel_tool_calls")]:
        with pytest.raises(openai.BadRequestError) as caught:
            create(tool_server, question, **fields)
        assert caught.value.param == param and "structured output" in str(caught.value)


def test_without_a_parser_calls_are_text(server):
    question = next(q for q in ASKED if expected(q) and not q["enable_thinking"])
    choice = create(server, question).choices[0]
    assert choice.message.tool_calls is None and choice.finish_reason == "stop"
    assert choice.message.content == question["reply"]
