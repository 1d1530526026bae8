"""Single backticks in a docstring: a link if one documented thing ends in that name, else code.

The package's docstrings name things as a reader says them (`Time`, `RELAX.attribute`, a parameter);
Sphinx wants the full path.
"""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode


def resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement) -> nodes.Element | None:
    """Link to the only public thing of that name, a re-export counting as what it is of."""
    if node.get("refdomain") != "py" or node.get("reftype") != "obj":
        return None
    ending = "." + node["reftarget"].lstrip(".")
    found = {
        entry.node_id: entry
        for name, entry in env.domains["py"].objects.items()
        if name.endswith(ending) and not entry.aliased
    }
    documents = {entry.docname for entry in found.values()}
    if len(documents) != 1:
        return None
    (entry,) = list(found.values())[:1]
    return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, content, node["reftarget"])


def setup(app: Sphinx) -> dict[str, Any]:
    """Ask here for what the Python domain does not find."""
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True}
