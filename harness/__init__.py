"""Fine-tune a language model for what an organisation demands, and prove it before production.

    import harness

    result = harness.run("experiment=finance_disclaimer")  # what `harness run` does, and the same files
    harness.comparison(result.folder.base, result)  # a data frame

docs/python.md describes every function. Importing this package loads the standard library only: a function is loaded
with what it needs when it is first used. No module inside the package imports this one.
"""

from typing import TYPE_CHECKING

from harness.core.version import __version__

__all__ = [
    "Comparison",
    "Dataset",
    "Evaluation",
    "EvaluationResult",
    "HarnessError",
    "Result",
    "Verdict",
    "__version__",
    "audit",
    "compare",
    "comparison",
    "curves",
    "evaluate",
    "gate",
    "run",
    "runs",
    "samples",
]

if TYPE_CHECKING:
    from harness.core.errors import HarnessError
    from harness.records.gate import Comparison, Verdict
    from harness.records.stages import Dataset, Evaluation
    from harness.workflows.frames import comparison, curves, runs, samples
    from harness.workflows.interface import EvaluationResult, Result, audit, compare, evaluate, gate, run
else:  # type checkers must not see __getattr__: with it, every misspelt name would be valid
    from importlib import import_module
    from types import ModuleType

    _HOMES = {
        "HarnessError": "harness.core.errors",
        "Comparison": "harness.records.gate",
        "Verdict": "harness.records.gate",
        "Dataset": "harness.records.stages",
        "Evaluation": "harness.records.stages",
        **dict.fromkeys(("comparison", "curves", "runs", "samples"), "harness.workflows.frames"),
    }

    def _loaded(name):
        return getattr(import_module(_HOMES.get(name, "harness.workflows.interface")), name)

    def __getattr__(name):
        if name not in __all__:
            raise AttributeError(f"module 'harness' has no attribute {name!r}")
        globals()[name] = value = _loaded(name)
        return value

    def __dir__():
        return sorted({*globals(), *__all__})

    class _CallableRoom(ModuleType):
        """A package that is a function too.

        harness/evaluate/ and harness/gate/ have the names of two functions. Whatever imports a module of theirs makes
        Python set `harness.gate` to the package, so the package itself has to do what the function does.
        """

        def __call__(self, *args, **kwargs):
            return self.__wrapped__(*args, **kwargs)

        @property
        def __wrapped__(self):  # inspect reads the function's signature and source here
            return _loaded(self.__name__.rpartition(".")[2])

        @property
        def __doc__(self):
            return self.__wrapped__.__doc__

    for _room in ("evaluate", "gate"):
        import_module(f"harness.{_room}").__class__ = _CallableRoom
