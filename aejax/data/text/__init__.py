"""Texts: corpora of documents with labels, read one by one and divided by document."""

from aejax.data.text.corpus import Corpus, Document, Texts
from aejax.data.text.texts import texts

__all__ = ["Corpus", "Document", "Texts", "texts"]
