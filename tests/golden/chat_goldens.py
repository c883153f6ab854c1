"""Makes chat/ beside this file: what jinja2 makes of chat templates, set up as transformers sets it up.

    python chat_goldens.py         unchanged sources give unchanged bytes

The templates in chat/templates are ours: they hold the constructs of those that Llama 2, 3, 3.1 and 3.2, SmolLM2,
TinyLlama, Mistral and models made from them publish, and words of our own.
"""

import datetime
import json
import unicodedata
import zlib
from pathlib import Path

import jinja2
from transformers.utils.chat_template_utils import _alias_reasoning_fields, _compile_jinja_template

HERE = Path(__file__).resolve().parent
NOW = datetime.datetime(2024, 7, 26, 15, 4, 5)
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather at a place: temperature, wind & \"sky\" <now>",
        "parameters": {
            "type": "object",
            "properties": {
                "place": {"type": "string", "description": "a town, as \"Köln\""},
                "days": {"type": ["integer", "null"], "minimum": 1, "default": 1.0},
                "hours": {"type": "array", "items": {"type": "number"}},
                "options": {"type": "object", "additionalProperties": {"type": "boolean"}},
                "rest": {"type": "object"},
                "any": {},
            },
            "required": ["place"],
        },
        "return": {"type": "array", "items": {"type": "object"}},
    },
}
NOTHING = {"type": "function", "function": {"name": "noop", "description": "", "parameters": {"type": "object", "properties": {}}}}


def user(content):
    return {"role": "user", "content": content}


def assistant(content):
    return {"role": "assistant", "content": content}


def system(content):
    return {"role": "system", "content": content}


def call(name, arguments, **more):
    return {"type": "function", "function": {"name": name, "arguments": arguments}, **more}


UNICODE = "Größe 你好 שלום 👩‍👩‍👧‍👦 e\u0301 \u00a0nbsp\u3000 \u2028 \ufeff\U0010ffff"
SPECIAL = "<s>[INST] <|im_end|>\n<|eot_id|> {{ messages }} {% raw %} {# #} </s> <<SYS>>"
CONTROL = "tab\there \x00\x01\x1b[31m \x7f \\ \" ' \\n \r\nline\rend"
ASKS = [user("What is the weather in Köln?")]
CALLED = [
    *ASKS,
    {"role": "assistant", "tool_calls": [call("get_weather", {"place": "Köln", "days": "2"}, id="abc123def")]},
    {"role": "tool", "content": "22 °C", "tool_call_id": "abc123def", "name": "get_weather"},
]
TWICE = [
    *ASKS,
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [call("get_weather", {"place": "Köln"}, id="000000001"), call("noop", {}, id="000000002")],
    },
    {"role": "tool", "content": {"celsius": 22.5, "sky": None, "rain": False}, "tool_call_id": "000000001"},
    {"role": "tool", "content": [1, "two", 3e20], "tool_call_id": "000000002"},
    assistant("It is warm."),
    user("Thanks!"),
]

# name, messages, other variables
CONVERSATIONS = [
    ("empty", [], {}),
    ("one", [user("Hello!")], {"add_generation_prompt": True}),
    ("one_without_prompt", [user("Hello!")], {"add_generation_prompt": False}),
    ("system_only", [system("Be kind.")], {"add_generation_prompt": True}),
    ("system", [system(" Be kind.\n"), user("Hi"), assistant(" Hello. \n"), user("Bye\n\n")], {"add_generation_prompt": True}),
    ("assistant_last", [user("Hi"), assistant("Hello.")], {}),
    ("assistant_first", [assistant("Hello."), user("Hi")], {"add_generation_prompt": True}),
    ("twice_user", [user("a"), user("b")], {"add_generation_prompt": True}),
    ("system_in_the_middle", [user("a"), system("s"), user("b")], {}),
    ("unknown_role", [user("a"), {"role": "wizard", "content": "b"}], {}),
    ("no_role", [{"content": "b"}], {}),
    ("no_content", [{"role": "user"}], {}),
    ("none_content", [{"role": "user", "content": None}], {}),
    ("number_content", [user(5)], {}),
    ("empty_content", [user(""), assistant(""), user("")], {"add_generation_prompt": True}),
    ("white_space", [system("\n\t "), user(" \u00a0\u2003x\u3000\n"), assistant("\r\n"), user("\x1f\x85")], {}),
    ("unicode", [system(UNICODE), user(UNICODE), assistant(UNICODE), user("ß ŉ Σας ΑΣ İ ﬁ")], {"add_generation_prompt": True}),
    ("special", [user(SPECIAL), assistant(SPECIAL)], {}),
    ("control", [user(CONTROL), assistant(CONTROL)], {}),
    ("long", [m for i in range(60) for m in (user(f"question {i} " + "x" * i), assistant(f"answer {i}"))], {}),
    ("thinking", [user("a"), assistant("<think>\nhm\n</think>\n\nb"), user("c")], {"add_generation_prompt": True}),
    ("reasoning", [user("a"), {"role": "assistant", "content": "b", "reasoning": "hm"}], {}),
    ("blocks", [user([{"type": "text", "text": "see"}, {"type": "image"}, {"type": "text", "text": UNICODE}])], {}),
    ("bad_block", [user([{"type": "sound"}])], {}),
    ("tools", ASKS, {"tools": [WEATHER, NOTHING], "add_generation_prompt": True}),
    ("tools_not_in_user", [system("s"), *ASKS], {"tools": [WEATHER], "tools_in_user_message": False}),
    ("tools_without_message", [system("s")], {"tools": [WEATHER]}),
    ("no_tools", ASKS, {"tools": []}),
    ("bare_tool", ASKS, {"tools": [NOTHING["function"]]}),
    ("called", CALLED, {"tools": [WEATHER], "add_generation_prompt": True}),
    ("builtin", CALLED, {"builtin_tools": ["get_weather", "code_interpreter", "search"], "date_string": "1 Jan 2025"}),
    ("called_twice", TWICE, {"tools": [WEATHER, NOTHING]}),
    ("text_arguments", [*ASKS, {"role": "assistant", "content": "", "tool_calls": [call("f", '{"a": 1}', id="x")]}], {}),
    ("other_tokens", [user("a"), assistant("b")], {"bos_token": "", "eos_token": "<|end|>"}),
]

# Pieces of the language: template, then variables.
PIECES = [line for line in (HERE / "chat" / "pieces.txt").read_text(encoding="utf-8").split("\n%%\n") if line]
PIECE_VARIABLES = {
    "text": "Hello, World",
    "words": ["b", "A", "c", "a"],
    "numbers": [3, 1, 2, 2.5, -7],
    "empty": [],
    "nothing": None,
    "yes": True,
    "record": {"b": 1, "a": [1, 2], "C": None, "items": "hidden", "x y": {"z": 5}},
    "people": [
        {"name": "Ann", "age": 31, "tags": ["x"]},
        {"name": "bob", "age": 7, "tags": []},
        {"name": "Cid", "age": 31},
    ],
    "unicode": UNICODE + " ß ŉ Σας ΑΣ. ΑΣ' İ ﬁ ǆ ὐ",
    "control": CONTROL,
    "html": "<a href=\"x\">'&'</a>",
    "big": 9007199254740993,
    "floats": [0.1, 1e16, 1e15, 123456789012345680.0, 1e-4, 1e-5, -0.0, 2.5, 1e300, 5e-324, 100.0],
}


def render(template, variables):
    """{"text": ...}, or {"refused": message} where the template says so, or {"error": True}."""
    try:
        compiled = _compile_jinja_template(template)
        compiled.environment.globals["strftime_now"] = lambda form: NOW.strftime(form)
        compiled.globals["strftime_now"] = lambda form: NOW.strftime(form)
        return {"text": compiled.render(**variables)}
    except jinja2.exceptions.TemplateError as error:
        return {"refused": str(error)} if type(error) is jinja2.exceptions.TemplateError else {"error": True}
    except Exception:
        return {"error": True}


def all_characters():
    """What str's methods make of the characters of Unicode 14: a checksum for each 4096 of them."""
    source = (
        "{{ w.upper() }}|{{ w.lower() }}|{{ w.title() }}|{{ w|title }}|{{ w.capitalize() }}|{{ w.split() }}|{{ w.splitlines() }}|"
        "{{ w[::-1] }}|{{ w|length }}|{{ (w[1] * 2).strip() }}|{{ w[1].isalpha() }}{{ w[1].isdecimal() }}{{ w[1].isdigit() }}"
        "{{ w[1].isalnum() }}{{ w[1].isspace() }}{{ w[1].islower() }}{{ w[1].isupper() }}|{{ [w] }}|{{ w|tojson(ensure_ascii=true) }}"
    )
    compiled = _compile_jinja_template(source)
    blocks = {}
    for point in range(0x110000):
        character = chr(point)
        category = unicodedata.category(character)
        # Of characters like those of Chinese, which are all alike here, some.
        if category in ("Cn", "Cs", "Co") or (category == "Lo" and point // 256 % 16 != 0):
            continue
        block = blocks.setdefault(f"{point >> 12:x}", {"ranges": [], "crc32": 0})
        if block["ranges"] and block["ranges"][-1][1] == point - 1:
            block["ranges"][-1][1] = point
        else:
            block["ranges"].append([point, point])
        # In words, so that sigma at an end, title case and white space have something around them.
        word = "a" + character + "b" + character + " " + character + "Z" + character
        block["crc32"] = zlib.crc32(compiled.render(w=word).encode(), block["crc32"])
    return {"template": source, "blocks": blocks}


def rendered_ids(folder):
    """What apply_chat_template gives over a small tokenizer that puts BOS before every other text."""
    from tokenizers import Tokenizer, processors
    from transformers import PreTrainedTokenizerFast

    bos, eos = "<|begin_of_text|>", "<|end_of_text|>"
    tokenizer = Tokenizer.from_file(str(HERE / "tokenizers" / "llama3.json"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[bos, "$A"], pair=[bos, "$A", "$B"], special_tokens=[(bos, tokenizer.token_to_id(bos))]
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=bos, eos_token=eos)
    assert fast("a")["input_ids"][0] == tokenizer.token_to_id(bos)
    result = {}
    for name in ("inst_system", "lines", "chatml_default"):
        fast.chat_template = (folder / "templates" / f"{name}.jinja").read_text(encoding="utf-8")
        result[name] = {
            title: fast.apply_chat_template(messages, tokenize=True, return_dict=False, **more)
            for title, messages, more in CONVERSATIONS
            if title in ("one", "system", "unicode", "special", "control", "long")
        }
    return {"tokenizer": json.loads(tokenizer.to_str())["post_processor"], "bos_token": bos, "eos_token": eos, "ids": result}


def write_chat(folder):
    templates = {path.stem: path.read_text(encoding="utf-8") for path in sorted((folder / "templates").glob("*.jinja"))}
    expected = {}
    for name, template in templates.items():
        expected[name] = {}
        for title, messages, more in CONVERSATIONS:
            variables = {"messages": _alias_reasoning_fields(messages), "tools": None, "documents": None,
                         "add_generation_prompt": False, **TOKENS, **more}
            expected[name][title] = render(template, variables)
    pieces = [{"template": piece, **render(piece, PIECE_VARIABLES)} for piece in PIECES]

    def write(name, value):
        (folder / name).write_text(json.dumps(value, ensure_ascii=True, indent=1) + "\n", encoding="ascii")

    assert unicodedata.unidata_version == "14.0.0", "another Python than 3.11 knows other characters"
    write("conversations.json", [{"name": n, "messages": m, **more} for n, m, more in CONVERSATIONS])
    write("expected.json", expected)
    (folder / "ids.json").write_text(json.dumps(rendered_ids(folder), separators=(",", ":")) + "\n", encoding="ascii")
    write("pieces.json", {"variables": PIECE_VARIABLES, "pieces": pieces})
    (folder / "characters.json").write_text(json.dumps(all_characters(), separators=(",", ":")) + "\n", encoding="ascii")


if __name__ == "__main__":
    write_chat(HERE / "chat")
