"""Tokenizers of language models, read from GGUF files or Hugging Face folders.

    tokenizer = load_tokenizer("SmolLM2-135M-Instruct.Q4_1.gguf")     # or a folder
    tokenizer.encode("Hello, world!")        # [19556, 28, 905, 17]

The tokenizers are those of the package `tokenizers`. A GGUF file holds only the vocabulary and the
name of the rule by which texts are split; this module builds the tokenizer from both.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from aejax.data.text.coding import MOST_TOKENIZER, building, parse_tokenizer
from aejax.errors import UserError
from aejax.files import read_bytes, reading
from aejax.interop.tensors import read_config
from aejax.language.gguf import Fields, open_gguf
from aejax.optional import needs

# llama.cpp's names of the rules that split a text before its bytes are merged. The rules in this
# set split a number into single digits; _PATTERNS holds the others as regular expressions.
_DIGITS_ALONE = {"smollm", "starcoder", "refact", "command-r"}
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_PATTERNS = {
    "llama-bpe": _WORDS % r"\p{N}{1,3}",
    "qwen2": _WORDS % r"\p{N}",
}
_CONTROL, _USER = 3, 4  # GGUF's types of special tokens, and of others that are never split


@dataclasses.dataclass(frozen=True, eq=False)
class Tokenizer:
    """Converts texts to token ids and back.

    Attributes:
      inner: the tokenizer of the package `tokenizers`.
      bos: the id of the token that begins a text, or None.
      ends: the ids of the tokens that end a text.
      adds_bos: whether the model was trained with `bos` before every text.
      template: the Jinja template of the model's chats, or None.
    """

    inner: Any
    bos: int | None
    ends: tuple[int, ...]
    adds_bos: bool = False
    template: str | None = None

    @property
    def size(self) -> int:
        """The size V of the vocabulary, including added tokens."""
        return self.inner.get_vocab_size(with_added_tokens=True)

    def encode(self, text: str) -> list[int]:
        """Returns the token ids of a text, without BOS.

        A special token that is written out in the text, such as <|im_start|>, becomes that token.
        """
        return self.inner.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the token ids of each text, as `encode` does."""
        return [row.ids for row in self.inner.encode_batch(list(texts), add_special_tokens=False)]

    def decode(self, tokens: Sequence[int], special: bool = False) -> str:
        """Converts token ids to text; special tokens are left out unless `special` is True."""
        return self.inner.decode([int(t) for t in tokens], skip_special_tokens=not special)

    def token(self, token: int) -> str:
        """Returns the text of one token, such as " the" with its leading space."""
        return self.inner.decode([int(token)], skip_special_tokens=False)


def load_tokenizer(path: str | pathlib.Path) -> Tokenizer:
    """Loads the tokenizer of a model.

    Args:
      path: a GGUF file, or a folder with tokenizer.json.

    Raises:
      UserError: if the file is missing or damaged, or splits texts by an unknown rule.
    """
    path = pathlib.Path(path).expanduser()
    return _of_folder(path) if path.is_dir() else _of_gguf(path)


def _tokenizers(path: pathlib.Path) -> Any:
    for part in ("decoders", "models", "normalizers", "pre_tokenizers"):
        needs(f"tokenizers.{part}", f"the tokenizer of {path}")
    return needs("tokenizers", f"the tokenizer of {path}")


def _of_folder(folder: pathlib.Path) -> Tokenizer:
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise UserError(f"{folder} has no tokenizer.json: add the model's file")
    with reading(path, "fetch it again"):
        inner = parse_tokenizer(read_bytes(path, MOST_TOKENIZER), str(path))
    with building(str(path)):
        return _with_settings(folder, inner)


def _with_settings(folder: pathlib.Path, inner: Any) -> Tokenizer:
    """Returns the tokenizer `inner` with what the other files of its folder say of it."""
    inner.no_padding()
    inner.no_truncation()
    more = folder / "tokenizer_config.json"
    known = read_config(more) if more.is_file() else {}

    def number(name: str) -> int | None:
        token = known.get(name)
        token = token.get("content") if isinstance(token, dict) else token
        return inner.token_to_id(token) if isinstance(token, str) else None

    end, template = number("eos_token"), known.get("chat_template")
    bos, ends = number("bos_token"), {token for token in (end,) if token is not None}
    generation = folder / "generation_config.json"
    if generation.is_file():
        listed = read_config(generation).get("eos_token_id")
        listed = listed if isinstance(listed, list) else [listed]
        ends |= {token for token in listed if isinstance(token, int)}
    begins = inner.encode("", add_special_tokens=True).ids
    return Tokenizer(
        inner,
        bos,
        tuple(sorted(ends)),
        bos is not None and begins[:1] == [bos],
        template if isinstance(template, str) else None,
    )


def _of_gguf(path: pathlib.Path) -> Tokenizer:
    _, fields = open_gguf(path)
    with building(str(path)):
        return _from_fields(path, fields)


def _from_fields(path: pathlib.Path, fields: Fields) -> Tokenizer:
    library, kind = _tokenizers(path), fields.need("tokenizer.ggml.model", str)
    builders: dict[str, Callable[[Any, Fields, list[str]], Any]] = {
        "gpt2": _bytes,
        "llama": _pieces,
    }
    if kind not in builders:
        raise UserError(
            f"the tokenizer of {path} is {kind!r:.40}: this reader knows "
            f"{' and '.join(builders)} only; use a folder with tokenizer.json instead"
        )
    tokens = fields.need("tokenizer.ggml.tokens", list)
    inner = builders[kind](library, fields, tokens)
    types = fields.get("tokenizer.ggml.token_type", [1] * len(tokens))
    # Tokens of both types are never split where they occur in a text. `decode` leaves out special
    # ones, but keeps tokens such as Gemma's newline, which is of the other type.
    for wanted in (_CONTROL, _USER):
        held = [t for t, type in zip(tokens, types, strict=False) if type == wanted]
        options = {"special": wanted == _CONTROL, "normalized": False}
        inner.add_tokens([library.AddedToken(token, **options) for token in held])
    ends = {fields.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot")}
    ends |= {inner.token_to_id("<end_of_turn>")} if kind == "llama" else set()
    return Tokenizer(
        inner,
        fields.get("tokenizer.ggml.bos_token_id"),
        tuple(sorted(token for token in ends if token is not None)),
        bool(fields.get("tokenizer.ggml.add_bos_token", kind == "llama")),
        fields.get("tokenizer.chat_template"),
    )


def _bytes(library: Any, fields: Fields, tokens: list[str]) -> Any:
    """Builds a byte-level BPE tokenizer, as in GPT-2."""
    merges = [tuple(m.split(" ", 1)) for m in fields.need("tokenizer.ggml.merges", list)]
    numbers = {token: i for i, token in enumerate(tokens)}
    inner = library.Tokenizer(library.models.BPE(numbers, merges, fuse_unk=False))
    before, rule = library.pre_tokenizers, fields.get("tokenizer.ggml.pre", "default")
    split = before.ByteLevel(add_prefix_space=False, use_regex=rule not in _PATTERNS)
    if rule in _DIGITS_ALONE:
        split = before.Sequence([before.Digits(individual_digits=True), split])
    elif rule in _PATTERNS:
        pattern = before.Split(library.Regex(_PATTERNS[rule]), "isolated")
        split = before.Sequence([pattern, split])
    elif rule not in ("default", "gpt-2"):
        raise UserError(
            f"the tokenizer of {fields.path} splits texts by the rule {rule!r:.40}, which is not "
            "known here: use a folder with tokenizer.json instead"
        )
    if rule == "qwen2":
        inner.normalizer = library.normalizers.NFC()
    inner.pre_tokenizer, inner.decoder = split, library.decoders.ByteLevel()
    return inner


def _pieces(library: Any, fields: Fields, tokens: list[str]) -> Any:
    """Builds a SentencePiece BPE tokenizer, as in Gemma; the file's scores order the merges."""
    scores = fields.need("tokenizer.ggml.scores", list)
    numbers = {token: i for i, token in enumerate(tokens)}
    merges = []
    for token, number in numbers.items():
        pairs = ((token[:i], token[i:]) for i in range(1, len(token)))
        held = [pair for pair in pairs if pair[0] in numbers and pair[1] in numbers]
        held.sort(key=lambda pair: (numbers[pair[0]], numbers[pair[1]]))
        merges += [(-scores[number], pair) for pair in held]
    merges.sort(key=lambda merge: merge[0])
    inner = library.Tokenizer(
        library.models.BPE(
            numbers,
            [pair for _, pair in merges],
            unk_token="<unk>",  # noqa: S106 (the text of a token, not a secret)
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    normal, decoders = library.normalizers, library.decoders
    steps = [normal.Replace(" ", "▁")]
    if fields.get("tokenizer.ggml.add_space_prefix", True):
        steps.insert(0, normal.Prepend("▁"))
    inner.normalizer = normal.Sequence(steps)
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return inner
