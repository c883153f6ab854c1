"""The part of tokenizers/ that is no tokenizer.json: models of SentencePiece with what `sentencepiece` makes of the corpus
and what transformers makes of the files beside one, and a file of tiktoken with what `tiktoken` makes of it.

A variant of a model is the model with bytes behind it: protobuf takes what comes later for the field's value, and
repeated fields go on.
"""

import base64
import io
import json
import random
import struct
import tempfile
from pathlib import Path

import sentencepiece
import tiktoken
from transformers import LlamaTokenizer
from transformers.tokenization_utils_base import generate_merges

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
LLAMA4_RANKS = 200_000

# ---------------------------------------------------------------------------------------------------------- protobuf


def varint(value):
    encoded = b""
    value &= (1 << 64) - 1
    while value >= 0x80:
        encoded += bytes([value & 0x7F | 0x80])
        value >>= 7
    return encoded + bytes([value])


def field(number, value):
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def piece(text, score, kind):
    return field(1, field(1, text) + field(2, float(score)) + field(3, kind))


def trainer(number, value):
    return field(2, field(number, value))


def normalizer(number, value):
    return field(3, field(number, value))


# ---------------------------------------------------------------------------------------------------------- training


def train(text, kind, size, **options):
    lines = [line for line in text.replace("\r", "").split("\n") if line]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines * 3),
        model_writer=model,
        model_type=kind,
        vocab_size=size,
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
        **{"normalization_rule_name": "identity", "remove_extra_whitespaces": False, "split_digits": True} | options,
    )
    return model.getvalue()


def train_pieces(text):
    """name -> model: Llama's kind, its unigram sister, and both without bytes, which know one alphabet alone."""
    latin = "\n".join(line for line in text.split("\n") if all(ord(c) < 0x180 for c in line))
    bytes_too = {"byte_fallback": True, "character_coverage": 0.98, "allow_whitespace_only_pieces": True}
    return {
        "bpe": train(text, "bpe", 620, **bytes_too),
        "unigram": train(text, "unigram", 560, **bytes_too),
        "bpe_unknown": train(latin, "bpe", 300),
        "unigram_unknown": train(latin, "unigram", 240),
    }


def charsmap():
    """A small table of normalisations: replacements that are shorter, longer, empty, and a longest match."""
    rules = {"ａ": "a", "ＡＢ": "xy", "Ａ": "A", "½": "1/2", "\u00a0": " ", "\u3000": " ", "\t": " ", "\u200b": "", "ﬁ": "fi",
             "é": "e\u0301", "Ö": "Oe", "ab": "ba", "abc": "c", "…": "..."}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rules.tsv"
        path.write_text("".join(
            " ".join(f"{ord(c):X}" for c in source) + "\t" + " ".join(f"{ord(c):X}" for c in target) + "\n"
            for source, target in rules.items()
        ))
        model = train("ab cd\n", "bpe", 9, normalization_rule_tsv=str(path), normalization_rule_name="")
    at = model.rfind(field(1, "user_defined"))
    # name = 1, then precompiled_charsmap = 2 of the NormalizerSpec
    assert at >= 0 and model[at + len(field(1, "user_defined"))] == 2 << 3 | 2
    at += len(field(1, "user_defined")) + 1
    length, shift = 0, 0
    while True:
        byte = model[at]
        at += 1
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return model[at : at + length]


def pieces_of(model):
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    return [processor.id_to_piece(i) for i in range(processor.get_piece_size())]


def as_tokenizer_json(model):
    """The tokenizer.json that Llama 2 has, over the pieces of a model."""
    vocab = {text: i for i, text in enumerate(pieces_of(model))}
    special = ["<unk>", "<s>", "</s>"]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": vocab[one], "content": one, **flags} for one in special],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            ],
        },
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [vocab["<s>"]], "tokens": ["<s>"]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": vocab,
            "merges": [list(pair) for pair in generate_merges(vocab)],
        },
    }


# ---------------------------------------------------------------------------------------------------------- variants


def unheard(model, text, count, dice):
    """Strings of the text that are no pieces of the model, though their characters may be."""
    known = set(pieces_of(model))
    marked = "▁" + text.replace("\n", "▁").replace(" ", "▁")
    found = sorted({marked[i : i + n] for i in range(len(marked) - 4) for n in (2, 3, 4)} - known)
    return dice.sample(found, count)


def variants(pieces, text):
    """(name, base, bytes behind it)"""
    dice = random.Random(7)
    table = charsmap()
    for base, model in pieces.items():
        yield base, base, b""
        if "unknown" in base:
            yield base + "_surface", base, trainer(44, "[?]") + normalizer(4, 1)
            yield base + "_charsmap", base, normalizer(2, table)
            continue
        yield base + "_extra_spaces_removed", base, normalizer(4, 1)
        yield base + "_no_prefix", base, normalizer(3, 0)
        yield base + "_no_prefix_extra", base, normalizer(3, 0) + normalizer(4, 1)
        yield base + "_suffix", base, trainer(24, 1)
        yield base + "_suffix_extra", base, trainer(24, 1) + normalizer(4, 1)
        yield base + "_spaces_as_they_are", base, normalizer(5, 0)
        yield base + "_charsmap", base, normalizer(2, table)
        yield base + "_charsmap_extra", base, normalizer(2, table) + normalizer(4, 1)
        user = ["<sep>", "ab", "abc", "▁the▁", " x", "日本", "é", "  ", "aa"]
        known = set(pieces_of(model))
        marks = b"".join(piece(one, 0, USER_DEFINED) for one in user if one not in known)
        yield base + "_user_defined", base, marks + piece("<ctl>", 0, CONTROL)
        yield base + "_user_defined_charsmap", base, marks + normalizer(2, table) + normalizer(4, 1)
        tied = unheard(model, text, 60, dice)
        yield base + "_tied", base, b"".join(piece(one, dice.choice([-1.5, -1.5, -40, -300]), NORMAL) for one in tied)
        mixed = unheard(model, text, 80, dice)
        yield base + "_unused", base, b"".join(
            piece(one, dice.choice([0, -2.5, -2.5, -100]), dice.choice([UNUSED, UNUSED, NORMAL])) for one in mixed
        )


def sentencepiece_cases(name, base, behind, model, texts):
    processor = sentencepiece.SentencePieceProcessor(model_proto=model + behind)
    full = name in ("bpe", "unigram", "bpe_user_defined", "unigram_unknown")
    cases = []
    for index, text in enumerate(texts):
        if len(text) > (200 if full else 22):
            continue
        ids = processor.encode(text)
        case = {"text": index, "ids": ids}
        decoded = processor.decode(ids)
        if decoded != text:
            case["decoded"] = decoded
        cases.append(case)
    dice = random.Random(name)
    damaged = []
    for _ in range(12 if full else 2):
        data = bytes(dice.choice(b"ab \xe2\x96\x81\xc3\xa9\xf0\x9f\x98\x80\xff\xed\xa0\x80\xc0\xf5<s>") for _ in range(14))
        damaged.append({"bytes": data.hex(), "ids": processor.encode(data)})
    decodes = []
    for _ in range(30 if full else 4):
        size = processor.get_piece_size()
        ids = [dice.randrange(min(size, 262) if dice.random() < 0.5 else size) for _ in range(10)]
        decodes.append({"ids": ids, "decoded": processor.decode(ids)})
    return {"name": name, "base": base, "behind": behind.hex(), "cases": cases, "damaged": damaged, "decodes": decodes}


# -------------------------------------------------------------------------------------------------- transformers beside

BESIDE_TEXTS = [
    "Hello world", "<s>hello</s> the", "a <s> b", "<unk>x", "", "a<pad>b", "the <new> day</s>", "[INST]fair[/INST] sun<s>",
    "x<strip>  y", "<s><s>", "word <s>hello", "the sun</s><s> the sun </s>", "<s>", "a<pad><new><extra>b", "é<pad>é",
]
WHOLE = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
LLAMA2_CONFIG = {
    "tokenizer_class": "LlamaTokenizer",
    "add_bos_token": True,
    "add_eos_token": False,
    "bos_token": {"__type": "AddedToken", "content": "<s>", **WHOLE},
    "eos_token": {"__type": "AddedToken", "content": "</s>", **WHOLE},
    "unk_token": {"__type": "AddedToken", "content": "<unk>", **WHOLE},
    "pad_token": None,
    "legacy": False,
}


def beside(size):
    """(name, tokenizer_config.json, special_tokens_map.json, added_tokens.json)"""
    config = LLAMA2_CONFIG
    yield "llama2", config, None, None
    yield "legacy", config | {"legacy": True}, None, None
    yield "both_ends", config | {"add_eos_token": True}, None, None
    yield "no_bos", config | {"add_bos_token": False}, None, None
    yield "no_prefix", config | {"add_prefix_space": False}, None, None
    yield "padded", config | {"pad_token": "<pad>"}, None, None
    yield "legacy_padded", config | {"pad_token": "<pad>", "legacy": True, "add_eos_token": True}, None, None
    yield "further", config | {"additional_special_tokens": ["[INST]", "[/INST]"]}, None, None
    decoder = {
        str(i): {"content": one, **WHOLE, "normalized": False, "special": special} | flags
        for i, one, special, flags in [
            (0, "<unk>", True, {}), (1, "<s>", True, {}), (2, "</s>", True, {}),
            (size, "<pad>", True, {}), (size + 1, "<new>", False, {}), (size + 2, "<strip>", True, {"rstrip": True}),
        ]
    }
    yield "numbered", config | {"pad_token": "<pad>", "added_tokens_decoder": decoder}, None, None
    mapped = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": {"content": "<pad>", **WHOLE}}
    yield "mapped", {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True}, mapped, None
    yield "added", config, mapped, {"<pad>": size, "<new>": size + 1}


def beside_cases(name, model, config, special_tokens_map, added_tokens):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        (path / "tokenizer.model").write_bytes(model)
        for file, content in [("tokenizer_config.json", config), ("special_tokens_map.json", special_tokens_map),
                              ("added_tokens.json", added_tokens)]:
            if content is not None:
                (path / file).write_text(json.dumps(content))
        tokenizer = LlamaTokenizer.from_pretrained(folder)
        # transformers 5 puts no second space before a stretch that begins with one; SentencePiece, and Caravan, do.
        texts = [text for text in BESIDE_TEXTS if not (config.get("legacy") and "> " in text)]
        cases = [
            {
                "text": text,
                "ids": tokenizer.encode(text),
                "bare": tokenizer.encode(text, add_special_tokens=False),
                "decoded": tokenizer.decode(tokenizer.encode(text)),
                "skipped": tokenizer.decode(tokenizer.encode(text), skip_special_tokens=True),
            }
            for text in texts
        ]
        files = {"config": config, "special_tokens_map": special_tokens_map, "added_tokens": added_tokens}
        return {"name": name, **files, "size": len(tokenizer), "cases": cases}


# ---------------------------------------------------------------------------------------------------------- tiktoken


def reserved(family, first, count):
    return [f"<|{family}reserved_special_token_{i}|>" for i in range(first, first + count)]


def llama3_special():
    names = ["<|begin_of_text|>", "<|end_of_text|>", *reserved("", 0, 2), "<|finetune_right_pad_id|>", "<|step_id|>",
             "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>", "<|python_tag|>", "<|image|>"]
    return names + reserved("", 2, 256 - len(names))


def llama4_special():
    names = [f"<|{one}|>" for one in ("begin_of_text", "end_of_text", "fim_prefix", "fim_middle", "fim_suffix",
                                      "header_start", "header_end", "eom", "eot", "step")]
    names += reserved("text_post_train_", 0, 6) + ["<|python_start|>", "<|python_end|>", "<|finetune_right_pad|>"]
    names += reserved("text_post_train_", 8, 61) + ["<|image_start|>", "<|image_end|>"] + reserved("vision_", 0, 2)
    names += ["<|tile_x_separator|>", "<|tile_y_separator|>"] + reserved("vision_", 2, 4) + ["<|image|>"]
    names += reserved("vision_", 6, 1) + ["<|patch|>"] + reserved("vision_", 7, 1041) + reserved("reasoning_", 0, 8)
    names += ["<|reasoning_thinking_start|>", "<|reasoning_thinking_end|>"]
    return names + reserved("", 0, 2048 - len(names))


def ranks_of(base):
    """The byte strings of a byte-level tokenizer.json in their order, without its special tokens."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}
    special = {one["content"] for one in base["added_tokens"]}
    spelled = sorted((i, one) for one, i in base["model"]["vocab"].items() if one not in special)
    return [bytes(alphabet[c] for c in one) for _, one in spelled]


def filled(ranks):
    """As many ranks as Llama 4 has; the tokens that fill it up stand in no text."""
    return ranks + [b"\xff\xfe" + i.to_bytes(3, "big") for i in range(LLAMA4_RANKS - len(ranks))]


def encoding(ranks, pattern, special):
    return tiktoken.Encoding(
        name="golden",
        pat_str=pattern,
        mergeable_ranks={token: rank for rank, token in enumerate(ranks)},
        special_tokens={name: len(ranks) + i for i, name in enumerate(special)},
    )


def tiktoken_cases(name, ranks, pattern, special, texts):
    reference = encoding(ranks, pattern, special)
    more = [f"a{special[0]}b {special[-1]}\n{special[len(special) // 2]}{special[6]}user{special[7]}", special[5] + " x"]
    cases = []
    for text in [*texts, *more]:
        case = {"text": text} if text in more else {"text": texts.index(text)}
        case["ids"] = reference.encode(text, allowed_special="all")
        plain = reference.encode_ordinary(text)
        if plain != case["ids"]:
            case["plain"] = plain
        cases.append(case)
    dice = random.Random(name)
    decodes = []
    for _ in range(40):
        ids = [dice.randrange(256 if dice.random() < 0.7 else 638) for _ in range(12)]
        decodes.append({"ids": ids, "decoded": reference.decode(ids)})
    names = {str(len(ranks) + i): special[i] for i in (0, 1, 4, len(special) - 1)}
    return {"name": name, "ranks": len(ranks), "size": reference.n_vocab, "names": names, "cases": cases, "decodes": decodes}


# ---------------------------------------------------------------------------------------------------------- long words


def long_words():
    """Words of a megabyte: name -> text, made again by the test.  The generator is PCG's multiplier over 64 bits."""
    state = 1
    letters = []
    for _ in range(1 << 20):
        state = (state * 6364136223846793005 + 1442695040888963407) & (1 << 64) - 1
        letters.append("abcdefghijklmnopqrstuvwxyzé日"[(state >> 40) % 28])
    yield "one letter", "a" * (1 << 20)
    yield "two letters", "ab" * (1 << 19)
    yield "letters", "".join(letters)
    yield "spaces", " " * (1 << 20)


def digest(ids):
    value = 0
    for one in ids:
        value = (value * 6364136223846793005 + one + 1) & (1 << 64) - 1
    return f"{value:016x}"


def write_pieces(folder, pieces, llama3, texts, llama3_pattern, o200k_pattern, write):
    for name, model in pieces.items():
        (folder / f"{name}.model").write_bytes(model)
    all_variants = list(variants(pieces, texts[4] + texts[5]))
    write("sentencepiece.json",
          [sentencepiece_cases(name, base, behind, pieces[base], texts) for name, base, behind in all_variants])
    size = len(pieces_of(pieces["bpe"]))
    write("beside.json", [beside_cases(name, pieces["bpe"], *files) for name, *files in beside(size)])
    ranks = ranks_of(llama3)
    lines = "".join(f"{base64.b64encode(token).decode()} {rank}\n" for rank, token in enumerate(ranks))
    (folder / "tiktoken.model").write_text(lines)
    write("tiktoken.json", [
        tiktoken_cases("llama3", ranks, llama3_pattern, llama3_special(), texts),
        tiktoken_cases("llama4", filled(ranks), o200k_pattern, llama4_special(), texts),
    ])
    references = {
        name: sentencepiece.SentencePieceProcessor(model_proto=pieces[name]).encode for name in ("bpe", "unigram")
    } | {"tiktoken": encoding(ranks, llama3_pattern, llama3_special()).encode_ordinary}
    write("long_words.json", [
        {"word": word, "model": name, "count": len(ids), "digest": digest(ids)}
        for word, text in long_words()
        for name, encode in references.items()
        if (name, word) != ("tiktoken", "spaces")  # its regular expressions run out of stack
        for ids in [encode(text)]
    ])
