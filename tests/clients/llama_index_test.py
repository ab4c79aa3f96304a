"""LlamaIndex's OpenAILike: chat and complete, sync, async, streams, tools, pictures."""

import asyncio

import pytest
from e2e import CLIENT_TIMEOUT_S, EVAL, thinking
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, MessageRole, TextBlock
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike

QUESTION = "Compute 45 + 11."
TEXT = "User: Compute 45 + 11.\nAssistant: <think>\n\n</think>\n\n"


def add(a: int, b: int) -> int:
    """Add two numbers"""
    return a + b


@pytest.fixture
def model(server):
    return OpenAILike(model="tiny", api_base=server.url + "/v1", api_key="none", is_chat_model=True, is_function_calling_model=True,
                      context_window=4096, max_tokens=96, temperature=0, timeout=CLIENT_TIMEOUT_S, max_retries=0,
                      additional_kwargs={"extra_body": thinking(False)})


def user(*blocks):
    return [ChatMessage(role=MessageRole.USER, blocks=list(blocks))]


def test_chat(model):
    reply = model.chat([ChatMessage(role="system", content="You are kind."), *user(TextBlock(text=QUESTION))])
    assert "56" in reply.message.content
    assert reply.raw.usage.completion_tokens > 0


def test_stream(model):
    pieces = [r.delta or "" for r in model.stream_chat(user(TextBlock(text=QUESTION)))]
    assert "".join(pieces) == "56"


def test_async(model):
    async def main():
        reply = await model.achat(user(TextBlock(text=QUESTION)))
        stream = await model.astream_chat(user(TextBlock(text=QUESTION)))
        return reply.message.content, "".join([r.delta or "" async for r in stream])

    assert asyncio.run(main()) == ("56", "56")


def test_tools(model):
    tool = FunctionTool.from_defaults(fn=add)
    reply = model.chat_with_tools([tool], user_msg="Use the tool to add 709 and 502.", allow_parallel_tool_calls=True)
    (call,) = model.get_tool_calls_from_response(reply)
    assert call.tool_name == "add" and call.tool_kwargs == {"a": 709, "b": 502}
    assert tool.call(**call.tool_kwargs).raw_output == 1211


def test_picture(model):
    path = EVAL / "media" / "describe-000-0.png"
    reply = model.chat(user(TextBlock(text="What is in the picture?"), ImageBlock(path=path)))
    assert "cross" in reply.message.content


def test_complete(server):
    model = OpenAILike(model="tiny", api_base=server.url + "/v1", api_key="none", is_chat_model=False, context_window=4096, max_tokens=8,
                       temperature=0, max_retries=0)
    text = model.complete(TEXT).text
    assert text.strip().startswith("56")
    assert "".join(r.delta or "" for r in model.stream_complete(TEXT)) == text
