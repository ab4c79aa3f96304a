"""The questions of tests/eval and how replies to them are scored; Python's standard library only, for pytest and for tools/gpu_eval.py."""

import base64
import json
import pathlib

EVAL = pathlib.Path(__file__).resolve().parent
# Of 176: see README.md.
RIGHT_AT_LEAST = 174
EXACT_AT_LEAST = 172


def image_part(data, kind="png"):
    if isinstance(data, (str, pathlib.Path)):
        kind = pathlib.Path(data).suffix.lstrip(".").replace("jpg", "jpeg")
        data = pathlib.Path(data).read_bytes()
    return {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64," + base64.b64encode(data).decode()}}


def thinking(on):
    return {"chat_template_kwargs": {"enable_thinking": on}}


def video_part(path):
    return {"type": "video_url", "video_url": {"url": "data:video/mp4;base64," + base64.b64encode(pathlib.Path(path).read_bytes()).decode()}}


def with_media(part):
    """The part with the file it names as a data URL."""
    if part["type"] == "image_url":
        return image_part(EVAL / part["image_url"]["url"])
    if part["type"] == "video_url":
        return video_part(EVAL / part["video_url"]["url"])
    return part


def questions():
    """The lines of questions.jsonl with pictures and videos as data URLs."""
    result = []
    for line in (EVAL / "questions.jsonl").read_text(encoding="utf-8").splitlines():
        question = json.loads(line)
        for message in question["messages"]:
            if isinstance(message["content"], list):
                message["content"] = [with_media(part) for part in message["content"]]
        result.append(question)
    return result


def request_body(question):
    """The chat request that asks a question."""
    fields = {"tools": question["tools"]} if question.get("tools") else {}
    return {"messages": question["messages"], "temperature": 0, "max_tokens": 256, **thinking(question["enable_thinking"]), **fields}


def read_reply(reply):
    """(text as in `reply`, completion tokens, prompt tokens) of a chat completion."""
    message = reply["choices"][0]["message"]
    reasoning = message.get("reasoning_content")
    text = (reasoning + "</think>" if reasoning is not None else "") + (message["content"] or "")
    return text, reply["usage"]["completion_tokens"], reply["usage"]["prompt_tokens"]


def is_right(question, text):
    """The answer after the reasoning says what tests/eval expects."""
    answer = text.split("</think>")[-1].strip()
    try:
        return json.loads(answer) == json.loads(question["answer"])
    except ValueError:
        return answer == question["answer"].strip()


def score(asked, replies):
    """(wrong ids, [(id, text)] of the replies that are not token-exact, ids with other prompt lengths than transformers')."""
    wrong = [q["id"] for q, (text, _, _) in zip(asked, replies) if not is_right(q, text)]
    # The reference tokens decode to `reply`, end token aside; equal text and equal count are equal tokens.
    inexact = [(q["id"], text) for q, (text, count, _) in zip(asked, replies)
               if text != q["reply"] or count != len(q["reference_ids"])]
    prompts = [q["id"] for q, (_, _, count) in zip(asked, replies) if count != q["prompt_tokens"]]
    return wrong, inexact, prompts
