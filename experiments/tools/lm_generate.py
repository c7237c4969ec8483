"""Continues prompts with a language model, and steers it by a direction or a dictionary's latents.

    python -m experiments lm-generate MODEL "The capital of France is"
    python -m experiments lm-generate MODEL "Once" --hook resid_post.15 --add direction.npy
    python -m experiments lm-generate MODEL "Once" --hook resid_post.15 --dictionary runs/my-sae \\
        --latents 17 4093 --values 8 0 --temperature 0.8 --top-p 0.9

MODEL is a GGUF file or a Hugging Face folder. Several prompts are continued in one batch. With
`--chat` each prompt is a message of a user, and the model answers it.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from aejax import language as lm
from aejax.errors import UserError
from aejax.files import MALFORMED, read_npy
from experiments.shared.place import say


def command(
    model: pathlib.Path,
    prompts: tuple[str, ...],
    count: int = 64,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    chat: bool = False,
    hook: str | None = None,
    add: pathlib.Path | None = None,
    scale: float = 1.0,
    dictionary: pathlib.Path | None = None,
    dictionary_seed: int | None = None,
    latents: tuple[int, ...] = (),
    values: tuple[float, ...] = (),
    reads: str | None = None,
) -> None:
    """Prints each prompt with its continuation.

    Args:
      model: a GGUF file or a Hugging Face folder.
      prompts: one text or more, each in quotes.
      count: the largest number of tokens to make for each prompt.
      temperature: the temperature of the draws; 0 takes the likeliest token.
      top_k: draws among this many of the likeliest tokens.
      top_p: draws among the fewest likeliest tokens whose probabilities sum to at least this.
      seed: the seed of the draws.
      chat: wraps each prompt as a user's message in the ChatML form that SmolLM2 and Qwen know.
      hook: the activations to edit, such as resid_post.15, the residual stream after block 15.
      add: a .npy file with a direction f[D] to add to the activations at the hook.
      scale: the factor of that direction.
      dictionary: the folder of a run of a sparse autoencoder, or another library's folder or file.
      dictionary_seed: for a run that trained several dictionaries, the seed of the one to use.
      latents: the dictionary's latents to set; if none is given, the value at the hook is replaced
        by its reconstruction.
      values: the values of these latents: one for all, or one for each.
      reads: for a transcoder, the hook whose activations it encodes, such as mlp_in.15.
    """
    if not prompts:
        raise UserError("there is no prompt: give one or more texts in quotes")
    if temperature == 0 and (top_k is not None or top_p is not None):
        raise UserError(
            "--top-k and --top-p have no effect at temperature 0: give --temperature above 0 too"
        )
    edits = _edits(model, hook, add, scale, dictionary, dictionary_seed, latents, values, reads)
    net, variables, tokenizer = lm.load(model)
    given = lm.padded([_tokens(tokenizer, prompt, chat) for prompt in prompts])
    choose: Any = lm.greedy if temperature == 0 else lm.Sampling(temperature, top_k, top_p)
    key = jax.random.key(seed)
    made = lm.generate(
        net, variables, given, key, count=count, choose=choose, ends=tokenizer.ends, edits=edits
    )
    for prompt, row, length in zip(prompts, made.tokens, made.lengths, strict=True):
        text = tokenizer.decode(row[: int(length)])
        say(f"{'' if chat else prompt}{text}")


def _tokens(tokenizer: lm.Tokenizer, prompt: str, chat: bool) -> list[int]:
    if chat:
        prompt = f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
        if tokenizer.inner.token_to_id("<|im_start|>") is None:
            raise UserError("--chat: this model's tokenizer has no <|im_start|>; leave --chat out")
    tokens = tokenizer.encode(prompt)
    begins = [tokenizer.bos] if tokenizer.bos is not None else []
    # An empty prompt needs a token, so it gets BOS even if the model was trained without it.
    return [*begins, *tokens] if tokenizer.adds_bos or not tokens else tokens


def _edits(
    model: pathlib.Path,
    hook: str | None,
    add: pathlib.Path | None,
    scale: float,
    dictionary: pathlib.Path | None,
    dictionary_seed: int | None,
    latents: tuple[int, ...],
    values: tuple[float, ...],
    reads: str | None,
) -> Mapping[str, Any]:
    """Returns hook -> the edit that the flags ask for, or {} if they ask for none."""
    if dictionary is None and (latents or values or reads or dictionary_seed is not None):
        raise UserError(
            "--dictionary-seed, --latents, --values and --reads need a dictionary: give it by "
            "--dictionary"
        )
    if add is None and dictionary is None:
        if hook is not None:
            raise UserError(f"--hook {hook} needs an edit: give --add or --dictionary")
        return {}
    if hook is None:
        raise UserError(
            "--add and --dictionary need a hook: give it, for example --hook resid_post.15"
        )
    found = []
    if add is not None:
        found.append(lm.add(scale * _direction(add)))
    if dictionary is not None:
        plain = lm.load_dictionary(dictionary, dictionary_seed)
        lm.check_model(plain, model)
        if latents and not values:
            raise UserError("--latents needs the values to set the latents to: give --values")
        given = values[0] if len(values) == 1 else values
        found.append(
            lm.clamp(plain, latents, given, reads=reads)
            if latents
            else lm.replace(plain, reads=reads)
        )
    return {hook: found[0] if len(found) == 1 else lm.chain(*found)}


def _direction(path: pathlib.Path) -> np.ndarray:
    try:
        direction = read_npy(path)
    except MALFORMED as error:
        raise UserError(f"--add {path} cannot be read: give a .npy file with a vector") from error
    if direction.ndim != 1 or direction.dtype.kind not in "fiu":
        raise UserError(
            f"--add {path} holds {direction.dtype} of shape {direction.shape}: give one vector"
        )
    return direction.astype(np.float32)
