"""Errors: each leaf keeps its message and exit code on the way from another process."""

import pickle

import pytest

from harness.core import errors

MADE = {
    "ConfigError": (["a: wrong", "b: missing"],),
    "MissingDependency": ("ray", "audit.engine=ray", "ray"),
    "LimitsBroken": (["toxicity: 3 rows found"],),
    "PromotionRefused": (["the verdict is FAIL"], 10),
}
KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.HarnessError)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_error_survives_the_way_between_processes(kind: type[errors.HarnessError]) -> None:
    error = kind(*MADE.get(kind.__name__, ("what, where, how to mend",)))
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error)
    assert (again.exit_code, vars(again)) == (error.exit_code, vars(error))
