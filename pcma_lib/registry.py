"""Parts of your own, by name: networks, data sets and encoders."""

import inspect
from collections.abc import Callable
from typing import Any


class Registry(dict):
    """Classes by the name that a `TrainConfig` calls them.

    Args:
        what: the setting that names one, such as "network". where: the module that its decorator is imported from.
        classes: the ones that the package brings.
    """

    def __init__(self, what: str, where: str, **classes: type) -> None:
        super().__init__(classes)
        self.what, self.where = what, where

    def register(self, name: str) -> Callable[[type], type]:
        """A decorator that makes a class known under a name; run again, as a notebook's cell is, the newer class counts.

        Raises:
            ValueError: the name stands for another class.
        """

        def add(kind: type) -> type:
            there = self.setdefault(name, kind)
            if (there.__module__, there.__qualname__) != (kind.__module__, kind.__qualname__):
                raise ValueError(f"{self.what} {name!r} is {there.__module__}.{there.__qualname__}; choose another name")
            self[name] = kind
            return kind

        return add

    def find(self, name: str) -> type:
        """The class of this name.

        Raises:
            ValueError: there is none. The message lists the known names and says how to add one.
        """
        if name not in self:
            raise ValueError(
                f"{self.what} must be one of {', '.join(self)}; got {name!r}. One of your own is known once the module that "
                f"holds it is imported and its class carries @register_{self.what}({name!r}) (from pcma_lib.{self.where})"
            )
        return self[name]


def call(kind: Callable, *given: Any, **options: Any) -> Any:
    """What a class or function returns, handed those of the options that it takes."""
    takes = arguments(kind)
    return kind(*given, **{k: v for k, v in options.items() if k in takes})


def arguments(kind: Callable) -> set[str]:
    """The names of the arguments that a class or function takes, its parents' too where it hands on `**options`."""
    names = set()
    for parent in kind.__mro__ if inspect.isclass(kind) else (kind,):
        if inspect.isclass(kind) and "__init__" not in vars(parent):
            continue
        found = inspect.signature(parent.__init__ if inspect.isclass(kind) else parent).parameters.values()
        names |= {p.name for p in found if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)} - {"self"}
        if not any(p.kind is p.VAR_KEYWORD for p in found):
            break
    return names
