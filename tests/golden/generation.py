"""Greedy continuations by transformers' generate().

Without transformers' cache: every step runs the whole sequence, so that what is stored is what the model's function says.
With its cache transformers gives other tokens under dynamic and longrope scaling once the sequence passes the trained
length: keys that were turned with the frequencies of a shorter sequence stay as they are.  For the other kinds both ways
must agree.
"""

import torch
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

NEW_TOKENS = 24
# Of the two best logits, over the largest magnitude: twice what the tests allow a logit in float32 to be off, and as
# much again to spare.
MIN_MARGIN = 4e-4


def continue_greedily(built, prompt, use_cache):
    """The new ids, and the smallest margin between the two best logits of a step."""
    built.model.rotary_emb = LlamaRotaryEmbedding(built.config)  # begin anew: it remembers the longest sequence
    output = built.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),  # id 0 is no padding
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        use_cache=use_cache,
        eos_token_id=None,
        pad_token_id=0,
        return_dict_in_generate=True,
        output_logits=True,
    )
    logits = torch.stack(output.logits)[:, 0]
    best = logits.topk(2, dim=-1).values
    margin = ((best[:, 0] - best[:, 1]) / logits.abs().amax(-1)).min().item()
    return output.sequences[0, len(prompt) :].tolist(), margin


def continuations(built, prompts):
    """[{"prompt", "ids"}], the least margin, and which prompts transformers' own cache continues otherwise."""
    found, least, differ = [], 1.0, []
    for number, prompt in enumerate(prompts):
        ids, margin = continue_greedily(built, prompt, use_cache=False)
        cached, _ = continue_greedily(built, prompt, use_cache=True)
        found.append({"prompt": prompt, "ids": ids})
        least = min(least, margin)
        if cached != ids:
            differ.append(number)
    return found, least, differ
