"""Trains a Hugging Face Llama in a plain PyTorch loop and prints what it took: the peer of bench/train_vs_pytorch.

    python train_pytorch.py --model DIR --data FILE.jsonl --rows N --steps N --dtype f32|bf16 [--compile] ...

Float32 weights; with bf16 the forward pass runs under autocast.  Fused AdamW on all parameters, gradients clipped to
norm 1.  Line k of the data is row k: {"ids": [...]}, every row of the same length.  The last line printed is one JSON
object.
"""

import argparse
import json
import time

parser = argparse.ArgumentParser()
parser.add_argument("--model", required=True)
parser.add_argument("--data", required=True)
parser.add_argument("--rows", type=int, required=True)
parser.add_argument("--steps", type=int, required=True)
parser.add_argument("--dtype", choices=("f32", "bf16"), required=True)
parser.add_argument("--threads", type=int, required=True)
parser.add_argument("--compile", action="store_true")
parser.add_argument("--lr", type=float, required=True)
parser.add_argument("--betas", type=float, nargs=2, required=True)
parser.add_argument("--eps", type=float, required=True)
parser.add_argument("--weight-decay", type=float, required=True)
parser.add_argument("--max-norm", type=float, required=True)
options = parser.parse_args()

import torch
import transformers

torch.set_num_threads(options.threads)
model = transformers.LlamaForCausalLM.from_pretrained(options.model, dtype=torch.float32, attn_implementation="sdpa")
model.config.use_cache = False
model.train()
parameters = list(model.parameters())
optimizer = torch.optim.AdamW(
    parameters,
    lr=options.lr,
    betas=tuple(options.betas),
    eps=options.eps,
    weight_decay=options.weight_decay,
    fused=True,
)
forward = torch.compile(model) if options.compile else model

with open(options.data) as data:
    rows = [json.loads(line)["ids"] for line in data]
losses, norms, seconds = [], [], []
for step in range(options.steps):
    begin = time.perf_counter()
    ids = torch.tensor(rows[step * options.rows : (step + 1) * options.rows])
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=options.dtype == "bf16"):
        # transformers shifts the labels itself and averages over all of them.
        loss = forward(input_ids=ids, labels=ids).loss
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(parameters, options.max_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    losses.append(loss.item())
    norms.append(norm.item())
    seconds.append(time.perf_counter() - begin)

print(
    json.dumps(
        {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "threads": torch.get_num_threads(),
            "instructions": torch.backends.cpu.get_cpu_capability(),
            "attention": model.config._attn_implementation,
            "losses": losses,
            "grad_norms": norms,
            "seconds": seconds,
        }
    )
)
