"""Times the tasks of bench-lm in transformers, on a model of the same shape and random weights.

It reads lines {"task": ..., ...} and answers each with {"seconds": ...}. It needs torch and
transformers, and is started by bench-lm with an interpreter that has them.
"""

import argparse
import json
import sys
import time

import torch
import transformers


def main():
    """Answers the tasks on standard input until it ends."""
    parser = argparse.ArgumentParser()
    for name in ("vocabulary", "layers", "size", "heads", "kv-heads", "hidden", "stop"):
        parser.add_argument(f"--{name}", type=int, required=True)
    flags = parser.parse_args()
    config = transformers.LlamaConfig(
        vocab_size=flags.vocabulary,
        hidden_size=flags.size,
        intermediate_size=flags.hidden,
        num_hidden_layers=flags.layers,
        num_attention_heads=flags.heads,
        num_key_value_heads=flags.kv_heads,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config).eval()
    # transformers cannot stop at a hook, so `read` uses a model with the first layers only.
    short = transformers.LlamaForCausalLM(config).eval().model
    short.layers = short.layers[: flags.stop]
    short.config.num_hidden_layers = flags.stop
    for line in sys.stdin:
        ask = json.loads(line)
        tokens = torch.ones((ask["rows"], ask["length"]), dtype=torch.long)
        start = time.perf_counter()
        with torch.no_grad():
            if ask["task"] == "read":
                short(tokens, use_cache=False).last_hidden_state.sum().item()
            else:
                model.generate(
                    tokens,
                    attention_mask=torch.ones_like(tokens),
                    do_sample=False,
                    min_new_tokens=ask["count"],
                    max_new_tokens=ask["count"],
                    pad_token_id=0,
                )
        print(json.dumps({"seconds": time.perf_counter() - start}), flush=True)


if __name__ == "__main__":
    main()
