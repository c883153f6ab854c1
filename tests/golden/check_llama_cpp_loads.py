"""Loads a GGUF file with llama.cpp and compares its logits with those in a safetensors file.

    python check_llama_cpp_loads.py FILE.gguf EXPECTED.safetensors IDS.json TOLERANCE

Every logit of every position must be within TOLERANCE of the largest one.  Prints one line; exit status 0 or 1.
"""

import ctypes
import json
import sys

import llama_cpp
import numpy as np
from safetensors.numpy import load_file

F32 = 0  # GGML_TYPE_F32


@llama_cpp.llama_log_callback
def quiet(_level, text, _data):
    messages.append(text.decode(errors="replace"))


messages = []


def logits_of(model, ids):
    """[tokens, vocab] of one sequence in a context of its own, keys and values in f32."""
    parameters = llama_cpp.llama_context_default_params()
    parameters.n_ctx = max(256, len(ids))
    parameters.n_batch = parameters.n_ubatch = parameters.n_ctx
    parameters.n_threads = parameters.n_threads_batch = 1
    parameters.type_k = parameters.type_v = F32
    parameters.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
    context = llama_cpp.llama_init_from_model(model, parameters)
    if not context:
        raise RuntimeError("no context: " + "".join(messages[-5:]))
    batch = llama_cpp.llama_batch_init(len(ids), 0, 1)
    batch.n_tokens = len(ids)
    for i, token in enumerate(ids):
        batch.token[i] = token
        batch.pos[i] = i
        batch.n_seq_id[i] = 1
        batch.seq_id[i][0] = 0
        batch.logits[i] = 1
    if llama_cpp.llama_decode(context, batch) != 0:
        raise RuntimeError("llama_decode failed: " + "".join(messages[-5:]))
    vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    pointer = llama_cpp.llama_get_logits(context)
    result = np.ctypeslib.as_array(ctypes.cast(pointer, ctypes.POINTER(ctypes.c_float)), (len(ids), vocab)).copy()
    llama_cpp.llama_batch_free(batch)
    llama_cpp.llama_free(context)
    return result


def main(arguments):
    if len(arguments) != 4:
        print(__doc__.strip(), file=sys.stderr)
        return 2
    path, expected_path, ids_path, tolerance = *arguments[:3], float(arguments[3])
    llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
    if not model:
        print(f"{path}: llama.cpp does not load it: " + "".join(messages[-5:]))
        return 1
    expected = load_file(expected_path)
    largest = 0.0
    with open(ids_path, encoding="utf-8") as file:
        sequences = json.load(file)
    for number, ids in enumerate(sequences):
        reference = expected[f"logits.{number}"]
        found = logits_of(model, ids)
        if found.shape != reference.shape:
            print(f"{path}: logits.{number} is {found.shape}, not {reference.shape}")
            return 1
        error = float(np.abs(found - reference).max() / np.abs(reference).max())
        if not error <= tolerance:  # NaN too
            print(f"{path}: logits.{number} is {error:.1e} of its scale away, {tolerance:g} is allowed")
            return 1
        largest = max(largest, error)
    print(f"{path}: llama.cpp loads it, logits within {largest:.1e} of their scale")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
