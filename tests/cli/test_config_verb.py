"""`harness config`, `run --cfg` and `run --info`: what there is to set, what results, and where it comes from."""

import pytest

from harness.cli import main


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 0
    return capsys.readouterr().out


def test_groups_and_their_options(capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(capsys, "config")
    assert "train" in out
    assert "lora" in out
    assert "harness config GROUP" in out


def test_keys_of_a_group_with_value_origin_and_description(capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(capsys, "config", "train", "train=lora", "train.lora.r=5")
    assert "train.lora.r = 5  (command line)" in out
    assert "train.weight_decay = 0.0  (default)" in out
    assert "train.learning_rate = " in out
    assert "Rank" in out


def test_an_unknown_group(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "trian"]) == 2
    assert "Did you mean 'train'?" in capsys.readouterr().err


def test_the_whole_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(capsys, "run", "experiment=finance_disclaimer", "train.seed=7", "--cfg", "job")
    assert "seed: 7" in out
    assert "name: finance_disclaimer" in out


def test_where_values_come_from(capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(capsys, "run", "experiment=finance_disclaimer", "train.seed=7", "--info")
    assert "train.seed = 7    # command line" in out
    assert 'name = "finance_disclaimer"    # experiment=finance_disclaimer' in out


def test_secrets_are_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    key = "sk-abcdefghijklmnopqrstuvwxyz0123456789"
    for option in (["--cfg", "all"], ["--info"]):
        out = printed(capsys, "run", "experiment=finance_disclaimer", f"name={key}", *option)
        assert key not in out
