"""LiteLLM with its `openai/` provider: sync, async, streams, tools, pictures, errors."""

import asyncio
import json
import os

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # read while it is imported: no download

import litellm  # noqa: E402
import pytest  # noqa: E402
from e2e import CLIENT_TIMEOUT_S, EVAL, ask, thinking  # noqa: E402

QUESTION = "Compute 45 + 11."
TOOLS = [{"type": "function", "function": {"name": "add", "description": "Add two numbers", "parameters": {
    "type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "required": ["a", "b"]}}}]


def fields(server, messages, **more):
    return {"model": "openai/tiny", "api_base": server.url + "/v1", "api_key": "none", "messages": messages, "temperature": 0,
            "timeout": CLIENT_TIMEOUT_S, "extra_body": thinking(False), **more}


def test_completion(server):
    reply = litellm.completion(**fields(server, ask(QUESTION)))
    assert reply.choices[0].message.content == "56" and reply.choices[0].finish_reason == "stop"
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


def test_reasoning(server):
    reply = litellm.completion(**fields(server, ask(QUESTION), extra_body=thinking(True)))
    assert "56" in reply.choices[0].message.content and reply.choices[0].message.reasoning_content


def test_stream(server):
    chunks = list(litellm.completion(**fields(server, ask(QUESTION), stream=True, stream_options={"include_usage": True})))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "56"
    whole = litellm.stream_chunk_builder(chunks)
    assert whole.choices[0].message.content == "56" and whole.usage.completion_tokens > 0


def test_async(server):
    async def main():
        reply = await litellm.acompletion(**fields(server, ask(QUESTION)))
        stream = await litellm.acompletion(**fields(server, ask(QUESTION), stream=True))
        return reply.choices[0].message.content, "".join([c.choices[0].delta.content or "" async for c in stream])

    assert asyncio.run(main()) == ("56", "56")


def test_tools(server):
    messages = ask("Use the tool to add 709 and 502.")
    reply = litellm.completion(**fields(server, messages, tools=TOOLS, max_tokens=96))
    (call,) = reply.choices[0].message.tool_calls
    assert reply.choices[0].finish_reason == "tool_calls"
    assert call.function.name == "add" and json.loads(call.function.arguments) == {"a": 709, "b": 502}
    turns = [*messages, reply.choices[0].message.model_dump(), {"role": "tool", "tool_call_id": call.id, "content": "1211"}]
    after = litellm.completion(**fields(server, turns, tools=TOOLS, max_tokens=96))
    assert after.usage.prompt_tokens > reply.usage.prompt_tokens
    streamed = litellm.stream_chunk_builder(list(litellm.completion(**fields(server, messages, tools=TOOLS, max_tokens=96, stream=True))))
    (again,) = streamed.choices[0].message.tool_calls
    assert (again.function.name, json.loads(again.function.arguments)) == ("add", {"a": 709, "b": 502})


def test_picture(server):
    reply = litellm.completion(**fields(server, ask("What is in the picture?", EVAL / "media" / "describe-000-0.png"), max_tokens=40))
    assert "cross" in reply.choices[0].message.content


def test_errors(server):
    with pytest.raises(litellm.BadRequestError, match="temperature"):
        litellm.completion(**fields(server, ask(QUESTION), temperature=-1))
    with pytest.raises(litellm.NotFoundError, match="does not exist"):
        litellm.completion(**{**fields(server, ask(QUESTION)), "model": "openai/other"})


def test_text_completion(server):
    reply = litellm.text_completion(model="text-completion-openai/tiny", api_base=server.url + "/v1", api_key="none", temperature=0,
                                    prompt="User: Compute 45 + 11.\nAssistant: <think>\n\n</think>\n\n", max_tokens=8)
    assert reply.choices[0].text.strip().startswith("56")
