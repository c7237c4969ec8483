"""The glosses of WordNet: 117,659 short definitions with examples, in 45 topics.

Source: Princeton University, "WordNet 3.0" (2006); file formats in its manual pages wndb(5WN) and
lexnames(5WN). Debian's package wordnet-base holds the four files.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from aejax.data.text.corpus import Document
from aejax.data.text.source import Grouped, Source, find, read_lines
from aejax.errors import UserError

FILES = ("data.noun", "data.verb", "data.adj", "data.adv")
HOW = (
    "install Debian's package wordnet-base, which puts data.noun, data.verb, data.adj and data.adv "
    "into /usr/share/wordnet"
)
# The topics of lexnames(5WN); their position is the number in the second field of a line.
TOPICS = (
    *("adj.all", "adj.pert", "adv.all", "noun.Tops", "noun.act", "noun.animal", "noun.artifact"),
    *("noun.attribute", "noun.body", "noun.cognition", "noun.communication", "noun.event"),
    *("noun.feeling", "noun.food", "noun.group", "noun.location", "noun.motive", "noun.object"),
    *("noun.person", "noun.phenomenon", "noun.plant", "noun.possession", "noun.process"),
    *("noun.quantity", "noun.relation", "noun.shape", "noun.state", "noun.substance", "noun.time"),
    *("verb.body", "verb.change", "verb.cognition", "verb.communication", "verb.competition"),
    *("verb.consumption", "verb.contact", "verb.creation", "verb.emotion", "verb.motion"),
    *("verb.perception", "verb.possession", "verb.social", "verb.stative", "verb.weather"),
    "adj.ppl",
)
NUMBERS = {f"{number:02}": topic for number, topic in enumerate(TOPICS)}


def source(manual_dir: Path | None) -> Source:
    """Returns the Source of WordNet's glosses, from its four data files.

    Synsets with the same first word, or the same definition (the gloss up to its first example),
    form one group, which stays in one split. The other words of a synset are ignored: grouping by
    them too would join a third of all synsets into one group.

    Args:
      manual_dir: the folder that holds data.noun, data.verb, data.adj and data.adv.

    Returns:
      A source with one document per synset: the gloss, with the topic as its label and the first
      word in its id.

    Raises:
      UserError: if a file is missing; reading the documents also raises it if a file is damaged.
    """
    files = find(manual_dir, FILES, HOW)
    return Source(
        name="wordnet",
        root=files[0].parent,
        files=files,
        documents=lambda: _documents(files),
        about="The glosses of WordNet 3.0 with the lexicographers' 45 topics.",
        sha256="d599b8a50092839087a3f7203e5474bfa33d4313204af1d6f59b1195458dd744",
    )


def _documents(files: tuple[Path, ...]) -> Iterator[Grouped]:
    for path in files:
        for offset, line in read_lines(path):
            if not line.startswith("  "):  # only the lines of the licence start with blanks
                yield _synset(path, offset, line)


def _synset(path: Path, offset: int, line: str) -> Grouped:
    """Parses the line of a synset, `offset topic kind words word ... | gloss`, to a document.

    Args:
      path: the file, for the error message.
      offset: the byte offset at which the line starts; the line must state the same.
      line: the line.
    """
    fields, bar, gloss = line.partition(" | ")
    start, topic, kind, _, word, *_ = [*fields.split(" "), *[""] * 5]
    gloss = gloss.strip()
    if not (bar and gloss) or start != f"{offset:08}" or topic not in NUMBERS:
        raise UserError(
            f"{path} is damaged: no synset of WordNet 3.0 starts at byte {offset} ({line[:20]!r}); "
            f"to restore it, {HOW}"
        )
    word = word.partition("(")[0]  # an adjective may be followed by a marker in parentheses
    definition = gloss.partition('; "')[0]
    document = Document(f"{word}.{kind}.{start}", gloss, NUMBERS[topic])
    return document, (f"word {word.lower()}", f"definition {definition}")
