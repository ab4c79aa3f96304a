"""The table of stream_equal_test.py: 200 requests by name, built from parameters.

A case is (name, server, path, body). Texts of `stop` that depend on the answer are written as functions of the answer without them."""

import itertools
import shutil

from conftest import EVAL, ask, image_part, questions, thinking
from video_files import MEDIA, gif_video, video_part

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
PLAIN, OTHER = "hermes", "ernie-45-vl-thinking"  # servers by their tool parser
STORY = "Tell a story about Li Wei in Paris, a orange green and a cactus."
PROMPTS = {
    "sum": ask("Compute 45 + 11."),
    "story": ask(STORY),
    "emoji": ask("Say this again: \U0001f335 \U0001f468‍\U0001f469‍\U0001f467 é 火箭 café"),
    "turns": [{"role": "system", "content": "You are kind."}, {"role": "user", "content": "My name is Li Wei."},
              {"role": "assistant", "content": "Nice to meet you, Li Wei!"}, {"role": "user", "content": "What is my name?"}],
}
# At this temperature every byte of the vocabulary comes up: broken UTF-8, several scripts, characters of several tokens.
NOISE = {"temperature": 30, "top_p": 1.0, "max_tokens": 40, "ignore_eos": True}


def cut(begin, end):
    """The part of an answer between two shares of its length."""
    return lambda text: text[int(len(text) * begin):max(int(len(text) * end), int(len(text) * begin) + 1)]


def wide(nth):
    """The nth character of an answer that takes several bytes, with its neighbours."""
    def of(text):
        places = [i for i, c in enumerate(text) if ord(c) > 127 and c != "\ufffd"]
        assert len(places) > nth, "the answer has too few such characters for this case"
        return text[places[nth]:places[nth] + 2]
    return of


STOPS = {
    "word": [cut(.5, .6)], "letter": [cut(.4, .4)], "end": [cut(.9, 1)], "begin": [cut(0, .1)], "never": [lambda _: "\u2603never"],
    "overlapping": [cut(.3, .5), cut(.4, .6)], "prefixes": [lambda t: cut(.3, .5)(t) + "x", cut(.35, .45)],
    "nested": [cut(.2, .7), cut(.4, .5)],
}
FIELDS = {
    "plain": {},
    "one_token": {"max_tokens": 1},
    "seven_tokens": {"max_completion_tokens": 7},
    "drawn": {"temperature": 1.3, "top_p": 0.95, "seed": 11},
    "drawn_top_k": {"temperature": 2.0, "top_p": 1.0, "top_k": 5, "seed": -3},
    "drawn_min_p": {"temperature": 2.0, "top_p": 1.0, "min_p": 0.05, "seed": 2**40},
    "penalties": {"repetition_penalty": 1.3, "frequency_penalty": 0.4, "presence_penalty": 0.3},
    "bias": {"logit_bias": {"100": 5, "200": -100, "300": 3.5}},
    "bad_words": {"bad_words": ["the", "5", "Paris"], "bad_words_token_ids": [30, [40, 50]]},
    "min_tokens": {"min_tokens": 20},
    "ignore_eos": {"ignore_eos": True},
    "special_tokens": {"skip_special_tokens": False, "ignore_eos": True},
    "grouped": {"max_streaming_response_tokens": 4},
    "grouped_all": {"max_streaming_response_tokens": 1000},
    "ids": {"return_token_ids": True},
    "allowed": {"allowed_token_ids": list(range(300, 340)), "return_token_ids": True},
    "ids_grouped": {"return_token_ids": True, "max_streaming_response_tokens": 3},
}
CHAT_FIELDS = {
    "token_names": {"logprobs": True, "top_logprobs": 2, "return_tokens_as_token_ids": True},
    "begun": {"completion_token_ids": [2569, 23], "return_token_ids": True},
    "logprobs": {"logprobs": True},
    "top_logprobs": {"logprobs": True, "top_logprobs": 5},
    "logprobs_grouped_ids": {"logprobs": True, "top_logprobs": 1, "max_streaming_response_tokens": 5, "return_token_ids": True},
    "two": {"n": 2, "temperature": 1.5, "top_p": 1.0, "seed": 4},
    "two_logprobs": {"n": 2, "temperature": 1.5, "top_p": 1.0, "seed": 5, "logprobs": True, "return_token_ids": True},
}
TEXT_FIELDS = {
    "logprobs": {"logprobs": 0},
    "top_logprobs": {"logprobs": 3},
    "echo": {"echo": True},
    "echo_ids": {"echo": True, "return_token_ids": True, "max_streaming_response_tokens": 2},
    "two": {"n": 2, "temperature": 1.5, "top_p": 1.0, "seed": 4},
    "echo_logprobs": {"echo": True, "logprobs": 2, "max_streaming_response_tokens": 3},
    "echo_alone": {"echo": True, "logprobs": 1, "max_tokens": 0},
    "cut_prompt": {"truncate_prompt_tokens": 2, "echo": True, "return_token_ids": True},
    "two_echo": {"n": 2, "echo": True, "temperature": 1.5, "seed": 8},
}
TEXTS = {
    "text": "User: Compute 45 + 11.\nAssistant: <think>\n\n</think>\n\n",
    "texts": ["One day", "Tom é\U0001f335", "The cat"],
    "ids": [2569, 23, 288, 315],
    "id_lists": [[2569, 23, 288, 315], [2569, 288]],
}


def chats():
    for prompt, (name, fields) in itertools.product(("sum", "story"), {**FIELDS, **CHAT_FIELDS}.items()):
        yield f"chat-{prompt}-{name}", PLAIN, CHAT, {"messages": PROMPTS[prompt], "max_tokens": 32, **thinking(False), **fields}
    for prompt, name in itertools.product(("emoji", "turns"), ("plain", "drawn", "grouped", "ids", "top_logprobs", "two")):
        fields = {**FIELDS, **CHAT_FIELDS}[name]
        yield f"chat-{prompt}-{name}", OTHER, CHAT, {"messages": PROMPTS[prompt], "max_tokens": 32, **thinking(False), **fields}


def noise():
    for seed, name in itertools.product((1, 2), ("plain", "grouped", "ids", "logprobs_grouped_ids", "special_tokens")):
        fields = {**FIELDS, **CHAT_FIELDS}[name]
        yield f"noise-{seed}-{name}", PLAIN, CHAT, {"messages": PROMPTS["sum"], **thinking(False), **NOISE, "seed": seed, **fields}
    for seed in (3, 4):
        yield f"noise-{seed}-text", PLAIN, TEXT, {"prompt": "One day", **NOISE, "seed": seed, "logprobs": 2, "return_token_ids": True}
    for seed, include in itertools.product((5, 6, 7), (False, True)):
        body = {"messages": PROMPTS["sum"], **thinking(False), **NOISE, "seed": seed, "stop": [wide(seed - 4)],
                "include_stop_str_in_output": include}
        yield f"noise-{seed}-stop_wide-{'kept' if include else 'cut'}", PLAIN, CHAT, body


def thoughts():
    budgets = {"free": {}, "one": {"reasoning_max_tokens": 1}, "five": {"reasoning_max_tokens": 5}, "plenty": {"reasoning_max_tokens": 500},
               "short_answer": {"response_max_tokens": 4}}
    for prompt, (name, fields), server in itertools.product(("sum", "story"), budgets.items(), (PLAIN, OTHER)):
        yield f"thought-{prompt}-{name}-{server}", server, CHAT, {"messages": PROMPTS[prompt], "max_tokens": 60, **thinking(True), **fields}
    for name, fields in {"cut_off": {"max_tokens": 3}, "logprobs_ids": {"logprobs": True, "top_logprobs": 2, "return_token_ids": True},
                         "two_drawn": {"n": 2, "temperature": 1.2, "seed": 3}, "grouped": {"max_streaming_response_tokens": 6},
                         "stop_in_answer": {"stop": [cut(.5, .6)]}, "noise": {**NOISE, "seed": 9}}.items():
        yield f"thought-{name}", PLAIN, CHAT, {"messages": PROMPTS["story"], "max_tokens": 60, **thinking(True), **fields}


def stops():
    for (name, stop), include, prompt in itertools.product(STOPS.items(), (False, True), ("chat", "text")):
        how = {"stop": stop, "include_stop_str_in_output": include, "max_tokens": 32}
        kept = "kept" if include else "cut"
        if prompt == "chat":
            yield f"stop-{name}-{kept}-chat", PLAIN, CHAT, {"messages": PROMPTS["story"], **thinking(False), **how}
        else:
            yield f"stop-{name}-{kept}-text", PLAIN, TEXT, {"prompt": "One day", **how}
    for ids in ([[2569]], [[23, 288, 315]]):
        yield f"stop_ids-{len(ids[0])}", PLAIN, TEXT, {"prompt": "One day", "stop_token_ids": ids[0], "max_tokens": 32, "return_token_ids": True}
    yield "stop-grouped", PLAIN, CHAT, {"messages": PROMPTS["story"], **thinking(False), "stop": [cut(.5, .6)], "max_tokens": 32,
                                        "max_streaming_response_tokens": 7, "logprobs": True, "return_token_ids": True}


def texts():
    for (prompt, value), (name, fields) in itertools.product(TEXTS.items(), TEXT_FIELDS.items()):
        yield f"text-{prompt}-{name}", PLAIN, TEXT, {"prompt": value, "max_tokens": 16, **fields}
    for name in ("drawn", "penalties", "min_tokens", "grouped", "ids", "special_tokens"):
        yield f"text-text-{name}", PLAIN, TEXT, {"prompt": TEXTS["text"], "max_tokens": 24, **FIELDS[name]}


def pictures():
    media = {"one": [EVAL / "media/describe-000-0.png"], "two": [EVAL / "media/describe-000-0.png", EVAL / "media/dialogue-000-0.png"]}
    fields = {"plain": {}, "thought": thinking(True), "ids_logprobs": {"return_token_ids": True, "logprobs": True, "top_logprobs": 1},
              "drawn": {"temperature": 1.0, "seed": 6}, "stop": {"stop": [cut(.5, .6)]}, "chinese": {}}
    for (which, files), (name, extra) in itertools.product(media.items(), fields.items()):
        text = "图片里有什么？" if name == "chinese" else "What is in the picture?"
        yield f"picture-{which}-{name}", PLAIN, CHAT, {"messages": ask(text, *files), "max_tokens": 40, **thinking(False), **extra}
    messages = [{"role": "user", "content": [image_part(media["one"][0]), {"type": "text", "text": "How many shapes are there?"}]},
                {"role": "assistant", "content": "4"}, {"role": "user", "content": "Is there a blue diamond?"}]
    yield "picture-in_a_turn", PLAIN, CHAT, {"messages": messages, "max_tokens": 16, **thinking(False)}


def videos():
    clip = video_part((MEDIA / "h264.mp4").read_bytes()) if shutil.which("ffmpeg") else video_part(gif_video(64, 48, 20, delay_cs=10))
    for name, fields in {"plain": {}, "thought": thinking(True), "ids": {"return_token_ids": True}, "two": {"n": 2, "temperature": 1.0, "seed": 1}}.items():
        messages = [{"role": "user", "content": [clip, {"type": "text", "text": "What changes in the video?"}]}]
        yield f"video-{name}", PLAIN, CHAT, {"messages": messages, "max_tokens": 24, **thinking(False), **fields}


def tools():
    asked = [q for q in questions() if q["task"] == "tool"]
    for (i, q), server in itertools.product(enumerate(asked), (PLAIN, OTHER)):
        body = {"messages": q["messages"], "tools": q["tools"], "max_tokens": 128, **thinking(q["enable_thinking"])}
        yield f"tool-{i}-{server}", server, CHAT, body
    ways = {"ids_logprobs": {"return_token_ids": True, "logprobs": True, "top_logprobs": 1}, "none": {"tool_choice": "none"},
            "cut_off": {"max_tokens": 6}, "grouped": {"max_streaming_response_tokens": 9}, "two": {"n": 2, "temperature": 0.8, "seed": 2}}
    for (name, fields), server in itertools.product(ways.items(), (PLAIN, OTHER)):
        q = asked[0]
        body = {"messages": q["messages"], "tools": q["tools"], "max_tokens": 128, **thinking(q["enable_thinking"]), **fields}
        yield f"tool-{name}-{server}", server, CHAT, body


def table():
    cases = [*chats(), *noise(), *thoughts(), *stops(), *texts(), *pictures(), *videos(), *tools()]
    assert len({c[0] for c in cases}) == len(cases)
    for _, _, _, body in cases:
        body.setdefault("temperature", 0)
    return cases
