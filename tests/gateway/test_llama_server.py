"""llama-server's own addresses, as scripts call them, against a real service."""

import json
import urllib.error
import urllib.request
from typing import Any

import pytest

from clients.daemon_process import Daemon
from gateway.conftest import DEMO_MODEL
from gateway.gateway_process import GatewayProcess
from llamad_client import Client
from unit.schedule.fakes import TIMEOUT_SECONDS


def ask(gateway: GatewayProcess, path: str, body: Any = None) -> Any:
    """Return the JSON of an answer."""
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(gateway.url + path, data, timeout=TIMEOUT_SECONDS) as answer:
        return json.load(answer)


def refusal(gateway: GatewayProcess, path: str, body: Any) -> Any:
    """Return the error of an answer."""
    with pytest.raises(urllib.error.HTTPError) as caught:
        ask(gateway, path, body)
    error = json.load(caught.value)["error"]
    assert error["code"] == caught.value.code
    return error


def refusal_of_chat(gateway: GatewayProcess, body: Any) -> Any:
    """Return the error of a chat, which is in OpenAI's shape."""
    with pytest.raises(urllib.error.HTTPError) as caught:
        ask(gateway, "/v1/chat/completions", body)
    return json.load(caught.value)["error"]


def test_props_and_slots_tell_of_the_model(demo_gateway: GatewayProcess) -> None:
    props = ask(demo_gateway, "/props")
    assert props["default_generation_settings"]["n_ctx"] == 1024
    assert props["default_generation_settings"]["params"]["top_k"] > 0
    assert props["model_path"] == DEMO_MODEL.name
    assert "im_start" in props["chat_template"]
    slots = ask(demo_gateway, "/slots?fail_on_no_slot=1")
    assert len(slots) == props["total_slots"]
    assert [slot["id"] for slot in slots] == list(range(len(slots)))


def test_text_becomes_tokens_and_text_again(demo_gateway: GatewayProcess) -> None:
    text = "What 🌍 is this?<|im_end|>"
    tokens = ask(demo_gateway, "/tokenize", {"content": text})["tokens"]
    assert tokens[-1] == 2
    plain = ask(demo_gateway, "/tokenize", {"content": text, "parse_special": False})["tokens"]
    assert len(plain) > len(tokens)
    assert ask(demo_gateway, "/detokenize", {"tokens": plain}) == {"content": text}
    pieces = ask(demo_gateway, "/tokenize", {"content": "🌍 x", "with_pieces": True})["tokens"]
    raw = b"".join(
        p["piece"].encode() if isinstance(p["piece"], str) else bytes(p["piece"]) for p in pieces
    )
    assert raw.decode() == "🌍 x"
    assert any(isinstance(p["piece"], list) for p in pieces)


def test_a_completion_is_the_service_s_in_a_stream_and_whole(
    demo_gateway: GatewayProcess, demo_service: Daemon
) -> None:
    body = {"prompt": "One, two,", "n_predict": 8, "temperature": 0}
    with Client(demo_service.socket) as direct:
        text = direct.generate("One, two,", max_tokens=8, temperature=0).text()
    whole = ask(demo_gateway, "/completion", body)
    assert whole["content"] == text
    assert (whole["stop"], whole["stop_type"], whole["truncated"]) == (True, "limit", False)
    assert whole["tokens_predicted"] == whole["timings"]["predicted_n"] == 8
    request = urllib.request.Request(
        demo_gateway.url + "/completion", json.dumps({**body, "stream": True}).encode()
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
        lines = [line[6:] for line in answer.read().decode().split("\n\n") if line[:5] == "data:"]
    chunks = [json.loads(line) for line in lines]
    assert "".join(chunk["content"] for chunk in chunks) == text
    assert [chunk["stop"] for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    tokens = ask(demo_gateway, "/tokenize", {"content": "One, two,"})["tokens"]
    assert ask(demo_gateway, "/completion", {**body, "prompt": tokens})["content"] == text
    word = ask(demo_gateway, "/completions", {**body, "stop": [text[3:6]]})
    assert (word["stop_type"], word["stopping_word"]) == ("word", text[3:6])


def test_a_list_of_prompts_gets_a_list_of_answers(demo_gateway: GatewayProcess) -> None:
    body = {"n_predict": 6, "temperature": 0}
    text = "One, two,"
    tokens = ask(demo_gateway, "/tokenize", {"content": text})["tokens"]
    single = ask(demo_gateway, "/completion", {**body, "prompt": text})
    prompts = [text, tokens, {"prompt_string": text}, [*tokens[:2], "two,"]]
    answers = ask(demo_gateway, "/completion", {**body, "prompt": prompts})
    assert [answer["index"] for answer in answers] == [0, 1, 2, 3]
    assert [answer["content"] for answer in answers[:3]] == [single["content"]] * 3
    assert [answer["prompt"] for answer in answers[:2]] == [text, tokens]
    (one,) = ask(demo_gateway, "/completion", {**body, "prompt": [text]})
    assert one["content"] == single["content"]
    mixed = ask(demo_gateway, "/completion", {**body, "prompt": [*tokens[:2], " two,"]})
    assert mixed["content"] == single["content"]
    request = urllib.request.Request(
        demo_gateway.url + "/completion",
        json.dumps({**body, "prompt": [text, text], "stream": True}).encode(),
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
        lines = [line[6:] for line in answer.read().decode().split("\n\n") if line[:5] == "data:"]
    streamed = ["", ""]
    for chunk in map(json.loads, lines):
        streamed[chunk["index"]] += chunk["content"]
    assert streamed == [single["content"]] * 2


def test_an_answer_has_the_fields_that_are_asked_for(demo_gateway: GatewayProcess) -> None:
    wanted = ["content", "generation_settings/n_predict", "nothing", "content/x"]
    body = {"prompt": "One, two,", "n_predict": 3, "response_fields": wanted}
    answer = ask(demo_gateway, "/completion", body)
    assert answer.keys() == {"content", "generation_settings/n_predict"}
    assert answer["generation_settings/n_predict"] == 3


def test_a_prompt_is_only_read_where_no_token_is_wanted(demo_gateway: GatewayProcess) -> None:
    body = {"prompt": "One, two,", "n_predict": 0, "max_tokens": 9, "n_probs": 1}
    answer = ask(demo_gateway, "/completion", body)
    assert (answer["content"], answer["tokens_predicted"], answer["stop_type"]) == ("", 0, "limit")
    assert (answer["tokens_evaluated"] > 0, answer["timings"]["predicted_n"]) == (True, 0)
    request = urllib.request.Request(
        demo_gateway.url + "/completion", json.dumps({**body, "stream": True}).encode()
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as stream:
        lines = [line[6:] for line in stream.read().decode().split("\n\n") if line[:5] == "data:"]
    (last,) = map(json.loads, lines)
    assert (last["content"], last["tokens_predicted"], last["stop"]) == ("", 0, True)


def test_other_words_for_off_and_for_the_likeliest_token(demo_gateway: GatewayProcess) -> None:
    body = {"prompt": "One, two, three,", "n_predict": 8, "seed": 1}
    greedy = ask(demo_gateway, "/completion", {**body, "temperature": 0})["content"]
    hot = {**body, "temperature": 2, "top_k": -1}
    assert ask(demo_gateway, "/completion", {**hot, "top_p": 0})["content"] == greedy
    off = ask(demo_gateway, "/completion", {**hot, "top_k": 0})["content"]
    assert ask(demo_gateway, "/completion", hot)["content"] == off


def test_a_bias_may_name_a_text(demo_gateway: GatewayProcess) -> None:
    body = {"prompt": "One, two, three, four,", "n_predict": 1, "temperature": 0}
    word = ask(demo_gateway, "/completion", body)["content"]
    (token,) = ask(demo_gateway, "/tokenize", {"content": word})["tokens"]
    for bias in ([[word, False]], {word: -100}, [[token, -100]], {str(token): -100}):
        answer = ask(demo_gateway, "/completion", {**body, "logit_bias": bias})
        assert answer["content"] != word, bias


def test_a_last_message_of_the_assistant_goes_on(demo_gateway: GatewayProcess) -> None:
    user = {"role": "user", "content": "Count to five."}
    begun = {"role": "assistant", "content": "One, two,"}
    chat: dict[str, Any] = {"messages": [user, begun]}
    for address, more, goes_on in (
        ("/apply-template", {}, True),
        ("/apply-template", {"continue_final_message": True}, True),
        ("/apply-template", {"add_generation_prompt": False}, True),
        ("/apply-template", {"continue_final_message": False}, False),
        ("/apply-template", {"add_generation_prompt": True}, False),
    ):
        prompt = ask(demo_gateway, address, chat | more)["prompt"]
        assert prompt.endswith("One, two,") == goes_on, more
    tool = {"type": "function", "function": {"name": "lamp"}}
    called = ask(demo_gateway, "/apply-template", {**chat, "tools": [tool]})["prompt"]
    assert called.endswith("One, two,")
    required = {**chat, "tools": [tool], "tool_choice": "required"}
    assert ask(demo_gateway, "/apply-template", required)["prompt"].endswith("assistant\n")
    both = {**chat, "continue_final_message": True, "add_generation_prompt": True}
    two = {"messages": [user, begun, begun]}
    for body, named in ((both, "add_generation_prompt"), (two, "two of the assistant")):
        assert named in refusal_of_chat(demo_gateway, body)["message"]


def test_a_chat_s_tokens_are_counted(demo_gateway: GatewayProcess) -> None:
    chat = {"messages": [{"role": "user", "content": "Count to five."}]}
    text = ask(demo_gateway, "/apply-template", chat)["prompt"]
    tokens = ask(demo_gateway, "/tokenize", {"content": text})["tokens"]
    for address in ("/chat/completions/input_tokens", "/v1/chat/completions/input_tokens"):
        assert ask(demo_gateway, address, chat)["input_tokens"] == len(tokens)


def test_samplers_of_llama_server_are_the_service_s(demo_gateway: GatewayProcess) -> None:
    body = {"prompt": "Hello", "n_predict": 40, "seed": 1, "ignore_eos": True, "top_n_sigma": -1}
    more = {"xtc_probability": 0.5, "dry_multiplier": 0.8, "samplers": ["dry", "xtc", "top_k"]}
    plain = ask(demo_gateway, "/completion", body)
    assert plain["tokens_predicted"] == 40
    assert ask(demo_gateway, "/completion", {**body, **more})["content"] != plain["content"]
    wrong = refusal(demo_gateway, "/completion", {**body, "samplers": ["guess"]})
    assert "samplers" in wrong["message"]
    mirostat = {"temperature": 1.5, "mirostat": 2, "mirostat_tau": 0.5}
    assert ask(demo_gateway, "/completion", {**body, **mirostat})["tokens_predicted"] == 40


def test_a_text_follows_a_schema_or_a_grammar(demo_gateway: GatewayProcess) -> None:
    body = {"prompt": "Hello", "temperature": 1.5, "seed": 1}
    schema = {"type": "array", "items": {"type": "integer", "maximum": 9}, "maxItems": 3}
    numbers = json.loads(
        ask(demo_gateway, "/completion", {**body, "json_schema": schema})["content"]
    )
    assert len(numbers) <= 3
    assert all(number <= 9 for number in numbers)
    asked = {**body, "grammar": 'root ::= "a"{3}'}
    assert ask(demo_gateway, "/completion", asked)["content"] == "aaa"


@pytest.mark.parametrize(
    ("path", "body", "status", "named"),
    [
        ("/completion", {"prompt": ""}, 400, "prompt"),
        ("/completion", {"prompt": [1, {}]}, 400, "prompt[1]"),
        ("/completion", {"prompt": [1, "x", 2.5]}, 400, "prompt[2]"),
        ("/completion", {"prompt": []}, 400, "prompt"),
        ("/completion", {"prompt": ["x", ""]}, 400, "prompt[1]"),
        ("/completion", {"prompt": ["x", {"prompt_string": 3}]}, 400, "prompt[1].prompt_string"),
        (
            "/completion",
            {"prompt": {"prompt_string": "x", "multimodal_data": ["AA"]}},
            400,
            "multi",
        ),
        ("/completion", {"prompt": ["x"] * 9}, 400, "prompt"),
        ("/completion", {"prompt": "x", "logit_bias": [["the", "no"]]}, 400, "logit_bias"),
        ("/completion", {"prompt": "x", "logit_bias": 3}, 400, "logit_bias"),
        ("/completion", {"prompt": [1, *["x"] * 257]}, 400, "prompt: has 257 texts, at most 256"),
        (
            "/completion",
            {"prompt": "x", "logit_bias": {f"x{n}": 1 for n in range(257)}},
            400,
            "logit_bias: has 257 texts, at most 256",
        ),
        ("/completion", {"prompt": [1, 2.5]}, 400, "prompt[1]"),
        ("/completion", {"prompt": "x", "grammar": "root ::= nothing"}, 400, "nothing"),
        ("/completion", {"prompt": "x", "json_schema": 3}, 400, "json_schema"),
        ("/completion", {"prompt": "x", "json_schema": {}, "grammar": "x"}, 400, "grammar"),
        ("/completion", {"prompt": "x", "n_probs": 21}, 400, "n_probs"),
        ("/completion", {"prompt": "x", "post_sampling_probs": True}, 400, "post_sampling_probs"),
        ("/tokenize", {"content": 3}, 400, "content"),
        ("/detokenize", {"tokens": [1 << 40]}, 400, "tokens"),
        ("/infill", {}, 501, "/infill"),
    ],
)
def test_what_is_wrong_is_named(
    demo_gateway: GatewayProcess, path: str, body: Any, status: int, named: str
) -> None:
    error = refusal(demo_gateway, path, body)
    assert error["code"] == status
    assert named in error["message"]


def test_a_prompt_that_is_too_long_says_both_numbers(demo_gateway: GatewayProcess) -> None:
    error = refusal(demo_gateway, "/completion", {"prompt": "word " * 3000})
    assert error["type"] == "exceed_context_size_error"
    assert (error["n_prompt_tokens"] >= 3000, error["n_ctx"]) == (True, 1024)


def test_metrics_are_the_service_s(demo_gateway: GatewayProcess) -> None:
    with urllib.request.urlopen(demo_gateway.url + "/metrics", timeout=TIMEOUT_SECONDS) as answer:
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert b"llamad_generated_tokens_total" in answer.read()
