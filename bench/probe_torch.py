"""Times torch on the cases of probe_cpu.cc: one line a case, name and best seconds of a call.

  python probe_torch.py [--threads N] [--seconds S] [--filter TEXT] [--clock wall|cpu]
"""
import argparse
import time

import torch
import torch.nn.functional as F

parser = argparse.ArgumentParser()
parser.add_argument("--threads", type=int, default=0)
parser.add_argument("--seconds", type=float, default=1.0)
parser.add_argument("--filter", default="")
parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
options = parser.parse_args()
if options.threads > 0:
    torch.set_num_threads(options.threads)
torch.manual_seed(0)
now = time.process_time if options.clock == "cpu" else time.perf_counter


def probe(name, make, mode=torch.inference_mode):
    if options.filter not in name:
        return
    call = make()
    best, total, calls = 1e30, 0.0, 0
    with mode():
        call()
        call()
        while calls < 3 or total < options.seconds:
            begin = now()
            call()
            took = now() - begin
            best, total, calls = min(best, took), total + took, calls + 1
    print(f"{name}\t{best:.9f}", flush=True)


def probe_grad(name, make):
    probe(name, make, torch.enable_grad)


def values(dtype, *shape):
    return (torch.rand(*shape) - 0.5).to(dtype)


def trained(dtype, *shape):
    return values(dtype, *shape).requires_grad_()


def backward(y, inputs):
    """The gradients of inputs, again and again, from one forward pass."""
    dy = values(y.dtype, *y.shape)
    return lambda: torch.autograd.grad(y, inputs, dy, retain_graph=True)


def linear(dtype, tokens, features, out):
    x, w = values(dtype, tokens, features), values(dtype, out, features)
    return lambda: F.linear(x, w)


def attention(dtype, batch, length, kv_heads, keys):
    heads, head_dim = 12, 64
    q = values(dtype, batch, heads, length, head_dim)
    k = values(dtype, batch, kv_heads, keys or length, head_dim)
    v = values(dtype, batch, kv_heads, keys or length, head_dim)
    # Where heads are shared torch's fused CPU kernel takes them through enable_gqa.
    return lambda: F.scaled_dot_product_attention(q, k, v, is_causal=not keys, enable_gqa=kv_heads != heads)


def loss_head(dtype, tokens, hidden, vocab):
    x, w = values(dtype, tokens, hidden), values(dtype, vocab, hidden)
    targets = torch.arange(tokens) * 31 % vocab
    return lambda: F.cross_entropy(F.linear(x, w).float(), targets, reduction="none")


def rms_norm(dtype, tokens, features):
    x, w = values(dtype, tokens, features), values(dtype, features)
    return lambda: F.rms_norm(x, (features,), w, 1e-5)


def swiglu(dtype, tokens, features):
    gate, up = values(dtype, tokens, 2 * features).chunk(2, dim=-1)
    return lambda: F.silu(gate) * up


def linear_dx(dtype, tokens, features, out):
    x = trained(dtype, tokens, features)
    return backward(F.linear(x, values(dtype, out, features)), (x,))


def linear_dw(dtype, tokens, features, out):
    w = trained(dtype, out, features)
    return backward(F.linear(values(dtype, tokens, features), w), (w,))


def attention_grad(dtype, batch, length, kv_heads):
    heads, head_dim = 12, 64
    q = trained(dtype, batch, heads, length, head_dim)
    k = trained(dtype, batch, kv_heads, length, head_dim)
    v = trained(dtype, batch, kv_heads, length, head_dim)
    return backward(F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=kv_heads != heads), (q, k, v))


def loss_head_grad(dtype, tokens, hidden, vocab):
    x, w = trained(dtype, tokens, hidden), trained(dtype, vocab, hidden)
    targets = torch.arange(tokens) * 31 % vocab
    return lambda: torch.autograd.grad(F.cross_entropy(F.linear(x, w).float(), targets), (x, w))


def rms_norm_grad(dtype, tokens, features):
    x, w = trained(dtype, tokens, features), trained(dtype, features)
    return backward(F.rms_norm(x, (features,), w, 1e-5), (x, w))


def swiglu_grad(dtype, tokens, features):
    x = trained(dtype, tokens, 2 * features)
    gate, up = x.chunk(2, dim=-1)
    return backward(F.silu(gate) * up, (x,))


def adamw(elements):
    w = torch.nn.Parameter(values(torch.float32, elements))
    w.grad = values(torch.float32, elements)
    optimizer = torch.optim.AdamW([w], lr=8e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    return optimizer.step


for label, dtype in (("f32", torch.float32), ("bf16", torch.bfloat16)):
    for tokens, features, out in ((4096, 768, 2048), (4096, 4096, 768), (1, 4096, 768)):
        probe(f"linear {label} {tokens}x{features}x{out}", lambda: linear(dtype, tokens, features, out))
    for kv in (12, 4):
        for batch, length in ((1, 1024), (1, 4096), (4, 1024)):
            probe(f"attention {label} {batch}x{length} kv{kv}", lambda: attention(dtype, batch, length, kv, 0))
        probe(f"decode {label} 1x4096 kv{kv}", lambda: attention(dtype, 1, 1, kv, 4096))
    probe(f"loss_head {label} 1024x768x32000", lambda: loss_head(dtype, 1024, 768, 32000))
    for features in (768, 2048):
        probe(f"rms_norm {label} 4096x{features}", lambda: rms_norm(dtype, 4096, features))
        probe(f"swiglu {label} 4096x{features}", lambda: swiglu(dtype, 4096, features))

    for features, out in ((768, 2048), (2048, 768)):
        probe_grad(f"linear_dx {label} 4096x{features}x{out}", lambda: linear_dx(dtype, 4096, features, out))
        probe_grad(f"linear_dw {label} 4096x{features}x{out}", lambda: linear_dw(dtype, 4096, features, out))
    for kv in (12, 4):
        for batch, length in ((1, 1024), (1, 4096), (4, 1024)):
            probe_grad(f"attention_grad {label} {batch}x{length} kv{kv}",
                       lambda: attention_grad(dtype, batch, length, kv))
    probe_grad(f"loss_head_grad {label} 1024x768x32000", lambda: loss_head_grad(dtype, 1024, 768, 32000))
    for features in (768, 2048):
        probe_grad(f"rms_norm_grad {label} 4096x{features}", lambda: rms_norm_grad(dtype, 4096, features))
        probe_grad(f"swiglu_grad {label} 4096x{features}", lambda: swiglu_grad(dtype, 4096, features))

probe_grad(f"adamw f32 {16 << 20}", lambda: adamw(16 << 20))
