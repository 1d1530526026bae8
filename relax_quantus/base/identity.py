"""Digest what a callable is, for networks without weights.

Structure, constants, code and what it closes over count.

Any object enters, a SHA-256 leaves that is the same in every process of one version of Python, or
"" where the object keeps something that cannot be looked into. Stands below
`relax_quantus.base.networks.fingerprint`, which takes it where there are no weights to tell
networks apart by.
"""

from __future__ import annotations

import dis
import functools
import hashlib
import sys
import types
from enum import Enum
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

_PLAIN = (type(None), type(...), bool, int, float, complex, str, bytes, range, slice, Enum)
_PLAIN_OF_LIBRARIES = (np.generic, np.dtype, torch.dtype, torch.device, torch.memory_format, torch.layout)
_WRAPPERS = (staticmethod, classmethod, property, functools.cached_property, types.CellType)
_C_FUNCTIONS = (
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.MethodWrapperType,
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
    np.ufunc,
)
_KEPT_OF_MODULES = {"_parameters", "_buffers", "_modules", "_forward_hooks", "_forward_pre_hooks"}
_OF_EVERY_MODULE = set(vars(nn.Module())) - _KEPT_OF_MODULES


def identity(value: object) -> str:
    """Digest what `value` is and does; "" where part of it cannot be looked into.

    Examples
    --------
    >>> def scaled(by):
    ...     return lambda x: x.flatten(1) * by
    >>> two = identity(scaled(2.0))
    >>> two == identity(scaled(2.0)), two == identity(scaled(3.0))
    (True, False)
    >>> identity(nn.Flatten()) == identity(nn.Identity()), identity(object())
    (False, '')
    """
    walk = _Walk()
    walk.add(value)
    return "" if walk.is_opaque else walk.digest.hexdigest()


class _Walk:
    """Go through an object and all that it refers to, each once."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256(f"python {sys.version_info[:2]}".encode())
        self.is_opaque = False
        self.met: dict[int, tuple[int, object]] = {}

    def note(self, *words: object) -> None:
        """Add words to the digest."""
        self.digest.update(("\0".join(map(str, words)) + "\1").encode(errors="surrogatepass"))

    def add(self, value: object) -> None:
        """Add an object: by its value, by its name if a library's, else by its parts."""
        if isinstance(value, _PLAIN + _PLAIN_OF_LIBRARIES):
            return self.note(type(value).__name__, repr(value))
        if id(value) in self.met:
            return self.note("again", self.met[id(value)][0])
        self.met[id(value)] = len(self.met), value
        if isinstance(value, Tensor):
            self.tensor(value)
        elif isinstance(value, np.ndarray):
            self.array(value)
        elif isinstance(value, dict):
            self.parts("dict", *(part for pair in value.items() for part in pair))
        elif isinstance(value, list | tuple):
            self.parts("sequence", *value)
        elif isinstance(value, set | frozenset):
            self.parts("set", *sorted(value, key=repr))
        elif isinstance(value, functools.partial):
            self.parts("partial", value.func, value.args, value.keywords)
        elif isinstance(value, types.MethodType):
            self.parts("method", value.__self__, value.__func__)
        elif isinstance(value, types.CodeType):
            self.code(value)
        elif isinstance(value, types.FunctionType):
            self.function(value)
        elif isinstance(value, _C_FUNCTIONS):
            self.c_function(value)
        elif isinstance(value, _WRAPPERS):
            self.wrapper(value)
        elif isinstance(value, type):
            self.type(value)
        elif isinstance(value, types.ModuleType):
            self.note("module", value.__name__)
            self.is_opaque |= not _is_librarys(value.__name__)
        else:
            self.instance(value)
        return None

    def parts(self, kind: str, *parts: object) -> None:
        """Add parts in their order."""
        self.note(kind, len(parts))
        for part in parts:
            self.add(part)

    def tensor(self, value: Tensor) -> None:
        """Add a tensor's values."""
        if value.layout != torch.strided or value.is_meta or value.is_quantized:
            self.is_opaque = True
            return
        content = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        self.note("tensor", tuple(value.shape), value.dtype, hashlib.sha256(content).hexdigest())

    def array(self, value: np.ndarray) -> None:
        """Add an array's values."""
        self.is_opaque |= value.dtype.hasobject
        content = np.ascontiguousarray(value).tobytes()
        self.note("array", value.shape, value.dtype, hashlib.sha256(content).hexdigest())

    def function(self, function: types.FunctionType) -> None:
        """Add a function: a library's by name, another by its code and what that reads.

        That is closure, defaults and globals.
        """
        if _is_librarys(function.__module__):
            self.note("function", function.__module__, function.__qualname__)
            if function.__closure__:
                self.parts("closure", *function.__closure__)
            return
        self.code(function.__code__)
        self.parts("closure", *(function.__closure__ or ()))
        self.parts("defaults", function.__defaults__, function.__kwdefaults__)
        for name in _globals_read(function.__code__):
            if name in function.__globals__:
                self.parts(name, function.__globals__[name])

    def code(self, code: types.CodeType) -> None:
        """Add instructions, names and constants of code.

        Not where they were written, nor what local variables are called.
        """
        self.note("code", code.co_code.hex(), code.co_names, code.co_argcount, code.co_kwonlyargcount, code.co_flags)
        self.parts("constants", *code.co_consts)

    def c_function(self, function: object) -> None:
        """Add a function in C by its name, with what it is bound to."""
        owner = getattr(function, "__self__", None)
        home = getattr(function, "__module__", None) or getattr(function, "__objclass__", None)
        self.note("function", home, getattr(function, "__qualname__", getattr(function, "__name__", "")))
        if owner is not None and not isinstance(owner, types.ModuleType | type):
            self.add(owner)

    def wrapper(self, value: object) -> None:
        """Add what a method's decorator or a closure's cell holds."""
        if isinstance(value, types.CellType):
            try:
                self.parts("cell", value.cell_contents)
            except ValueError:  # not assigned yet
                self.note("empty cell")
        elif isinstance(value, property):
            self.parts("property", value.fget, value.fset)
        else:
            self.parts(type(value).__name__, getattr(value, "__func__", getattr(value, "func", None)))

    def type(self, cls: type) -> None:
        """Add a library's class by name, another by what it defines and its bases."""
        if _is_librarys(cls.__module__):
            return self.note("class", cls.__module__, cls.__qualname__)
        self.parts("bases", *cls.__bases__)
        for name, value in sorted(vars(cls).items()):
            special = name.startswith("__") and not isinstance(value, types.FunctionType)
            if not special and name != "_abc_impl":
                self.parts(name, value)
        return None

    def instance(self, value: object) -> None:
        """Add an object by its class and attributes.

        A module's without the bookkeeping that every module has.
        """
        attributes = getattr(value, "__dict__", None)
        if attributes is None or isinstance(value, torch.jit.ScriptModule):
            self.is_opaque = True
            return
        self.add(type(value))
        if isinstance(value, nn.Module):
            attributes = {k: v for k, v in attributes.items() if k not in _OF_EVERY_MODULE}
            hooks = {k: list(v.values()) for k, v in attributes.items() if k.endswith("_hooks")}
            attributes = {**attributes, **hooks}
        for name, part in sorted(attributes.items()):
            self.parts(name, part)


def _globals_read(code: types.CodeType) -> list[str]:
    """Return the names of the globals that some code and the functions in it read."""
    names = {i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    inner = (name for const in code.co_consts if isinstance(const, types.CodeType) for name in _globals_read(const))
    return sorted(names.union(inner))


@functools.cache
def _is_librarys(module: str | None) -> bool:
    """Tell whether a module belongs to Python, to this package or to an installed one.

    Names of those say what they do.
    """
    top = (module or "").split(".")[0]
    if top in sys.stdlib_module_names or top == __name__.split(".")[0]:
        return top != "__main__"
    file = getattr(sys.modules.get(module or ""), "__file__", None)
    return file is not None and not {"site-packages", "dist-packages"}.isdisjoint(Path(file).parts)
