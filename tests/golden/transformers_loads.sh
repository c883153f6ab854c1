#!/usr/bin/env bash
# Writes every golden model again with Caravan, and checks that transformers loads the copies and computes the same logits.
# Both dialects of config.json, one file and shards take turns.
#
#   tests/golden/transformers_loads.sh CARAVAN_PROGRAM
#
# Needs a Python with tests/golden/requirements.txt: $CARAVAN_PYTHON, else python3; skips itself without one.
set -euo pipefail
program=$(realpath "$1")
cd "$(dirname "${BASH_SOURCE[0]}")"
python=${CARAVAN_PYTHON:-python3}

if ! "$python" -c 'import torch, transformers, safetensors' 2>/dev/null; then
  echo "SKIPPED: $python cannot import torch, transformers and safetensors; make a venv from requirements.txt"
  exit 0
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
count=0
for model in models/*/; do
  name=$(basename "$model")
  options=(--dtype f32)
  ((count % 2)) && options+=(--config-dialect rope_parameters)
  ((count % 3 == 0)) && options+=(--max-shard-bytes 100000)
  "$program" convert "$model" "$scratch/$name" "${options[@]}" >"$scratch/log"
  "$python" check_transformers_loads.py "$scratch/$name" "$model/expected.safetensors"
  count=$((count + 1))
done
echo "$count models written by Caravan and loaded by transformers"
