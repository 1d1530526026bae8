"""What makes maps: RELAX's strategies and their shuffled twins, Captum's attributions, energy; by
name in `registry`.
"""

from relax_quantus.benchmark.methods.registry import METHODS, TWIN, Simple, build, full_name, names, resolve

__all__ = ["METHODS", "TWIN", "Simple", "build", "full_name", "names", "resolve"]
