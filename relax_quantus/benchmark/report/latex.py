r"""Tables as LaTeX for a paper: booktabs, bold as earned, everything escaped.

A `relax_quantus.benchmark.report.layout.Table` enters, the text of a ``table`` environment leaves;
``\usepackage{booktabs}`` is all that it needs.
"""

from __future__ import annotations

import re

from relax_quantus.benchmark.report.layout import NOTHING, Table, TableCell

ESCAPES = {
    "\\": r"\textbackslash{}",
    **{c: "\\" + c for c in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "−": "$-$",
    "±": r"$\pm$",
    "–": "--",
    "×": r"$\times$",
}


def escaped(text: str) -> str:
    r"""Escape `text` as LaTeX needs it.

    Examples
    --------
    >>> print(escaped("RELAX-time_frequency − twin, 95 %"))
    RELAX-time\_frequency $-$ twin, 95 \%
    """
    return "".join(ESCAPES.get(character, character) for character in text)


def cell(of: TableCell) -> str:
    """Typeset a number in maths, so that its minus is a minus."""
    text = of.text()
    if text == NOTHING:
        return "--"
    text = re.sub(r"-(?=\d)", r"$-$", text)
    return rf"\textbf{{{text}}}" if of.bold else text


def latex(table: Table, label: str) -> str:
    """Write the whole ``table`` environment."""
    columns = "l" + "r" * (len(table.header) - 1)
    lines = [
        "% \\usepackage{booktabs}",
        r"\begin{table}",
        r"\centering\footnotesize",
        rf"\caption{{{escaped(f'{table.title}. {table.caption}')}}}",
        rf"\label{{tab:{label}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        " & ".join(escaped(name) for name in table.header) + r" \\",
        r"\midrule",
    ]
    differences = False
    for name, cells in table.lines:
        if name.endswith("twin") and not differences and len(lines) > 9:
            lines.append(r"\addlinespace")
        differences = differences or name.endswith("twin")
        lines.append(" & ".join((escaped(name), *map(cell, cells))) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"]) + "\n"
