"""TorchScript and ``torch.export`` files: a path enters, a network with gradients leaves.

Both are archives, which are read as data. TorchScript is read by torch's own reader in C++, which
runs no Python. Before a ``torch.export`` archive is read, what its reader would evaluate or
unpickle is checked: pickles hold tensors alone, operators are torch's own, and expressions of sizes
are arithmetic. A state dict is no network and is refused.
"""

from __future__ import annotations

import io
import json
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from relax_quantus.base import checks
from relax_quantus.base.checks import one_line, printable, shown
from relax_quantus.encoders.adapters.file_network import (
    ANY,
    FileNetwork,
    FileSettings,
    TensorNote,
    choose_outputs,
    open_file,
    read_labels,
    refuse_other_than_one_float,
)
from relax_quantus.encoders.contract import OUTPUT_NAMES, weights_digest
from relax_quantus.errors import EncoderError, WeightsError

A_NETWORK = "a network saved by torch.jit.save or torch.export.save"
HOW = "save the network itself, torch.export.save(torch.export.export(net, (x,)), path)"
SAVE_AGAIN = "save it again with torch.export.save of a current torch"
LARGEST_RATIO = 4
"""Times that an archive may unpack to its own size; weights are not compressed in it, code is."""
_SLACK_BYTES = 2**26
_OPERATOR = re.compile(r"torch\.ops\.(aten|prims|higher_order)\.\w+(\.\w+)?|_operator\.\w+|math\.\w+|torch\.sym_\w+")
_SIZE_WORDS = re.compile(
    r"[suz]\w?\d+|Symbol|Integer|Rational|Max|Min|Mod|PythonMod|FloorDiv|CeilDiv|CleanDiv|ModularIndexing|IntTrueDiv|"
    r"FloatTrueDiv|TruncToInt|ToFloat|Eq|Ne|Le|Lt|Ge|Gt|And|Or|Not|Where|integer|positive|nonnegative|True|False"
)
"""Words that stand in expressions of sizes."""
_WRITES_FILES = re.compile(rb"torch\.(save|from_file)\(|ops\.aten\.(save|from_file)")


class TorchNetwork(FileNetwork):
    """A network that was saved whole; made by `load_torch`."""

    module: nn.Module

    def tensors(self, x: Tensor, wanted: Sequence[TensorNote]) -> list[Tensor]:
        """Run the module once."""
        found = parts_of(self.module(x))
        return [found[tensor.name] for tensor in wanted]

    def train(self, mode: bool = True) -> TorchNetwork:
        """Stay as it is: exported graphs have no modes."""
        self.training = False
        return self


def load_torch(path: Path, settings: FileSettings, sha256: str | None = None) -> TorchNetwork:
    """Load a TorchScript or ``torch.export`` file on the CPU.

    Parameters
    ----------
    path
        The file. Attributes of a scripted module that belong to the contract (``sample_rate_hz``,
        ``example_samples``, ``labels``, ``output_names``, ``fixed_batch``) are read.
    settings
        What it does not say; ``output`` is an index of a tuple or a key of a dict that the network
        returns.
    sha256
        Its SHA-256.

    Raises
    ------
    WeightsError
        If the file is missing, damaged, another one, or does not hold a network.
    EncoderError
        If the network wants more than one tensor of floats, or fails on a window of noise.
    ArgumentError
        If settings are missing or do not fit.
    """
    path, digest = open_file(path, sha256)
    module, taken = read_module(path)
    one = refuse_other_than_one_float(path, taken)
    facts = {
        key: getattr(module, key)
        for key in ("sample_rate_hz", "example_samples", "labels", "fixed_batch")
        if getattr(module, key, None) is not None and not callable(getattr(module, key))
    }
    if one.shape is None and settings.window is None and "example_samples" not in facts:
        rule = f"the length of an example of {shown(path)} in seconds"
        checks.refuse("window", rule, "nothing", f"the file does not say it: pass window=, or window={ANY}")
    labels = read_labels(settings.labels) or tuple(map(str, facts.get("labels", ())))
    placeholder = {"embedding": TensorNote("", 0, None)}
    known = TorchNetwork(path, one, placeholder, settings, {**facts, "labels": ()}, digest)
    given = _given(path, module, known)
    said = tuple(map(str, getattr(module, "output_names", ())))
    if said and len(said) == len(given) and set(said) <= set(OUTPUT_NAMES):
        chosen = dict(zip(said, given, strict=True))
    else:
        chosen = choose_outputs(path, given, (), settings, labels)
    network = TorchNetwork(path, one, chosen, settings, {**facts, "labels": labels}, digest)
    network.module = module
    network._file_weights = weights_digest(network)
    return network


def read_module(path: Path) -> tuple[nn.Module, tuple[TensorNote, ...]]:
    """Read a file as a module, with notes of what it takes (shape None where it does not say)."""
    names = check_archive(path)
    exported = any(name.endswith("models/model.json") for name in names)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if exported:
                program = torch.export.load(str(path))
                return program.module(), _placeholders(program)
            module: nn.Module = torch.jit.load(str(path), map_location="cpu").eval()  # type: ignore[no-untyped-call]
    except Exception as error:  # a damaged file can raise anything
        got = one_line(f"one that torch refuses ({type(error).__name__}: {error})")[:300]
        raise WeightsError(checks.message(shown(path), A_NETWORK, got, HOW)) from error
    taken = list(module.forward.schema.arguments)[1:]  # type: ignore[attr-defined]
    needed = [argument for argument in taken if not argument.has_default_value()] or taken
    return module, tuple(TensorNote(a.name, i, None, _kind(str(a.type))) for i, a in enumerate(needed))


def check_archive(path: Path) -> list[str]:
    """Return the names in an archive, after refusing what is no network or could do harm.

    Raises
    ------
    WeightsError
        If it is no archive, holds no network, unpacks to far more than its size, or holds code
        beyond the network's.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            names = [entry.filename.partition("/")[2] for entry in entries]
            fault = _fault(archive, entries, names, path.stat().st_size)
    except Exception as error:  # a damaged archive can raise anything, zlib's own errors among it
        text = checks.message(shown(path), A_NETWORK, one_line(f"no archive of torch ({error})"), HOW)
        raise WeightsError(text) from error
    if fault:
        checks.refuse(shown(path), A_NETWORK, fault[0], fault[1], WeightsError)
    return names


def _fault(
    archive: zipfile.ZipFile, entries: Sequence[zipfile.ZipInfo], names: Sequence[str], size: int
) -> tuple[str, str] | None:
    """Say what is wrong with an archive, and what to do."""
    if sum(entry.file_size for entry in entries) > LARGEST_RATIO * size + _SLACK_BYTES:
        return "an archive that unpacks to far more than its size", "fetch it again"
    if len(set(names)) != len(names):
        return "an archive that holds a name twice", "fetch it again"
    if "serialized_exported_program.json" in (entry.filename for entry in entries):
        return "an archive of an old torch", SAVE_AGAIN
    if "models/model.json" in names:
        return _fault_of_export(archive, entries)
    if "constants.pkl" in names and any(name.startswith("code/") for name in names):
        for entry in entries:
            if entry.filename.endswith(".py") and _WRITES_FILES.search(archive.read(entry)):
                return f"code that reads or writes files, {printable(entry.filename)}", "remove it"
        return None
    return "a state dict or another archive", HOW


def _fault_of_export(archive: zipfile.ZipFile, entries: Sequence[zipfile.ZipInfo]) -> tuple[str, str] | None:
    """Check what torch's reader evaluates (expressions, operators) or unpickles."""
    for entry in entries:
        name = entry.filename.partition("/")[2]
        if name.endswith(".json"):
            fault = _fault_of_json(json.loads(archive.read(entry)))
            if fault:
                return fault
        elif name.startswith("data/aotinductor"):
            return "compiled code", SAVE_AGAIN
        elif name.startswith("data/constants/") and not name.startswith("data/constants/tensor_"):
            return f"an object that is no tensor, {printable(name)}", "export the network without it"
        elif name.startswith("data/") and name.endswith(".pt"):
            try:
                torch.load(io.BytesIO(archive.read(entry)), map_location="cpu", weights_only=True)
            except Exception:  # a pickle can raise anything
                return f"a pickle of more than tensors, {printable(name)}", SAVE_AGAIN
    return None


def _fault_of_json(content: Any) -> tuple[str, str] | None:
    for item in _dicts(content):
        if item.get("use_pickle"):
            return "weights in a pickle", "export the network in float32"
        if item.get("guards_code"):
            return "checks in Python", "export the network without them"
        text = str(item.get("expr_str", ""))
        words = re.findall(r"[A-Za-z_]\w*", text)
        if not all(_SIZE_WORDS.fullmatch(word) for word in words) or not re.fullmatch(
            r"[\w\s+\-*/%(),<>='&|~.]*", text
        ):
            return f"an expression that is no size, {printable(text)[:60]}", SAVE_AGAIN
        target = item.get("target")
        if isinstance(target, str) and "inputs" in item and not _OPERATOR.fullmatch(target):
            return f"an operator that is not torch's, {printable(target)[:60]}", "wrap the network in a module of yours"
    return None


def _dicts(content: Any) -> Iterator[dict[str, Any]]:
    """All dicts in what was JSON."""
    waiting = [content]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            yield item
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item


def parts_of(found: Any) -> dict[str, Tensor]:
    """Name what a network returned: a dict's keys, or "0", "1" and so on."""
    if isinstance(found, Mapping):
        return {str(key): value for key, value in found.items() if isinstance(value, Tensor)}
    several = found if isinstance(found, tuple | list) else (found,)
    return {str(i): value for i, value in enumerate(several) if isinstance(value, Tensor)}


def _given(path: Path, module: nn.Module, known: FileNetwork) -> list[TensorNote]:
    """Run the module on a window of noise, and note what it returns."""
    samples = known.example_samples or known.sample_rate_hz
    shape = [known.fixed_batch or 1, samples]
    if known.layout.shape and len(known.layout.shape) != 2:
        free = iter(shape)
        shape = [axis or next(free, 1) for axis in known.layout.shape]
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 0.1
    try:
        with torch.no_grad():
            found = parts_of(module(noise))
    except Exception as error:  # of whatever is in the graph
        said = str(error).strip().splitlines() or [type(error).__name__]
        rule = f"{shown(path)} to run on a waveform of {tuple(shape)}"
        text = checks.message("encoder", rule, one_line(said[-1])[:200], "pass its own window= in seconds")
        raise EncoderError(text) from error
    return [
        TensorNote(name, i, (None, *part.shape[1:]), str(part.dtype).removeprefix("torch."))
        for i, (name, part) in enumerate(found.items())
    ]


def _placeholders(program: Any) -> tuple[TensorNote, ...]:
    """What an exported program takes, with its shapes."""
    wanted = program.graph_signature.user_inputs
    notes: list[TensorNote] = []
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in wanted:
            value = node.meta.get("val")
            if not isinstance(value, Tensor):
                notes.append(TensorNote(node.name, len(notes), None, type(value).__name__))
                continue
            shape = tuple(axis if isinstance(axis, int) else None for axis in value.shape)
            notes.append(TensorNote(node.name, len(notes), shape, str(value.dtype).removeprefix("torch.")))
    return tuple(notes)


def _kind(type_name: str) -> str:
    return "float32" if type_name == "Tensor" else type_name
