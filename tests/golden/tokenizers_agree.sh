#!/usr/bin/env bash
# Lays Caravan's tokenizers and its trainer beside `tokenizers`, `sentencepiece` and `tiktoken`, with random texts and
# every character.
#
#   tests/golden/tokenizers_agree.sh CARAVAN_PROGRAM [TEXTS [FILE]]
#
# Needs a Python with these and transformers (tests/golden/requirements.txt): $CARAVAN_PYTHON, else python3; skips itself
# without one.
set -euo pipefail
program=$(realpath "$1")
cd "$(dirname "${BASH_SOURCE[0]}")"
python=${CARAVAN_PYTHON:-python3}

# The folder of that name here would do for a bare `import tokenizers`.
if ! "$python" -c 'from tokenizers import Tokenizer; import sentencepiece, tiktoken, transformers' 2>/dev/null; then
  echo "SKIPPED: $python cannot import tokenizers, sentencepiece, tiktoken and transformers; make a venv from requirements.txt"
  exit 0
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
PYTHONDONTWRITEBYTECODE=1 "$python" check_tokenizer.py "$program" "$scratch" "${@:2}"
