"""Collects activations of a language model in a store on disk, and reports their statistics.

    python -m experiments lm-activations models/SmolLM2-135M-Instruct.Q4_1.gguf texts/

The command packs texts into rows of tokens, and runs the model up to the last hook; a hook is a
named place in the model. It writes the activations at the hooks to OUT/store, which
`aejax.data.activations.activations` opens. If it is killed and started again, it continues with the
file (shard) that was being written. Its report.html shows norms by layer and position, attention
sinks, kurtosis, and the mean and scale of the stored activations.
"""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
import time
from typing import Any, Literal

from aejax import language as lm
from aejax.data import texts
from aejax.data.activations import TokenFilter
from aejax.data.activations.index import FILE, read_index
from aejax.data.text import Corpus
from aejax.errors import UserError
from aejax.files import write_json
from aejax.runs.environment import environment
from aejax.runs.folder import read_result
from experiments.shared.place import say

PARTS = ("train", "validation", "test", "shifted")


def command(
    model: pathlib.Path,
    corpus: str,
    out: pathlib.Path = pathlib.Path("runs/lm-activations"),
    part: Literal["train", "validation", "test", "shifted"] = "train",
    held_out: tuple[str, ...] = (),
    data_dir: str | None = None,
    manual_dir: str | None = None,
    hooks: tuple[str, ...] = ("resid_post.15",),
    length: int = 128,
    rows: int = 16,
    together: bool = True,
    bos: bool = False,
    tokens: int = 1_000_000,
    first_positions: int = 1,
    norm_quantile: float | None = None,
    dtype: Literal["float32", "bfloat16"] = "float32",
    shard_tokens: int = 2**18,
    surveyed: int = 8_192,
) -> None:
    """Collects activations of a language model at hooks and writes a report on them.

    Args:
      model: a GGUF file or a Hugging Face folder.
      corpus: brown, wordnet, bible, a folder of text files, or a file of JSON lines.
      out: the folder for the store, result.json and report.html.
      part: the split of the corpus to read.
      held_out: the labels whose documents form `--part shifted` and are left out of other parts.
      data_dir: the folder in which the corpus is prepared.
      manual_dir: the folder with the package's files of brown, wordnet or bible.
      hooks: the hooks to read, such as resid_post.15 mlp_out.3.
      length: the number of tokens in a row.
      rows: the number of rows in one forward pass.
      together: whether several texts follow each other in a row; otherwise a row has one text.
      bos: whether the BOS token is put before every text.
      tokens: the largest number of tokens to read, rounded up to whole forward passes.
      first_positions: the number of tokens to leave out at the start of each row; the first token
        is usually an attention sink.
      norm_quantile: tokens with a norm above this quantile of the norms in the first forward pass
        are left out.
      dtype: the dtype of the model's products and of the store.
      shard_tokens: the number of tokens in a shard; a kill loses at most the unfinished shard.
      surveyed: the approximate number of tokens for the statistics in the report.
    """
    if tokens < 1 or surveyed < 1:
        raise UserError(f"--tokens is {tokens} and --surveyed is {surveyed}: give 1 or more")
    packing = lm.Packing(length, together, bos)
    sources = texts(corpus, data_dir=data_dir, manual_dir=manual_dir, held_out=held_out)
    chosen = getattr(sources, part)
    if chosen is None:
        raise UserError("--part shifted needs the labels of its documents: give them by --held-out")
    net, variables, tokenizer = lm.load(model, dtype)
    read = lm.reader(net, variables, hooks)
    if any(hook.startswith("attn_pattern") for hook in hooks):
        raise UserError(
            "attn_pattern cannot be stored, because it has no vector for each token: give other "
            "hooks"
        )
    most = -(-tokens // (rows * length))

    def batches(start: int) -> Any:
        made = lm.packs(tokenizer, _texts(chosen), packing, rows, start)
        return itertools.islice(made, max(0, most - start))

    provenance = {
        "model": {"file": model.name, "sha256": lm.fingerprint(model), "dtype": dtype},
        "corpus": chosen.provenance(),
        "packing": dataclasses.asdict(packing),
        "rows": rows,
        "tokens": tokens,
    }
    began = time.perf_counter(), _appends(out / "store")

    def progress(done: int) -> None:
        if done % 50 == 0:
            rate = (done - began[1]) * rows * length / (time.perf_counter() - began[0])
            say(f"{done * rows * length:,} tokens read, {rate:,.0f} a second")

    index = lm.collect(
        read,
        batches,
        out / "store",
        provenance=provenance,
        filter=TokenFilter(first_positions, norm_quantile),
        dtype=dtype,
        shard_tokens=shard_tokens,
        progress=progress,
    )
    say(f"{index.tokens:,} tokens of {', '.join(hooks)}: {out / 'store'}")
    some = itertools.islice(batches(0), -(-surveyed // (rows * length)))
    found = lm.survey(net, variables, some)
    result = {
        "tokens": index.tokens,
        "dropped": index.dropped,
        "norms": found.norms[:, : min(length, 16)],
        "median_norm": found.median,
        "sink_share": found.share,
        "kurtosis": found.kurtosis,
        "gamma": found.gamma,
        "sinks": [sink._asdict() for sink in found.sinks[:16]],
    }
    write_json(out / "result.json", {**result, "environment": environment()})
    _report(out, found, index, tokenizer, provenance)


def _appends(store: pathlib.Path) -> int:
    """Returns the number of forward passes whose activations are already in the store."""
    return read_index(store).appends if (store / FILE).is_file() else 0


def _texts(corpus: Corpus) -> Any:
    return (document.text for document in corpus)


def _report(
    out: pathlib.Path, found: lm.Survey, index: Any, tokenizer: lm.Tokenizer, provenance: Any
) -> None:
    from aejax import report
    from aejax.report.language import activation_sections

    say(f"sinks: {found.share.max():.2%} of the tokens at layer {found.layer}")
    path = report.write(
        out,
        "Activations of a language model",
        activation_sections(found, index, tokenizer.token),
        summary=(__doc__ or "").partition("\n")[0],
        config=provenance,
        environment=read_result(out).get("environment"),
    )
    say(f"report: {path}")
