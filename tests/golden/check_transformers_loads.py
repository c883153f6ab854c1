"""Loads a directory that Caravan wrote with transformers and compares its logits with a golden's.

    python check_transformers_loads.py DIR EXPECTED

DIR holds config.json and the weights; EXPECTED is an expected.safetensors of models/ with its ids.json beside it.
Every key must be accounted for and every logit be within 1e-5 of the largest one.  Prints one line; exit status 0 or 1.
"""

import json
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers
from safetensors.torch import load_file
from transformers import LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from exact import relative_error

TOLERANCE = 1e-5


def check(directory, expected_path):
    """None when all is well, else what is wrong; and the largest error."""
    built, info = LlamaForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    problems = [f"{kind} {sorted(map(str, found))}" for kind, found in info.items() if found]
    if problems:
        return "transformers reports " + "; ".join(problems), float("nan")
    built.eval()
    expected = load_file(expected_path)
    ids = json.loads((expected_path.parent / "ids.json").read_text())
    largest = 0.0
    for s, sequence in enumerate(ids):
        # transformers remembers the longest sequence of the past under dynamic scaling: begin anew.
        built.model.rotary_emb = LlamaRotaryEmbedding(built.config)
        with torch.no_grad():
            logits = built(torch.tensor([sequence]), use_cache=False).logits[0]
        reference = expected[f"logits.{s}"]
        if logits.shape != reference.shape:
            return f"logits.{s} is {list(logits.shape)}, not {list(reference.shape)}", float("nan")
        error = relative_error(logits, reference)
        if not error <= TOLERANCE:  # NaN too
            return f"logits.{s} is {error:.1e} of its scale away", error
        largest = max(largest, error)
    return None, largest


def main(arguments):
    if len(arguments) != 2:
        print(__doc__.strip(), file=sys.stderr)
        return 2
    directory, expected_path = Path(arguments[0]), Path(arguments[1])
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    try:
        problem, error = check(directory, expected_path)
    except Exception as exception:  # what a user of transformers would see
        problem, error = f"{type(exception).__name__}: {exception}".splitlines()[0], float("nan")
    if problem:
        print(f"{directory}: {problem}")
        return 1
    print(f"{directory}: transformers {transformers.__version__} loads it, logits within {error:.1e} of their scale")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
