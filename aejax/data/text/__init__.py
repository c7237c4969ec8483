"""Texts: corpora of documents with labels, read one by one and divided by document.

A corpus with a name is one file with a function `source(manual_dir)` and its line in `NAMED`.
"""

from aejax.data.text import bible, brown, wordnet
from aejax.data.text.corpus import Corpus, Document, Texts

NAMED = {"brown": brown.source, "wordnet": wordnet.source, "bible": bible.source}

__all__ = ["NAMED", "Corpus", "Document", "Texts"]
