"""Encodes a file with Hugging Face `tokenizers` on one thread, as probe_tokenizer.cc does with Caravan.

    python probe_tokenizers.py TOKENIZER FILE
"""

import os
import sys
import time
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"

from tokenizers import Tokenizer


def best_seconds(work):
    best = float("inf")
    for _ in range(3):
        begin = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - begin)
    return best


path = Path(sys.argv[1])
tokenizer = Tokenizer.from_file(str(path / "tokenizer.json" if path.is_dir() else path))
data = Path(sys.argv[2]).read_bytes()
text = data.decode()
lines = [line + "\n" for line in text.split("\n")]
for name, work in (
    ("one text", lambda: tokenizer.encode(text)),
    ("lines", lambda: tokenizer.encode_batch_fast(lines)),
):
    seconds = best_seconds(work)
    print(f"{name}\t{seconds:.6f}\t{len(data) / seconds / 1e6:.1f}")
