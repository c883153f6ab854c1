"""One PyTorch peer for the figures of scripts/gpu_programme: trains a random Llama for a few steps on a GPU, or decodes with it, and
prints one line of JSON.

  gpu_pytorch.py train --model hf|plain --shape 1b|8b-4 --seq 2048 --batch 4 --seconds 15
  gpu_pytorch.py decode --shape 1b --tokens 128

hf     transformers' LlamaForCausalLM with SDPA attention.
plain  a Llama as torchtitan writes it: SDPA with grouped heads, each block compiled, loss compiled.
Both hold f32 weights, compute in bf16 under autocast, and step with the fused AdamW.
"""

import argparse
import json
import time

import torch
import torch.nn.functional as F
from torch import nn

SHAPES = {
    "1b": dict(hidden=2048, ffn=8192, layers=16, heads=32, kv_heads=8, head_dim=64, vocab=128256, tied=True),
    "8b-4": dict(hidden=4096, ffn=14336, layers=4, heads=32, kv_heads=8, head_dim=128, vocab=128256, tied=False),
    "8b-8": dict(hidden=4096, ffn=14336, layers=8, heads=32, kv_heads=8, head_dim=128, vocab=128256, tied=False),
    "8b-16": dict(hidden=4096, ffn=14336, layers=16, heads=32, kv_heads=8, head_dim=128, vocab=128256, tied=False),
    "8b": dict(hidden=4096, ffn=14336, layers=32, heads=32, kv_heads=8, head_dim=128, vocab=128256, tied=False),
    "tiny": dict(hidden=64, ffn=128, layers=2, heads=4, kv_heads=2, head_dim=16, vocab=512, tied=True),
}


def rotary(positions, head_dim, theta=500000.0):
    frequencies = 1.0 / theta ** (torch.arange(0, head_dim, 2, device=positions.device).float() / head_dim)
    angles = positions.float()[:, None] * frequencies[None]
    return torch.cos(angles), torch.sin(angles)


def rotate(x, cos, sin):
    a, b = x.float().chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1).to(x.dtype)


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.q = nn.Linear(c["hidden"], c["heads"] * c["head_dim"], bias=False)
        self.k = nn.Linear(c["hidden"], c["kv_heads"] * c["head_dim"], bias=False)
        self.v = nn.Linear(c["hidden"], c["kv_heads"] * c["head_dim"], bias=False)
        self.o = nn.Linear(c["heads"] * c["head_dim"], c["hidden"], bias=False)

    def forward(self, x, cos, sin):
        b, t, _ = x.shape
        split = lambda y: y.view(b, t, -1, self.c["head_dim"]).transpose(1, 2)
        q, k, v = rotate(split(self.q(x)), cos, sin), rotate(split(self.k(x)), cos, sin), split(self.v(x))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return self.o(y.transpose(1, 2).reshape(b, t, -1))


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.attention = Attention(c)
        self.attention_norm = nn.RMSNorm(c["hidden"], eps=1e-5)
        self.feed_forward_norm = nn.RMSNorm(c["hidden"], eps=1e-5)
        self.gate = nn.Linear(c["hidden"], c["ffn"], bias=False)
        self.up = nn.Linear(c["hidden"], c["ffn"], bias=False)
        self.down = nn.Linear(c["ffn"], c["hidden"], bias=False)

    def forward(self, x, cos, sin):
        x = x + self.attention(self.attention_norm(x), cos, sin)
        y = self.feed_forward_norm(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class Plain(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.embedding = nn.Embedding(c["vocab"], c["hidden"])
        self.blocks = nn.ModuleList(Block(c) for _ in range(c["layers"]))
        self.norm = nn.RMSNorm(c["hidden"], eps=1e-5)
        self.head = nn.Linear(c["hidden"], c["vocab"], bias=False)
        if c["tied"]:
            self.head.weight = self.embedding.weight
        for p in self.parameters():
            if p.dim() == 2:
                nn.init.normal_(p, std=0.02)

    def forward(self, ids):
        cos, sin = rotary(torch.arange(ids.shape[1], device=ids.device), self.c["head_dim"])
        x = self.embedding(ids)
        for block in self.blocks:
            x = block(x, cos, sin)
        return self.head(self.norm(x))


def cross_entropy(logits, targets):
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


def huggingface(c, sequence):
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(vocab_size=c["vocab"], hidden_size=c["hidden"], intermediate_size=c["ffn"],
                         num_hidden_layers=c["layers"], num_attention_heads=c["heads"],
                         num_key_value_heads=c["kv_heads"], head_dim=c["head_dim"],
                         max_position_embeddings=max(sequence, 8192), rope_theta=500000.0,
                         tie_word_embeddings=c["tied"], use_cache=False, attn_implementation="sdpa")
    return LlamaForCausalLM(config)


def flops_per_token(c, sequence):
    """6 for each weight of a product, and causal attention counted once: what train::flops_per_token counts."""
    attention = c["hidden"] * (c["heads"] + 2 * c["kv_heads"]) * c["head_dim"] + c["heads"] * c["head_dim"] * c["hidden"]
    weights = c["layers"] * (attention + 3 * c["hidden"] * c["ffn"]) + c["vocab"] * c["hidden"]
    return 6.0 * weights + 6.0 * c["layers"] * c["heads"] * c["head_dim"] * sequence


def train(args, device):
    c = SHAPES[args.shape]
    torch.manual_seed(0)
    with torch.device(device):
        model = huggingface(c, args.seq) if args.model == "hf" else Plain(c)
    model.train()
    loss_of = cross_entropy
    if args.compile:
        if args.model == "hf":
            model = torch.compile(model)
        else:
            for i, block in enumerate(model.blocks):
                model.blocks[i] = torch.compile(block)
            loss_of = torch.compile(cross_entropy)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1,
                                  fused=device == "cuda")
    ids = torch.randint(0, c["vocab"], (args.batch, args.seq), device=device)
    targets = torch.roll(ids, -1, 1)
    losses = []

    def step():
        with torch.autocast(device, dtype=torch.bfloat16):
            out = model(ids)
            loss = loss_of(out.logits if args.model == "hf" else out, targets)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.detach())

    def synchronize():
        if device == "cuda":
            torch.cuda.synchronize()

    begin = time.time()
    for _ in range(3):
        step()
    synchronize()
    warm_up = time.time() - begin
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    times = []
    begin = time.time()
    while len(times) < 3 or time.time() - begin < args.seconds:
        start = time.perf_counter()
        step()
        synchronize()
        times.append(time.perf_counter() - start)
    times.sort()
    median = times[len(times) // 2]
    tokens = args.batch * args.seq
    print(json.dumps({
        "peer": args.model + ("-compiled" if args.compile else ""), "shape": args.shape, "seq": args.seq,
        "batch": args.batch, "tokens_per_second": tokens / median, "steps": len(times), "warm_up_seconds": warm_up,
        "tflops": flops_per_token(c, args.seq) * tokens / median / 1e12,
        "memory": torch.cuda.max_memory_allocated() if device == "cuda" else 0,
        "reserved": torch.cuda.max_memory_reserved() if device == "cuda" else 0,
        "loss": float(losses[-1]), "first_loss": float(losses[0])}), flush=True)


@torch.inference_mode()
def decode(args, device):
    c = SHAPES[args.shape]
    with torch.device(device):
        model = huggingface(c, 1024).to(torch.bfloat16)
    model.eval()
    model.config.use_cache = True
    ids = torch.randint(0, c["vocab"], (1, 128), device=device)
    options = dict(do_sample=False, eos_token_id=None, pad_token_id=0)
    if args.compile:
        options["cache_implementation"] = "static"
    generate = lambda n: model.generate(ids, min_new_tokens=n, max_new_tokens=n, **options)

    def timed(n):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        generate(n)
        torch.cuda.synchronize()
        return time.perf_counter() - begin

    for _ in range(3 if args.compile else 1):
        generate(args.tokens)
    one, many = min(timed(1) for _ in range(3)), min(timed(args.tokens + 1) for _ in range(3))
    print(json.dumps({"peer": "hf" + ("-compiled" if args.compile else ""), "shape": args.shape,
                      "decode_tokens_per_second": args.tokens / (many - one), "first_token_seconds": one}), flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["train", "decode"])
    parser.add_argument("--model", choices=["hf", "plain"], default="plain")
    parser.add_argument("--shape", choices=list(SHAPES), default="1b")
    parser.add_argument("--seq", type=int, default=2048)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--device", default="cuda")
    args = parser.parse_args()
    torch.set_float32_matmul_precision("high")
    (train if args.what == "train" else decode)(args, args.device)


main()
