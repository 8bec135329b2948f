"""Configuration: everything shipped is valid, and every fault names its key."""

import re
import string
from datetime import datetime, tzinfo
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.config.experiment import Config, validate
from harness.config.gate import GateConfig
from harness.config.train import TrainConfig
from harness.core import resources
from harness.core.errors import ConfigError
from harness.workflows import compose
from harness.workflows.compose import choices, composed, config_for, gate_values, groups, sweep

EXPECTED = {
    "audit": 2,
    "data": 9,
    "experiment": 5,
    "gate": 6,
    "model": 7,
    "serve": 1,
    "suite": 6,
    "template": 7,
    "tracker": 2,
    "train": 4,
}
NEEDS = {
    ("model", "pretrained"): ["model.path=some/model"],
    ("data", "mts_dialog"): ["data.sources.clinical.path=some.csv"],
    ("data", "aci_bench"): ["data.sources.clinical.path=some.csv"],
}
SHIPPED = [(path.parent.name, path.stem) for path in sorted(resources.CONF.glob("*/*.yaml"))]


@cache
def valid() -> dict[str, Any]:
    return composed([])


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_number_of_shipped_files() -> None:
    counted = {group: sum(found == group for found, _ in SHIPPED) for group in groups()}
    assert counted == EXPECTED
    assert len(list(resources.CONF.rglob("*.yaml"))) == sum(EXPECTED.values()) + 1, "a file outside the groups"


@pytest.mark.parametrize(("group", "name"), SHIPPED)
def test_every_shipped_file_composes_and_validates(group: str, name: str) -> None:
    config = config_for([f"{group}={name}", *NEEDS.get((group, name), [])])
    assert config.tasks, "a configuration that evaluates nothing"


@pytest.mark.parametrize("name", [name for group, name in SHIPPED if group == "experiment"])
def test_an_experiment_names_its_run(name: str) -> None:
    assert config_for([f"experiment={name}"]).name == name


@pytest.mark.parametrize("name", [name for group, name in SHIPPED if group == "gate"])
def test_policies_by_name(name: str) -> None:
    assert validate(GateConfig, gate_values(name)).name == name


def test_unknown_policy_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'strict'"):
        gate_values("strikt")


def test_own_conf_folder_comes_first(tmp_path: Path) -> None:
    folder = tmp_path / "conf" / "train"
    folder.mkdir(parents=True)
    shipped = (resources.CONF / "train" / "lora.yaml").read_text()
    (folder / "lora.yaml").write_text(re.sub(r"learning_rate: .*", "learning_rate: 7.0e-5", shipped))
    (folder / "mine.yaml").write_text(re.sub(r"learning_rate: .*", "learning_rate: 9.0e-5", shipped))
    assert config_for([]).train.learning_rate == 7e-5
    assert config_for(["train=mine"]).train.learning_rate == 9e-5
    assert "mine" in choices("train")


def test_own_experiment(tmp_path: Path) -> None:
    folder = tmp_path / "conf" / "experiment"
    folder.mkdir(parents=True)
    (folder / "clinic.yaml").write_text("# @package _global_\nname: clinic\ntrain: {epochs: 2}\n")
    config = config_for(["experiment=clinic"])
    assert (config.name, config.train.epochs) == ("clinic", 2)


@pytest.mark.parametrize(("text", "value"), [("1e-5", 1e-5), ("2E-4", 2e-4), ("3.0e-4", 3e-4), ("1", 1.0)])
def test_numbers_in_yaml_and_overrides_are_floats(tmp_path: Path, text: str, value: float) -> None:
    folder = tmp_path / "conf" / "train"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(f"learning_rate: {text}\n")
    for overrides in (["train=mine"], [f"train.learning_rate={text}"]):
        rate = config_for(overrides).train.learning_rate
        assert isinstance(rate, float)
        assert rate == value


def test_sweeps_that_begin_in_the_same_second_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stopped(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "Stopped":
            return cls(2030, 1, 1, tzinfo=tz)

    monkeypatch.setattr(compose, "datetime", Stopped)
    assert sweep(["experiment=finance_disclaimer", "train.seed=1,2"], tmp_path, lambda config: 10) == [10, 10]
    assert sweep(["experiment=finance_disclaimer", "train.seed=3"], tmp_path, lambda config: 0) == [0]


def test_a_sweep_over_keys_that_no_file_states(tmp_path: Path) -> None:
    found: list[tuple[float, int, str]] = []

    def job(config: Config) -> int:
        found.append((config.alpha, config.serve.max_num_seqs, config.suite.name))
        return 0

    swept = ["alpha=0.25,0.5", "serve.max_num_seqs=8", "suite=smoke,domain"]
    assert sweep(["experiment=finance_disclaimer", *swept], tmp_path, job) == [0, 0, 0, 0]
    assert found == [(alpha, 8, suite) for alpha in (0.25, 0.5) for suite in ("smoke", "domain")]


def test_a_sweep_over_an_unknown_key_is_a_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No member starts before all of them are valid."""
    with pytest.raises(ConfigError, match=r"train\.epoch: unknown key\. Did you mean 'epochs'\?.*in 2 of 2 members"):
        sweep(["experiment=finance_disclaimer", "train.epoch=1,2"], tmp_path, lambda config: pytest.fail("started"))
    with pytest.raises(ConfigError, match=r"train\.epochs: must be a number .*in 1 of 2 members: .* train\.epochs=two"):
        sweep(["experiment=finance_disclaimer", "train.epochs=1,two"], tmp_path, lambda config: pytest.fail("started"))


@pytest.mark.parametrize("key", ["train.too_long=drop", "train.kl_to_base=0.1,0.2", "+train.kl_to_base=0.1"])
def test_a_sweep_takes_the_keys_of_a_single_run(tmp_path: Path, key: str) -> None:
    overrides = ["experiment=finance_disclaimer", key, "train.epochs=1,3"]
    epochs: list[float] = []

    def job(config: Config) -> int:
        epochs.append(config.train.epochs)
        return 0

    assert set(sweep(overrides, tmp_path, job)) == {0}
    assert set(epochs) == {1.0, 3.0}


def test_the_initials_of_a_key_name_it() -> None:
    with pytest.raises(ConfigError, match=r"lr: unknown key\. Did you mean 'learning_rate'\?"):
        validate(TrainConfig, {"lr": 1e-3})


def test_several_values_need_a_sweep() -> None:
    with pytest.raises(ConfigError, match=r"train\.seed=1,2: .*-m"):
        config_for(["train.seed=1,2"])


@pytest.mark.parametrize("text", ["learning_rate: [", "learning_rate: '", "\tepochs: 1", "epochs: ${nowhere}", "- 1"])
def test_a_damaged_file_is_told_by_its_path(tmp_path: Path, text: str) -> None:
    folder = tmp_path / "conf" / "train"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"mine|nowhere|train:"):
        config_for(["train=mine"])


@pytest.mark.parametrize("text", ["", "rules: [", "- 1", "name: ${nowhere}", "name: p\nrulez: []"])
def test_a_damaged_policy_is_a_fault(tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError):
        validate(GateConfig, gate_values(str(tmp_path / "mine.yaml")))


def test_a_value_that_must_be_given() -> None:
    with pytest.raises(ConfigError, match=r"model\.path"):
        config_for(["model=pretrained"])


def test_prompt_longer_than_the_server_takes() -> None:
    with pytest.raises(ConfigError, match=r"template\.max_length"):
        config_for(["serve.max_model_len=512"])


@pytest.mark.parametrize(
    ("group", "values", "told"),
    [
        (GateConfig, {"name": "p", "rules": []}, "decides nothing"),
        (GateConfig, {"name": "p", "rules": [{"metric": "*", "role": "info"}]}, "decides nothing"),
        (GateConfig, {"name": "p", "rules": [{"metric": "*", "role": "guard"}]}, "margin"),
        (GateConfig, {"name": "p", "rules": [{"metric": "*", "role": "target"}]}, "floor"),
        (GateConfig, {"name": "p", "rules": [{"metric": "*", "role": "guard", "margin": float("nan")}]}, "margin"),
    ],
)
def test_a_policy_that_cannot_decide(group: type[GateConfig], values: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        validate(group, values)


KEYS = st.text(string.ascii_lowercase + "_", min_size=1, max_size=12)
GROUPS = st.sampled_from(["", "model", "audit", "template", "train", "serve", "suite", "gate", "tracker"])


@given(group=GROUPS, keys=st.sets(KEYS, min_size=1, max_size=3))
def test_unknown_keys_are_always_named(group: str, keys: set[str]) -> None:
    inside = valid()[group] if group else valid()
    unknown = {key for key in keys if key not in known_keys(group)}
    values = inside | dict.fromkeys(unknown, 1)
    whole = valid() | {group: values} if group else values
    if not unknown:
        assert validate(Config, whole)
        return
    with pytest.raises(ConfigError) as caught:
        validate(Config, whole)
    told = {fault.split(":")[0] for fault in caught.value.errors}
    assert told == {f"{group}.{key}".lstrip(".") for key in unknown}


def known_keys(group: str) -> set[str]:
    if not group:
        return set(Config.model_fields)
    annotation: Any = Config.model_fields[group].annotation
    return set(annotation.model_fields)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(key=KEYS)
def test_unknown_override_is_named_however_it_is_spelt(key: str) -> None:
    with pytest.raises(ConfigError, match=f"train.x{key}: unknown key"):
        config_for([f"train.x{key}=1"])
