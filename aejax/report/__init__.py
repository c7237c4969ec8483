"""Reports of runs: plots as PNG files, and a self-contained HTML page, report.html, with all plots.

    sections = [
        curves_section(history("runs/digits")),
        *variational_sections(model, variables, splits, key, plain=(other, its_variables)),
    ]
    write("runs/digits", "digits-vae", sections, summary="...", results=results)

Here `plain` is a model without a prior and its variables, whose reconstructions and latents are
shown for comparison. `aejax.evaluation` computes arrays, `drawing` plots them, and `page` turns
plots and tables into HTML.
"""

from aejax.evaluation.decoding import member
from aejax.report.clips import Clip
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
    "Clip",
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
