"""Goldens of single operations, where a whole model would blur which rounding or which pairing is wrong."""

import json
import math

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig
from transformers.activations import ACT2FN
from transformers.models.llama.modeling_llama import LlamaRMSNorm, LlamaRotaryEmbedding, apply_rotary_pos_emb

from exact import Exact, Stream

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
EPS = 1e-5
POSITIONS = [0, 1, 2, 7, 63, 64, 500, 4095, 8191, 131071]


def _random(name, *shape):
    values = Stream(100, name).normal(math.prod(shape))
    return torch.from_numpy(values).reshape(shape)


def _assert_close(stored, plain, what):
    """The plain torch result may differ from the stored one by single last bits, and rarely."""
    ulp = 2.0**-8 if stored.dtype is torch.bfloat16 else 2.0**-22
    difference = (stored.double() - plain.double()).abs()
    assert (difference <= ulp * stored.double().abs() + 1e-30).all(), what
    if stored.dtype is torch.bfloat16:
        assert (difference > 0).double().mean() < 0.005, what


def _rms_norm():
    """Rows of very different size: in the smallest ones eps outweighs the mean square."""
    rows, features = 16, 61
    scales = torch.tensor([10.0 ** (-4 + 6 * r / (rows - 1)) for r in range(rows)]).double()[:, None]
    stored = {}
    for name, dtype in DTYPES.items():
        x = (_random("rms_norm.x", rows, features) * scales).to(dtype)
        weight = (_random("rms_norm.weight", features) * 0.5 + 1.2).to(dtype)
        theirs = LlamaRMSNorm(features, eps=EPS)
        theirs.weight.data = weight
        if name == "f32":  # nothing to round in between
            wide = x.double()
            y = (wide / (wide.pow(2).mean(-1, keepdim=True) + EPS).sqrt() * weight.double()).to(dtype)
        else:
            with Exact():
                y = theirs(x)
        _assert_close(y, theirs(x), "LlamaRMSNorm")
        fused = torch.nn.RMSNorm(features, eps=EPS)
        fused.weight.data = weight
        plain = torch.nn.RMSNorm(features, eps=EPS, dtype=torch.float64)
        plain.weight.data = weight.double()
        once = plain(x.double()).to(dtype)
        _assert_close(once, fused(x), "torch.nn.RMSNorm")
        if name == "bf16":
            assert (y != once).double().mean() > 0.1, "the two roundings cannot be told apart"
        stored |= {f"{name}.x": x, f"{name}.weight": weight, f"{name}.hugging_face": y, f"{name}.fused": once}
    return stored


def _rope():
    heads, head_dim = 3, 16
    config = LlamaConfig(
        hidden_size=heads * head_dim,
        num_attention_heads=heads,
        head_dim=head_dim,
        max_position_embeddings=131072,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
    )
    positions = torch.tensor([POSITIONS])
    tokens = len(POSITIONS)
    half = head_dim // 2
    stored = {"positions": positions[0].to(torch.int32)}
    with Exact():
        rotary = LlamaRotaryEmbedding(config)
    stored["frequencies"] = rotary.inv_freq.clone()
    for name, dtype in DTYPES.items():
        x = _random("rope.x", tokens, heads, head_dim).to(dtype)
        # The angle is a float32 product; its cosine and sine are then exact up to the rounding to dtype.
        with Exact():
            cos, sin = rotary(torch.empty(0, dtype=torch.float64), positions)
        rounded_cos, rounded_sin = cos.to(dtype), sin.to(dtype)
        if name == "bf16":  # rounded after each product and after the sum
            y, _ = apply_rotary_pos_emb(x[None], x[None], rounded_cos, rounded_sin, unsqueeze_dim=2)
        else:
            y, _ = apply_rotary_pos_emb(
                x[None].double(), x[None].double(), rounded_cos.double(), rounded_sin.double(), unsqueeze_dim=2
            )
        # Meta's and torchtitan's apply_rotary_emb: neighbours are a complex number, the product stays unrounded.
        turns = torch.complex(cos[0, :, :half].float().double(), sin[0, :, :half].float().double())
        pairs = torch.view_as_complex(x.double().reshape(tokens, heads, half, 2))
        interleaved = torch.view_as_real(pairs * turns[:, None, :]).reshape(tokens, heads, head_dim).to(dtype)
        stored |= {
            f"{name}.x": x.reshape(tokens, -1).contiguous(),
            f"{name}.cos": rounded_cos[0, :, :half].contiguous(),
            f"{name}.sin": rounded_sin[0, :, :half].contiguous(),
            f"{name}.rotate_half": y[0].to(dtype).reshape(tokens, -1).contiguous(),
            f"{name}.interleaved": interleaved.reshape(tokens, -1).contiguous(),
        }
    return stored


def _swiglu():
    stored = {}
    for name, dtype in DTYPES.items():
        gate = (_random("swiglu.gate", 7, 61) * 4.0).to(dtype)
        up = _random("swiglu.up", 7, 61).to(dtype)
        once = (torch.nn.functional.silu(gate.double()) * up.double()).to(dtype)
        twice = torch.nn.functional.silu(gate.double()).to(dtype) * up
        _assert_close(twice, ACT2FN["silu"](gate) * up, "silu * up")
        stored |= {f"{name}.gate": gate, f"{name}.up": up, f"{name}.hugging_face": twice, f"{name}.fused": once}
    return stored


def _llama3(factor):
    return {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }


def _yarn(theta, **fields):
    return {"rope_type": "yarn", "rope_theta": theta, "original_max_position_embeddings": 4096, **fields}


def _phi(half, last):
    """Factors that grow with the wavelength, as a search for long contexts finds them."""
    long = [round(1.0 + (last - 1.0) * (i / (half - 1)) ** 2, 4) for i in range(half)]
    short = [round(1.0 + 1.5 * i / (half - 1), 4) for i in range(half)]
    return {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "original_max_position_embeddings": 4096,
        "short_factor": short,
        "long_factor": long,
    }


# name, head_dim, max_position_embeddings, rope_parameters, lengths
ROPE_KINDS = [
    ("llama_1", 128, 2048, {"rope_type": "default", "rope_theta": 10000.0}, [1]),
    ("llama_3", 128, 8192, {"rope_type": "default", "rope_theta": 500000.0}, [1]),
    ("llama_2_linear", 128, 4096, {"rope_type": "linear", "rope_theta": 10000.0, "factor": 8.0}, [1]),
    (
        "llama_2_dynamic",
        128,
        4096,
        {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0},
        [1, 4096, 4097, 6000, 8192],
    ),
    ("llama_3_1", 128, 131072, _llama3(8.0), [1]),
    ("llama_3_2", 64, 131072, _llama3(32.0), [1]),
    ("yarn_llama_2_128k", 128, 131072, _yarn(10000.0, factor=32.0), [1]),
    (
        "yarn_mscale",
        64,
        163840,
        _yarn(10000.0, factor=40.0, beta_fast=32, beta_slow=1, mscale=1.0, mscale_all_dim=0.707),
        [1],
    ),
    ("yarn_truncate_false", 64, 131072, _yarn(150000.0, factor=32.0, beta_fast=32.0, truncate=False), [1]),
    ("yarn_attention_factor", 128, 32768, _yarn(1000000.0, factor=8.0, attention_factor=0.9), [1]),
    ("longrope_phi", 96, 131072, _phi(48, 64.0), [1, 4096, 4097, 131072]),
    (
        "longrope_attention_factor",
        128,
        131072,
        _phi(64, 50.0) | {"factor": 16.0, "attention_factor": 1.25},
        [4096, 4097],
    ),
    ("longrope_factor", 64, 131072, _phi(32, 30.0) | {"factor": 8.0}, [4097]),
]


def _shortest(value):
    """The fewest digits that give the same float32."""
    return float(str(value.numpy()))


def _rope_kinds():
    entries = []
    for name, head_dim, max_position_embeddings, parameters, lengths in ROPE_KINDS:
        config = LlamaConfig(
            hidden_size=4 * head_dim,
            num_attention_heads=4,
            head_dim=head_dim,
            max_position_embeddings=max_position_embeddings,
            rope_parameters=dict(parameters),
        )
        tables = []
        for length in lengths:
            # The last position alone tells the layer the sequence's length.
            last = torch.tensor([[length - 1]])
            plain = LlamaRotaryEmbedding(config)
            plain(torch.empty(0), last)
            with Exact():
                rotary = LlamaRotaryEmbedding(config)
                rotary(torch.empty(0), last)
            _assert_close(rotary.inv_freq, plain.inv_freq, name)
            tables.append({"length": length, "frequencies": [_shortest(f) for f in rotary.inv_freq]})
        entries.append(
            {
                "name": name,
                "head_dim": head_dim,
                "max_position_embeddings": max_position_embeddings,
                "rope_parameters": parameters,
                "attention_scaling": float(rotary.attention_scaling),
                "tables": tables,
            }
        )
    return entries


def write_ops(folder):
    folder.mkdir()
    for name, make in (("rms_norm", _rms_norm), ("rope", _rope), ("swiglu", _swiglu)):
        save_file(make(), folder / f"{name}.safetensors")
    lines = ",\n".join(json.dumps(entry) for entry in _rope_kinds())
    (folder / "rope_kinds.json").write_text(f"[\n{lines}\n]\n")
