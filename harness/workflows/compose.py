"""Composes the configuration; the only module that uses Hydra.

A `conf/` folder in the working directory is searched before the shipped one, file by file.
"""

import re
import secrets
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.config.experiment import Config, read_yaml, validate
from harness.config.task_gate import with_task_rules
from harness.core import resources
from harness.core.console import say
from harness.core.errors import ConfigError, HarnessError, UsageError, nearest

Overrides = Sequence[str]


LONE_SOURCE = "input"  # the source of `harness audit --input FILE`


def config_for(overrides: Overrides, data_file: Path | None = None) -> Config:
    """The validated configuration. Raises ConfigError that lists every error.

    A `data_file` replaces all configured sources; the new source is named LONE_SOURCE.
    """
    from harness.data.settings import setting_errors

    arguments, errors = _parsed_overrides(overrides)
    values = composed(arguments)
    if data_file is not None:
        _use_only(data_file, values["data"])
        if not any(o.lstrip("+").startswith(("audit.behaviors", "experiment=")) for o in overrides):
            values["audit"]["behaviors"] = []  # an organisation's rules apply where they are asked for
    errors += setting_errors(values.get("audit"), values.get("data"))
    try:
        _add_task_rules(values)
    except ConfigError as error:
        errors += error.errors
    errors += [f"{key} has no value. Set it: {key}=VALUE" for key in _missing(values)]
    try:
        config = validate(Config, values)
    except ConfigError as error:
        raise ConfigError([*errors, *error.errors]) from None
    if errors:
        raise ConfigError(errors)
    return config


def _use_only(path: Path, data: dict[str, Any]) -> None:
    given = data["sources"].get(LONE_SOURCE) or {}
    data["sources"] = {LONE_SOURCE: {**given, "path": str(path)}}
    data["allow_unlicensed"] = [*(data.get("allow_unlicensed") or []), LONE_SOURCE]


def composed(arguments: Sequence[str], file: str = "config") -> dict[str, Any]:
    """The resolved configuration as a plain dictionary, not yet validated. `file` is its first file under conf/."""
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    search_user_conf_first()
    try:
        with initialize_config_dir(str(resources.CONF), version_base="1.3"):
            config = compose(file, overrides=list(arguments))
        values: Any = OmegaConf.to_container(config, resolve=True)
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise ConfigError([_composing_error(error)]) from None
    return {str(key): value for key, value in values.items()}


def _composing_error(error: Exception) -> str:
    """Hydra's message in one line; for `${name}` in a value, how to write it as text."""
    text = " ".join(str(error).split())
    if found := re.search(r"Interpolation key '([^']*)' not found full_key: (\S+)", text):
        name, key = found.groups()
        return (
            f"{key}: ${{{name}}} stands for the value of the key {name}, which does not exist. "
            f"Name an existing key, or write it as text: '{key}=\\${{{name}}}'"
        )
    return text


def search_user_conf_first() -> None:
    """Puts the working directory's `conf/`, if it exists, in front of Hydra's search path."""
    from hydra.core.config_search_path import ConfigSearchPath
    from hydra.core.plugins import Plugins
    from hydra.plugins.search_path_plugin import SearchPathPlugin

    class UserConfFirst(SearchPathPlugin):
        def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
            for folder in user_conf():
                search_path.prepend(provider="user", path=f"file://{folder}")

    Plugins.instance().register(UserConfFirst)


def user_conf() -> list[Path]:
    """The `conf/` folder of the working directory; empty without one."""
    folder = (Path.cwd() / "conf").resolve()
    return [folder] if folder.is_dir() and folder != resources.CONF.resolve() else []


def _roots() -> list[Path]:
    return [*user_conf(), resources.CONF.resolve()]


def choices(group: str) -> list[str]:
    """The options of a configuration group, from the user's folder and the shipped one."""
    folders = [root / group for root in _roots()]
    return sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})


def groups() -> list[str]:
    """The names of all configuration groups."""
    return sorted(path.name for path in resources.CONF.iterdir() if path.is_dir())


def _parsed_overrides(overrides: Overrides) -> tuple[list[str], list[str]]:
    """The overrides in the form that Hydra takes, and the errors in them.

    A wrong override is left out, so that the rest can be checked. An unknown key is kept: validation reports it
    together with all other errors.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    errors: list[str] = []
    arguments: list[str] = []
    for text in overrides:
        try:
            override = parser.parse_override(text)
        except HydraException:
            errors.append(_unreadable(text))
            continue
        key, value = override.key_or_group, override.value()
        if override.is_sweep_override():
            plain = text.partition("=")[2]
            errors.append(f"{text}: several values need a sweep: add -m. One value with a comma: \"{key}='{plain}'\"")
        elif key in groups() and not isinstance(value, dict):
            if value is not None and str(value) not in choices(key):
                errors.append(f"{key}={value}: there is no such {key}. {nearest(str(value), choices(key))}")
            else:
                arguments.append(text)
        else:
            arguments.append(settable(text))
    return arguments, errors


def _unreadable(text: str) -> str:
    """Why an override cannot be read, with the line to type."""
    key, equals, value = text.partition("=")
    if not equals:
        return f"{text} is not an override; write key=value, such as train.epochs=2"
    odd = next((f"'{c}'" for c in "=~#,:{}[]()$\\ " if c in value), "a character")
    quoted = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"{key}: the value holds {odd}, which Hydra reads as syntax. Quote it twice: \"{key}='{quoted}'\""


def settable(override: str) -> str:
    """`a.b=c` as `++a.b=c`: configuration files hold only what differs from the defaults, so they may lack the key."""
    key, _, value = override.partition("=")
    option = key in groups() and not value.lstrip().startswith("{")
    return override if option or override.startswith(("+", "~", "hydra")) else f"++{override}"


def _missing(values: Any, prefix: str = "") -> list[str]:
    if isinstance(values, dict):
        return [key for k, v in values.items() for key in _missing(v, f"{prefix}.{k}" if prefix else str(k))]
    return [prefix] if values == "???" else []


def gate_values(policy: str) -> dict[str, Any]:
    """The values of a policy (a name under conf/gate, or a path), with the rules of the tasks added (task_gate.py).

    Raises ConfigError or UsageError when there is no such policy.
    """
    path = Path(policy)
    if path.suffix == ".yaml" and path.resolve().parent in [root / "gate" for root in _roots()]:
        path = Path(policy := path.stem)
    if path.suffix not in (".yaml", ".yml"):
        if policy not in choices("gate"):
            raise ConfigError([f"policy={policy}: there is no such policy. {nearest(policy, choices('gate'))}"])
        values = composed([], f"gate/{policy}").get("gate")
    else:
        if not path.is_file():
            raise UsageError(f"policy {path} does not exist")
        values = read_yaml(path)
        if isinstance(values, dict) and "defaults" in values:
            raise ConfigError(
                [f"{path}: defaults: only a policy under conf/gate/ can extend another one; move the file there"]
            )
    return with_task_rules(values) if isinstance(values, dict) else {}


def _add_task_rules(values: dict[str, Any]) -> None:
    if isinstance(values.get("gate"), dict):
        values["gate"] = with_task_rules(values["gate"])


def sweep(overrides: Overrides, runs: Path, job: Callable[[Config], int]) -> list[int]:
    """Runs `job` on every combination with Hydra's configured sweeper and launcher; returns the jobs' exit codes.

    A job that raises an error is reported with its exit code, and the others continue.
    """
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    search_user_conf_first()
    if not any(override.lstrip("+").startswith("hydra/sweeper=") for override in overrides):
        members_of(overrides)  # those of other sweepers are known only as they are drawn
    folder = (
        runs / ".sweeps" / f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"
    )  # another sweep may start in the same second
    quiet = ["hydra/job_logging=disabled", "hydra/hydra_logging=disabled", "hydra.output_subdir=null"]
    arguments = ["harness", "--multirun", *map(settable, overrides), f"hydra.sweep.dir={folder}", *quiet]

    def task(config: Any) -> None:
        try:
            values: Any = OmegaConf.to_container(config, resolve=True)
            _add_task_rules(values)
            code = job(validate(Config, {str(key): value for key, value in values.items()}))
        except HarnessError as error:
            say(f"harness: {error}")
            code = error.exit_code
        except Exception:
            traceback.print_exc()
            code = 1
        out = Path(HydraConfig.get().runtime.output_dir)
        out.mkdir(parents=True, exist_ok=True)
        (out / "exit_code").write_text(str(code))

    with patch_argv(arguments):
        try:
            hydra.main(config_path=str(resources.CONF), config_name="config", version_base="1.3")(task)()
        except SystemExit as exit_:
            raise ConfigError(["the sweep's overrides cannot be composed (see the message above)"]) from exit_
    return [int(path.read_text()) for path in sorted(folder.glob("*/exit_code"))]


def members_of(overrides: Overrides) -> list[tuple[list[str], Config]]:
    """Every member of a grid: its overrides and its validated configuration, in the order of the grid.

    Raises ConfigError that lists the errors of all members.
    """
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        parsed = OverridesParser.create().parse_overrides(
            [override for override in overrides if not override.startswith("hydra")]
        )
        grid = BasicSweeper.split_arguments(parsed, None)[0]
    except HydraException:
        config_for([override for override in overrides if "," not in override])  # names what is wrong, where it can
        raise ConfigError([f"{' '.join(overrides)}: not a list of overrides; quote values with commas"]) from None
    found: list[tuple[list[str], Config]] = []
    errors: dict[str, list[str]] = {}
    for member in grid:
        try:
            found.append((list(member), config_for(member)))
        except ConfigError as error:
            for line in error.errors:
                errors.setdefault(line, []).append(" ".join(member))
    if errors:
        raise ConfigError([f"{line} (in {len(of)} of {len(grid)} members: {of[0]})" for line, of in errors.items()])
    return found


@contextmanager
def patch_argv(arguments: list[str]) -> Iterator[None]:
    """Replaces sys.argv, which Hydra's entry point reads."""
    before, sys.argv = sys.argv, arguments
    try:
        yield
    finally:
        sys.argv = before
