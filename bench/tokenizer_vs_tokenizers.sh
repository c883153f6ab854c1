#!/bin/sh
# Encodes a text with Caravan and with Hugging Face `tokenizers`, each on one thread with the same tokenizer.json, and
# prints both times and the ratio (above 1: we are faster).
#
#   bench/tokenizer_vs_tokenizers.sh PROBE_TOKENIZER TOKENIZER FILE [PYTHON]
#
# PROBE_TOKENIZER is the built program, PYTHON an interpreter that has tokenizers (default python3).
set -eu
probe=${1:?"usage: tokenizer_vs_tokenizers.sh PROBE_TOKENIZER TOKENIZER FILE [PYTHON]"}
here=$(dirname "$0")
results=$(mktemp -d)
trap 'rm -r "$results"' EXIT
"$probe" "$2" "$3" >"$results/caravan"
"${4:-python3}" "$here/probe_tokenizers.py" "$2" "$3" >"$results/tokenizers"
grep -m1 'model name' /proc/cpuinfo | sed 's/.*: //'
awk -F'\t' '
  NR == FNR { seconds[$1] = $2; rate[$1] = $3; next }
  FNR == 1 { printf "%-10s %12s %16s %8s\n", "case", "caravan MB/s", "tokenizers MB/s", "ratio" }
  { printf "%-10s %12.1f %16.1f %8.1f\n", $1, $3, rate[$1], seconds[$1] / $2 }
' "$results/tokenizers" "$results/caravan"
