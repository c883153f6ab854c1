"""Makes the fixtures of this folder from transformers' LlamaForCausalLM.

    python make_goldens.py          writes models/, ops/, tokenizers/ and the JSON files of chat/ beside this file;
                                    unchanged sources give unchanged bytes

Each model is written first, then loaded back with from_pretrained, so that what is run is what the files say.
"""

import json
import math
import os
import shutil
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

import generation
import training
from chat_goldens import write_chat
from exact import Exact, Stream, relative_error, widen
from gguf_goldens import write_gguf
from models import MODELS, full_config
from ops_goldens import write_ops
from tokenizer_goldens import write_tokenizers

HERE = Path(__file__).resolve().parent
MAX_TOTAL_BYTES = 9_000_000
MAX_F32_ERROR = 1e-5  # of float32 transformers against the stored values, over the tensor's largest magnitude
MAX_BF16_ERROR = 1.5e-2
MIN_EFFECT = 4e-2  # what a mistake must change at least: twice the bf16 tolerance of the tests
MAX_CURVE_ERROR = 1e-5  # of ten float32 steps against the float64 ones, relative
MIN_CURVE_EFFECT = 3e-4  # what a wrong optimizer must change at least: three times the tolerance of the tests


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


def random_weights(model, state):
    """A value for every parameter: deviations that keep activations of order one and attention far from flat."""
    weights = {}
    for name, tensor in sorted(state.items()):
        stream = Stream(model.seed, name)
        count = tensor.numel()
        if name.endswith("norm.weight"):
            values = stream.uniform(count, 0.4, 1.6)
            values[Stream(model.seed, name + ".sign").uniform(count) < 0.2] *= -1.0
        elif name.endswith(".bias"):
            values = 0.4 * stream.normal(count)
        elif "embed_tokens" in name:
            values = model.embedding_gain * stream.normal(count)
        else:
            gain = model.attention_gain if ("q_proj" in name or "k_proj" in name) else model.branch_gain
            gain = 2.0 if "lm_head" in name else gain
            values = gain / math.sqrt(tensor.shape[1]) * stream.normal(count)
        weights[name] = torch.from_numpy(values).reshape(tensor.shape).to(getattr(torch, model.storage))
    return weights


def write_model(model, folder):
    """config.json, generation_config.json and the weights, as save_pretrained writes them; old dialects by hand."""
    config = full_config(model)
    with tempfile.TemporaryDirectory() as scratch:
        write_json(Path(scratch) / "config.json", config)
        built = LlamaForCausalLM(LlamaConfig.from_pretrained(scratch)).to(getattr(torch, model.storage))
        state = dict(built.state_dict())
        if built.config.tie_word_embeddings:
            del state["lm_head.weight"]
        left = built.load_state_dict(random_weights(model, state), strict=False)
        assert not left.unexpected_keys and set(left.missing_keys) <= {"lm_head.weight"}, left
        built.tie_weights()
        built.save_pretrained(folder, max_shard_size=model.max_shard_size)
    if model.dialect == "old":
        write_json(folder / "config.json", config)
    if model.generation_config == {}:
        (folder / "generation_config.json").unlink()
    elif model.generation_config is not None:
        write_json(folder / "generation_config.json", model.generation_config)


def random_ids(model, vocab_size):
    """Ids that include the vocabulary's first and last."""
    ids = [Stream(model.seed, f"ids.{s}").integers(n, vocab_size).tolist() for s, n in enumerate(model.lengths)]
    ids[-1][3], ids[-1][5] = 0, vocab_size - 1
    return ids


def load(folder, dtype):
    """The directory's model, as transformers loads it; every key must be accounted for."""
    built, info = LlamaForCausalLM.from_pretrained(
        folder, dtype=dtype, attn_implementation="eager", output_loading_info=True
    )
    problems = {kind: found for kind, found in info.items() if found}
    if problems:
        raise SystemExit(f"{folder}: transformers reports {problems}")
    return built.eval()


def run(built, ids):
    """Logits and hidden states of each sequence alone: {name: [tokens, vocab] or [tokens, hidden]}."""
    outputs = {}
    for s, sequence in enumerate(ids):
        # transformers remembers the longest sequence of the past under dynamic scaling: begin anew.
        built.model.rotary_emb = LlamaRotaryEmbedding(built.config)
        with torch.no_grad():
            result = built(torch.tensor([sequence]), output_hidden_states=True, use_cache=False)
        outputs[f"logits.{s}"] = result.logits[0]
        for layer, hidden in enumerate(result.hidden_states):
            outputs[f"hidden.{s}.{layer}"] = hidden[0]
        assert len(result.hidden_states) == built.config.num_hidden_layers + 1
        assert torch.equal(built.lm_head(result.hidden_states[-1]), result.logits), "the last state is not normed"
    return outputs


def digits(value):
    """Twelve digits: the rest is the machine's."""
    return float(f"{value:.12g}")


def loss_of(outputs, ids):
    losses = []
    for s, sequence in enumerate(ids):
        scores = torch.log_softmax(outputs[f"logits.{s}"].double(), dim=-1)
        losses += [-scores[t, sequence[t + 1]].item() for t in range(len(sequence) - 1)]
    return digits(math.fsum(losses) / len(losses)), len(losses)


def worst(outputs, reference):
    return max(relative_error(outputs[name], reference[name]) for name in reference)


def effects(folder, ids, reference):
    """How far the logits move, over their scale, when the rotary embedding is wrong in three ways."""
    built = load(folder, torch.float32)
    config = built.config
    found = {}

    def moved():
        outputs = run(built, ids)
        return max(relative_error(outputs[k], reference[k]) for k in reference if k.startswith("logits"))

    if config.rope_parameters["rope_type"] != "default":
        scaled = dict(config.rope_parameters)
        config.rope_parameters = {"rope_type": "default", "rope_theta": scaled["rope_theta"]}
        found["unscaled"] = moved()
        config.rope_parameters = scaled
    head_dim = config.head_dim
    shuffled = [j for i in range(head_dim // 2) for j in (i, i + head_dim // 2)]
    for layer in built.model.layers:
        for projection in (layer.self_attn.q_proj, layer.self_attn.k_proj):
            rows = torch.arange(projection.out_features).view(-1, head_dim)[:, shuffled].flatten()
            projection.weight.data = projection.weight.data[rows]
            if projection.bias is not None:
                projection.bias.data = projection.bias.data[rows]
    found["pairing"] = moved()
    return found


def check_config(model, config):
    for name, value in model.expect.items():
        found = config.rope_parameters[name] if name in config.rope_parameters else getattr(config, name)
        assert found == value, f"{model.name}: transformers reads {name} as {found}, not {value}"
    for name, value in full_config(model).items():
        if "rope" not in name and "dtype" not in name and name != "transformers_version":
            assert getattr(config, name) == value, f"{model.name}: {name} is {getattr(config, name)}, not {value}"


def make_training(folder, ids, loss):
    """Writes gradients.safetensors and adamw.json; returns the part of the table about them, and what is wrong."""

    def wide():
        return widen(load(folder, torch.float32))

    def narrow():
        return load(folder, torch.float32)

    reference = training.gradients(wide(), ids, Exact)
    curve = training.steps(wide(), ids, Exact)
    assert abs(curve[0]["loss"] - loss) <= 1e-10 * loss, f"{folder}: the batch's loss is {curve[0]['loss']}, not {loss}"
    stored = {f"grad.{name}": gradient.float().contiguous() for name, gradient in reference.items()}
    save_file(stored, folder / "gradients.safetensors")
    rounded = [{name: digits(value) for name, value in step.items()} for step in curve]
    write_json(folder / "adamw.json", {"adamw": training.ADAMW, "max_norm": training.MAX_NORM, "steps": rounded})

    errors = (
        worst(training.gradients(narrow(), ids, nullcontext), reference),
        *training.curve_error(training.steps(narrow(), ids, nullcontext), curve),
    )
    moved = {
        name: max(training.curve_error(training.steps(narrow(), ids, nullcontext, **change), curve))
        for name, change in training.MISTAKES.items()
    }
    failures = [
        f"{folder.name}: float32 {what} are {error:.1e} away"
        for what, error, limit in zip(
            ("gradients", "losses", "norms"), errors, (MAX_F32_ERROR, MAX_CURVE_ERROR, MAX_CURVE_ERROR)
        )
        if not error <= limit
    ]
    failures += [
        f"{folder.name}: the mistake '{name}' changes ten steps by only {value:.1e}"
        for name, value in moved.items()
        if not value >= MIN_CURVE_EFFECT
    ]
    first, last = curve[0], curve[-1]
    cells = [f"{first['loss']:.2f} to {last['loss']:.2f}", f"{first['grad_norm']:5.2f} to {last['grad_norm']:.2f}"]
    cells += [f"{error:.1e}" for error in errors]
    cells += [f"{name} {value:.0e}" for name, value in moved.items()]
    return "  ".join(cells), failures


def make_continuations(model, folder, ids):
    """Writes generate.json; returns the part of the table about it, and what is wrong."""
    prompts = [ids[sequence][:length] for sequence, length in model.prompts]
    with Exact():
        found, margin, differ = generation.continuations(widen(load(folder, torch.float32)), prompts)
    (folder / "generate.json").write_text(json.dumps(found) + "\n")
    failures = []
    if not margin >= generation.MIN_MARGIN:
        failures.append(f"{model.name}: two logits are {margin:.1e} apart; choose other prompts")
    by_length = model.expect["rope_type"] in ("dynamic", "longrope")
    if bool(differ) != by_length:
        failures.append(f"{model.name}: with transformers' cache, prompts {differ} go on otherwise")
    return f"margin {margin:.1e}  transformers' cache differs at {differ}", failures


def make_model(model, root):
    folder = root / model.name
    folder.mkdir(parents=True)
    write_model(model, folder)
    config = LlamaConfig.from_pretrained(folder)
    check_config(model, config)
    ids = random_ids(model, config.vocab_size)
    (folder / "ids.json").write_text(json.dumps(ids) + "\n")

    with Exact():
        reference = run(widen(load(folder, torch.float32)), ids)
    f32 = worst(run(load(folder, torch.float32), ids), reference)
    bf16 = worst(run(load(folder, torch.bfloat16), ids), reference)
    moved = effects(folder, ids, reference)

    stored = {name: tensor.float().contiguous() for name, tensor in reference.items()}
    save_file(stored, folder / "expected.safetensors")
    loss, targets = loss_of(reference, ids)
    version = torch.__version__.split("+")[0]
    expected = {"loss": loss, "targets": targets, "torch": version, "transformers": transformers.__version__}
    write_json(folder / "expected.json", expected)

    row, failures = make_training(folder, ids, loss)
    continued, more = make_continuations(model, folder, ids)
    failures += more

    size = sum(file.stat().st_size for file in folder.iterdir())
    shown = "  ".join(f"{name} {value:.2f}" for name, value in moved.items())
    print(f"{model.name:14} {size:9,}  {loss:7.4f}  {f32:.1e}  {bf16:.1e}  {shown}", flush=True)
    print(f"    training   {row}", flush=True)
    print(f"    generate   {continued}", flush=True)
    if f32 > MAX_F32_ERROR:
        failures.append(f"{model.name}: float32 is {f32:.1e} away")
    if bf16 > MAX_BF16_ERROR:
        failures.append(f"{model.name}: bfloat16 is {bf16:.1e} away")
    failures += [f"{model.name}: {name} moves only {value:.1e}" for name, value in moved.items() if value < MIN_EFFECT]
    return failures


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.set_grad_enabled(False)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()

    with tempfile.TemporaryDirectory(dir=HERE) as scratch:
        new = Path(scratch)
        print("model              bytes     loss  f32      bf16     effect of a mistake in the rotary embedding")
        print("    training   losses        norms          f32: gradients, losses, norms; effect of a wrong optimizer")
        print("    generate   least distance of the two best logits; prompts that its own cache continues otherwise")
        failures = [failure for model in MODELS for failure in make_model(model, new / "models")]
        write_ops(new / "ops")
        (new / "ops" / "sampling.json").write_text(json.dumps(list(generation.sampling_cases())) + "\n")
        write_tokenizers(new / "tokenizers")
        total = sum(file.stat().st_size for file in new.rglob("*") if file.is_file())
        print(f"{total:,} bytes in all")
        if total > MAX_TOTAL_BYTES:
            failures.append(f"more than {MAX_TOTAL_BYTES:,} bytes")
        if failures:
            raise SystemExit("not written: " + "; ".join(failures))
        for file in new.rglob("*.safetensors"):
            file.chmod(0o644)  # save_file leaves them to the owner alone
        for name in ("models", "ops", "tokenizers"):
            shutil.rmtree(HERE / name, ignore_errors=True)
            shutil.move(new / name, HERE / name)
    write_chat(HERE / "chat")  # beside its sources, from the tokenizers above
    write_gguf()  # from the models that stand there now


if __name__ == "__main__":
    sys.exit(main())
