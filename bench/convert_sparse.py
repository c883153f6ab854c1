"""How much private memory `caravan convert` takes for a model of 8 GB, all of whose weights are zeros in a sparse file.

    python3 bench/convert_sparse.py CARAVAN_PROGRAM FOLDER [OPTION...]     options go to `caravan convert`: --dtype q4_0

FOLDER gets the source (no blocks on the disk) and then the result, which is removed again.  Prints the size of the weights,
the peak of the process's private memory (RssAnon of /proc), and the time.  Standard library alone.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

# The shape of Llama 3.2 3B with 36 layers instead of 28: 4.02e9 parameters.
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 128256, "hidden_size": 3072,
    "intermediate_size": 8192, "num_hidden_layers": 36, "num_attention_heads": 24, "num_key_value_heads": 8,
    "head_dim": 128, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
    "tie_word_embeddings": True, "torch_dtype": "bfloat16",
}


def tensors():
    hidden, inner = CONFIG["hidden_size"], CONFIG["intermediate_size"]
    query = CONFIG["num_attention_heads"] * CONFIG["head_dim"]
    kv = CONFIG["num_key_value_heads"] * CONFIG["head_dim"]
    yield "model.embed_tokens.weight", [CONFIG["vocab_size"], hidden]
    for layer in range(CONFIG["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        yield prefix + "input_layernorm.weight", [hidden]
        yield prefix + "self_attn.q_proj.weight", [query, hidden]
        yield prefix + "self_attn.k_proj.weight", [kv, hidden]
        yield prefix + "self_attn.v_proj.weight", [kv, hidden]
        yield prefix + "self_attn.o_proj.weight", [hidden, query]
        yield prefix + "post_attention_layernorm.weight", [hidden]
        yield prefix + "mlp.gate_proj.weight", [inner, hidden]
        yield prefix + "mlp.up_proj.weight", [inner, hidden]
        yield prefix + "mlp.down_proj.weight", [hidden, inner]
    yield "model.norm.weight", [hidden]


def write_source(folder):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    header, begin = {}, 0
    for name, shape in tensors():
        size = 2
        for extent in shape:
            size *= extent
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, begin + size]}
        begin += size
    text = json.dumps(header).encode()
    with open(folder / "model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + begin)
    return begin


def private_kilobytes(process):
    try:
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1])
    except OSError:
        pass
    return 0


def main(arguments):
    if len(arguments) < 2:
        print(__doc__.strip(), file=sys.stderr)
        return 2
    program, folder = os.path.abspath(arguments[0]), Path(arguments[1])
    source, target = folder / "sparse_model", folder / "sparse_result.gguf"
    weights = write_source(source)
    began = time.monotonic()
    process = subprocess.Popen([program, "convert", str(source), str(target), *arguments[2:]])
    peak = 0
    while process.poll() is None:
        peak = max(peak, private_kilobytes(process))
        time.sleep(0.02)
    seconds = time.monotonic() - began
    result = target.stat().st_size if target.exists() else 0
    for path in (target, source / "model.safetensors", source / "config.json"):
        path.unlink(missing_ok=True)
    source.rmdir()
    print(f"weights {weights / 1e9:.2f} GB, result {result / 1e9:.2f} GB, private memory at most {peak / 1e6:.3f} GB, "
          f"{seconds:.0f} s, status {process.returncode}")
    return 0 if process.returncode == 0 and peak < 1_000_000 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
