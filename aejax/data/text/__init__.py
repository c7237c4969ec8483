"""Text data sets: corpora of documents, which may have labels, divided document by document.

Each named corpus has a module with a function `source(manual_dir)`, which `NAMED` lists.
"""

from aejax.data.text import bible, brown, topics, wordnet
from aejax.data.text.corpus import Corpus, Document, Texts

NAMED = {
    "brown": brown.source,
    "wordnet": wordnet.source,
    "bible": bible.source,
    "topics": topics.source,
}

__all__ = ["NAMED", "Corpus", "Document", "Texts"]
