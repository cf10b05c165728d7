"""Named things of one kind, found by name: activations, norms, inits, optimizers, data sets, figures, probes.

Standard library only, so that every floor may use it, and so that a process that only shows pages
can know all the names without loading torch (see LazyModule).
"""

from __future__ import annotations

import importlib
from operator import attrgetter
from types import ModuleType
from typing import Generic, TypeVar

T = TypeVar("T")


class Registry(dict[str, T], Generic[T]):
    """Things of one kind by name, each registered once (else ValueError); `kind` is what an error message calls them.

    >>> NORMS = Registry("norm")
    >>> NORMS["batch"] = Norm("Batch norm", 1)
    """

    def __init__(self, kind: str):
        super().__init__()
        self.kind = kind

    def __setitem__(self, name: str, thing: T) -> None:
        if name in self:
            raise ValueError(f"{self.kind} {name!r} is registered twice.")
        super().__setitem__(name, thing)

    def __missing__(self, name: str) -> T:
        raise KeyError(f"{name!r} is not a known {self.kind}; known are {', '.join(self)}.")


class LazyModule(ModuleType):
    """A module imported at its first use: `torch = LazyModule("torch")` costs nothing until `torch.x` is asked for.

    `LazyModule("torch", "ops.aten")` stands for what `torch.ops.aten` is. Importing torch takes seconds and hundreds of
    megabytes; the page process needs only names.
    """

    def __init__(self, name: str, inside: str = ""):
        super().__init__(name)
        self.__dict__["inside"] = inside

    def __getattr__(self, attribute: str):
        module = importlib.import_module(self.__name__)
        value = getattr(attrgetter(self.inside)(module) if self.inside else module, attribute)
        setattr(self, attribute, value)  # the next look-up does not come here
        return value
