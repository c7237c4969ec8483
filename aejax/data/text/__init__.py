"""Texts: corpora of documents with labels, read one by one and divided by document."""

from aejax.data.text.corpus import Corpus, Document, Texts

__all__ = ["Corpus", "Document", "Texts"]
