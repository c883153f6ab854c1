"""Renders published chat templates with caravan and with jinja2, and compares.

    python check_chat_templates.py PROGRAM FOLDER       every FOLDER/*.jinja over all conversations

For example those that llama.cpp keeps in models/templates, which the source package of llama-cpp-python holds; their
licences are many, so none of them stands in this tree.
"""

import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from transformers.utils.chat_template_utils import _alias_reasoning_fields

import chat_goldens
from chat_goldens import ASKS, NOTHING, NOW, TOKENS, WEATHER, assistant, call, system, user

TOOLS = [WEATHER, NOTHING]
ARGUMENTS = {"place": "Köln", "n": 1, "b": True, "f": 1.5, "l": [1, {"a": None}], "o": {"k": "v"}}
# name, messages, other variables
MORE = [
    ("developer", [{"role": "developer", "content": "d"}, user("x")], {"tools": TOOLS, "add_generation_prompt": True}),
    (
        "reasoning_on",
        [user("q"), {"role": "assistant", "content": "a", "reasoning_content": "why\n"}, user("w")],
        {"add_generation_prompt": True, "enable_thinking": True},
    ),
    (
        "reasoning_off",
        [user("q"), {"role": "assistant", "content": "<think>x</think>a", "reasoning_content": "why\n"}, user("w")],
        {"add_generation_prompt": True, "enable_thinking": False},
    ),
    (
        "tool_turns",
        [
            system("S"),
            *ASKS,
            {"role": "assistant", "content": "", "tool_calls": [call("get_weather", ARGUMENTS, id="abc123def")]},
            {"role": "tool", "content": "22", "tool_call_id": "abc123def", "name": "get_weather"},
            assistant("warm"),
            user("ok"),
        ],
        {"tools": TOOLS, "add_generation_prompt": True, "functions": "[]", "datetime": "now"},
    ),
    (
        "two_tools_at_once",
        [
            system("S"),
            *ASKS,
            {
                "role": "assistant",
                "content": "c",
                "reasoning_content": "r",
                "tool_calls": [call("get_weather", {"place": "Köln"}, id="abc123def"), call("noop", {}, id="abc123deg")],
            },
            {"role": "tool", "content": [{"type": "text", "text": "22"}], "tool_call_id": "abc123def", "name": "get_weather"},
            {"role": "tool", "content": "23", "tool_call_id": "abc123deg", "name": "noop"},
        ],
        {"tools": TOOLS, "add_generation_prompt": True, "functions": "[]", "datetime": "now"},
    ),
    ("documents", [user("q")], {"documents": [{"title": "t", "text": "x"}], "add_generation_prompt": True}),
    (
        "blocks_everywhere",
        [
            {"role": "system", "content": [{"type": "text", "text": "s"}]},
            user([{"type": "text", "text": "a"}]),
            {"role": "assistant", "content": [{"type": "text", "text": "b"}]},
            user([{"type": "image"}, {"type": "text", "text": "a"}]),
        ],
        {"add_generation_prompt": True},
    ),
]


def ours(program, folder, messages, more):
    """The program's text, or its sentence."""
    own = {name: more[name] for name in ("tools", "documents", "add_generation_prompt") if name in more}
    rest = {name: value for name, value in more.items() if name not in own}
    (folder / "chat.json").write_text(json.dumps({"messages": messages, **own, "chat_template_kwargs": rest}))
    run = subprocess.run(
        [program, "tokenize", "--tokenizer", str(folder), "--chat", str(folder / "chat.json"), "--text", "--date",
         NOW.strftime("%Y-%m-%d")],
        capture_output=True,
    )
    return {"text": run.stdout.decode()} if run.returncode == 0 else {"sentence": run.stderr.decode()}


def main():
    program, templates = sys.argv[1], sorted(Path(sys.argv[2]).glob("*.jinja"))
    chat_goldens.NOW = NOW.replace(hour=0, minute=0, second=0)  # --date's moment
    counts = Counter()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "tokenizer_config.json").write_text(json.dumps(TOKENS))
        for path in templates:
            source = path.read_text(encoding="utf-8")
            (folder / "chat_template.jinja").write_text(source, encoding="utf-8")
            for name, messages, more in chat_goldens.CONVERSATIONS + MORE:
                if not messages:
                    continue
                variables = {"messages": _alias_reasoning_fields(messages), "tools": None, "documents": None,
                             "add_generation_prompt": False, **TOKENS, **more}
                theirs = chat_goldens.render(source, variables)
                result = ours(program, folder, messages, more)
                if "text" in theirs:
                    kind = "same text" if result.get("text") == theirs["text"] else "different"
                    if "outside the part of Jinja" in result.get("sentence", ""):
                        kind = "outside the subset"
                elif "refused" in theirs:
                    kind = "same refusal" if "the template says" in result.get("sentence", "") else "different"
                else:
                    kind = "both fail" if "sentence" in result else "different"
                counts[kind] += 1
                if kind == "different":
                    print(f"{path.name}, {name}: {theirs} | {result}")
                elif kind == "outside the subset":
                    counts[f"outside: {path.name}: {result['sentence'].strip().split(': ')[-1]}"] += 1
    print(f"{len(templates)} templates")
    for kind, count in sorted(counts.items()):
        print(f"{count:6} {kind}")
    return 1 if counts["different"] else 0


if __name__ == "__main__":
    sys.exit(main())
