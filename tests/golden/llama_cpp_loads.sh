#!/usr/bin/env bash
# Writes golden models and a quantised one as GGUF with Caravan, and checks that llama.cpp loads them and computes the same
# logits.
#
#   tests/golden/llama_cpp_loads.sh CARAVAN_PROGRAM
#
# Needs a Python with tests/golden/requirements-llama-cpp.txt: $CARAVAN_LLAMA_CPP_PYTHON, else $CARAVAN_PYTHON, else
# python3; skips itself without one.
set -euo pipefail
program=$(realpath "$1")
cd "$(dirname "${BASH_SOURCE[0]}")"
python=${CARAVAN_LLAMA_CPP_PYTHON:-${CARAVAN_PYTHON:-python3}}

if ! "$python" -c 'import llama_cpp, numpy, safetensors' 2>/dev/null; then
  echo "SKIPPED: $python cannot import llama_cpp, numpy and safetensors; make a venv from requirements-llama-cpp.txt"
  exit 0
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
count=0
for model in models/*/; do
  name=$(basename "$model")
  # llama.cpp has no dynamic scaling, reads no betas of yarn and rounds the ends of its ramp, and chooses longrope's factors
  # by the context's size, not by the sequence's.
  case $name in gqa_dynamic | gqa_yarn | yarn_truncate | gqa_longrope) continue ;; esac
  "$program" convert "$model" "$scratch/$name.gguf" --dtype f32 >"$scratch/log" 2>&1
  "$python" check_llama_cpp_loads.py "$scratch/$name.gguf" "$model/expected.safetensors" "$model/ids.json" 1e-4
  count=$((count + 1))
done

# Blocks: the same file computed by both.  Where weights are blocks llama.cpp rounds activations to eight bits: a noise of
# amax / 127 / sqrt(12), amax the largest of 256 activations, up to ten times their deviation behind the gate: 0.023 of the
# product.  Nine products follow each other, two layers of four and the head: 0.023 sqrt(9) = 0.07, of a logit's deviation as of
# the largest logit.  A wrong scale or order of rows is of order one.
cat >"$scratch/config.json" <<'CONFIG'
{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 256, "hidden_size": 256,
 "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
 "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "initializer_range": 0.08}
CONFIG
echo '[[7, 1, 200, 33, 99, 14, 250, 0, 77, 18], [5]]' >"$scratch/ids.json"
"$program" init "$scratch/config.json" "$scratch/blocks" --seed 4 >"$scratch/log" 2>&1
for type in f16 bf16 q8_0 q6_k q5_1 q5_0 q4_k q4_1 q4_0; do
  "$program" convert "$scratch/blocks" "$scratch/$type.gguf" --dtype "$type" >"$scratch/log" 2>&1
  "$program" dump --model "$scratch/$type.gguf" --ids "$scratch/ids.json" --what logits \
    --output "$scratch/$type.safetensors" >"$scratch/log" 2>&1
  "$python" check_llama_cpp_loads.py "$scratch/$type.gguf" "$scratch/$type.safetensors" "$scratch/ids.json" 7e-2
  count=$((count + 1))
done
echo "$count files written by Caravan and loaded by llama.cpp"
