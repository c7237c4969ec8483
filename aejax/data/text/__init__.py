"""Text data sets: corpora of documents, which may have labels, divided document by document."""

from aejax.data.text.corpus import Corpus, Document, Texts
from aejax.data.text.texts import texts

__all__ = ["Corpus", "Document", "Texts", "texts"]
