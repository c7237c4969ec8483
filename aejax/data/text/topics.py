"""The sentences of Python's own help, `pydoc_data.topics`, which needs no download.

Source: the Python Software Foundation, the reference manual of the running Python, as `help()`
prints it; its licence is that of Python. The text differs between versions of Python: that of
Python 3.11.7 has the sha256 abaa56a6..., and environment.json records that of a run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from aejax.data.text.corpus import Document
from aejax.data.text.source import Grouped, Source

# A sentence ends at a mark that is followed by a blank and an upper-case letter or a quote.
_END = re.compile(r'(?<=[.!?:]) +(?=["(A-Z])')
FEWEST = 4  # words of a sentence; shorter ones are headings and remnants


def source(manual_dir: Path | None) -> Source:
    """Returns the Source of the sentences of the help's paragraphs.

    Examples of code, grammars, tables and headings are left out. The sentences of a paragraph form
    one group, which stays in one split.

    Args:
      manual_dir: ignored; the file is a part of Python.

    Returns:
      A source with one document per sentence, whose label is the topic, such as "assert".
    """
    from pydoc_data import topics

    file = Path(str(topics.__file__))
    return Source(
        name="topics",
        root=file.parent,
        files=(file,),
        documents=lambda: _documents(topics.topics),
        about=f"the sentences of Python's help, pydoc_data.topics ({topics.__doc__ or 'no date'})",
    )


def _documents(topics: dict[str, str]) -> Iterator[Grouped]:
    for topic, text in sorted(topics.items()):
        for number, paragraph in enumerate(re.split(r"\n\s*\n", text)):
            first = paragraph.partition("\n")[0]
            words = " ".join(paragraph.split())
            # Code is indented, and a heading is underlined.
            if first.startswith("   ") or "::=" in words or re.search(r"[*=+~-]{4}", words):
                continue
            for i, sentence in enumerate(_END.split(words)):
                if len(sentence.split()) >= FEWEST:
                    document = Document(f"{topic} {number}.{i}", sentence, topic)
                    yield document, (f"paragraph {words}",)
