"""/v1/responses with the official client: shapes, streams, tools, thoughts, pictures, errors."""

import asyncio
import base64
import json

import openai
import pydantic
import pytest
from openai.types.responses import Response, ResponseStreamEvent

from conftest import BASE_FLAGS, EVAL, Server, questions, thinking

QUESTION = "Compute 45 + 11."
STORY = "Tell a story about Li Wei in Paris, a orange green and a cactus."
EVENT = pydantic.TypeAdapter(ResponseStreamEvent)
TOOLS = [q for q in questions() if q["task"] == "tool"]


def unknown_members(value, path=""):
    """Paths of members that the client's types do not know."""
    if isinstance(value, pydantic.BaseModel):
        for name in value.model_extra or {}:
            yield f"{path}.{name}"
        for name in type(value).model_fields:
            yield from unknown_members(getattr(value, name), f"{path}.{name}")
    elif isinstance(value, list):
        for element in value:
            yield from unknown_members(element, path + "[]")


def check_shape(model):
    # OpenAI's reply has "store", the client's type does not.
    assert [p for p in unknown_members(model) if not p.endswith("store")] == []


def create(server, text=QUESTION, **fields):
    reply = server.http.post("/v1/responses", json={"input": text, "temperature": 0, **fields})
    assert reply.status_code == 200, reply.text
    return reply.json()


def events(server, text=QUESTION, **fields):
    """The events of a stream, each checked against the client's type of its name."""
    found = []
    with server.http.stream("POST", "/v1/responses", json={"input": text, "temperature": 0, "stream": True, **fields}) as reply:
        assert reply.status_code == 200 and reply.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in reply.iter_lines() if line]
    assert len(lines) % 2 == 0
    for name, data in zip(lines[::2], lines[1::2]):
        assert name.startswith("event: ") and data.startswith("data: {")
        event = json.loads(data[6:])
        assert event["type"] == name[7:] and event["sequence_number"] == len(found)
        model = EVENT.validate_python(event, strict=True)
        assert type(model).model_fields["type"].annotation.__args__ == (event["type"],)
        check_shape(model)
        found.append(event)
    return found


def plain(response):
    """Without what differs from request to request."""
    response = json.loads(json.dumps(response))
    for item in response["output"]:
        item.pop("id")
        item.pop("call_id", None)
    for name in ("id", "created_at", "completed_at"):
        response.pop(name)
    response["usage"].pop("input_tokens_details")  # what is cached
    return response


REQUESTS = [dict(text=text, **effort, **extra)
            for text in (QUESTION, STORY, [{"role": "developer", "content": "Answer."}, {"role": "user", "content": QUESTION}])
            for effort in ({}, {"reasoning": {"effort": "none"}}, {"reasoning": {"effort": "high"}})
            for extra in ({"max_output_tokens": 1}, {"max_output_tokens": 40}, {"stop": ["e"], "max_output_tokens": 40},
                          {"top_logprobs": 2, "include": ["message.output_text.logprobs"], "max_output_tokens": 20})]


def test_streaming_is_the_same(server):
    for request in REQUESTS:
        whole, stream = create(server, **request), events(server, **request)
        check_shape(Response.model_validate(whole, strict=True))
        assert stream[0]["type"] == "response.created" and stream[1]["type"] == "response.in_progress"
        last = stream[-1]
        assert last["type"] == f"response.{whole['status']}" and plain(last["response"]) == plain(whole), request
        texts, items = {}, {}
        for event in stream:
            if event["type"].endswith("_text.delta"):
                texts[event["output_index"]] = texts.get(event["output_index"], "") + event["delta"]
            if event["type"] == "response.output_item.done":
                items[event["output_index"]] = event["item"]
        assert [items[i] for i in sorted(items)] == last["response"]["output"]
        for index, text in texts.items():
            assert items[index]["content"][0]["text"] == text


def test_create(server):
    reply = server.client.responses.create(model="default", input=QUESTION, temperature=0, reasoning={"effort": "none"},
                                           instructions="You compute.", metadata={"a": "b"}, max_output_tokens=50, store=True)
    assert "56" in reply.output_text and reply.status == "completed" and reply.id.startswith("resp_")
    (message,) = reply.output
    assert message.type == "message" and message.role == "assistant" and message.status == "completed"
    assert reply.instructions == "You compute." and reply.metadata == {"a": "b"} and reply.max_output_tokens == 50
    assert reply.temperature == 0 and reply.text.format.type == "text" and reply.truncation == "disabled"
    assert reply.store is False and reply.previous_response_id is None and reply.completed_at >= reply.created_at
    assert reply.usage.total_tokens == reply.usage.input_tokens + reply.usage.output_tokens
    again = server.client.responses.create(model="default", input=QUESTION, temperature=0, reasoning={"effort": "none"},
                                           instructions="You compute.", max_output_tokens=50)
    assert again.output_text == reply.output_text


def test_the_same_as_a_chat(server):
    """One prompt, whichever API it came through."""
    history = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": "56"}, {"role": "user", "content": "Compute 3 + 4."}]
    chat = server.client.chat.completions.create(model="default", messages=[{"role": "system", "content": "Be short."}, *history],
                                                 temperature=0, extra_body=thinking(False))
    reply = server.client.responses.create(model="default", instructions="Be short.", input=history, temperature=0, reasoning={"effort": "none"})
    assert reply.output_text == chat.choices[0].message.content
    assert reply.usage.input_tokens == chat.usage.prompt_tokens and reply.usage.output_tokens == chat.usage.completion_tokens


def test_incomplete(server):
    reply = server.client.responses.create(model="default", input=STORY, temperature=0, max_output_tokens=3, reasoning={"effort": "none"})
    assert reply.status == "incomplete" and reply.incomplete_details.reason == "max_output_tokens"
    assert reply.output[-1].status == "incomplete" and reply.usage.output_tokens == 3 and reply.completed_at is None


def test_stream(server):
    text, kinds = "", []
    for event in server.client.responses.create(model="default", input=QUESTION, temperature=0, reasoning={"effort": "none"}, stream=True):
        kinds.append(event.type)
        if event.type == "response.output_text.delta":
            text += event.delta
    assert "56" in text and kinds[-1] == "response.completed"
    order = [k for i, k in enumerate(kinds) if i == 0 or kinds[i - 1] != k]
    assert order == ["response.created", "response.in_progress", "response.output_item.added", "response.content_part.added",
                     "response.output_text.delta", "response.output_text.done", "response.content_part.done",
                     "response.output_item.done", "response.completed"]


def test_stream_helper(server):
    with server.client.responses.stream(model="default", input=QUESTION, temperature=0, reasoning={"effort": "high"}) as stream:
        snapshots = [e.snapshot for e in stream if e.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert final.status == "completed" and snapshots[-1] == final.output_text and "56" in final.output_text
    assert [item.type for item in final.output] == ["reasoning", "message"]


def test_async(server):
    async def run():
        async with openai.AsyncOpenAI(base_url=server.url + "/v1", api_key="none", timeout=120, max_retries=0) as client:
            fields = dict(model="default", temperature=0, reasoning={"effort": "none"})
            replies = await asyncio.gather(*[client.responses.create(input=f"Compute 4{i} + 11.", **fields) for i in range(4)])
            assert [str(51 + i) in r.output_text for i, r in enumerate(replies)] == [True] * 4
            stream = await client.responses.create(input=QUESTION, stream=True, **fields)
            text = "".join([e.delta async for e in stream if e.type == "response.output_text.delta"])
            async with client.responses.stream(input=QUESTION, **fields) as helper:
                assert (await helper.get_final_response()).output_text == text
            return text

    assert "56" in asyncio.run(run())


def test_reasoning(server):
    reply = server.client.responses.create(model="default", input=QUESTION, temperature=0, reasoning={"effort": "medium", "summary": "auto"})
    thought, message = reply.output
    assert thought.type == "reasoning" and thought.summary == [] and thought.status == "completed"
    assert thought.content[0].type == "reasoning_text" and thought.content[0].text
    assert message.type == "message" and "56" in reply.output_text
    assert 0 < reply.usage.output_tokens_details.reasoning_tokens < reply.usage.output_tokens
    assert reply.reasoning.effort == "medium" and reply.reasoning.summary == "auto"
    chat = server.client.chat.completions.create(model="default", messages=[{"role": "user", "content": QUESTION}], temperature=0,
                                                 extra_body=thinking(True)).choices[0].message
    assert (thought.content[0].text, reply.output_text) == (chat.reasoning_content, chat.content)
    # The whole output goes back, and the conversation goes on.
    more = server.client.responses.create(model="default", temperature=0, reasoning={"effort": "none"},
                                          input=[{"role": "user", "content": QUESTION}, *reply.output, {"role": "user", "content": "Compute 2 + 2."}])
    messages = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": chat.content}, {"role": "user", "content": "Compute 2 + 2."}]
    same = server.client.chat.completions.create(model="default", messages=messages, temperature=0, extra_body=thinking(False))
    assert more.output_text == same.choices[0].message.content and more.usage.input_tokens == same.usage.prompt_tokens
    assert [i.type for i in server.client.responses.create(model="default", input=QUESTION, reasoning={"effort": "none"}).output] == ["message"]


def test_a_thought_without_an_answer(server):
    reply = create(server, STORY, reasoning={"effort": "high"}, max_output_tokens=3, reasoning_max_tokens=3)
    assert [i["type"] for i in reply["output"]] == ["reasoning"] and reply["output"][0]["status"] == "incomplete"
    assert reply["status"] == "incomplete" and reply["usage"]["output_tokens_details"]["reasoning_tokens"] == 3


def test_logprobs(server):
    fields = dict(model="default", input=QUESTION, temperature=0, reasoning={"effort": "high"}, top_logprobs=2,
                  include=["message.output_text.logprobs"])
    reply = server.client.responses.create(**fields)
    part = reply.output[-1].content[0]
    assert reply.top_logprobs == 2 and part.logprobs
    assert b"".join(bytes(e.bytes) for e in part.logprobs).decode().strip() == part.text.strip()
    for entry in part.logprobs:
        assert entry.logprob <= 0 and len(entry.top_logprobs) == 2 and entry.top_logprobs[0].logprob == pytest.approx(entry.logprob)
    entries, done = [], None
    for event in server.client.responses.create(stream=True, **fields):
        if event.type == "response.output_text.delta":
            entries += event.logprobs
        if event.type == "response.output_text.done":
            done = event.logprobs
    assert [e.model_dump() for e in entries] == [e.model_dump() for e in done] and [e.token for e in done] == [e.token for e in part.logprobs]
    assert create(server)["output"][-1]["content"][0]["logprobs"] == []


def test_pictures(server):
    picture = "data:image/png;base64," + base64.b64encode((EVAL / "media" / "describe-000-0.png").read_bytes()).decode()
    question = next(q for q in questions() if q["id"].startswith("describe-000"))
    text = question["messages"][-1]["content"][-1]["text"]
    content = [{"type": "input_image", "image_url": picture, "detail": "auto"}, {"type": "input_text", "text": text}]
    reply = server.client.responses.create(model="default", input=[{"role": "user", "content": content}], temperature=0, reasoning={"effort": "none"})
    chat = server.client.chat.completions.create(
        model="default", temperature=0, extra_body=thinking(False),
        messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": picture}}, {"type": "text", "text": text}]}])
    assert reply.output_text == chat.choices[0].message.content and reply.usage.input_tokens == chat.usage.prompt_tokens
    low = server.client.responses.create(model="default", temperature=0, max_output_tokens=1,
                                         input=[{"role": "user", "content": [{**content[0], "detail": "low"}, content[1]]}])
    assert low.usage.input_tokens <= reply.usage.input_tokens
    broken = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}
    with pytest.raises(openai.APIStatusError) as error:
        server.client.responses.create(model="default", input=[{"role": "user", "content": "a"}, {"role": "user", "content": [content[1], broken]}])
    assert error.value.status_code == 415 and error.value.param == "input" and "input[1].content[1].image_url" in error.value.message, error.value.message


@pytest.fixture(scope="module", params=["hermes", "ernie-x1"])
def tool_server(request):
    server = Server(*BASE_FLAGS, "--tool-call-parser", request.param)
    yield server
    assert server.stop() == 0, server.log_text()


def flat(tools):
    return [{"type": "function", "strict": None, **tool["function"]} for tool in tools]


def ask_with_tools(server, question, stream=False, **fields):
    fields = dict(model="default", input=question["messages"], tools=flat(question["tools"]), temperature=0, max_output_tokens=256,
                  reasoning={"effort": "high" if question["enable_thinking"] else "none"}) | fields
    if not stream:
        return server.client.responses.create(**fields)
    with server.client.responses.stream(**fields) as events_of:
        return events_of.get_final_response()


def test_tools(tool_server):
    called = 0
    for question in TOOLS:
        chat = tool_server.client.chat.completions.create(model="default", messages=question["messages"], tools=question["tools"], temperature=0,
                                                          max_tokens=256, extra_body=thinking(question["enable_thinking"])).choices[0].message
        whole, streamed = ask_with_tools(tool_server, question), ask_with_tools(tool_server, question, stream=True)
        for reply in (whole, streamed):
            assert reply.status == "completed" and reply.output_text == (chat.content or "")
            calls = [(i.name, i.arguments) for i in reply.output if i.type == "function_call"]
            assert calls == [(c.function.name, c.function.arguments) for c in chat.tool_calls or []]
            assert all(i.call_id.startswith("call_") and i.status == "completed" for i in reply.output if i.type == "function_call")
            assert (reply.output[0].type == "reasoning") == question["enable_thinking"]
        assert whole.usage.output_tokens == streamed.usage.output_tokens
        called += bool(chat.tool_calls)
    assert called >= 5


def test_tools_loop(tool_server):
    """Call, result, answer, with the items as the client got them; the prompt is that of a chat."""
    question = next(q for q in TOOLS if q["reply"].split("</think>")[-1].strip().startswith("<tool_call>"))
    first = ask_with_tools(tool_server, question)
    (call,) = [i for i in first.output if i.type == "function_call"]
    result = json.dumps({"result": 42})
    items = [*question["messages"], *first.output, {"type": "function_call_output", "call_id": call.call_id, "output": result}]
    second = ask_with_tools(tool_server, question, input=items)
    messages = [*question["messages"],
                {"role": "assistant", "content": first.output_text,
                 "tool_calls": [{"id": "1", "type": "function", "function": {"name": call.name, "arguments": call.arguments}}]},
                {"role": "tool", "tool_call_id": "1", "content": result}]
    chat = tool_server.client.chat.completions.create(model="default", messages=messages, tools=question["tools"], temperature=0, max_tokens=256,
                                                      extra_body=thinking(question["enable_thinking"]))
    assert second.usage.input_tokens == chat.usage.prompt_tokens and second.output_text == (chat.choices[0].message.content or "")
    parts = [{"type": "input_text", "text": result}]
    third = ask_with_tools(tool_server, question, input=[*items[:-1], {**items[-1], "output": parts}])
    assert third.usage.input_tokens == second.usage.input_tokens
    none = ask_with_tools(tool_server, question, tool_choice="none")
    assert all(i.type != "function_call" for i in none.output) and none.tool_choice == "none"


@pytest.mark.parametrize("fields, param, words", [
    ({"input": None}, "input", "input is missing"),
    ({"previous_response_id": "resp_1"}, "previous_response_id", "nothing is stored"),
    ({"conversation": {"id": "c"}}, "conversation", "nothing is stored"),
    ({"background": True}, "background", "nothing is stored"),
    ({"tools": [{"type": "web_search"}]}, "tools", "web_search"),
    ({"tool_choice": "required"}, "tool_choice", "structured output"),
    ({"truncation": "auto"}, "truncation", "still to come"),
    ({"text": {"format": {"type": "json_object"}}}, "text.format", "structured output"),
    ({"max_tokens": 5}, "max_tokens", "max_output_tokens"),
    ({"max_output_tokens": 0}, "max_output_tokens", "from 1 to"),
    ({"temperature": "hot"}, "temperature", "a number"),
    ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]}, "input", "input_file"),
    ({"input": [{"type": "item_reference", "id": "m"}]}, "input", "item_reference"),
    ({"input": "word " * 9000}, "input", "maximum context length"),
])
def test_refusals(server, fields, param, words):
    reply = server.http.post("/v1/responses", json={"input": "a", **fields})
    error = reply.json()["error"]
    assert reply.status_code == 400 and error["param"] == param and words in error["message"], error


def test_errors_of_the_client(server, start_server):
    with pytest.raises(openai.BadRequestError) as error:
        server.client.responses.create(model="default", input="a", previous_response_id="resp_1")
    assert error.value.code == "unsupported_parameter" and error.value.param == "previous_response_id"
    for ask in (lambda c: c.retrieve("resp_1"), lambda c: c.delete("resp_1"), lambda c: c.cancel("resp_1"), lambda c: c.input_items.list("resp_1")):
        with pytest.raises(openai.NotFoundError) as error:
            ask(server.client.responses)
        assert "not stored" in error.value.message
    named = start_server("--max-model-len", "512", "--served-model-name", "other", "--strict-requests", "--api-key", "secret")
    with pytest.raises(openai.AuthenticationError):
        named.client.responses.create(model="other", input="a")
    client = named.client.with_options(api_key="secret")
    with pytest.raises(openai.NotFoundError) as error:
        client.responses.create(model="default-not", input="a")
    assert error.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as error:
        client.responses.create(model="other", input="a", extra_body={"inputt": 1})
    assert "did you mean input?" in error.value.message
    assert client.responses.create(model="other", input="a", max_output_tokens=2).usage.output_tokens <= 2


def test_unknown_and_own_fields(server):
    reply = server.http.post("/v1/responses", json={"input": QUESTION, "max_output_tokens": 4, "n": 2, "return_token_ids": True})
    assert reply.status_code == 200 and reply.headers["x-fastdeploy-ignored"] == "n, return_token_ids"
    fields = {"text": STORY, "temperature": 1.0, "seed": 7, "top_k": 50, "min_p": 0.01, "repetition_penalty": 1.1, "max_output_tokens": 30,
              "chat_template_kwargs": {"enable_thinking": False}}
    first, second = create(server, **fields), create(server, **fields)
    assert plain(first) == plain(second) and first["temperature"] == 1.0
    assert create(server, request_id="mine", max_output_tokens=1)["id"] == "resp_mine"


ODD = [None, True, -1, 1e308, "", "x", [], {}, [None], [{}], {"a": None}, {"type": None}, [{"type": "x"}], [{"type": 7}],
       [{"role": "user", "content": [{}]}], [{"type": "function_call_output", "call_id": "c", "output": {}}],
       [{"type": "reasoning", "content": [{}]}], {"format": {}, "effort": 7}, "\u0000", "\U0001f600" * 600]


def test_odd_values(server):
    """Whatever stands in a field: an answer, or an error that says which field."""
    fields = server.http.get("/openapi.json").json()["components"]["schemas"]["ResponsesRequest"]["properties"]
    assert {"input", "instructions", "reasoning", "text", "tools", "min_p"} <= set(fields)
    for name in fields:
        for value in ODD:
            body = {"input": "a", "max_output_tokens": 1, name: value}
            reply = server.http.post("/v1/responses", json=body)
            if reply.status_code == 200:
                assert reply.text.startswith("event: ") if body.get("stream") else reply.json()["object"] == "response", body
            else:
                error = reply.json()["error"]
                assert reply.status_code in (400, 404, 415) and error["param"], (body, error)
                assert error["param"].split(".")[0] == name, (body, error)


def test_a_client_that_leaves(server):
    with server.http.stream("POST", "/v1/responses", json={"input": STORY, "stream": True, "ignore_eos": True, "max_output_tokens": 3000}) as reply:
        for _ in zip(range(10), reply.iter_lines()):
            pass
    server.wait_idle(30)


def test_a_stream_that_fails(start_server):
    server = start_server("--admin-key", "boss", "--max-model-len", "4096", "--reasoning-parser", "ernie-45-vl")
    stream = server.client.responses.create(model="default", input=STORY, stream=True, extra_body={"ignore_eos": True}, max_output_tokens=3000)
    found = [next(stream) for _ in range(8)]
    reply = server.http.post("/v1/abort_requests", json={"req_ids": [found[0].response.id]}, headers={"Authorization": "Bearer boss"})
    assert reply.json()["aborted"] == 1
    found += list(stream)
    for number, event in enumerate(found):
        assert event.sequence_number == number
        check_shape(EVENT.validate_python(event.model_dump(exclude_unset=True), strict=True))
    error, failed = found[-2:]
    assert error.type == "error" and error.code == "request_aborted" and "admin" in error.message
    assert failed.type == "response.failed" and failed.response.status == "failed" and failed.response.error.message == error.message
    assert failed.response.output[-1].status == "incomplete"
    server.wait_idle(10)
