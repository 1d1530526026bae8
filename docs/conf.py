"""Configure Sphinx: MyST pages, executed notebooks, numpydoc reference, pages of registries.

Notebooks are executed by MyST-NB; each entry of a registry has a page. Build from the repository's
root with ``sphinx-build -W --keep-going -n docs docs/_build/html``. Nothing is fetched, while
building or reading.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import relax_quantus

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "extensions"), str(HERE.parent), str(HERE.parent / "tests")]

# tqdm.auto, which Captum imports, warns in every notebook that has no ipywidgets.
os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"

project = "relax-quantus"
author = "the relax-quantus developers"
copyright = "relax-quantus developers, Apache-2.0"
version = release = relax_quantus.__version__

extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "mathml",
    "nearest_name",
    "catalogue",
    "command_line",
    "published_results",
]
exclude_patterns = ["_build", "_templates", "extensions", "generated/scratch", "**/.ipynb_checkpoints"]
templates_path = ["_templates"]
nitpicky = True
smartquotes_action = "qe"  # not dashes: options begin with two
# Tables of published results begin at the third level; a class that the package's face and its
# module both list has two pages, and its bare name leads to either.
suppress_warnings = ["myst.header", "ref.python"]
default_role = "py:obj"

myst_enable_extensions = ["colon_fence", "dollarmath", "deflist", "attrs_inline"]
myst_heading_anchors = 3

nb_execution_mode = "force"
nb_execution_timeout = 300
nb_execution_show_tb = True
nb_output_stderr = "remove-warn"  # a warning or a progress bar in an example fails the build
nb_merge_streams = True

autosummary_generate = True
autosummary_imported_members = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
numpydoc_xref_param_type = False
# Other packages' inventories are not fetched, so their names lead nowhere; in a docstring, `name`
# is a link only where there is one.
OTHERS = (
    "torch|numpy|np|npt|nn|matplotlib|pandas|pd|captum|quantus|rich|typing|types|abc|collections|"
    "contextlib|tempfile|io|pathlib|os|typer"
)
UNQUALIFIED = (
    "Tensor|Axis|Callable|Iterator|Sequence|Mapping|Any|Path|PathLike|Array|Values|Map|"
    "Wave|Image|Table|Console|Figure|Bins|T|ndarray|floating|Tensors|OneEach|Explanations|Blocks|"
    "Gains|Strategy|TemporaryDirectory"
)
WITHOUT_PAGE = "FrontEnd|Written|Plan|Gains|Hooks|Beside|MaskedSound|SoundGrid|HearingNetwork"
"""Classes that signatures name and that are described where they are returned."""
nitpick_ignore_regex = [
    ("py:.*", rf"({OTHERS})(\..*)?"),
    ("py:.*", rf"({UNQUALIFIED})|.*\.T|.*\.Choice|(tuple|dict)\[\w+"),
    ("py:class", rf"relax_quantus\.\w+(\.\w+)*\.({WITHOUT_PAGE})"),
    ("py:obj", ".*"),
]

html_theme = "furo"
html_title = "relax-quantus"
html_static_path = ["_static"]
html_css_files = ["pictures.css"]
html_extra_path = ["generated/extra"]
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}
