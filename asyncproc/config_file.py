"""The configuration as it is given: one YAML file, overridden by the environment, checked once at the start."""

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from asyncproc.config import Settings
from asyncproc.core.duration import format_duration
from asyncproc.core.rank import STRICT_AGING_S
from asyncproc.errors import ConfigError
from asyncproc.plans import ScheduleSettings
from asyncproc.pool_settings import PoolRuleSettings
from asyncproc.rules import QueueRuleSettings, RateLimitSettings, TypeRuleSettings
from asyncproc.sections import BackOffSettings, Section, kept_text

FILE_NAME: Final = "asyncproc.yaml"
PREFIX: Final = "ASYNCPROC_"
PATH_VARIABLE: Final = f"{PREFIX}CONFIG"


def load(path: Path | None, environ: Mapping[str, str], start_dir: Path) -> Settings:
    """Read file and environment. Raises `ConfigError` with one line per key that is wrong.

    The file is `path`, else the one that `ASYNCPROC_CONFIG` names, else `asyncproc.yaml` in `start_dir` if it exists.
    """
    named = path or (Path(environ[PATH_VARIABLE]) if environ.get(PATH_VARIABLE) else None)
    values = _read(named or start_dir / FILE_NAME, required=named is not None)
    for section, key, text in _overrides(environ):
        values.setdefault(section, {})
        if not isinstance(values[section], dict):
            raise ConfigError((f"{section} must be a mapping",))
        values[section][key] = text
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise ConfigError(tuple(_problem(item) for item in error.errors())) from None


def _read(path: Path, *, required: bool) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        if required:
            raise ConfigError((f"{path}: there is no such file",)) from None
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError((f"{path}: cannot be read: {error}",)) from None
    try:
        values = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        # Not the whole message: it quotes the line, which may hold a password.
        line = error.problem_mark.line + 1 if error.problem_mark is not None else 0
        raise ConfigError((f"{path} is not YAML: line {line}: {error.problem}",)) from None
    except yaml.YAMLError as error:
        raise ConfigError((f"{path} is not YAML: {type(error).__name__}",)) from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError((f"{path}: the file must be a mapping of sections such as api, queue and storage",))
    # A section that is there but empty is null in YAML: it asks for nothing.
    return {key: value for key, value in values.items() if value is not None}


def _overrides(environ: Mapping[str, str]) -> Iterable[tuple[str, str, str]]:
    """Section, key and value of each variable such as `ASYNCPROC_QUEUE_WORKER_POOL_SIZE`; others are none of ours."""
    for section, kind in _sections().items():
        for name in kind.model_fields:
            value = environ.get(f"{PREFIX}{section}_{name}".upper())
            if value is not None:
                yield section, to_camel(name), value


def _sections() -> dict[str, type[Section]]:
    """The sections that are one object, by name; `smtp` may be absent as a whole."""
    sections: dict[str, type[Section]] = {}
    for name, info in Settings.model_fields.items():
        for kind in (info.annotation, *get_args(info.annotation)):
            if isinstance(kind, type) and issubclass(kind, Section):
                sections[name] = kind
    return sections


_SECRET: Final = frozenset({"password", "url", "storage", "smtp"})
"""Keys whose value is, or may hold, what nobody should read in a log."""


def _problem(item: ErrorDetails) -> str:
    where = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        return f"{where} is not a known key{_suggestion(item['loc'])}"
    message = item["msg"].removeprefix("Value error, ")
    if not where or (item["type"] == "value_error" and isinstance(item["input"], dict | BaseModel)):
        return f"{where}: {message}" if where else message
    shown = "(not shown)" if item["loc"][-1] in _SECRET else repr(item["input"])[:100]
    return f"{where} is {shown}: {message[:1].lower()}{message[1:]}"


def _suggestion(loc: tuple[int | str, ...]) -> str:
    kind: type[Section] = Settings
    if len(loc) > 1:
        nested: dict[str, type[Section]] = {
            "queues": QueueRuleSettings,
            "types": TypeRuleSettings,
            "rateLimits": RateLimitSettings,
            "schedules": ScheduleSettings,
            "pools": PoolRuleSettings,
            **_sections(),
        }
        kind = BackOffSettings if "backOff" in loc[1:-1] else nested.get(str(loc[0]), Settings)
    keys = [info.alias or name for name, info in kind.model_fields.items()]
    near = difflib.get_close_matches(str(loc[-1]), keys, n=1, cutoff=0.6)
    return f": did you mean {near[0]}?" if near else f": known are {', '.join(keys)}"


def shown(settings: Settings) -> str:
    """The configuration in force as YAML, secrets left out."""
    values = settings.model_dump(mode="json", by_alias=True, exclude_none=True)
    values["queue"]["aging"] = (
        "off" if settings.queue.aging == STRICT_AGING_S else format_duration(settings.queue.aging)
    )
    values["retention"] = {kind: kept_text(seconds) for kind, seconds in values["retention"].items()}
    text: str = yaml.safe_dump(values, sort_keys=False)
    return text
