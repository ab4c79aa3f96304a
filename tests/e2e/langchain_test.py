"""LangChain's OpenAI classes, unmodified: sync, async, streams, tools, pictures."""

import asyncio

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI

from conftest import BASE_FLAGS, CLIENT_TIMEOUT_S, EVAL, Server, ask, thinking

PICTURE = EVAL / "media" / "describe-000-0.png"
QUESTION = "Compute 45 + 11."


@tool
def add(a: int, b: int) -> int:
    """Add two numbers"""
    return a + b


@pytest.fixture(scope="module")
def tool_server():
    server = Server(*BASE_FLAGS, "--tool-call-parser", "hermes")
    yield server
    assert server.stop() == 0, server.log_text()


def chat(server, **fields):
    return ChatOpenAI(base_url=server.url + "/v1", api_key="none", model="default", temperature=0, timeout=CLIENT_TIMEOUT_S, max_retries=0,
                      extra_body=thinking(False), **fields)


def test_invoke(tool_server):
    reply = chat(tool_server).invoke([SystemMessage("You are kind."), HumanMessage(QUESTION)])
    assert "56" in reply.content and reply.response_metadata["finish_reason"] == "stop"
    assert reply.usage_metadata["total_tokens"] == reply.usage_metadata["input_tokens"] + reply.usage_metadata["output_tokens"]
    replies = chat(tool_server).batch([QUESTION, "Compute 20 + 30."])
    assert [r.content for r in replies] == ["56", "50"]


def test_stream(tool_server):
    chunks = list(chat(tool_server, stream_usage=True).stream(QUESTION))
    assert "".join(c.content for c in chunks) == "56"
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    assert whole.usage_metadata["output_tokens"] > 0 and whole.response_metadata["finish_reason"] == "stop"


def test_async(tool_server):
    async def main():
        model = chat(tool_server)
        reply = await model.ainvoke(QUESTION)
        return reply.content, "".join([c.content async for c in model.astream(QUESTION)])

    assert asyncio.run(main()) == ("56", "56")


def test_tools(tool_server):
    model = chat(tool_server, max_tokens=96).bind_tools([add])
    messages = [HumanMessage("Use the tool to add 709 and 502.")]
    reply = model.invoke(messages)
    (call,) = reply.tool_calls
    assert call["name"] == "add" and call["args"] == {"a": 709, "b": 502}
    result = add.invoke(call)
    assert isinstance(result, ToolMessage) and result.content == "1211"
    after = model.invoke([*messages, reply, result])
    assert isinstance(after, AIMessage) and after.usage_metadata["input_tokens"] > reply.usage_metadata["input_tokens"]
    streamed = None
    for chunk in model.stream(messages):
        streamed = chunk if streamed is None else streamed + chunk
    assert [(c["name"], c["args"]) for c in streamed.tool_calls] == [(call["name"], call["args"])]


def test_picture(tool_server):
    (part, text) = ask("What is in the picture?", PICTURE)[0]["content"]
    reply = chat(tool_server).invoke([HumanMessage([text, part])])
    assert "cross" in reply.content
    # LangChain's own spelling of a picture.
    data = part["image_url"]["url"].split(",", 1)[1]
    own = chat(tool_server).invoke([HumanMessage([text, {"type": "image", "base64": data, "mime_type": "image/png"}])])
    assert own.content == reply.content


def test_logprobs_and_stop(tool_server):
    reply = chat(tool_server, logprobs=True, top_logprobs=2, stop=["6"]).invoke(QUESTION)
    assert reply.content == "5"
    assert len(reply.response_metadata["logprobs"]["content"][0]["top_logprobs"]) == 2


def test_responses_api(tool_server):
    reply = chat(tool_server, use_responses_api=True).invoke(QUESTION)
    assert "56" in reply.text if isinstance(reply.text, str) else "56" in reply.text()


def test_completions(tool_server):
    model = OpenAI(base_url=tool_server.url + "/v1", api_key="none", model="default", temperature=0, max_tokens=8, max_retries=0)
    text = model.invoke("User: Compute 45 + 11.\nAssistant: <think>\n\n</think>\n\n")
    assert text.strip().startswith("56")
    assert "".join(model.stream("User: Compute 45 + 11.\nAssistant: <think>\n\n</think>\n\n")) == text
