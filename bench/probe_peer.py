"""Encodes a file with another tokenizer on one thread, as probe_tokenizer.cc does with Caravan.

    python probe_peer.py PEER TOKENIZER FILE ROUNDS IDS

PEER: tiktoken, tokenizers, gigatoken or sentencepiece.  Prints "case<TAB>seconds", the medians of cold and warm; IDS gets
the ids, four bytes each.
"""

import json
import os
import sys
import time
from pathlib import Path

os.environ.update(TOKENIZERS_PARALLELISM="false", RAYON_NUM_THREADS="1")

import numpy  # noqa: E402


def spelled_bytes():
    """The bytes that the characters of a byte-level vocabulary stand for."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


def make_tiktoken(path):
    import tiktoken

    file = json.loads((path / "tokenizer.json").read_text())
    byte_of = spelled_bytes()
    special = {one["content"] for one in file["added_tokens"]}
    ranks = {bytes(byte_of[c] for c in token): i for token, i in file["model"]["vocab"].items() if token not in special}
    split = file["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"]

    def make():
        encoding = tiktoken.Encoding("bench", pat_str=split, mergeable_ranks=ranks, special_tokens={})
        return encoding.encode_ordinary

    return make


def make_tokenizers(path):
    from tokenizers import Tokenizer

    def make():
        tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
        tokenizer.encode_special_tokens = True
        return lambda text: tokenizer.encode(text, add_special_tokens=False).ids

    return make


def make_gigatoken(path):
    import gigatoken

    model = path / "tokenizer.model"

    def make():
        tokenizer = (
            gigatoken.Tokenizer.from_sentencepiece(model) if model.exists() else gigatoken.Tokenizer(path / "tokenizer.json")
        )
        return tokenizer.encode

    return make


def make_sentencepiece(path):
    import sentencepiece

    return lambda: sentencepiece.SentencePieceProcessor(model_file=str(path / "tokenizer.model")).encode


def main():
    peer, path, file, rounds, ids_path = sys.argv[1:]
    make = globals()[f"make_{peer}"](Path(path))
    data = Path(file).read_bytes()
    text = data.decode()  # made before the clock runs; gigatoken takes bytes as well
    times = {"cold": [], "warm": []}
    for _ in range(int(rounds)):
        encode = make()
        for name in times:
            begin = time.perf_counter()
            ids = encode(data if peer == "gigatoken" else text)
            times[name].append(time.perf_counter() - begin)
    for name, seconds in times.items():
        print(f"{name}\t{sorted(seconds)[len(seconds) // 2]:.6f}")
    numpy.asarray(ids, dtype=numpy.int32).tofile(ids_path)


main()
