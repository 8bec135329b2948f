"""What is a secret, in settings and on a command line, and what only sounds like one."""

import signal
from collections.abc import Iterator

import pytest

from harness import cli
from harness.core.errors import UsageError
from harness.core.redact import REMOVED, command_without_secrets, without_secrets


@pytest.mark.parametrize(
    "name",
    ["api_key", "hub_token", "apiKey", "HF_TOKEN", "password", "client-secret", "authorization", "s3Secret"],
)
def test_names_of_secrets(name: str) -> None:
    assert without_secrets({"a": {name: "x"}}) == {"a": {name: REMOVED}}


@pytest.mark.parametrize(
    "name", ["max_new_tokens", "special_tokens", "tokens_per_s", "keys", "tokenizer", "author", "slice_key"]
)
def test_settings_that_only_sound_like_secrets_stay(name: str) -> None:
    assert without_secrets({name: 7}) == {name: 7}


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("hf_abcdefghijkl", REMOVED),
        ("call with Bearer abc.def", f"call with {REMOVED}"),
        ("https://me:pw@host/x", f"https://{REMOVED}@host/x"),
        ("e" * 64, "e" * 64),
        ("hf_hub", "hf_hub"),
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1"),
    ],
)
def test_values_that_are_secrets(text: str, kept: str) -> None:
    assert without_secrets({"value": [text]}) == {"value": [kept]}


def test_values_of_secret_environment_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLINIC_PASSWORD", "correct horse")
    assert without_secrets({"command": "login 'correct horse' now"}) == {"command": f"login '{REMOVED}' now"}


def test_a_common_word_is_no_secret_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTH", "disabled")
    monkeypatch.setenv("API_KEY", "hunter22")
    assert without_secrets({"mode": "disabled", "url": "h/hunter22"}) == {"mode": "disabled", "url": f"h/{REMOVED}"}


def test_all_that_lies_under_the_name_of_a_secret() -> None:
    settings = {"secrets": {"a": "hunter2"}, "l": [{"password": ["x"]}], "url": "https://h/?api_key=abc", "auth": {}}
    told = {"secrets": REMOVED, "l": [{"password": REMOVED}], "url": f"https://h/?api_key={REMOVED}", "auth": {}}
    assert without_secrets(settings) == told


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("harness run experiment=x hub_token=abc123", "harness run experiment=x 'hub_token=[removed]'"),
        ("harness run 'serve.api_key=a b'", "harness run 'serve.api_key=[removed]'"),
        ("harness ci RUN --api-key s3cr3t --smoke", "harness ci RUN --api-key '[removed]' --smoke"),
        ("harness ci RUN --password=s3cr3t", "harness ci RUN '--password=[removed]'"),
        ("harness run 'env={HF_TOKEN: abc, LANG: C}'", "harness run 'env=[removed]'"),
        ("harness run 'h={Authorization: Bearer mine}'", "harness run 'h=[removed]'"),
        ("harness run 'env={PASSWORD: correct horse}'", "harness run 'env=[removed]'"),
        ("harness run '+x={auth: {user: bob, pw: hunter2}}'", "harness run '+x=[removed]'"),
        ("harness run 'x=[{name: a},{key:[s1,s2]}]'", "harness run 'x=[removed]'"),
        ("harness run 'u=https://h/?api_key=abc&x=1'", "harness run 'u=https://h/?api_key=[removed]&x=1'"),
        (
            "harness run 'u={a: \"https://h/?x=1&token=abc\"}'",
            "harness run 'u={a: \"https://h/?x=1&token=[removed]\"}'",
        ),
        ("harness ci 'https://h/?x=1&token=abc'", "harness ci 'https://h/?x=1&token=[removed]'"),
        ("harness evaluate hf_abcdefghijkl", "harness evaluate '[removed]'"),
        ("harness run model.path=https://me:pw@host/x", "harness run 'model.path=https://[removed]@host/x'"),
        ("harness run note=correct-horse", "harness run 'note=[removed]'"),
        ("harness run train.seed=1 gate.slice_key=topic 'a=[1, 2]' --head abc", None),
        ("harness run 'suite.tasks=[{name: x, max_new_tokens: 3}]'", None),
    ],
)
def test_command_lines(command: str, told: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLINIC_PASSWORD", "correct-horse")
    assert command_without_secrets(command) == (told or command)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The command lines that would be written down; nothing is run."""
    found: list[str] = []

    def stop(*given: object) -> None:
        found.append(str(given[-1]))
        raise UsageError("seen")

    monkeypatch.setattr("harness.workflows.run.run_experiment", stop)
    monkeypatch.setattr("harness.workflows.ci.decide_candidate", stop)
    monkeypatch.setenv("CLINIC_PASSWORD", "correct-horse")
    handler = signal.getsignal(signal.SIGTERM)
    yield found
    signal.signal(signal.SIGTERM, handler)


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "experiment=finance_disclaimer", "name=correct-horse"],
        ["ci", "owner/model", "--against", "base", "experiment=finance_disclaimer", "name=correct-horse"],
    ],
)
def test_what_is_recorded_of_a_run_and_of_a_decision(arguments: list[str], recorded: list[str]) -> None:
    assert cli.main(arguments) == 2
    (command,) = recorded
    assert command.startswith(f"harness {arguments[0]} ")
    assert REMOVED in command
    assert "correct-horse" not in command
