"""Spares the processes that tests start the import of torch's compiler; Python runs it by itself.

Every optimizer of torch imports torch._dynamo, which takes as long as torch itself, and calls two
of its functions, which do nothing where nothing is compiled. Whoever asks for anything else of it
gets the real one.
"""

import importlib
import sys
from types import ModuleType
from typing import Any

NAME = "torch._dynamo"


class Compiler(ModuleType):
    @staticmethod
    def graph_break() -> None:
        pass

    @staticmethod
    def disable(function: Any, *_: Any, **__: Any) -> Any:
        return function

    def __getattr__(self, name: str) -> Any:
        # __path__ is what an import of one of its modules asks for.
        if name.startswith("__") and name != "__path__":
            raise AttributeError(name)
        if sys.modules.get(NAME) is self:
            del sys.modules[NAME]
        return getattr(importlib.import_module(NAME), name)


sys.modules[NAME] = Compiler(NAME)
