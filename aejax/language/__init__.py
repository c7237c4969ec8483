"""Language models in Flax: runs them, reads their activations, and edits their activations.

    from aejax import language as lm

    model, variables, tokenizer = lm.load("models/SmolLM2-135M-Instruct.Q4_1.gguf")
    prompts = lm.padded([tokenizer.encode("The capital of France is")])
    made = lm.generate(model, variables, prompts, count=8)
    seen = lm.reader(model, variables, ("resid_post.15",))(*prompts)
    edits = {"resid_post.15": lm.add(direction)}
    made = lm.generate(model, variables, prompts, count=8, edits=edits)

The modules `config` and `llama` define the model and `taps` its hooks; `gguf`, `huggingface`,
`weights` and `tokenizer` read files; `generation` continues prompts; `reading`, `packing` and
`live` collect activations; `edits` and `splicing` change activations during a forward pass;
`token_losses`, `promoted` and `steering` measure what dictionaries and edits do to the model.
"""

from aejax.language.alignment import Aligned, align
from aejax.language.config import Config
from aejax.language.edits import add, chain, mean, only, patch, zero
from aejax.language.generation import Generated, Prompts, Sampling, generate, greedy, padded
from aejax.language.live import live
from aejax.language.llama import Cache, Transformer, empty_cache, language_rules, shortened
from aejax.language.load import LanguageModel, fingerprint, load
from aejax.language.packing import Packed, Packing, packs
from aejax.language.promoted import Promoted, promoted
from aejax.language.reading import collect, reader
from aejax.language.splicing import change, clamp, latents, replace, scale
from aejax.language.spoken import HiddenStates, Spoken
from aejax.language.steering import Effect, at_perplexity, effect
from aejax.language.stored import Frozen, Stored, Vocabulary
from aejax.language.survey import Survey, survey
from aejax.language.taps import HOOKS, At, Taps
from aejax.language.token_losses import TokenLosses, spliced, token_losses, unless
from aejax.language.tokenizer import Tokenizer, load_tokenizer
from aejax.language.torch_model import torch_reader
from aejax.language.trained import check_model, load_dictionary
from aejax.language.weights import stacked, unstacked

__all__ = [
    "HOOKS",
    "Aligned",
    "At",
    "Cache",
    "Config",
    "Effect",
    "Frozen",
    "Generated",
    "HiddenStates",
    "LanguageModel",
    "Packed",
    "Packing",
    "Promoted",
    "Prompts",
    "Sampling",
    "Spoken",
    "Stored",
    "Survey",
    "Taps",
    "TokenLosses",
    "Tokenizer",
    "Transformer",
    "Vocabulary",
    "add",
    "align",
    "at_perplexity",
    "chain",
    "change",
    "check_model",
    "clamp",
    "collect",
    "effect",
    "empty_cache",
    "fingerprint",
    "generate",
    "greedy",
    "language_rules",
    "latents",
    "live",
    "load",
    "load_dictionary",
    "load_tokenizer",
    "mean",
    "only",
    "packs",
    "padded",
    "patch",
    "promoted",
    "reader",
    "replace",
    "scale",
    "shortened",
    "spliced",
    "stacked",
    "survey",
    "token_losses",
    "torch_reader",
    "unless",
    "unstacked",
    "zero",
]
