"""Writes the reference files: what transformers computes with random 2-layer models.

    python -m tests.language.parity.reference              # needs the extra `parity`
    python -m tests.language.parity.reference LOGITS.npz TOKENS.json
                                            # also shortens transformers' results for SmolLM2

Each family has a folder as `save_pretrained` writes it, and `expected.npz`: tokens, logits, every
residual stream, and greedy continuations. Biases and norms are random too, so that each matters.
"""

import json
import pathlib
import shutil
import sys

import numpy as np

HERE = pathlib.Path(__file__).parent
TOKENS, TEXTS, NEW = 12, 3, 10
SIZES = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": None,
    "pad_token_id": 0,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 100.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
# family: transformers' names of configuration and model, and what is the family's own
FAMILIES = {
    "llama": ("Llama", {"tie_word_embeddings": False, "rope_parameters": LLAMA3, "head_dim": 8}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True}),
    "gemma3": (
        "Gemma3Text",
        {
            "model_type": "gemma3_text",
            "head_dim": 6,
            "query_pre_attn_scalar": 10,
            "sliding_window": 5,
            "layer_types": ["sliding_attention", "full_attention"],
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
                "full_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 400.0},
            },
        },
    ),
}
MODELS = {"Gemma3Text": "Gemma3ForCausalLM"}


def made(family):
    """Makes the random model of a family, in float32."""
    import torch
    import transformers

    name, own = FAMILIES[family]
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**SIZES, **own)
    model = getattr(transformers, MODELS.get(name, f"{name}ForCausalLM"))(config).eval().float()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * (0.3 if parameter.ndim > 1 else 0.5))
    return model


def computed(model):
    """Computes tokens i32[B, P], logits f32[B, P, V], residual streams and greedy continuations."""
    import torch

    tokens = np.random.default_rng(0).integers(2, SIZES["vocab_size"], (TEXTS, TOKENS))
    with torch.no_grad():
        out = model(torch.as_tensor(tokens), output_hidden_states=True)
        greedy = model.generate(
            torch.as_tensor(tokens),
            attention_mask=torch.ones(tokens.shape, dtype=torch.long),
            do_sample=False,
            max_new_tokens=NEW,
        )
    streams = {f"resid_pre.{i}": h.numpy() for i, h in enumerate(out.hidden_states[:-1])}
    logits, greedy = out.logits.numpy(), greedy[:, TOKENS:].numpy().astype(np.int32)
    return {"tokens": tokens.astype(np.int32), "logits": logits, "greedy": greedy, **streams}


def main(arguments):
    for family in FAMILIES:
        folder = HERE / family
        shutil.rmtree(folder, ignore_errors=True)
        model = made(family)
        model.save_pretrained(folder)
        np.savez_compressed(folder / "expected.npz", **computed(model))
    if arguments:
        logits, tokens = np.load(arguments[0]), json.loads(pathlib.Path(arguments[1]).read_text())
        kept = {
            name: logits[name] for name in ("ids", "greedy", "hidden_1", "hidden_15", "hidden_29")
        }
        kept["logits"] = logits["logits"][:, ::64]
        kept["argmax"] = logits["logits"].argmax(axis=-1)
        np.savez_compressed(HERE / "smollm2.npz", **kept, tokens=np.asarray(json.dumps(tokens)))


if __name__ == "__main__":
    main(sys.argv[1:])
