"""Lays `caravan tokenize` and `caravan tokenizer train` beside `tokenizers`, `sentencepiece` and `tiktoken`.

    python check_tokenizer.py CARAVAN_PROGRAM SCRATCH_DIRECTORY [TEXTS [FILE]]

For the trained files and variants of tokenizers/ and for vocabularies that are learned here, TEXTS (150) random texts
of hostile characters must give the same ids, and random ids the same text; one variant of each kind sees every
character.  Caravan's trainer must learn from FILE (a text of its own) what the reference's trainer learns.
"""

import json
import random
import subprocess
import sys
import unicodedata
from pathlib import Path

import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

import piece_goldens
from tokenizer_goldens import LLAMA3, O200K, SPECIAL, TEXTS, TRAINING, merge_patch

HERE = Path(__file__).resolve().parent
SPACES = "\t\n\r\u000b\u0085\u00a0\u1680\u2003\u2028\u2029\u3000\u180e\u200b\ufeff  \n"
PIECES = ["'s", "'LL", "'\u017f", "<left>", "<both>", "word", "<|end_of_text|>", "ab", " ", "  ", "\r\n", "12345", "e\u0301",
          "ᄀ", "ᅡ", "ᆨ", "👩‍👩", "ſ", "ⓐ", "ﬁn", "\u0344", "\U0001f1e9", "the", " and", "'", ".", "é", "ß", "İ",
          "▁", "▁the", "<0x41>", "</s>", "<s>", "<unk>", "aB", "'LL", "//\n", "½", "ＡＢ", "<sep>", "abc"]
# Their patterns are hand scanners, which know what the reference knows.
SCANNED = ("qwen2", "llama4")
# Of the comparison, for the last line.
COUNTS = {"texts": 0, "ids": 0}


def random_text(dice):
    parts = []
    for _ in range(dice.randrange(1, 40)):
        kind = dice.random()
        if kind < 0.3:
            parts.append(dice.choice(PIECES))
        elif kind < 0.5:
            parts.append(dice.choice(SPACES) * dice.choice([1, 1, 1, 2, 5]))
        elif kind < 0.75:
            parts.append(chr(dice.randrange(0x20, 0x7F)))
        else:
            code = dice.randrange(dice.choice([0x300, 0x3000, 0x10000, 0x20000, 0x110000]))
            parts.append("" if 0xD800 <= code < 0xE000 else chr(code))
    return "".join(parts)


def settled(text):
    """Whether Python's tables, older than PCRE2's, know every character: PCRE2 runs patterns with its own tables."""
    return all(unicodedata.category(character) != "Cn" for character in text)


def caravan(program, folder, lines, *options):
    """One JSON value a line through `caravan tokenize --jsonl`."""
    text = "".join(json.dumps(line) + "\n" for line in lines)
    command = [program, "tokenize", "--tokenizer", folder, "--jsonl", *options]
    done = subprocess.run(command, input=text.encode(), capture_output=True)
    if done.returncode != 0:
        raise SystemExit(f"{command}: {done.stderr.decode()}")
    return [json.loads(line) for line in done.stdout.decode().split("\n")[:-1]]


def check_lines(name, what, ours, theirs, inputs):
    assert len(ours) == len(theirs), f"{name}, {what}: {len(ours)} lines for {len(theirs)}"
    for mine, yours, given in zip(ours, theirs, inputs):
        assert mine == yours, f"{name}, {what} of {given!r}:\n  Caravan    {mine}\n  reference  {yours}"
        COUNTS["texts"] += 1
        COUNTS["ids"] += len(yours) if isinstance(yours, list) else 0


def compare(name, program, path, texts, dice, ids_alone=False):
    reference = Tokenizer.from_file(str(path))

    def check(what, ours, theirs, inputs):
        check_lines(name, what, ours, theirs, inputs)

    theirs = [reference.encode(text).ids for text in texts]
    check("ids", caravan(program, path, texts), theirs, texts)
    if ids_alone:
        return
    bare = [reference.encode(text, add_special_tokens=False).ids for text in texts]
    check("bare ids", caravan(program, path, texts, "--no-add-special"), bare, texts)
    reference.encode_special_tokens = True
    plain = [reference.encode(text, add_special_tokens=False).ids for text in texts]
    reference.encode_special_tokens = False
    check("plain ids", caravan(program, path, texts, "--no-add-special", "--plain"), plain, texts)
    size = reference.get_vocab_size()
    lists = theirs + [[dice.randrange(size) for _ in range(dice.randrange(20))] for _ in texts]
    decoded = [reference.decode(ids, skip_special_tokens=False) for ids in lists]
    check("text", caravan(program, path, lists, "--decode"), decoded, lists)


def compare_model(name, program, path, encode, decode, size, texts, dice, special=None):
    """A tokenizer.model beside the library that it is of; `special` encodes special tokens that the text holds."""
    plain = [encode(text) for text in texts]
    check_lines(name, "ids", caravan(program, path, texts, "--no-add-special", "--plain"), plain, texts)
    if special is not None:
        check_lines(name, "special ids", caravan(program, path, texts, "--no-add-special"), [special(t) for t in texts], texts)
    lists = plain + [[dice.randrange(size) for _ in range(dice.randrange(20))] for _ in texts]
    check_lines(name, "text", caravan(program, path, lists, "--decode"), [decode(ids) for ids in lists], lists)


def compare_pieces(program, scratch, texts, every, dice):
    """Every variant of the small models on `texts`, and models with SentencePiece's own table of NFKC on every character."""
    path = scratch / "tokenizer.model"
    pieces = {name: (HERE / "tokenizers" / f"{name}.model").read_bytes()
              for name in ("bpe", "unigram", "bpe_unknown", "unigram_unknown")}
    variants = json.loads((HERE / "tokenizers" / "sentencepiece.json").read_text())
    models = [(one["name"], pieces[one["base"]] + bytes.fromhex(one["behind"])) for one in variants]
    for kind in ("bpe", "unigram"):
        models.append((f"{kind}_nmt_nfkc", piece_goldens.train(
            TRAINING, kind, 620, byte_fallback=True, character_coverage=0.98, normalization_rule_name="nmt_nfkc",
            remove_extra_whitespaces=True, user_defined_symbols=["<sep>", "é", "ab"], control_symbols=["<ctl>"])))
    for name, model in models:
        path.write_bytes(model)
        reference = sentencepiece.SentencePieceProcessor(model_proto=model)
        whole = name in ("bpe", "unigram", "bpe_unknown", "unigram_unknown") or "nmt_nfkc" in name
        compare_model(name, program, path, reference.encode, reference.decode, reference.get_piece_size(),
                      texts + (every if whole else []), dice)
    return len(models)


def compare_tiktoken(program, scratch, texts, every, dice):
    path = scratch / "tokenizer.model"
    ranks = piece_goldens.ranks_of(json.loads((HERE / "tokenizers" / "llama3.json").read_text()))
    for name, tokens, pattern, special in [
        ("tiktoken, Llama 3", ranks, LLAMA3, piece_goldens.llama3_special()),
        ("tiktoken, Llama 4", piece_goldens.filled(ranks), O200K, piece_goldens.llama4_special()),
    ]:
        lines = "".join(f"{piece_goldens.base64.b64encode(token).decode()} {i}\n" for i, token in enumerate(tokens))
        path.write_text(lines)
        reference = piece_goldens.encoding(tokens, pattern, special)
        compare_model(name, program, path, reference.encode_ordinary, reference.decode, len(ranks), texts + every, dice,
                      lambda text: reference.encode(text, allowed_special="all"))


def train_both(program, scratch, pattern, text, size):
    """Caravan's tokenizer.json; its vocabulary and merges must be the reference's."""
    source = scratch / "source.txt"
    source.write_bytes(text.encode())
    folder = scratch / f"trained_{pattern}"
    command = [program, "tokenizer", "train", source, "--vocab-size", str(size), "--output", folder, "--pattern", pattern]
    subprocess.run([str(one) for one in command], check=True, capture_output=True)
    reference = Tokenizer(models.BPE())
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern == "gpt2")
    cut = [] if pattern == "gpt2" else [pre_tokenizers.Split(Regex(LLAMA3), "isolated")]
    reference.pre_tokenizer = pre_tokenizers.Sequence([*cut, level])
    reference.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=2,
        show_progress=False,
        special_tokens=[AddedToken(t, special=True, normalized=False) for t in SPECIAL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    reference.train_from_iterator([text], trainer)
    theirs = json.loads(reference.to_str())["model"]
    ours = json.loads((folder / "tokenizer.json").read_text())["model"]
    assert ours["vocab"] == theirs["vocab"], f"{pattern}: another vocabulary"
    assert ours["merges"] == theirs["merges"], f"{pattern}: other merges"
    assert Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size() == len(ours["vocab"])
    return folder / "tokenizer.json"


def main():
    program, scratch = sys.argv[1], Path(sys.argv[2])
    count = int(sys.argv[3]) if len(sys.argv) > 3 else 150
    dice = random.Random(1)
    texts = TEXTS + [random_text(dice) for _ in range(count)]
    variants = json.loads((HERE / "tokenizers" / "expected.json").read_text())
    for variant in variants:
        base = json.loads((HERE / "tokenizers" / f"{variant['base']}.json").read_text())
        path = scratch / f"{variant['name']}.json"
        path.write_text(json.dumps(merge_patch(base, variant["patch"])))
        scanned = "Split" not in json.dumps(variant["patch"].get("pre_tokenizer", {})) or variant["name"] in SCANNED
        compare(variant["name"], program, path, texts if scanned else [t for t in texts if settled(t)], dice)
    # Every character but the surrogates, in texts that put it beside letters and spaces.
    every = ["".join(f"a{chr(c)} {chr(c)}\n" for c in range(b, b + 256)) for b in range(0, 0x110000, 256)
             if not 0xD800 <= b < 0xE000]
    for name in ("gpt2", "llama3", "llama4", "smollm", "added_nfc", "added_nfkd", "llama2_without_template", "nfkc"):
        compare(name, program, scratch / f"{name}.json", every, dice, ids_alone=True)
    source = Path(sys.argv[4]).read_bytes().decode() if len(sys.argv) > 4 else "".join(TEXTS) + TRAINING * 3
    for pattern in ("gpt2", "llama3"):
        compare("trained " + pattern, program, train_both(program, scratch, pattern, source, 1000), texts, dice)
    models = compare_pieces(program, scratch, texts, every, dice)
    compare_tiktoken(program, scratch, texts, every, dice)
    print(f"{len(variants)} tokenizer.json, two trained ones, {models} SentencePiece models and two files of tiktoken agree "
          f"with their references: {COUNTS['texts']:,} texts, {COUNTS['ids']:,} ids")


if __name__ == "__main__":
    main()
