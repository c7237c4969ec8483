"""Text data sets: corpora of documents, which may have labels, divided document by document.

A named corpus has a function `source(manual_dir)` in one file, and an entry in `NAMED`.
"""

from aejax.data.text import bible, brown, wordnet
from aejax.data.text.corpus import Corpus, Document, Texts

NAMED = {"brown": brown.source, "wordnet": wordnet.source, "bible": bible.source}

__all__ = ["NAMED", "Corpus", "Document", "Texts"]
