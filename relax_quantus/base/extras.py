"""Say which extra brings an optional dependency that is missing, in one line.

Stands at the bottom of the flow and imports nothing heavy, so that the command line can ask it
before anything else is imported.
"""

from __future__ import annotations

import importlib.util

from relax_quantus.errors import MissingDependencyError

EXTRAS = {
    "quantus": ("quantus",),
    "vggish": ("torchvggish",),
    "cli": ("typer", "rich"),
    "bench": (
        *("pandas", "pyarrow", "joblib", "statsmodels", "scikit_posthocs"),
        *("rich", "markdown_it", "quantus"),
    ),
    "dask": ("distributed",),
    "onnx": ("onnxruntime",),
    "litert": ("ai_edge_litert",),
}
"""Extra of ``pip install "relax-quantus[EXTRA]"`` -> the packages that it brings, as they are
imported."""


def require(extra: str, asker: str) -> None:
    """Raise an error that names `extra` if a package that it brings is not installed.

    Nothing is imported.

    Parameters
    ----------
    extra
        A key of `EXTRAS`.
    asker
        What needs it, as the user named it; the message begins with it.

    Raises
    ------
    MissingDependencyError
        If one of the packages cannot be found.

    Examples
    --------
    >>> require("cli", "relax-quantus")
    """
    for package in EXTRAS[extra]:
        if not _is_installed(package):
            raise MissingDependencyError(
                f'{asker}: expected {package}, got no such package; pip install "relax-quantus[{extra}]".'
            )


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False
    except (ImportError, ValueError):  # a finder that fails, a module made by hand: importing it will tell
        return True
