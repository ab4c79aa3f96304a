"""A server with --runner pooling: embeddings over the official client and over plain HTTP."""

import base64
import concurrent.futures
import json
import math
import shutil
import struct
import threading
import time

import openai
import pytest

from conftest import EVAL, MODEL, Server, ask, image_part, is_idle

FLAGS = ("--runner", "pooling", "--max-model-len", "2048", "--max-num-seqs", "8", "--max-num-batched-tokens", "384",
         "--limit-mm-per-prompt", '{"image": 4}')
TEXTS = ["Compute 45 + 11.", "What is in the picture?", "a", "The quick brown fox jumps over the lazy dog. " * 30, "Antwort: 42"]
PICTURES = [EVAL / "media" / name for name in ("describe-000-0.png", "describe-001-0.jpg")]


@pytest.fixture(scope="module")
def pooling_server():
    server = Server(*FLAGS, "--admin-key", "root", "--no-enable-prefix-caching")
    yield server
    code = server.stop()
    assert code == 0, f"the server ended with code {code}:\n" + server.log_text()


@pytest.fixture
def embedder(pooling_server):
    """The module's server; every test must leave it alive, idle and without a page in use."""
    yield pooling_server
    assert pooling_server.process.poll() is None, "the server died:\n" + pooling_server.log_text()
    pooling_server.wait_idle(10)


def embed(server, path="/v1/embeddings", **fields):
    reply = server.http.post(path, json=fields)
    assert reply.status_code == 200, reply.text
    return [entry["data" if path.endswith("/pooling") else "embedding"] for entry in reply.json()["data"]]


def refusal(server, path="/v1/embeddings", **fields):
    reply = server.http.post(path, json=fields)
    assert reply.status_code == 400, reply.text
    error = reply.json()["error"]
    assert error["type"] == "invalid_request_error"
    return error


def length(vector):
    return math.sqrt(sum(x * x for x in vector))


def test_official_client(embedder):
    create = embedder.client.embeddings.create
    model = embedder.client.models.list().data[0].id
    coded = create(model=model, input=TEXTS)  # base64, which the client decodes
    plain = create(model=model, input=TEXTS, encoding_format="float")
    assert [e.index for e in plain.data] == list(range(len(TEXTS)))
    assert coded.object == plain.object == "list" and plain.data[0].object == "embedding" and plain.model == model
    hidden = len(plain.data[0].embedding)
    for a, b in zip(plain.data, coded.data):
        assert len(a.embedding) == hidden and a.embedding == pytest.approx(b.embedding, abs=1e-7)
        assert length(a.embedding) == pytest.approx(1, abs=1e-5)
    ids = [embedder.http.post("/tokenize", json={"prompt": t}).json()["tokens"] for t in TEXTS]
    assert plain.usage.prompt_tokens == plain.usage.total_tokens == sum(map(len, ids))
    alone = [create(model=model, input=t, encoding_format="float").data[0].embedding for t in TEXTS]
    assert alone == [e.embedding for e in plain.data], "other bits alone than together"
    by_ids = create(model=model, input=ids, encoding_format="float")
    assert [e.embedding for e in by_ids.data] == alone
    assert create(model=model, input=ids[0], encoding_format="float").data[0].embedding == alone[0]
    assert len({tuple(v) for v in alone}) == len(TEXTS)


def test_async_client_many_at_once(embedder):
    import asyncio
    texts = [f"Number {i} of many, {'long ' * (i % 50)}" for i in range(60)]
    one_by_one = embed(embedder, input=texts)

    async def all_at_once():
        async with openai.AsyncOpenAI(base_url=embedder.url + "/v1", api_key="none", timeout=120, max_retries=0) as client:
            replies = await asyncio.gather(*(client.embeddings.create(model="default", input=t, encoding_format="float") for t in texts))
            return [r.data[0].embedding for r in replies]

    assert asyncio.run(all_at_once()) == one_by_one


def test_base64_is_little_endian_float32(embedder):
    (numbers,) = embed(embedder, input="a")
    (text,) = embed(embedder, input="a", encoding_format="base64", embed_dtype="float32", endianness="little")
    assert base64.b64decode(text, validate=True) == struct.pack(f"<{len(numbers)}f", *numbers)


def test_pooling_endpoint(embedder):
    (vector,) = embed(embedder, input=TEXTS[0])
    for path in ("/pooling", "/v1/pooling"):
        reply = embedder.http.post(path, json={"input": TEXTS[0], "task": "embed", "request_id": "r7"}).json()
        assert reply["id"] == "pool-r7" and reply["object"] == "list"
        assert reply["data"] == [{"index": 0, "object": "pooling", "data": vector}]
    assert "embed" in refusal(embedder, "/pooling", input="a", task="token_embed")["message"]


def test_conversations_and_pictures(embedder):
    text = embed(embedder, messages=ask("What is it?"))[0]
    assert text != embed(embedder, messages=ask("What is it?"), add_generation_prompt=True)[0]
    seen = [embed(embedder, messages=ask("What is it?", p))[0] for p in PICTURES]
    assert seen[0] != seen[1] and text not in seen
    assert embed(embedder, messages=ask("What is it?", PICTURES[0]))[0] == seen[0], "not the same again"
    reply = embedder.http.post("/v1/embeddings", json={"messages": ask("What is it?", *PICTURES)})
    assert reply.status_code == 200, reply.text
    tokens = embedder.http.post("/tokenize", json={"messages": ask("What is it?", *PICTURES)}).json()["count"]
    assert 0 < tokens - reply.json()["usage"]["prompt_tokens"] < 16, "but for the tokens that begin an answer"
    smaller = embed(embedder, messages=ask("What is it?", PICTURES[0]), mm_processor_kwargs={"image_max_pixels": 4704})[0]
    assert smaller != seen[0]
    assert "pictures" in refusal(embedder, messages=ask("a", PICTURES[0]), truncate_prompt_tokens=5)["message"]
    assert "limit-mm-per-prompt" in refusal(embedder, messages=ask("a", *([PICTURES[0]] * 5)))["message"]
    assert refusal(embedder, messages=ask("a"), input="a")["param"] == "messages"


def test_normalize_and_truncation(embedder):
    raw = embed(embedder, input=TEXTS[3], normalize=False)[0]
    unit = embed(embedder, input=TEXTS[3])[0]
    assert length(raw) > 1.5 and [x / length(raw) for x in raw] == pytest.approx(unit, abs=1e-6)
    ids = embedder.http.post("/tokenize", json={"prompt": TEXTS[3]}).json()["tokens"]
    assert embed(embedder, input=TEXTS[3], truncate_prompt_tokens=40) == embed(embedder, input=ids[:40])
    huge = "word " * 4000
    error = refusal(embedder, input=["a", huge])
    assert error["code"] == "context_length_exceeded" and error["param"] == "input"
    assert all(part in error["message"] for part in ("input[1]", "2048", "--max-model-len", "truncate_prompt_tokens"))
    reply = embedder.http.post("/v1/embeddings", json={"input": ["a", huge], "truncate_prompt_tokens": -1}).json()
    assert reply["usage"]["prompt_tokens"] == 2048 + len(embedder.http.post("/tokenize", json={"prompt": "a"}).json()["tokens"])
    bare = embedder.http.post("/v1/embeddings", json={"input": "a", "add_special_tokens": False}).json()["usage"]["prompt_tokens"]
    assert bare == embedder.http.post("/tokenize", json={"prompt": "a", "add_special_tokens": False}).json()["count"]


def test_what_is_refused(embedder):
    assert refusal(embedder)["param"] == "input"
    for wrong in ("", [], ["a", ""], [[]], ["a", 1], {"a": 1}, 3, [-1], [1 << 40], [1.5]):
        assert refusal(embedder, input=wrong)["param"] == "input"
    assert "--max-embedding-inputs" in refusal(embedder, input=["a"] * 2049)["message"]
    assert "matryoshka" in refusal(embedder, input="a", dimensions=8)["message"]
    assert refusal(embedder, input="a", encoding_format="hex")["param"] == "encoding_format"
    reply = embedder.http.post("/v1/embeddings", json={"input": "a", "temperature": 1})
    assert reply.status_code == 200 and reply.headers["x-fastdeploy-ignored"] == "temperature"
    with pytest.raises(openai.BadRequestError, match="empty"):
        embedder.client.embeddings.create(model="default", input="")
    assert embedder.http.get("/v1/embeddings").status_code == 405


def test_each_runner_names_the_other(embedder, server):
    for path in ("/v1/chat/completions", "/v1/completions", "/v1/chat/completions/render"):
        error = refusal(embedder, path, messages=ask("a"), prompt="a")
        assert error["code"] == "unsupported_endpoint" and "--runner generate" in error["message"] and path in error["message"]
    for path in ("/v1/embeddings", "/pooling", "/v1/pooling"):
        error = refusal(server, path, input="a")
        assert error["code"] == "unsupported_endpoint" and "--runner pooling" in error["message"]
    for either in (embedder, server):
        assert "score head" in refusal(either, "/v1/reward", messages=ask("a"))["message"]
    for path in ("/v1/models", "/health", "/load", "/version", "/openapi.json", "/config-info", "/metrics"):
        assert embedder.http.get(path).status_code == 200, path
    schema = embedder.http.get("/openapi.json").json()["components"]["schemas"]["EmbeddingRequest"]["properties"]
    assert {"input", "messages", "dimensions", "encoding_format", "truncate_prompt_tokens", "normalize"} <= set(schema)


def test_metrics_count_embeddings(embedder):
    before = embedder.metrics()
    embed(embedder, input=TEXTS)
    tokens = embedder.http.post("/v1/embeddings", json={"input": TEXTS}).json()["usage"]["prompt_tokens"]
    after = embedder.wait_for(is_idle, 10)

    def grown(name):
        return after[name] - before[name]

    assert grown("fastdeploy:request_success_total") == 2 * len(TEXTS)
    assert grown("fastdeploy:prompt_tokens_total") == 2 * tokens
    assert grown("fastdeploy:generation_tokens_total") == 0


def test_who_leaves_and_who_is_ended(embedder):
    import httpx
    many = [[5] * 1500] * 300
    with pytest.raises(httpx.TimeoutException):
        httpx.post(embedder.url + "/v1/embeddings", json={"input": many}, timeout=1)
    embedder.wait_idle(20)
    result = []
    thread = threading.Thread(target=lambda: result.append(embedder.http.post(
        "/v1/embeddings", json={"input": many}, headers={"x-request-id": "long-one"})))
    thread.start()
    admin = {"Authorization": "Bearer root"}
    deadline = time.monotonic() + 60
    while True:
        reply = embedder.http.post("/v1/abort_requests", json={"req_ids": ["long-one"]}, headers=admin).json()
        if reply["aborted"]:
            break
        assert time.monotonic() < deadline and thread.is_alive()
        time.sleep(0.02)
    thread.join(60)
    assert result[0].status_code == 400 and result[0].json()["error"]["code"] == "request_aborted"


def test_a_large_request_lets_others_through(embedder):
    """It takes a few places of the queue at a time, so that another one waits for a few inputs and not for all."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        large = pool.submit(embed, embedder, input=[[5] * 600] * 60)
        embedder.wait_for(lambda m: m["fastdeploy:num_requests_running"] > 0, 60)
        embed(embedder, input="a")
        assert not large.done(), "the small request waited for the large one"
        assert len(large.result()) == 60


def test_mean_is_the_same_for_every_chunk_size(start_server):
    vectors = []
    for budget in ("33", "2048"):
        mean = start_server("--task", "embed", "--max-model-len", "2048", "--max-num-batched-tokens", budget,
                            "--pooler-config", '{"pooling_type": "MEAN", "normalize": false}')
        assert "mean of all tokens" in mean.log_text()
        vectors.append(embed(mean, input=TEXTS))
        vectors.append(embed(mean, messages=ask("What is it?", PICTURES[0])))
    assert vectors[0] == vectors[2] and vectors[1] == vectors[3]
    assert all(abs(length(v) - 1) > 0.01 for v in vectors[0])


def test_the_first_token(start_server):
    first = start_server("--convert", "embed", "--max-model-len", "512", "--override-pooler-config", '{"pooling_type": "CLS"}')
    same, also, other = embed(first, input=[[5, 6, 7], [5, 9], [6, 6, 7]])
    assert same == also != other


def test_dimensions_of_a_model_made_for_it(start_server, tmp_path):
    folder = tmp_path / "matryoshka"
    shutil.copytree(MODEL, folder)
    config = json.loads((folder / "config.json").read_text())
    hidden = config.get("hidden_size") or config["text_config"]["hidden_size"]
    config["matryoshka_dimensions"] = [8, hidden]
    (folder / "config.json").write_text(json.dumps(config))
    short = start_server("--runner", "pooling", "--max-model-len", "512", "--pooler-config", '{"dimensions": 8}', model=folder)
    whole = short.client.embeddings.create(model="default", input="a", dimensions=hidden, encoding_format="float").data[0].embedding
    (cut,) = embed(short, input="a")
    assert len(cut) == 8 and len(whole) == hidden and length(cut) == pytest.approx(1, abs=1e-5)
    assert [x / length(whole[:8]) for x in whole[:8]] == pytest.approx(cut, abs=1e-6)
    assert "8, " in refusal(short, input="a", dimensions=9)["message"]


def test_no_head_is_planned(start_server):
    """The plan of a server that pools lacks the head and the logits."""
    def weights(log):
        number, unit = log.split("memory: weights ")[1].split()[:2]
        return float(number) * {"B": 1, "KB": 1e3, "KiB": 1024, "MB": 1e6, "MiB": 1 << 20, "GB": 1e9, "GiB": 1 << 30}[unit]

    logs = [start_server("--max-model-len", "512", *flags).log_text() for flags in ((), ("--runner", "pooling"))]
    assert weights(logs[1]) < weights(logs[0]), logs
