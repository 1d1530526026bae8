"""Write a page for each entry of a registry, with a picture that the program draws.

They are written to generated/ before Sphinx reads. Enters: the registries. Leaves:
``generated/{masks,fills,estimators,metrics}/NAME.md`` and ``pictures/NAME.png`` beside them. Pages
of entries that are gone are deleted, and pictures are drawn once, and again when anything of the
package changes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sphinx.application import Sphinx


def generate(app: Sphinx, *_: Any) -> None:
    """Write pages and pictures."""
    from catalogue.pages import all_pages
    from catalogue.pictures import draw
    from catalogue.writing import write

    generated = Path(app.srcdir, "generated")
    (generated / "extra").mkdir(parents=True, exist_ok=True)
    pages = all_pages(Path(app.srcdir))
    for page, text in pages.items():
        write(generated / f"{page}.md", text)
    for kind in ("masks", "fills", "estimators", "metrics"):
        for old in (generated / kind).glob("*.md"):
            if f"{kind}/{old.stem}" not in pages:
                old.unlink()
    draw(generated)


def setup(app: Sphinx) -> dict[str, Any]:
    """Write the catalogue before any page is read."""
    app.connect("config-inited", generate)
    return {"parallel_read_safe": True}
