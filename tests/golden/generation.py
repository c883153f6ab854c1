"""Greedy continuations by transformers' generate().

Without transformers' cache: every step runs the whole sequence, so that what is stored is what the model's function says.
With its cache transformers gives other tokens under dynamic and longrope scaling once the sequence passes the trained
length: keys that were turned with the frequencies of a shorter sequence stay as they are.  For the other kinds both ways
must agree.
"""

import torch
from exact import Stream
from torch.overrides import TorchFunctionMode
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper
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


class StableSort(TorchFunctionMode):
    """torch.sort leaves open which of equal values comes first; here the first stays first."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is torch.sort:
            kwargs["stable"] = True
        return func(*args, **kwargs)


def sampling_cases():
    """[{"logits", "cases"}]: what transformers' warpers, in the order of its generate(), leave to be drawn."""
    for number, (count, step) in enumerate([(8, 1.0), (8, 0.0), (40, 0.25), (131, 0.125), (131, 0.0)]):
        logits = 2.0 * Stream(number, "sampling").normal(count)
        # Multiples of a step have equals among them.
        logits = torch.from_numpy(logits).float() if step == 0.0 else torch.from_numpy(logits).div(step).round() * step
        cases = []
        for temperature in (0.5, 1.0, 1.75):
            for top_k in (0, 1, 5, 50):
                for top_p in (0.0, 0.3, 0.9, 0.99, 1.0):
                    scores = logits.double()[None]
                    if temperature != 1.0:
                        scores = TemperatureLogitsWarper(temperature)(None, scores)
                    if top_k != 0:
                        scores = TopKLogitsWarper(top_k)(None, scores)
                    if top_p < 1.0:
                        with StableSort():
                            scores = TopPLogitsWarper(top_p)(None, scores)
                    probabilities = torch.softmax(scores[0], dim=-1)
                    ids = torch.isfinite(scores[0]).nonzero().flatten().tolist()
                    cases.append(
                        {
                            "temperature": temperature,
                            "top_k": top_k,
                            "top_p": top_p,
                            "ids": ids,
                            "probabilities": [float(f"{probabilities[i].item():.12g}") for i in ids],
                        }
                    )
        yield {"logits": [float(f"{x:.9g}") for x in logits.tolist()], "cases": cases}
