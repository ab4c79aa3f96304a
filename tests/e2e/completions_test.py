"""/v1/completions as the official client uses it."""

import pytest

TEXT = "User: Compute 45 + 11.\nAssistant: <think>\n\n</think>\n\n"


def complete(server, prompt=TEXT, **fields):
    fields.setdefault("temperature", 0)
    fields.setdefault("max_tokens", 16)
    return server.client.completions.create(model="default", prompt=prompt, **fields)


def test_text(server):
    reply = complete(server)
    assert reply.object == "text_completion"
    assert reply.id.startswith("cmpl-")
    assert reply.choices[0].text.strip().startswith("56")
    assert reply.choices[0].finish_reason in ("stop", "length")
    assert reply.usage.prompt_tokens > 5


def test_streaming_is_the_same_text(server):
    whole = complete(server).choices[0].text
    chunks = list(complete(server, stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].text for c in chunks if c.choices) == whole
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens > 0


def test_several_prompts_and_n(server):
    reply = complete(server, prompt=[TEXT, "One day"], n=2, max_tokens=4)
    assert [c.index for c in reply.choices] == [0, 1, 2, 3]
    assert reply.choices[0].text == reply.choices[1].text == complete(server, max_tokens=4).choices[0].text


def test_token_ids_as_prompt(server):
    reply = complete(server, prompt=[2569, 23, 288, 315], max_tokens=3)
    assert reply.usage.prompt_tokens == 4
    several = complete(server, prompt=[[2569, 23, 288, 315], [2569, 288]], max_tokens=3)
    assert len(several.choices) == 2
    assert several.choices[0].text == reply.choices[0].text


def test_echo(server):
    response = server.http.post("/v1/completions", json={"prompt": "One day", "max_tokens": 4, "temperature": 0, "echo": True})
    assert response.status_code == 200, response.text
    assert response.json()["choices"][0]["text"].startswith("One day")


@pytest.mark.parametrize("prompt", ["", [], [[]]])
def test_empty_prompt(server, prompt):
    response = server.http.post("/v1/completions", json={"prompt": prompt, "max_tokens": 4})
    assert response.status_code in (200, 400)
    if response.status_code == 400:
        assert response.json()["error"]["type"] == "invalid_request_error"


def test_ids_outside_the_vocabulary(server):
    for ids in ([1, 99999999], [-1], [2.5]):
        response = server.http.post("/v1/completions", json={"prompt": ids, "max_tokens": 4})
        assert response.status_code == 400, ids
        assert "prompt" in response.json()["error"]["message"]
