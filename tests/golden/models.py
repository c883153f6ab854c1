"""The twelve tiny models: each a config.json as users meet it, how its weights are stored, and what it is run on."""

from dataclasses import dataclass, field


@dataclass
class Model:
    name: str
    config: dict  # config.json's fields beyond the common ones
    lengths: list  # sequence lengths
    seed: int
    dialect: str = "new"  # "old": written as given (rope_theta, rope_scaling, torch_dtype); "new": by save_pretrained
    storage: str = "float32"  # dtype of the weights in the file
    max_shard_size: str = "50GB"
    embedding_gain: float = 1.0  # deviation of the embedding's elements
    attention_gain: float = 1.2  # deviation of q and k elements, about
    branch_gain: float = 0.5  # deviation of what the other projections give, about
    generation_config: dict | None = None  # in place of save_pretrained's; {}: no such file
    # Continued greedily: (sequence of ids.json, how many of its ids).
    prompts: list = field(default_factory=lambda: [(0, 1), (1, 12), (2, 50)])
    expect: dict = field(default_factory=dict)  # what transformers must make of the config


def _rope(theta=10000.0, **fields):
    return {"rope_theta": theta, **fields}


# Wavelengths in tokens, theta 10000: head_dim 8 has 6.3, 63, 628, 6283; head_dim 12 has 6.3, 29, 135, 628, 2917, 13538.
MODELS = [
    Model(
        "mha_default",
        dict(
            num_hidden_layers=3,
            num_key_value_heads=4,
            rms_norm_eps=1e-2,
            max_position_embeddings=256,
            rope_parameters=_rope(rope_type="default"),
        ),
        lengths=[1, 17, 90],
        prompts=[(0, 1), (1, 12), (2, 60)],
        seed=1,
        embedding_gain=0.3,
        expect={"rope_type": "default", "rope_theta": 10000.0},
    ),
    Model(
        "gqa_llama3",
        dict(
            hidden_size=48,
            intermediate_size=104,
            num_key_value_heads=2,
            rms_norm_eps=1e-5,
            max_position_embeddings=512,
            rope_theta=500000.0,
            rope_scaling={
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 128,
                "rope_type": "llama3",
            },
            bos_token_id=1,
            eos_token_id=[2, 130],
            head_dim=12,
            torch_dtype="float32",
        ),
        lengths=[2, 40, 170],
        prompts=[(1, 30), (2, 30), (2, 120)],
        seed=2,
        dialect="old",
        max_shard_size="60KB",
        generation_config={
            "bos_token_id": 1,
            "do_sample": True,
            "eos_token_id": [2, 130],
            "temperature": 0.6,
            "top_p": 0.9,
        },
        expect={"rope_type": "llama3", "rope_theta": 500000.0, "original_max_position_embeddings": 128, "factor": 8.0},
    ),
    Model(
        "mqa_linear",
        dict(
            num_key_value_heads=1,
            max_position_embeddings=64,
            rope_theta=10000.0,
            rope_scaling={"type": "linear", "factor": 4.0},
            torch_dtype="float32",
        ),
        lengths=[1, 30, 150],
        prompts=[(0, 1), (1, 12), (2, 50)],
        seed=3,
        dialect="old",
        generation_config={},
        expect={"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
    ),
    Model(
        "gqa_dynamic",
        dict(
            num_key_value_heads=2,
            max_position_embeddings=64,
            rope_parameters=_rope(rope_type="dynamic", factor=2.0),
        ),
        lengths=[2, 64, 66, 120],
        prompts=[(1, 12), (1, 50), (2, 56), (3, 120)],
        seed=4,
        expect={"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0},
    ),
    Model(
        "gqa_yarn",
        dict(
            hidden_size=48,
            intermediate_size=104,
            num_key_value_heads=2,
            max_position_embeddings=256,
            rope_parameters=_rope(
                rope_type="yarn",
                factor=4.0,
                original_max_position_embeddings=64,
                beta_fast=4.0,
                beta_slow=0.25,
                mscale=2.0,
                mscale_all_dim=0.5,
            ),
        ),
        lengths=[2, 50, 160],
        prompts=[(1, 12), (1, 50), (2, 145)],
        seed=5,
        expect={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "mscale": 2.0},
    ),
    Model(
        "yarn_truncate",
        dict(
            hidden_size=48,
            intermediate_size=104,
            num_key_value_heads=4,
            max_position_embeddings=256,
            rope_theta=10000.0,
            rope_scaling={
                "rope_type": "yarn",
                "factor": 4.0,
                "original_max_position_embeddings": 64,
                "truncate": False,
            },
            dtype="float32",
        ),
        lengths=[1, 50, 160],
        prompts=[(0, 1), (1, 50), (2, 145)],
        seed=6,
        dialect="old",
        expect={"rope_type": "yarn", "truncate": False, "original_max_position_embeddings": 64},
    ),
    Model(
        "gqa_longrope",
        dict(
            num_key_value_heads=2,
            max_position_embeddings=256,
            rope_theta=10000.0,
            rope_scaling={
                "long_factor": [1.05, 1.7, 4.2, 8.5],
                "original_max_position_embeddings": 64,
                "rope_type": "longrope",
                "short_factor": [1.0, 1.1, 1.4, 2.3],
            },
            torch_dtype="float32",
        ),
        lengths=[2, 64, 65, 150],
        prompts=[(0, 2), (1, 56), (2, 50), (3, 145)],
        seed=7,
        dialect="old",
        expect={"rope_type": "longrope", "original_max_position_embeddings": 64},
    ),
    Model(
        "wide_head_dim",
        dict(
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=24,
            max_position_embeddings=256,
            rope_parameters=_rope(theta=500000.0, rope_type="default"),
        ),
        lengths=[1, 20, 90],
        seed=8,
        expect={"rope_type": "default", "rope_theta": 500000.0},
    ),
    Model(
        "biases",
        dict(
            num_key_value_heads=2,
            attention_bias=True,
            mlp_bias=True,
            max_position_embeddings=256,
            rope_theta=20000.0,
            rope_scaling=None,
            torch_dtype="float32",
        ),
        lengths=[1, 20, 90],
        seed=9,
        dialect="old",
        generation_config={},
        expect={"rope_type": "default", "rope_theta": 20000.0},
    ),
    Model(
        "tied",
        dict(
            num_key_value_heads=2,
            tie_word_embeddings=True,
            max_position_embeddings=256,
            rope_parameters=_rope(rope_type="default"),
        ),
        lengths=[2, 20, 90],
        prompts=[(0, 2), (1, 20), (2, 50)],
        seed=10,
        embedding_gain=0.35,
        expect={"rope_type": "default", "rope_theta": 10000.0},
    ),
    Model(
        "odd_widths",
        dict(
            num_hidden_layers=1,
            intermediate_size=2730,
            vocab_size=499,
            num_key_value_heads=2,
            max_position_embeddings=128,
            rope_parameters=_rope(rope_type="default"),
        ),
        lengths=[1, 9, 70],
        prompts=[(0, 1), (1, 9), (2, 60)],
        seed=11,
        storage="bfloat16",
        expect={"rope_type": "default", "rope_theta": 10000.0},
    ),
    # As LLaMA 1 was first converted: nothing about key/value heads, head_dim, biases or rotary parameters.
    Model(
        "llama1_style",
        dict(
            architectures=["LlamaForCausalLM"],
            model_type="llama",
            hidden_act="silu",
            initializer_range=0.02,
            rms_norm_eps=1e-6,
            use_cache=True,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
            tie_word_embeddings=False,
            torch_dtype="float16",
            transformers_version="4.28.0.dev0",
        ),
        lengths=[1, 20, 90],
        seed=12,
        dialect="old",
        storage="float16",
        embedding_gain=0.06,
        attention_gain=0.7,
        expect={"rope_type": "default", "rope_theta": 10000.0, "num_key_value_heads": 4, "head_dim": 8},
    ),
]

COMMON = dict(vocab_size=131, hidden_size=32, intermediate_size=88, num_hidden_layers=2, num_attention_heads=4)


def full_config(model):
    common = dict(COMMON)
    if model.dialect == "old":
        common.update(architectures=["LlamaForCausalLM"], model_type="llama", hidden_act="silu")
    return {**common, **model.config}
