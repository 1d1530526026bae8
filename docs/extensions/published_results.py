"""Copy the published results' own pages from benchmarks/results/ into generated/results/.

So links to them lead somewhere. A link ``../benchmarks/results/RUN/PAGE.md``, right on a hosted
repository, becomes one to the copy. A run's PNG figures make one more page.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from catalogue.writing import write
from sphinx.application import Sphinx

RESULTS = "benchmarks/results"


def copy(app: Sphinx, *_: Any) -> None:
    """Copy pages and figures."""
    source, target = Path(app.srcdir).parent / RESULTS, Path(app.srcdir, "generated/results")
    for page in source.glob("*/*.md"):
        text = page.read_text(encoding="utf-8")
        title = re.match(r"# (.*)", text)
        text = text if title else f"# {page.parent.name}: {page.stem}\n\n{text}"
        write(target / page.relative_to(source), text)
    for run in (folder for folder in source.iterdir() if folder.is_dir()):
        figures = sorted(run.glob("figures/*.png"))
        for figure in figures:
            copied = target / figure.relative_to(source)
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(figure, copied)
        if figures:
            pictures = "\n\n".join(f"## {figure.stem}\n\n![{figure.stem}](figures/{figure.name})" for figure in figures)
            write(target / run.name / "pictures.md", f"# {run.name}: figures\n\n{pictures}")


def redirect(app: Sphinx, name: str, source: list[str]) -> None:
    """Lead a page's links to the copies."""
    source[0] = source[0].replace(f"](../{RESULTS}/", "](/generated/results/")


def setup(app: Sphinx) -> dict[str, Any]:
    """Copy before any page is read; redirect as each is."""
    app.connect("config-inited", copy)
    app.connect("source-read", redirect)
    return {"parallel_read_safe": True}
