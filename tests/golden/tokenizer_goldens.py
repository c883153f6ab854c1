"""Makes tokenizers/ beside this file: small tokenizers of every kind and what the reference libraries make of a corpus
of difficult texts.  Here those of tokenizer.json, by Hugging Face `tokenizers`; piece_goldens.py has the others.

    python tokenizer_goldens.py         unchanged sources give unchanged bytes

A variant is a JSON merge patch (RFC 7396) of one of the trained files: other splitting, normalising and added tokens
over the same vocabulary.
"""

import json
import random
import shutil
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

import piece_goldens

HERE = Path(__file__).resolve().parent
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
O200K = "|".join(
    [
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ]
)
SPECIAL = ["<|begin_of_text|>", "<|end_of_text|>"]

# What the vocabularies are learned from; the trainer's test learns from it too.
TRAINING = """\
ROMEO: It's the east, and Juliet is the sun. Arise, fair sun, and kill the envious moon, who is already sick and pale
with grief, that thou her maid art far more fair than she. I'll go; we've seen it; they're there; don't, can't, I'm, he'd.
    def encode(self, text: str) -> list[int]:\r\n        return [self.vocab[piece] for piece in self.split(text)]\r\n
The numbers 1, 12, 123, 1234 and 12345 stand beside 3.14159, 2024-01-31 and 1,000,000; $5.00 (5 %) & #42...
Die Größe der Straße überrascht: Äpfel, Öl und Übermut. Les élèves étaient déjà là où l'été commençait.
Съешь же ещё этих мягких французских булок, да выпей чаю. Съешь ещё булок.
Ξεσκεπάζω την ψυχοφθόρα βδελυγμία. שלום עולם, שלום. مرحبا بالعالم، مرحبا.
你好，世界。你好，世界！ 日本語のテキスト、日本語。 한국어 텍스트, 한국어. हिन्दी में पाठ, हिन्दी।
😀😀 👩‍👩‍👧‍👦 🇩🇪🇫🇷 ❤️ 👍🏽 naïve café résumé, naïve café.
"""
TEXTS = [
    "",
    " ",
    "a",
    "hello world",
    TRAINING[:400],
    TRAINING[400:],
    # contractions
    "I'll we've they're don't I'm he'd it's 'tis 's 't 're 've 'm 'll 'd",
    "I'LL WE'VE THEY'RE DON'T I'M HE'D IT'S 'Ll 'rE 'vE",
    "it\u2019s we\u2019ve don\u2019T \u2019s",
    "'\u017f it'\u017f '\u017fo IT'\u017F 'l' '' ''s '''ll 'l l' 'sx 'tt 'rex 'vet 'dd 'mm",
    # white space
    "a b  c   d    e",
    "a\tb\t\tc \t d\t e\n\nf\r\ng\r\rh\n\r\ni \n j \r\n k\n  l",
    " \n \n\n  x", "\n", "\r\n", "\r\n\r\n", "  \r\n  \r\n  ", "x \n", "x  ", "  x", "   ", "\t", "\t\tx", "\n x", " \nx",
    "".join(f"a{c}b{c}{c}c{c} d {c}e" for c in "\u000b\u000c\u001c\u001d\u001e\u001f\u0085\u00a0\u1680\u2000\u2001"),
    "".join(f"a{c}b{c}{c}c{c} d {c}e\n{c}" for c in "\u2007\u200a\u2028\u2029\u202f\u205f\u3000\u180e\u200b\u2060\ufeff"),
    "tail\u3000\u3000", "\u00a0\u00a0", "\u2028\u2028x", "!\u2028\n", "!\u0085\r\n", "!!\r\n\r\nx", " !\n", " !! \n",
    # combining marks, joiners, emoji
    "e\u0301 \u0301e a\u0323\u0302 a\u0302\u0323 q\u0307\u0323 \u1e9b\u0323 \u0344 \u0958 \u2126 \u212b \ufb01 \uff21 \u2460 \u00bd \u32cd",
    "Z\u0351\u036b\u0343\u036a\u0302\u036b\u033d\u034f\u0334\u0319\u0324\u031e\u0349\u035a a\u0308\u0304\u0301",
    "👩‍👩‍👧‍👦👨🏿‍🦱🏳️‍🌈 🇩🇪🇫 ❤️ ❤ ☎︎ 👍🏽👍 #️⃣ 1️⃣ \U0001f9d1\u200d\U0001f680",
    "\u1100\u1161\u11a8 \u1112\u1161\u11ab\u1100\u1173\u11af \uac00\u11a8 \u1161\u11a8 \ud55c\uae00 \u3131\u314f \uffa1",
    "क्षि श्री कि\u200dम\u200cन ಕ್ಷ தமிழ் ภาษาไทย ລາວ မြန်မာ \u0f40\u0f71\u0f72 \u17d2\u1780",
    # right to left, with marks
    "שָׁלוֹם עֲלֵיכֶם 123 أَهْلًا ١٢٣٤ \u202eabc\u202c \u2067x\u2069 ‏a‎b",
    "你好，世界。「引用」…… 日本語カタカナｶﾀｶﾅ々〆ヶ 漢字かな交じり文 \u9fff\u3007 \U00020000\U0002f800",
    # digits of many scripts, numbers that are no digits
    "0123456789 ٠١٢٣ ۴۵۶ ०१२३ ๐๑๒ ０１２３４ ⅷ Ⅻ ½¾⅓ ²³¹ ①②③ 〇一二 𝟘𝟙𝟚𝟛 𐄇𐄈 12ab34 1a2b3c ९९९९९",
    "1 12 123 1234 12345 123456 1234567 12.5 1,234,567 1e10 -5 +5 5% $5 #5 №5",
    # controls, unassigned and private characters, the edges of the surrogates
    "a\u0000b\u0001\u0002 \u0007\u001b[0m \u007f\u0080\u009f end",
    "\ud7ff\ue000\uf8ff\ufdd0\ufffd\uffff\U00010000\U0001fffe\U000e0001\U000f0000\U0010ffff",
    "\u0378\u0379 \u0530x\u0557 \U00012fff\U0001ffff \u2fe0a \u05ff!",
    "ªº µ ʰ ˀ \u02c2 \u0345 ͺ ᵃ ⁿ ₙ ℂ ℵ Ⓐⓩ ㎏ ㏒ 🅰🄰 ǅ ǈ ᾳ İ ı ſ ß ẞ ŉ",
    "!?.,;:-_()[]{}<>/\\|@#$%^&*~`\"'«»„“”‘’‚—–…·•§¶†‡°±×÷≠≤∞∑√",
    "snake_case camelCase PascalCase kebab-case path/to/file.txt http://x.y/?a=b&c=d a@b.co __init__ x+=1; //c",
    "\u00add\u00ady \u034f x\u0300\u0301y \u0e01\u0e33 \u0b95\u0bbe",
    # long runs
    "a" * 300, " " * 100, "\n" * 50, "=" * 120, "1" * 50, "ab" * 100, "é" * 60, "😀" * 30, "'" * 40, " \n" * 30,
    "the" * 60, "aaaaaaaab" * 12, " the" * 40,
    # special and added tokens written in the text
    "<|begin_of_text|>hello<|end_of_text|>", "<|begin_of_text|", "x<|end_of_text|><|end_of_text|> y", "<<|end_of_text|>>",
    "left  <left>  right <left><left>", "left <right>  right<right>\n\n<right>", "a <both>\t\nb<both>\u3000c \u00a0<both>\u200bd",
    "word xword wordx word, word! (word) 1word word1 _word word_ éword wordé ⓐword word\u0301 word\u200d word\u0903 wordⅷ ·word",
    "<long><long><longer><longest> <longe <long", "café cafe\u0301 Café\u0301 cafe\u0301s xcafe\u0301", "ﬁn fin ﬁn",
    "aab aaab ab aabb", "one two<left> <both> <right> three", "<both><both>", " <both> <both> ", "<left>", " <right> ",
    "Ā ā <Ā> <é>x", "new\nline token", "tok\u00e9n toke\u0301n",
    # a character of every plane
    "".join(f"{chr(plane * 0x10000 + 0x2345)} a{chr(plane * 0x10000 + 0xFFFD)}" for plane in range(17)),
    # words that mix cases, as the pattern of Llama 4 tells them apart
    "camelCaseWORDsMixed iPhone'S McDonald's \u01c5abc \u02b0X\u0301Y A\u0301b 'll'LL \u00aaAb \u4e2dA\u4e2db \u1f88x Xᾈ \u0301A !\u0301B",
    "path/to//\n/x ://\r\n/ a/\n\n/b //", "\u0130stanbul \ua7cb\ua7cc \U00010d50\U00010d70 \u1c89\u1c8a",
    # what SentencePiece writes for a space, and what byte fallback writes
    "▁", "▁▁ ▁a▁b ▁ c", "<0x41><0x0A><0xZZ> <0x4", "a▁ b ▁<unk> x<s>y </s>", "<s>", "<s> a", " <s>a </s> b</s>", "<unk>",
    "\u00a0a\u00a0 b\u3000c \t\td", "﷽ ㎒ ｆｕｌｌ　ｗｉｄｔｈ ½ ﬀ", "   leading and   inner and trailing   ",
]
ADDED = [
    {"content": "<left>", "lstrip": True},
    {"content": "<right>", "rstrip": True},
    {"content": "<both>", "lstrip": True, "rstrip": True, "special": True},
    {"content": "word", "single_word": True},
    {"content": "<long>"},
    {"content": "<longer>", "special": True},
    {"content": "<long><longer>"},
    {"content": "caf\u00e9", "normalized": True},
    {"content": "toke\u0301n", "normalized": True},
    {"content": "\ufb01n", "normalized": True, "special": True},
    {"content": "aab"},
    {"content": "ab", "normalized": True},
    {"content": "\u0100 \u0101"},
    {"content": "<\u00e9>", "special": True},
    {"content": "new\nline"},
    {"content": " \u2003"},
]


def byte_level(prefix=False, regex=True):
    return {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": regex}


def split(pattern, behavior="Isolated", invert=False, kind="Regex"):
    return {"type": "Split", "pattern": {kind: pattern}, "behavior": behavior, "invert": invert}


def digits(each):
    return {"type": "Digits", "individual_digits": each}


def metaspace(scheme, cuts=True):
    return {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": cuts}


def replace(pattern, content, kind="String"):
    return {"type": "Replace", "pattern": {kind: pattern}, "content": content}


def strip(start, stop=0):
    return {"type": "Strip", "content": " ", "start": start, "stop": stop}


def sequence(name, *some):
    return {"type": "Sequence", name: list(some)}


def steps(*some):
    return {"type": "Sequence", "pretokenizers": [*some, byte_level(regex=False)]}


def template(single, tokens):
    return {
        "type": "TemplateProcessing",
        "single": [
            {"Sequence": {"id": "A", "type_id": 0}} if t == "A" else {"SpecialToken": {"id": t, "type_id": 0}}
            for t in single
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {t: {"id": t, "ids": [i], "tokens": [t]} for t, i in tokens.items()},
    }


def added(base, extra, **common):
    """added_tokens of a trained file and more, numbered as tokenizers does it: behind the vocabulary if not in it."""
    vocab = base["model"]["vocab"]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    fresh = [one["content"] for one in extra if one["content"] not in vocab]
    ids = vocab | {content: len(vocab) + i for i, content in enumerate(fresh)}
    return base["added_tokens"] + [{"id": ids[one["content"]], **flags, **one, **common} for one in extra]


def train(pattern):
    tokenizer = Tokenizer(models.BPE())
    if pattern == "gpt2":
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.post_processor = processors.ByteLevel()
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=640,
        min_frequency=2,
        show_progress=False,
        special_tokens=[AddedToken(t, special=True, normalized=False) for t in SPECIAL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator([TRAINING] * 2, trainer)
    return json.loads(tokenizer.to_str())


def variants(bases):
    """(name, base, patch)"""
    llama3 = bases["llama3"]
    vocab = llama3["model"]["vocab"]
    bos, eos = SPECIAL
    whole = {word: len(vocab) + i for i, word in enumerate(["hello", "Ġword", "ĠĠĠĠ"])}
    assert not set(whole) & set(vocab)
    yield "gpt2", "gpt2", {}
    yield "gpt2_prefix_space", "gpt2", {"pre_tokenizer": byte_level(prefix=True)}
    yield "byte_level_alone", "gpt2", {"pre_tokenizer": byte_level(regex=False)}
    yield "byte_level_alone_prefix_space", "gpt2", {"pre_tokenizer": byte_level(prefix=True, regex=False)}
    yield "llama3", "llama3", {
        "model": {"ignore_merges": True, "vocab": whole},
        "post_processor": {
            "type": "Sequence",
            "processors": [byte_level(), template([bos, "A"], {bos: vocab[bos]})],
        },
    }
    yield "bos_and_eos", "llama3", {
        "post_processor": template([bos, "A", eos, eos], {bos: vocab[bos], eos: vocab[eos]})
    }
    yield "qwen2", "llama3", {"normalizer": {"type": "NFC"}, "pre_tokenizer": steps(split(QWEN2))}
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        yield "added_" + form.lower(), "llama3", {
            "normalizer": {"type": "Sequence", "normalizers": [{"type": form}]},
            "added_tokens": added(llama3, ADDED),
        }
    yield "added", "gpt2", {"added_tokens": added(bases["gpt2"], ADDED)}
    yield "added_special", "gpt2", {"added_tokens": added(bases["gpt2"], ADDED, special=True)}
    patterns = {
        "unusual": r"\p{Han}+|[\p{Hiragana}\p{Katakana}]+|\d(?=(?:\d{3})*(?!\d))|(?<=[a-z])(?=[A-Z])|[^\S\r\n]+|\W|\w+?",
        "words": r"\w+|[^\w\s]+|\s",
        "cases": r"(?i:the|WORLD|é)|\p{Lu}\p{Ll}*|\p{M}+|[\p{P}\p{S}]",
        "codes": r"[\x20-\x7e]{1,5}|\x{1F600}+|\u00e9|\t|[一-龥぀-ゟ゠-ヿ]+|\P{Latin}",
        "empty": r"(?=e)|x*",
    }
    for name, pattern in patterns.items():
        yield name, "llama3", {"pre_tokenizer": steps(split(pattern))}
    for behavior in ("Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous", "Isolated"):
        for invert in (False, True):
            yield f"{behavior}_{invert}".lower(), "llama3", {
                "pre_tokenizer": steps(split(r"[^\S\n]|[aeiou]\p{L}", behavior, invert))
            }
            yield f"{behavior}_{invert}_llama3".lower(), "llama3", {
                "pre_tokenizer": steps(split(LLAMA3, behavior, invert))
            }
    yield "smollm", "gpt2", {"pre_tokenizer": sequence("pretokenizers", digits(True), byte_level())}
    yield "runs_of_digits", "gpt2", {"pre_tokenizer": sequence("pretokenizers", digits(False), byte_level())}
    yield "llama4", "llama3", {"pre_tokenizer": steps(split(O200K)), "model": {"ignore_merges": True}}
    yield "string", "llama3", {"pre_tokenizer": steps(split(".", "MergedWithPrevious", kind="String"))}
    yield "three_steps", "llama3", {
        "pre_tokenizer": steps(
            split(r"\p{N}{1,3}"), split("[一-龥぀-ゟ゠-ヿ]+"), split(r"[\r\n]|\s?\p{L}+|\s?\p{P}+|\s+")
        )
    }


def character_variants(base):
    """(name, patch) of llama2.json, whose own form is the one of 2023."""
    vocab = base["model"]["vocab"]
    to_text = [replace("▁", " "), {"type": "ByteFallback"}, {"type": "Fuse"}]
    fresh = {
        "normalizer": None,
        "pre_tokenizer": metaspace("first", False),
        "decoder": sequence("decoders", *to_text, strip(1)),
    }
    yield "llama2", {}
    yield "llama2_without_template", {}
    for scheme in ("always", "first", "never"):
        for cuts in (False, True):
            yield f"metaspace_{scheme}_{'cut' if cuts else 'whole'}", {
                "normalizer": None,
                "pre_tokenizer": metaspace(scheme, cuts),
                "decoder": metaspace(scheme, cuts) if cuts else fresh["decoder"],
            }
    yield "metaspace_2023", {
        "normalizer": None,
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "add_prefix_space": True, "str_rep": "▁"},
        "decoder": {"type": "Metaspace", "replacement": "▁", "add_prefix_space": True},
    }
    yield "normalized_special", {"added_tokens": [one | {"normalized": True} for one in base["added_tokens"]]}
    for fused in (False, True):
        yield f"unknown_{'fused' if fused else 'each'}", fresh | {"model": {"byte_fallback": False, "fuse_unk": fused}}
        lost = {f"<0x{byte:02X}>": None for byte in (0x0A, 0x80, 0x9F, 0xE3, 0xF0)}
        yield f"some_bytes_{'fused' if fused else 'each'}", fresh | {"model": {"fuse_unk": fused, "vocab": lost}}
    yield "nothing_unknown", fresh | {"model": {"byte_fallback": False, "unk_token": None}}
    yield "no_space_token", fresh | {"model": {"vocab": {"▁": None}, "merges": without(base, "▁")}}
    whole = {"▁hello▁world": len(vocab)}
    yield "whole_pieces", fresh | {"model": {"ignore_merges": True, "vocab": whole}}
    over = base["model"]["merges"] + [["▁the", "▁"], ["e", "▁t"]]
    yield "merges_over_spaces", fresh | {
        "model": {"vocab": {"▁the▁": len(vocab), "e▁t": len(vocab) + 1}, "merges": over}
    }
    yield "nfkc", {
        "normalizer": sequence(
            "normalizers", {"type": "NFKC"}, {"type": "Prepend", "prepend": "▁"}, replace(" ", "▁")
        )
    }
    yield "replaced", {
        "normalizer": sequence(
            "normalizers", replace("[aeiou]{2}|\\s", "<·>", "Regex"), replace("<·><·>", "··"), replace("x*", "-", "Regex"),
            {"type": "Prepend", "prepend": "»▁"},
        )
    }
    yield "digits_and_metaspace", fresh | {
        "pre_tokenizer": sequence("pretokenizers", digits(True), metaspace("first"))
    }
    yield "split_and_metaspace", fresh | {
        "pre_tokenizer": sequence("pretokenizers", split("[,.!?]", "MergedWithPrevious"), metaspace("always"), split("▁"))
    }
    yield "added_behind_prepend", {"added_tokens": added(base, ADDED)}
    yield "added_first", fresh | {"added_tokens": added(base, ADDED)}
    yield "no_fuse", fresh | {"decoder": sequence("decoders", to_text[0], to_text[1], strip(1))}
    yield "metaspace_behind_bytes", fresh | {"decoder": sequence("decoders", to_text[1], metaspace("first"))}
    yield "replaced_when_fused", fresh | {
        "decoder": sequence(
            "decoders", to_text[1], to_text[2], replace("▁", " "), replace("the", "THE"), replace("abab", "ba"), strip(2)
        )
    }
    yield "regex_decoder", fresh | {"decoder": sequence("decoders", replace("▁+|[ao]", "_", "Regex"), {"type": "Fuse"})}


def without(base, token):
    merges = [merge if isinstance(merge, list) else merge.split(" ") for merge in base["model"]["merges"]]
    return [merge for merge in merges if token not in merge]


def merge_patch(target, patch):
    if not isinstance(patch, dict):
        return patch
    target = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            target.pop(name, None)
        else:
            target[name] = merge_patch(target.get(name), value)
    return target


EVERYWHERE = ("gpt2", "llama3", "added_nfc", "added", "unusual", "llama4", "llama2_without_template")


def expected(name, base, patch, full):
    tokenizer = Tokenizer.from_str(json.dumps(merge_patch(full, patch)))
    everywhere = name in EVERYWHERE
    texts = TEXTS if everywhere else [t for t in TEXTS if len(t) < (30 if base == "llama2" else 90)]
    cases = []
    for index, text in enumerate(TEXTS):
        if text not in texts:
            continue
        case = {"text": index, "ids": tokenizer.encode(text).ids}
        bare = tokenizer.encode(text, add_special_tokens=False).ids
        tokenizer.encode_special_tokens = True
        plain = tokenizer.encode(text, add_special_tokens=False).ids
        tokenizer.encode_special_tokens = False
        # What equals another list is left out.
        if bare != case["ids"]:
            case["bare"] = bare
        if plain != bare:
            case["plain"] = plain
        decoded = tokenizer.decode(case["ids"], skip_special_tokens=False)
        if decoded != text:
            case["decoded"] = decoded
        skipped = tokenizer.decode(case["ids"], skip_special_tokens=True)
        if skipped != decoded:
            case["skipped"] = skipped
        cases.append(case)
    dice = random.Random(name)
    decodes = []
    if everywhere:
        for _ in range(40):
            ids = [dice.randrange(258 if dice.random() < 0.7 else tokenizer.get_vocab_size()) for _ in range(12)]
            decodes.append({"ids": ids, "decoded": tokenizer.decode(ids, skip_special_tokens=False)})
    return {"name": name, "base": base, "patch": patch, "cases": cases, "decodes": decodes}


def write_tokenizers(folder):
    bases = {name: train(name) for name in ("gpt2", "llama3")}
    pieces = piece_goldens.train_pieces(TRAINING)
    bases["llama2"] = piece_goldens.as_tokenizer_json(pieces["bpe"])
    folder.mkdir()

    def write(name, value):
        (folder / name).write_text(json.dumps(value, ensure_ascii=True, separators=(",", ":")) + "\n")

    (folder / "training.txt").write_bytes(TRAINING.encode())
    write("texts.json", TEXTS)
    for name, base in bases.items():
        write(f"{name}.json", base)
    # One with its template is enough.
    bare = [(name, "llama2", patch | ({} if name == "llama2" else {"post_processor": None}))
            for name, patch in character_variants(bases["llama2"])]
    all_variants = [*variants(bases), *bare]
    write("expected.json", [expected(name, base, patch, bases[base]) for name, base, patch in all_variants])
    piece_goldens.write_pieces(folder, pieces, bases["llama3"], TEXTS, LLAMA3, O200K, write)


if __name__ == "__main__":
    shutil.rmtree(HERE / "tokenizers", ignore_errors=True)
    write_tokenizers(HERE / "tokenizers")
