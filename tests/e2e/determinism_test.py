"""Alone or among others, again or for the first time: the same tokens and the same log-probabilities; and how a client can tell."""

import concurrent.futures

import httpx
from conftest import BASE_FLAGS, EVAL, ask

PICTURE = EVAL / "media" / "describe-000-0.png"


def answers(server, how_many_at_once):
    """What each request got: its text and log-probabilities, twice each."""
    def run(i):
        reply = server.client.chat.completions.create(
            model="default", messages=ask("Describe this picture.", PICTURE) if i % 4 == 0 else ask(f"Count from {i % 8} to twenty."),
            max_tokens=24, seed=7, temperature=0 if i % 2 else 1.0, logprobs=True, top_logprobs=3,
            extra_body={"repetition_penalty": 1.1} if i % 3 == 0 else None)
        return [(t.token, t.logprob, [(p.token, p.logprob) for p in t.top_logprobs]) for t in reply.choices[0].logprobs.content]

    with concurrent.futures.ThreadPoolExecutor(how_many_at_once) as pool:
        found = list(pool.map(run, range(48)))
    return found


def test_the_same_answers_alone_and_among_others(start_server):
    alone = None
    for flags, at_once in ((("--no-enable-prefix-caching",), 1), (("--no-enable-prefix-caching",), 16), ((), 16),
                           (("--max-num-batched-tokens", "33", "--num-kv-pages", "64"), 12)):
        server = start_server(*BASE_FLAGS, "--deterministic", *flags)
        found = answers(server, at_once)
        alone = alone or found
        assert found == alone, (flags, at_once)


def test_a_client_can_tell(start_server, monkeypatch):
    prints = []
    monkeypatch.setenv("FD_DETERMINISTIC_MODE", "1")
    for flags in ((), ("--deterministic",), ("--dtype", "float32")):
        server = start_server(*BASE_FLAGS, *flags)
        assert "FD_DETERMINISTIC_MODE" not in server.log_text()
        model = httpx.get(server.url + "/v1/models").json()["data"][0]
        assert model["deterministic"] is True  # the CPU always is
        fingerprint = model["system_fingerprint"]
        assert fingerprint.startswith("fp_") and len(fingerprint) == 15
        chat = server.client.chat.completions
        assert chat.create(model="default", messages=ask("Hi."), max_tokens=2).system_fingerprint == fingerprint
        chunks = list(chat.create(model="default", messages=ask("Hi."), max_tokens=2, stream=True, stream_options={"include_usage": True}))
        assert {c.system_fingerprint for c in chunks} == {fingerprint}
        completions = server.client.completions
        assert completions.create(model="default", prompt="Hi", max_tokens=2).system_fingerprint == fingerprint
        assert {c.system_fingerprint for c in completions.create(model="default", prompt="Hi", max_tokens=2, stream=True)} == {fingerprint}
        prints.append(fingerprint)
    assert prints[0] == prints[1] != prints[2]
