from pathlib import Path
from typing import Any

import pytest
import yaml

from asyncproc.config import Settings
from asyncproc.config_file import load, shown
from asyncproc.core.rank import STRICT_AGING_S
from asyncproc.core.states import FINAL, State
from asyncproc.errors import ConfigError
from asyncproc.pool_precedence import pools_of
from asyncproc.precedence import rules_of, task_defaults
from asyncproc.rules import Stored
from asyncproc.sections import DAY_S

SEED = """
api:
  listenAddr: ':8080'
queue:
  maxBufferSize: 10
  workerPoolSize: 5
  maxTaskRetry: 3
storage:
  host: 'db'
  user: 'postgres'
  dbname: 'postgres'
  password: 'asyncProcessor'
"""


def of(text: str, tmp_path: Path, **environ: str) -> Settings:
    (tmp_path / "asyncproc.yaml").write_text(text)
    return load(None, environ, tmp_path)


def problems(text: str, tmp_path: Path, **environ: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as refusal:
        of(text, tmp_path, **environ)
    return refusal.value.problems


# ---- where it comes from


def test_the_seeds_file_is_understood(tmp_path: Path) -> None:
    settings = of(SEED, tmp_path)

    assert (settings.api.host, settings.api.port) == ("0.0.0.0", 8080)
    assert (settings.queue.max_buffer_size, settings.queue.worker_pool_size) == (10, 5)
    assert task_defaults(settings, Stored(), "CPUProcess", "default").retry.max_attempts == 4
    assert settings.storage.conninfo() == (
        "host='db' port='5432' user='postgres' dbname='postgres' password='asyncProcessor'"
    )


def test_without_a_file_the_defaults_are_in_force(tmp_path: Path) -> None:
    assert load(None, {}, tmp_path) == Settings()


@pytest.mark.parametrize("text", ["", "# nothing\n", "queue:\n"])
def test_an_empty_file_or_section_asks_for_nothing(tmp_path: Path, text: str) -> None:
    assert of(text, tmp_path) == Settings()


def test_a_named_file_comes_before_that_of_the_environment_and_that_before_the_directorys(tmp_path: Path) -> None:
    for number, name in enumerate(["asyncproc.yaml", "environment.yaml", "named.yaml"], 1):
        (tmp_path / name).write_text(f"queue: {{workerPoolSize: {number}}}")
    environ = {"ASYNCPROC_CONFIG": str(tmp_path / "environment.yaml")}

    assert load(None, {}, tmp_path).queue.worker_pool_size == 1
    assert load(None, environ, tmp_path).queue.worker_pool_size == 2
    assert load(tmp_path / "named.yaml", environ, tmp_path).queue.worker_pool_size == 3


@pytest.mark.parametrize("path", [Path("missing.yaml"), Path()], ids=["that is not there", "that is a directory"])
def test_a_named_file_that_cannot_be_read_is_an_error(tmp_path: Path, path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no such file|cannot be read"):
        load(tmp_path / path, {}, tmp_path)


def test_the_environment_overrides_the_file(tmp_path: Path) -> None:
    settings = of(
        SEED,
        tmp_path,
        ASYNCPROC_QUEUE_WORKER_POOL_SIZE="7",
        ASYNCPROC_API_LISTEN_ADDR="127.0.0.1:9000",
        ASYNCPROC_STORAGE_PASSWORD="other",
        ASYNCPROC_SMTP_HOST="mail",
        ASYNCPROC_SOMETHING_ELSE="is none of ours",
    )

    assert settings.queue.worker_pool_size == 7
    assert settings.api.port == 9000
    assert "other" in (settings.storage.conninfo() or "")
    assert settings.smtp is not None
    assert settings.smtp.host == "mail"


# ---- what is refused


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("queue: {workerPoolSiez: 3}", "queue.workerPoolSiez is not a known key: did you mean workerPoolSize?"),
        ("qeue: {}", "qeue is not a known key: did you mean queue?"),
        ("queue: {backOff: {bse: 1}}", "queue.backOff.bse is not a known key: did you mean base?"),
        ("queue: {workerPoolSize: -1}", "queue.workerPoolSize is -1: input should be greater than or equal to 0"),
        ("queue: {workerPoolSize: many}", "queue.workerPoolSize is 'many': input should be a valid integer"),
        ("queue: {maxTaskRetry: 100}", "queue.maxTaskRetry is 100: input should be less than 100"),
        ("queue: {maxBufferSize: 0}", "queue.maxBufferSize is 0: input should be greater than or equal to 1"),
        ("queue: {aging: 0}", "queue.aging is 0: input should be greater than 0"),
        ("queue: {drain: soon}", "queue.drain is 'soon': must be a duration such as 5s"),
        ("queue: 7", "queue is 7: input should be a valid dictionary"),
        ("api: {listenAddr: here}", "api: listenAddr is 'here': it must be host:port"),
        ("api: {listenAddr: '127.0.0.1:0'}", "api: listenAddr is '127.0.0.1:0': it must be host:port"),
        ("api: {listenAddr: '127.0.0.1:65536'}", "api: listenAddr is '127.0.0.1:65536': it must be host:port"),
        ("storage: {port: 70000}", "storage.port is 70000: input should be less than or equal to 65535"),
        ("storage: {url: 'postgresql://x', host: y}", "storage: url and host are both set"),
        ("pools: {default: {queues: [a]}}", "pools.default: the default pool is set by queue.workerPoolSize"),
        ("pools: {a: {queues: [q]}, b: {queues: [q]}}", "queue 'q' is served by pools 'a' and 'b': name it in one"),
        ("pools: {a: {queues: []}}", "pools.a.queues is []: list should have at least 1 item"),
        ("ray: {namespace: 'a b'}", "ray.namespace is 'a b': string should match pattern"),
        ("tasks: myapp", "tasks is 'myapp': input should be a valid list"),
        ("- a\n- b\n", "the file must be a mapping of sections"),
        ("queue: {a: b\n", "is not YAML: line"),
    ],
)
def test_a_wrong_key_or_value_is_named_with_what_is_allowed(tmp_path: Path, text: str, problem: str) -> None:
    (found,) = problems(text, tmp_path)

    assert problem in found
    assert "\n" not in found


def test_everything_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    found = problems("queue: {workerPoolSize: -1, concurrency: 0}\napi: {replicas: 0}", tmp_path)

    assert [problem.partition(" ")[0] for problem in found] == [
        "api.replicas",
        "queue.workerPoolSize",
        "queue.concurrency",
    ]


def test_a_wrong_override_is_named_by_its_key(tmp_path: Path) -> None:
    assert problems(SEED, tmp_path, ASYNCPROC_QUEUE_WORKER_POOL_SIZE="x") == (
        "queue.workerPoolSize is 'x': input should be a valid integer, unable to parse string as an integer",
    )


@pytest.mark.parametrize(
    "text",
    [
        "storage: {url: 'postgresql://me:SECRET@host/db', host: x}",
        "storage: {host: x, password: [SECRET]}",
        "storage: SECRET",
        "storage: {url: {a: SECRET}}",
        "smtp: SECRET",
        "smtp: {host: h, password: {a: SECRET}}",
        "storage: {password: SECRET: x}",
    ],
)
def test_no_error_shows_a_secret(tmp_path: Path, text: str) -> None:
    assert "SECRET" not in str(ConfigError(problems(text, tmp_path)))


# ---- what it means


@pytest.mark.parametrize(
    ("value", "seconds"), [("off", STRICT_AGING_S), ("'off'", STRICT_AGING_S), ("90", 90.0), ("1m30s", 90.0)]
)
def test_aging_is_a_duration_or_off(tmp_path: Path, value: str, seconds: float) -> None:
    settings = of(f"queue: {{aging: {value}}}\nqueues: {{other: {{weight: 3}}}}", tmp_path)

    rules = rules_of(settings, Stored())
    assert rules.default.aging_s == seconds
    assert rules.queues["other"].aging_s == seconds
    assert rules.queues["other"].weight == 3


@pytest.mark.parametrize(
    ("address", "host", "port", "is_loopback"),
    [
        (":8080", "0.0.0.0", 8080, False),
        ("127.0.0.1:1", "127.0.0.1", 1, True),
        ("localhost:65535", "localhost", 65535, True),
        ("[::1]:80", "::1", 80, True),
        ("[::]:80", "::", 80, False),
    ],
)
def test_a_listening_address_is_host_and_port(
    tmp_path: Path, address: str, host: str, port: int, is_loopback: bool
) -> None:
    api = of(f"api: {{listenAddr: '{address}'}}", tmp_path).api

    assert (api.host, api.port, api.is_loopback) == (host, port, is_loopback)


def test_every_final_state_is_kept_for_a_time_of_its_own(tmp_path: Path) -> None:
    kept_s = of("retention: {succeeded: 2h, failed: 90d}", tmp_path).retention.kept_s()

    assert kept_s == {State.SUCCEEDED: 2 * 3600.0, State.FAILED: 90 * DAY_S, State.CANCELLED: 7 * DAY_S}
    assert Settings().retention.kept_s().keys() == FINAL


@pytest.mark.parametrize("word", ["off", "'off'", "false"])
def test_what_is_off_is_kept_for_ever(tmp_path: Path, word: str) -> None:
    settings = of(f"retention: {{failed: {word}}}", tmp_path)

    assert State.FAILED not in settings.retention.kept_s()
    assert yaml.safe_load(shown(settings))["retention"] == {
        "succeeded": "168h", "failed": "off", "cancelled": "168h", "idempotencyKeys": "24h", "ticks": "168h"
    }  # fmt: skip


def test_retention_can_be_set_by_the_environment(tmp_path: Path) -> None:
    settings = of("", tmp_path, ASYNCPROC_RETENTION_SUCCEEDED="1d", ASYNCPROC_RETENTION_FAILED="off")

    assert settings.retention.kept_s() == {State.SUCCEEDED: DAY_S, State.CANCELLED: 7 * DAY_S}


@pytest.mark.parametrize("value", ["59m", "0", "-1d", "1w", "1.5d", "200000d", ".nan", "null", "[1h]"])
def test_a_retention_that_makes_no_sense_is_refused_by_its_name(tmp_path: Path, value: str) -> None:
    (problem,) = problems(f"retention: {{failed: {value}}}", tmp_path)

    assert problem.startswith("retention.failed is ")


def test_a_retention_that_is_no_duration_is_told_what_is_one(tmp_path: Path) -> None:
    (problem,) = problems("retention: {failed: for long}", tmp_path)

    assert problem.endswith("must be a duration such as 7d or 36h, or off")


def test_queues_that_no_pool_names_are_served_by_the_default_one(tmp_path: Path) -> None:
    settings = of("pools: {heavy: {queues: [films, books], workers: 3}}\nqueue: {workerPoolSize: 4}", tmp_path)

    assert settings.core().pool("films") == "heavy"
    assert settings.core().pool("letters") == "default"
    assert {name: pool.most for name, pool in pools_of(settings, Stored()).items()} == {"default": 4, "heavy": 3}


def test_a_password_of_any_characters_reaches_the_database_as_it_is(tmp_path: Path) -> None:
    from psycopg.conninfo import conninfo_to_dict

    password = r"a'b\c d=e"
    settings = of(yaml.safe_dump({"storage": {"host": "h", "password": password}}), tmp_path)

    assert conninfo_to_dict(settings.storage.conninfo() or "")["password"] == password


def test_what_is_shown_can_be_loaded_again_and_holds_no_secret(tmp_path: Path) -> None:
    text = SEED.replace("asyncProcessor", "SECRET") + "smtp: {host: h, username: u, password: SECRET}\n"
    settings = of(text, tmp_path)

    found = shown(settings)

    assert "SECRET" not in found
    assert of(found, tmp_path).queue == settings.queue
    assert of(shown(of("queue: {aging: off}", tmp_path)), tmp_path).queue.aging == STRICT_AGING_S


def test_a_shown_url_hides_all_of_it(tmp_path: Path) -> None:
    settings = of("storage: {url: 'postgresql://me:SECRET@host/db'}", tmp_path)

    assert "SECRET" not in shown(settings) + repr(settings) + str(settings)


def test_settings_cannot_be_changed() -> None:
    settings: Any = Settings()

    with pytest.raises(ValueError, match="frozen"):
        settings.queue.aging = 1.0


# ---- queues, task types and rate limits


def test_queues_types_and_rates_take_the_keys_of_rest(tmp_path: Path) -> None:
    settings = of(
        "queues: {mail: {maxRunning: 4, timeout: 90s, aging: off, backOff: {base: 2s}}}\n"
        "types: {SendEmail: {rateLimits: {smtp: 1}, maxRunning: off}}\n"
        "rateLimits: {smtp: 60/min, bulk: {rate: 5/s, burst: 20}}\n",
        tmp_path,
    )

    rules = rules_of(settings, Stored())
    assert (rules.queues["mail"].max_running, rules.queues["mail"].aging_s) == (4, STRICT_AGING_S)
    assert rules.types["SendEmail"].max_running is None
    assert (rules.rates["smtp"].burst, rules.rates["bulk"].burst) == (1.0, 20.0)
    assert of(shown(settings), tmp_path) == settings


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("queues: {mail: {weigth: 1}}", "queues.mail.weigth is not a known key: did you mean weight?"),
        ("queues: {mail: {pool: x}}", "queues.mail.pool: there is no pool 'x'"),
        ("queues: {mail: {backOff: {bse: 1s}}}", "queues.mail.backOff.bse is not a known key: did you mean base?"),
        ("types: {Send: {rateLimits: {x: 1}}}", "types.Send.rateLimits: there is no rate limit 'x' under rateLimits"),
        (
            "rateLimits: {x: often}",
            "rateLimits.x.rate is 'often': must be a rate such as 100/s, 60/min, 5/h or 1000/day",
        ),
        (
            "pools: {a: {queues: [q]}, b: {queues: [r]}}\nqueues: {q: {pool: b}}",
            "queue 'q' is served by pools 'a' and 'b': name one",
        ),
    ],
)
def test_rules_that_cannot_be_are_named(tmp_path: Path, text: str, problem: str) -> None:
    assert problems(text, tmp_path) == (problem,)


def test_a_schedule_is_checked_as_rest_does(tmp_path: Path) -> None:
    settings = of("schedules: {nightly: {taskType: Work, cron: 0 3 * * *, timeZone: Europe/Berlin}}", tmp_path)
    assert settings.schedules["nightly"].time_zone == "Europe/Berlin"
    for text, problem in (
        ("{taskType: Work, cron: 0 3 30 2 *}", "schedules.nightly.cron is '0 3 30 2 *': bad day-of-month"),
        ("{taskType: Work, every: 1h, cron: 0 3 * * *}", "name one of the two"),
        ("{taskType: Work, every: 1h, overlaps: skip}", "did you mean overlap?"),
        ("{taskType: Work, every: 1ms}", "schedules.nightly.every is"),
    ):
        (found,) = problems(f"schedules: {{nightly: {text}}}", tmp_path)
        assert problem in found
