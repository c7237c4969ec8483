"""Reports of runs: pictures as PNG files, and one self-contained HTML page that shows them all.

    sections = [
        curves_section(history("runs/digits")),
        *variational_sections(model, variables, splits, key, plain=(other, its_variables)),
    ]
    write("runs/digits", "digits-vae", sections, summary="...", results=results)

`aejax.evaluation` computes arrays, `drawing` plots them, and `page` writes plots and tables as
HTML.
"""

from aejax.evaluation.decoding import member
from aejax.report.collapse import collapse_section, verdict
from aejax.report.curve import history
from aejax.report.page import Picture, Section, Table
from aejax.report.sparse import sparse_sections
from aejax.report.steering import steering_section, steering_verdict
from aejax.report.variational import (
    reconstructions_section,
    traversals_section,
    variational_sections,
)
from aejax.report.writing import curves_section, write

__all__ = [
    "Picture",
    "Section",
    "Table",
    "collapse_section",
    "curves_section",
    "history",
    "member",
    "reconstructions_section",
    "sparse_sections",
    "steering_section",
    "steering_verdict",
    "traversals_section",
    "variational_sections",
    "verdict",
    "write",
]
