"""Log-probabilities of prompts: prompt_logprobs, and echo with logprobs as evaluation harnesses use it."""

import math

import pytest

from conftest import BASE_FLAGS, EVAL, Server, ask, image_part

TEXT = "User: Compute 45 + 11.\nAssistant: <think>\n\n</think>\n\n"
ODD = "Grüße, 世界 \U0001f642 über naïve Wörter.\n"


def post(server, path="/v1/completions", **body):
    response = server.http.post(path, json={"temperature": 0, "max_tokens": 8, **body})
    assert response.status_code == 200, response.text
    return response.json()


def refused(server, path="/v1/completions", **body):
    response = server.http.post(path, json={"max_tokens": 8, **body})
    assert response.status_code == 400, response.text
    return response.json()["error"]


def check_list(entries, ids, top):
    """vLLM's list against the prompt's token ids."""
    assert len(entries) == len(ids) and entries[0] is None
    for token_id, entry in zip(ids[1:], entries[1:]):
        assert next(iter(entry)) == str(token_id)
        assert top <= len(entry) <= top + 1
        own = entry[str(token_id)]
        assert own["rank"] >= 1 and -9999 <= own["logprob"] <= 0 and isinstance(own["decoded_token"], str)
        listed = sorted((v for v in entry.values() if v["rank"] <= top), key=lambda v: v["rank"])
        assert [v["rank"] for v in listed] == list(range(1, top + 1))
        values = [v["logprob"] for v in listed]
        assert values == sorted(values, reverse=True) and sum(map(math.exp, values)) <= 1.0001
        if own["rank"] > top > 0:
            assert own["logprob"] <= values[-1]


@pytest.mark.parametrize("prompt", [TEXT, ODD, "a"])
def test_echo_of_a_prompt_alone(server, prompt):
    reply = server.client.completions.create(model="default", prompt=prompt, max_tokens=0, echo=True, logprobs=2)
    choice, lp = reply.choices[0], reply.choices[0].logprobs
    assert choice.text == prompt and choice.finish_reason == "length" and reply.usage.completion_tokens == 0
    assert len(lp.tokens) == len(lp.token_logprobs) == len(lp.top_logprobs) == len(lp.text_offset) == reply.usage.prompt_tokens
    assert lp.token_logprobs[0] is None and lp.top_logprobs[0] is None
    for token, value, top, offset in list(zip(lp.tokens, lp.token_logprobs, lp.top_logprobs, lp.text_offset))[1:]:
        assert value <= 0 and top[token] == value and 1 <= len(top) <= 3
        assert token.startswith("bytes:") or prompt[offset:].startswith(token), (token, offset)
    if prompt == TEXT:
        assert "".join(lp.tokens) == prompt


def test_echo_goes_on_with_the_answer(server):
    plain = post(server, prompt=TEXT, logprobs=2)["choices"][0]
    choice = post(server, prompt=TEXT, logprobs=2, echo=True)["choices"][0]
    assert choice["text"] == TEXT + plain["text"]
    lp, answer = choice["logprobs"], plain["logprobs"]
    count = len(answer["tokens"])
    for name in ("tokens", "token_logprobs", "top_logprobs"):
        assert lp[name][-count:] == answer[name]
    assert lp["text_offset"][-count:] == [len(TEXT) + offset for offset in answer["text_offset"]]
    # In a stream the echo's chunk brings those of the prompt.
    streamed = {name: [] for name in lp}
    text = ""
    for chunk in server.client.completions.create(model="default", prompt=TEXT, temperature=0, max_tokens=8, echo=True, logprobs=2,
                                                  stream=True):
        text += chunk.choices[0].text
        if chunk.choices[0].logprobs:
            for name in streamed:
                streamed[name] += getattr(chunk.choices[0].logprobs, name)
    assert text == choice["text"] and streamed == lp


def test_a_prompt_is_scored_as_its_tokens_were_drawn(server):
    drawn = post(server, prompt=TEXT, logprobs=5, max_tokens=12, return_token_ids=True, ignore_eos=True)["choices"][0]
    prompt, answer = drawn["prompt_token_ids"], drawn["completion_token_ids"]
    scored = post(server, prompt=prompt + answer, logprobs=5, echo=True, max_tokens=0)["choices"][0]["logprobs"]
    count = len(drawn["logprobs"]["token_logprobs"])
    for k in range(count):
        assert scored["token_logprobs"][len(prompt) + k] == pytest.approx(drawn["logprobs"]["token_logprobs"][k], abs=2e-3)
        # What a harness calls greedy.
        top = scored["top_logprobs"][len(prompt) + k]
        assert scored["token_logprobs"][len(prompt) + k] == max(top.values())


def test_as_an_evaluation_harness_asks(server):
    """Several prompts at once, one token more than it needs, sums over the continuation."""
    contexts, ends = ["User: Compute 45 + 11.\nAssistant: <think>\n\n</think>\n\n"] * 3, ["56", "57", "bananas"]
    ids = [[server.http.post("/tokenize", json={"prompt": text}).json()["tokens"] for text in pair]
           for pair in zip(contexts, (c + e for c, e in zip(contexts, ends)))]
    reply = post(server, prompt=[whole for _, whole in ids], max_tokens=1, logprobs=1, seed=1234, echo=True)
    sums = []
    for (context, whole), choice in zip(ids, sorted(reply["choices"], key=lambda c: c["index"])):
        values = choice["logprobs"]["token_logprobs"][len(context):-1]
        # An end token drawn behind the prompt is no part of the text.
        assert len(whole) - len(context) in (len(values), len(values) + 1)
        sums.append(sum(choice["logprobs"]["token_logprobs"][len(context):len(whole)]))
    assert sums[0] == max(sums) and sums[0] > -1


def test_prompt_logprobs_of_completions(server):
    reply = post(server, prompt=[TEXT, ODD], n=2, prompt_logprobs=4, return_token_ids=True)
    assert len(reply["choices"]) == 4
    for choice in reply["choices"]:
        check_list(choice["prompt_logprobs"], choice["prompt_token_ids"], 4)
        assert choice["logprobs"] is None
    assert reply["choices"][0]["prompt_logprobs"] == reply["choices"][1]["prompt_logprobs"]
    # The numbers of echo, and the answer as without them.
    echo = post(server, prompt=TEXT, max_tokens=0, echo=True, logprobs=0)["choices"][0]["logprobs"]["token_logprobs"]
    first = reply["choices"][0]
    assert [next(iter(e.values()))["logprob"] for e in first["prompt_logprobs"][1:]] == echo[1:]
    assert first["text"] == post(server, prompt=TEXT)["choices"][0]["text"]
    assert "prompt_logprobs" not in post(server, prompt=TEXT)["choices"][0]
    alone = post(server, prompt=TEXT, prompt_logprobs=0, max_tokens=0, return_token_ids=True)["choices"][0]
    check_list(alone["prompt_logprobs"], alone["prompt_token_ids"], 0)
    assert alone["text"] == ""


def test_prompt_logprobs_of_a_chat(server):
    fields = {"messages": ask("Compute 45 + 11."), "chat_template_kwargs": {"enable_thinking": False}, "return_token_ids": True}
    reply = post(server, "/v1/chat/completions", prompt_logprobs=3, logprobs=True, top_logprobs=1, n=2, **fields)
    message = reply["choices"][0]["message"]
    check_list(reply["prompt_logprobs"], message["prompt_token_ids"], 3)
    assert message["content"] == "56" and len(reply["choices"][0]["logprobs"]["content"]) > 0
    typed = server.client.chat.completions.create(model="default", messages=fields["messages"], temperature=0, max_tokens=2,
                                                  extra_body={"prompt_logprobs": 1, "chat_template_kwargs": {"enable_thinking": False}})
    assert len(typed.prompt_logprobs) == typed.usage.prompt_tokens
    assert "prompt_logprobs" not in post(server, "/v1/chat/completions", **fields)


def test_placeholders_of_a_picture_are_scored_as_text_is(server):
    content = [image_part(EVAL / "media" / "color_of-000-0.png"), {"type": "text", "text": "What is it?"}]
    reply = post(server, "/v1/chat/completions", messages=[{"role": "user", "content": content}], prompt_logprobs=2,
                 return_token_ids=True)
    ids = reply["choices"][0]["message"]["prompt_token_ids"]
    check_list(reply["prompt_logprobs"], ids, 2)
    assert reply["usage"]["prompt_tokens_details"]["image_tokens"] > 0


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_chunks_change_nothing(server, chunk):
    flags = list(BASE_FLAGS)
    flags[flags.index("--max-num-batched-tokens") + 1] = str(chunk)
    body = {"prompt": [TEXT * 4, ODD, "a"], "prompt_logprobs": 5, "logprobs": 3, "echo": True}
    whole = post(server, **body)["choices"]
    other = Server(*flags)
    try:
        assert post(other, **body)["choices"] == whole
    finally:
        assert other.stop() == 0


def test_limits(server):
    error = refused(server, prompt=TEXT, prompt_logprobs=21)
    assert error["param"] == "prompt_logprobs" and "--max-logprobs" in error["message"] and "21" in error["message"]
    assert "from 0 to 20" in refused(server, "/v1/chat/completions", messages=ask("x"), prompt_logprobs=-1)["message"]
    assert "stream" in refused(server, "/v1/chat/completions", messages=ask("x"), prompt_logprobs=1, stream=True)["message"]
    assert refused(server, prompt=TEXT, max_tokens=0)["param"] == "max_tokens"
    assert refused(server, "/v1/chat/completions", messages=ask("x"), max_tokens=0, prompt_logprobs=1)["param"] == "max_tokens"
    error = refused(server, prompt=[[5] * 4000] * 4, prompt_logprobs=20)
    assert error["param"] == "prompt_logprobs" and all(x in error["message"] for x in ("16000", "336000", "262144", "--max-prompt-logprobs"))


def test_a_long_prompt_beside_others(server):
    """A whole prompt of rows never lies in memory; who decodes meanwhile gets the same tokens."""
    ids = [(i * 37) % 2500 + 10 for i in range(3000)]
    plain = post(server, prompt=TEXT, return_token_ids=True)["choices"][0]
    reply = post(server, prompt=[ids, plain["prompt_token_ids"]], prompt_logprobs=5)
    check_list(reply["choices"][0]["prompt_logprobs"], ids, 5)
    assert reply["choices"][1]["text"] == plain["text"]
