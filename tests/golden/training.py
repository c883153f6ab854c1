"""What training makes of a model: the gradients of one batch, and ten steps of AdamW on it.

The batch is all sequences of ids.json.  Each runs alone, and its gradients are added to the others'.  The loss is the
sum of the cross entropies of all targets divided by their number: a sequence of length 1 has none and adds nothing.
"""

import math

import torch
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

STEPS = 10
ADAMW = {"lr": 1e-3, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.1}
MAX_NORM = 1.0

# What an optimizer that is wrong in one place would have; the ten steps have to tell each from the right one.
MISTAKES = {
    "decay": {"weight_decay": 0.0},
    "vectors": {"decay_vectors": False},  # norms and biases do not decay
    "l2": {"decoupled": False},  # Adam's, whose decay goes through the moments
    "beta2": {"betas": [0.9, 0.999]},
    "clip": {"max_norm": math.inf},
}


def backward(built, ids, forward):
    """Accumulates the batch's gradients into the parameters and returns its loss.

    forward: a context in which the forward pass runs, entered once a sequence.
    """
    targets = sum(len(sequence) - 1 for sequence in ids)
    total = 0.0
    for sequence in ids:
        if len(sequence) < 2:
            continue
        tokens = torch.tensor([sequence])
        with torch.enable_grad():
            with forward():
                # transformers remembers the longest sequence of the past under dynamic scaling: begin anew.
                built.model.rotary_emb = LlamaRotaryEmbedding(built.config)
                logits = built(tokens, use_cache=False).logits
            loss = torch.nn.functional.cross_entropy(logits[0, :-1], tokens[0, 1:], reduction="sum") / targets
        loss.backward()
        total += loss.item()
    return total


def gradients(built, ids, forward):
    """{parameter's name: gradient}; a tied weight appears once, as the embedding."""
    built.zero_grad()
    backward(built, ids, forward)
    found = {name: parameter.grad for name, parameter in built.named_parameters()}
    for name, gradient in found.items():
        assert gradient is not None and gradient.abs().max() > 0, f"{name} has no gradient"
    return found


def steps(built, ids, forward, max_norm=MAX_NORM, decay_vectors=True, decoupled=True, **changes):
    """Trains built and returns [{"loss", "grad_norm"}]: the loss before each step, the norm before clipping."""
    settings = {**ADAMW, **changes}
    kind = torch.optim.AdamW if decoupled else torch.optim.Adam
    parameters = list(built.parameters())
    groups = [{"params": parameters}]
    if not decay_vectors:
        groups = [
            {"params": [p for p in parameters if p.dim() > 1]},
            {"params": [p for p in parameters if p.dim() == 1], "weight_decay": 0.0},
        ]
    optimizer = kind(groups, foreach=False, **{**settings, "betas": tuple(settings["betas"])})
    curve = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = backward(built, ids, forward)
        norm = torch.nn.utils.clip_grad_norm_(parameters, max_norm, foreach=False).item()
        optimizer.step()
        curve.append({"loss": loss, "grad_norm": norm})
    return curve


def curve_error(curve, reference):
    """The largest relative differences of the losses and of the norms."""
    return tuple(max(abs(a[k] - b[k]) / b[k] for a, b in zip(curve, reference)) for k in ("loss", "grad_norm"))
