"""Make maps by name: RELAX's strategies and their twins, Captum's methods, energy."""

from relax_quantus.benchmark.methods.registry import METHODS, TWIN, Simple, build, full_name, names, resolve

__all__ = ["METHODS", "TWIN", "Simple", "build", "full_name", "names", "resolve"]
