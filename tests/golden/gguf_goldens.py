"""Makes the GGUF fixtures of gguf/ with the `gguf` package, and llama.cpp's own quantisation errors.

    python gguf_goldens.py [--ggml LIBGGML-BASE.so]    writes gguf/ beside this file; unchanged sources give unchanged bytes

With --ggml the errors in quantize.json are measured anew with that library (the package llama-cpp-python builds it, in
its folder lib); without it they stay as they are.
"""

import ctypes
import json
import sys
import zlib
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Q
from safetensors.numpy import load_file

HERE = Path(__file__).resolve().parent
OUT = HERE / "gguf"

READABLE = [Q.F32, Q.F16, Q.BF16, Q.Q8_0, Q.Q4_0, Q.Q4_1, Q.Q5_0, Q.Q5_1, Q.Q2_K, Q.Q3_K, Q.Q4_K, Q.Q5_K, Q.Q6_K]
WRITABLE = [Q.Q8_0, Q.Q4_0, Q.Q4_1, Q.Q5_0, Q.Q5_1, Q.Q4_K, Q.Q6_K]


class Random:
    """The generator of tests/support/lcg.h: integers alone, so that C++ draws the same."""

    def __init__(self, seed):
        self.state = seed

    def draw(self):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2**64
        return self.state >> 33

    def bytes(self, count):
        return np.array([self.draw() & 255 for _ in range(count)], dtype=np.uint8)

    def uniform(self):
        return (self.draw() + 0.5) / 2**31

    def normal(self):
        return sum(self.uniform() for _ in range(12)) - 6.0


def values(kind, count, seed):
    """Weights as models have them, and worse, in f32."""
    random = Random(seed)
    result = np.empty(count, dtype=np.float32)
    for i in range(count):
        x = random.normal()
        if kind == "heavy":
            x = x * x * x
        elif kind == "outliers":
            x = x * 20.0 if random.uniform() < 1.0 / 64.0 else x
        elif kind == "offset":
            x = x + 1.5
        result[i] = np.float32(x * 0.02)
    return result


KINDS = ["normal", "heavy", "outliers", "offset"]
ROWS, COLUMNS = 16, 512


def adversarial_blocks(qtype):
    """Blocks of all zeros, all ones, odd scales, and random ones."""
    elements, size = gguf.GGML_QUANT_SIZES[qtype]
    count = max(1, 256 // elements) if elements < 256 else 1
    random = Random(int(qtype) + 1000)
    blocks = [np.zeros(size * count, np.uint8), np.full(size * count, 255, np.uint8)]
    blocks += [random.bytes(size * count) for _ in range(4)]
    return np.concatenate(blocks)


def dequantize(data, qtype):
    with np.errstate(all="ignore"):
        return gguf.quants.dequantize(data, qtype).reshape(-1).astype(np.float32)


def canonical(numbers):
    """NaN has many bits; which of them a processor gives is its own affair."""
    bits = numbers.view(np.uint32).copy()
    bits[np.isnan(numbers)] = 0x7FC00000
    return bits


def write_types():
    """Every readable type as blocks and as what they mean, and every type of metadata."""
    writer = gguf.GGUFWriter(OUT / "types.gguf", "nothing")
    writer.add_uint8("value.u8", 200)
    writer.add_int8("value.i8", -100)
    writer.add_uint16("value.u16", 60000)
    writer.add_int16("value.i16", -30000)
    writer.add_uint32("value.u32", 4000000000)
    writer.add_int32("value.i32", -2000000000)
    writer.add_float32("value.f32", 1e-5)
    writer.add_bool("value.bool", True)
    writer.add_string("value.text", "naïve ▁ text")
    writer.add_uint64("value.u64", 2**63 + 5)
    writer.add_int64("value.i64", -(2**62))
    writer.add_float64("value.f64", 0.1)
    writer.add_array("array.texts", ["", "a", "▁b"])
    writer.add_array("array.i32", [1, -2, 3])
    writer.add_array("array.f32", [0.5, -1e-5])
    writer.add_array("array.bool", [True, False])
    checks = {}
    for qtype in READABLE:
        blocks = adversarial_blocks(qtype)
        expected = dequantize(blocks, qtype)
        writer.add_tensor(f"blocks.{qtype.name}", blocks.reshape(1, -1), raw_dtype=qtype)
        writer.add_tensor(f"expected.{qtype.name}", canonical(expected).view(np.float32))
        elements, size = gguf.GGML_QUANT_SIZES[qtype]
        many = Random(int(qtype)).bytes(size * (65536 // elements))
        checks[qtype.name] = zlib.crc32(canonical(dequantize(many, qtype)).tobytes())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return checks


def permute(weights, heads):
    """llama.cpp's order of rotary rows: of a head's halves, one of each in turn."""
    shape = weights.shape
    return weights.reshape(heads, 2, shape[0] // heads // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
WHOLE = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
         "lm_head.weight": "output.weight"}


def gguf_name(name):
    if name in WHOLE:
        return WHOLE[name]
    layer, rest = name.removeprefix("model.layers.").split(".", 1)
    stem, kind = rest.rsplit(".", 1)
    return f"blk.{layer}.{NAMES[stem]}.{kind}"


def write_model(name):
    """A golden model as llama.cpp's converter writes it, with nothing that only Caravan knows."""
    folder = HERE / "models" / name
    # What a config.json may leave out: transformers' LlamaConfig.
    config = {"rms_norm_eps": 1e-6, "max_position_embeddings": 2048} | json.loads((folder / "config.json").read_text())
    heads = config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads", heads)
    dim = config.get("head_dim") or config["hidden_size"] // heads
    rope = config.get("rope_parameters") or {"rope_theta": config.get("rope_theta", 10000.0)}
    writer = gguf.GGUFWriter(OUT / f"{name}.gguf", "llama")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_key_length(dim)
    writer.add_value_length(dim)
    writer.add_rope_dimension_count(dim)
    writer.add_rope_freq_base(rope["rope_theta"])
    tensors = {}
    for path in sorted(folder.glob("model*.safetensors")):
        tensors.update(load_file(path))
    for tensor, data in sorted(tensors.items()):
        if ".q_proj." in tensor:
            data = permute(data, heads)
        elif ".k_proj." in tensor:
            data = permute(data, kv_heads)
        writer.add_tensor(gguf_name(tensor), np.ascontiguousarray(data))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


# Llama 3.1's scaling as the released models have it, and others.
LLAMA3 = [
    {"theta": 500000.0, "head_dim": 128, "factor": 8.0, "low": 1.0, "high": 4.0, "original": 8192},
    {"theta": 500000.0, "head_dim": 64, "factor": 32.0, "low": 1.0, "high": 4.0, "original": 8192},
    {"theta": 10000.0, "head_dim": 128, "factor": 4.0, "low": 1.0, "high": 2.0, "original": 4096},
    {"theta": 500000.0, "head_dim": 128, "factor": 16.0, "low": 2.0, "high": 8.0, "original": 16384},
]


def divisors(case):
    """The divisors of rope_freqs.weight: llama.cpp's conversion/llama.py, generate_extra_tensors."""
    exponents = np.arange(0, case["head_dim"], 2, dtype=np.float32) / np.float32(case["head_dim"])
    frequencies = (1.0 / np.power(np.float64(case["theta"]), exponents)).astype(np.float32)
    low = case["original"] / case["low"]
    high = case["original"] / case["high"]
    result = []
    for frequency in frequencies:
        wavelength = 2 * np.pi / float(frequency)
        if wavelength < high:
            result.append(1.0)
        elif wavelength > low:
            result.append(case["factor"])
        else:
            smooth = (case["original"] / wavelength - case["low"]) / (case["high"] - case["low"])
            result.append(1 / ((1 - smooth) / case["factor"] + smooth))
    return [float(np.float32(one)) for one in result]


def rmse(a, b):
    return float(np.sqrt(np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2)))


def llama_cpp_errors(library):
    """Root mean square errors of llama.cpp's quantisers, by type and kind of data."""
    ggml = ctypes.CDLL(library)
    ggml.ggml_version.restype = ctypes.c_char_p
    ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
    ggml.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64,
                                         ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]
    errors = {}
    for kind in KINDS:
        data = values(kind, ROWS * COLUMNS, 1 + KINDS.index(kind))
        for qtype in WRITABLE:
            elements, size = gguf.GGML_QUANT_SIZES[qtype]
            blocks = np.zeros(ROWS * COLUMNS // elements * size, np.uint8)
            ggml.ggml_quantize_chunk(int(qtype), data.ctypes.data, blocks.ctypes.data, 0, ROWS, COLUMNS, None)
            errors.setdefault(qtype.name, {})[kind] = rmse(data, dequantize(blocks, qtype))
    return {"ggml": ggml.ggml_version().decode(), "rows": ROWS, "columns": COLUMNS, "rmse": errors}


def write_json(path, value):
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")


def write_gguf():
    OUT.mkdir(exist_ok=True)
    checks = write_types()
    write_json(OUT / "types.json", checks)
    for name in ("biases", "wide_head_dim"):
        write_model(name)
    write_json(OUT / "llama3.json", [{**case, "divisors": divisors(case)} for case in LLAMA3])


if __name__ == "__main__":
    write_gguf()
    if sys.argv[1:2] == ["--ggml"]:
        write_json(OUT / "quantize.json", llama_cpp_errors(sys.argv[2]))
