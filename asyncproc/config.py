"""What can be configured, and what each of it is where nobody says."""

from typing import Annotated, Final

from pydantic import BeforeValidator, Field, SecretStr, model_validator

from asyncproc.core.batches import MAX_BATCH, MAX_WAIT_S
from asyncproc.core.retry import MAX_ATTEMPTS
from asyncproc.core.settings import CoreSettings
from asyncproc.core.states import State
from asyncproc.plans import ScheduleSettings
from asyncproc.pool_settings import Bytes, PoolRuleSettings
from asyncproc.rules import QueueRuleSettings, RateLimitSettings, TypeName, TypeRuleSettings
from asyncproc.sections import (
    DAY_S,
    KEPT_FOR_EVER_S,
    AgingSeconds,
    BackOffSettings,
    KeptSeconds,
    Name,
    Seconds,
    Section,
    duration_schema,
    seconds,
)

DEFAULT: Final = "default"
"""The name of the queue and of the pool that serve whatever names no other."""

LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


BatchWait = Annotated[
    float, BeforeValidator(seconds), Field(ge=0, le=MAX_WAIT_S, allow_inf_nan=False), duration_schema("10ms")
]
KiB: Final = 1024
MiB: Final = 1024 * KiB
GiB: Final = 1024 * MiB


class ApiSettings(Section):
    listen_addr: str = "127.0.0.1:8080"
    """Host and port of the REST API; `:8080` listens on every interface."""
    replicas: int = Field(default=1, ge=1, le=64)
    max_tasks: int = Field(default=10_000, ge=1, le=100_000)
    """Tasks in one request."""
    max_task_bytes: int = Field(default=MiB, ge=KiB, le=64 * MiB)
    """Bytes of one task's payload."""
    max_body_bytes: int = Field(default=16 * MiB, ge=KiB, le=256 * MiB)
    """Bytes of one request."""
    max_enqueues: int = Field(default=256, ge=1, le=10_000)
    """Requests to enqueue that one replica has in hand; past them it answers 429."""
    max_enqueue_bytes: int = Field(default=64 * MiB, ge=KiB, le=4 * GiB)
    """Bytes of the bodies of those."""
    max_reads: int = Field(default=256, ge=1, le=10_000)
    """Requests for tasks and lists that one replica has in hand; past them it answers 429."""
    max_watches: int = Field(default=1_000, ge=1, le=100_000)
    """Requests that wait for a task or follow it, of one replica; past them it answers 429."""
    max_retries: int = Field(default=64, ge=1, le=10_000)
    """Requests to retry that one replica has in hand; past them it answers 429."""
    enqueue_timeout: Seconds = 10.0
    """A request that is not committed by then is answered with 503: the outcome is unknown."""

    @model_validator(mode="after")
    def _has_a_port(self) -> "ApiSettings":
        host, colon, port = self.listen_addr.rpartition(":")
        if not colon or not port.isdecimal() or not 0 < int(port) < 65536 or " " in host:
            raise ValueError(
                f"listenAddr is {self.listen_addr!r}: it must be host:port, such as 127.0.0.1:8080 or :8080"
            )
        return self

    @property
    def host(self) -> str:
        return self.listen_addr.rpartition(":")[0].strip("[]") or "0.0.0.0"

    @property
    def port(self) -> int:
        return int(self.listen_addr.rpartition(":")[2])

    @property
    def is_loopback(self) -> bool:
        return self.host in LOOPBACK


class QueueSettings(Section):
    max_buffer_size: int = Field(default=10_000, ge=1, le=10_000_000)
    """Waiting tasks of one queue held in memory; the rest waits in Postgres."""
    max_buffer_bytes: int = Field(default=64 * MiB, ge=MiB)
    """Bytes of payload of one queue held in memory."""
    worker_pool_size: int = Field(default=2, ge=0, le=10_000)
    """WorkerActors of the default pool."""
    concurrency: int = Field(default=1, ge=1, le=1_000)
    """Tasks that one of them runs at once."""
    max_task_retry: int = Field(default=3, ge=0, lt=MAX_ATTEMPTS)
    """Further attempts after the first one failed."""
    back_off: BackOffSettings = BackOffSettings()
    aging: AgingSeconds = 60.0
    """How long a wait is worth one level of priority; `off` is strict priority."""
    max_waiting: int = Field(default=200_000, ge=1, le=10_000_000)
    """New tasks that wait for their commit in the QueueActor; past them the API answers 503."""
    max_waiting_bytes: int = Field(default=256 * MiB, ge=MiB)
    """Bytes of payload of those."""
    max_result_bytes: int = Field(default=MiB, ge=KiB, le=64 * MiB)
    max_checkpoint_bytes: int = Field(default=64 * KiB, ge=KiB, le=16 * MiB)
    """Bytes of what an attempt may leave for the next one."""
    max_log_lines: int = Field(default=100, ge=1, le=10_000)
    """Lines kept of what an attempt logs with its task, the newest."""
    max_log_bytes: int = Field(default=16 * KiB, ge=KiB, le=MiB)
    """Bytes of those."""
    tick_grace: Seconds = 60.0
    """A tick of a schedule that is later than this was missed: its `catchUp` says what becomes of it."""
    max_extended: Seconds = 3_600.0
    """By how much `ctx.extend` may put off the time limits of one attempt in all."""
    prefetch: Seconds = 0.035
    """A task shorter than this is given to a busy worker ahead, if it will begin there within this time."""
    affinity_wait: Seconds = 0.5
    """A task waits no longer than this for the worker that ran its affinity key last, while others have room."""
    overrun: Seconds = 0.1
    """A worker that holds more than it can start and makes no progress for this long gives back what it has not begun:
    its tasks take longer than was thought."""
    poll: Seconds = 10.0
    """A worker that is offered nothing for this long is told so, as a sign of life to both sides."""
    longest_poll: Seconds = 120.0
    """The same for workers that run nothing, where there are more than a hundred: the more, the less often each."""
    silence: Seconds = 20.0
    """A worker that misses its next poll by this long is lost; its tasks run again."""
    timeout: Seconds | None = None
    """How long an attempt may take where neither the task nor its type says; without it, for ever."""
    setup: Seconds = 300.0
    """How long `setup()` of a type may take in a worker, beside the time limits of its tasks; then its process ends."""
    teardown: Seconds = 5.0
    """How long a process that ends in good order waits for `teardown()` of all its types."""
    recycle_after: int | None = Field(default=None, ge=1)
    """A worker of the default pool is replaced once it has ended so many tasks."""
    recycle_above: Bytes | None = None
    """A worker of the default pool is replaced once it takes so many bytes of memory."""
    drain: Seconds = 30.0
    """How long a stop waits for running tasks before they are handed back."""


class ShapeSettings(Section):
    """Pools that the system makes by itself for tasks that ask for resources: one for each shape of these."""

    most: int = Field(default=16, ge=0, le=200)
    """Shapes that have workers at a time; tasks of others wait."""
    max_workers: int = Field(default=8, ge=1, le=1_000)
    """Workers of each of them."""
    target_wait: Seconds = 5.0
    """How long a task may wait before there are more workers."""
    idle_after: Seconds = 30.0
    """For how long fewer workers were enough before there are fewer."""


class BatchSettings(Section):
    """Of a type with `process_batch`, in place of what its code says."""

    size: int | None = Field(default=None, ge=1, le=MAX_BATCH)
    """Tasks that one call takes at most."""
    wait: BatchWait | None = None
    """How long the first of them waits for others."""


class StorageSettings(Section):
    url: SecretStr | None = None
    """`postgresql://user:password@host:port/database`; stands in place of all the other keys."""
    host: str | None = None
    port: int = Field(default=5432, ge=1, le=65535)
    user: str = "postgres"
    dbname: str = "postgres"
    password: SecretStr | None = None
    read_connections: int = Field(default=4, ge=1, le=100)
    """Connections that one API replica reads through."""
    min_free_bytes: int = Field(default=GiB, ge=0)
    """With less free on the disk of a Postgres on this machine, no new tasks are taken; what there is goes on."""

    @model_validator(mode="after")
    def _url_or_host(self) -> "StorageSettings":
        if self.url is not None and self.host is not None:
            raise ValueError("url and host are both set: name the database by one of them")
        return self

    def conninfo(self) -> str | None:
        """For libpq; None where no server is configured."""
        if self.url is not None:
            return self.url.get_secret_value()
        if self.host is None:
            return None
        parts = {"host": self.host, "port": str(self.port), "user": self.user, "dbname": self.dbname}
        if self.password is not None:
            parts["password"] = self.password.get_secret_value()
        return " ".join(f"{key}='{_quoted(value)}'" for key, value in parts.items())


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "\\'")


class RetentionSettings(Section):
    """How long finished tasks are kept at least, by state; then they go with all of their day, or month."""

    succeeded: KeptSeconds = 7 * DAY_S
    failed: KeptSeconds = 30 * DAY_S
    cancelled: KeptSeconds = 7 * DAY_S
    idempotency_keys: KeptSeconds = DAY_S
    """How long a request with an `Idempotency-Key` is known, from its commit on."""
    ticks: KeptSeconds = 7 * DAY_S
    """How long it is known what became of the ticks of schedules."""

    def kept_s(self) -> dict[State, float]:
        """Seconds by state, without those that are kept for ever."""
        kept = {State.SUCCEEDED: self.succeeded, State.FAILED: self.failed, State.CANCELLED: self.cancelled}
        return {state: seconds for state, seconds in kept.items() if seconds < KEPT_FOR_EVER_S}


class SmtpSettings(Section):
    host: str = Field(min_length=1)
    port: int = Field(default=25, ge=1, le=65535)
    sender: str = "asyncproc@localhost"
    """From whom the reports of `GenerateReport` come."""
    starttls: bool = False
    username: str | None = None
    password: SecretStr | None = None
    timeout: Seconds = 30.0


class RaySettings(Section):
    namespace: Name = "asyncproc"
    """One QueueActor lives in each."""
    dashboard_host: str = "127.0.0.1"
    """Where the dashboard of a Ray that `asyncproc up` starts listens: this machine, or a private network."""
    dashboard_port: int = Field(default=8265, ge=1, le=65535)
    public_dashboard: bool = False
    """Allows a `dashboardHost` that others may reach: in a container, which publishes what it is told to."""
    without_token: bool = False
    """Allows a Ray that asks nobody for a token (`RAY_AUTH_MODE`): whoever reaches it can run code there."""
    num_cpus: int | None = Field(default=None, ge=1)
    """CPUs of a Ray that `asyncproc up` starts; all of the machine's where it is not set."""


class Settings(Section):
    api: ApiSettings = ApiSettings()
    queue: QueueSettings = QueueSettings()
    queues: dict[Name, QueueRuleSettings] = Field(default_factory=dict)
    types: dict[TypeName, TypeRuleSettings] = Field(default_factory=dict)
    batches: dict[TypeName, BatchSettings] = Field(default_factory=dict)
    rate_limits: dict[Name, RateLimitSettings] = Field(default_factory=dict)
    schedules: dict[Name, ScheduleSettings] = Field(default_factory=dict)
    pools: dict[Name, PoolRuleSettings] = Field(default_factory=dict)
    shapes: ShapeSettings = ShapeSettings()
    storage: StorageSettings = StorageSettings()
    retention: RetentionSettings = RetentionSettings()
    smtp: SmtpSettings | None = None
    ray: RaySettings = RaySettings()
    tasks: list[str] = Field(default_factory=list)
    """Modules with task types, importable from the directory of the start."""

    @model_validator(mode="after")
    def _each_queue_has_one_pool(self) -> "Settings":
        if DEFAULT in self.pools:
            raise ValueError("pools.default: the default pool is set by queue.workerPoolSize and queue.concurrency")
        served: dict[str, str] = {DEFAULT: DEFAULT}
        for pool, settings in self.pools.items():
            for queue in settings.queues or ():
                if served.setdefault(queue, pool) != pool:
                    raise ValueError(
                        f"queue {queue!r} is served by pools {served[queue]!r} and {pool!r}: name it in one"
                    )
        for name, rules in self.queues.items():
            if rules.pool is not None and rules.pool not in (DEFAULT, *self.pools):
                raise ValueError(f"queues.{name}.pool: there is no pool {rules.pool!r}")
            if rules.pool is not None and served.setdefault(name, rules.pool) != rules.pool:
                raise ValueError(f"queue {name!r} is served by pools {served[name]!r} and {rules.pool!r}: name one")
        return self

    @model_validator(mode="after")
    def _each_rate_limit_is_there(self) -> "Settings":
        for name, rules in self.types.items():
            unknown = [rate for rate in rules.rate_limits or () if rate not in self.rate_limits]
            if unknown:
                raise ValueError(f"types.{name}.rateLimits: there is no rate limit {unknown[0]!r} under rateLimits")
        return self

    def pool_of(self) -> dict[str, str]:
        """Queue to pool, for the queues that a pool names."""
        return {queue: name for name, pool in self.pools.items() for queue in pool.queues or ()}

    def core(self) -> CoreSettings:
        """Without the rules of queues, which can change while it runs (`precedence.rules_of`)."""
        queue = self.queue
        return CoreSettings(
            pool_of=self.pool_of(),
            default_pool=DEFAULT,
            window=queue.max_buffer_size,
            window_bytes=queue.max_buffer_bytes,
            prefetch_s=queue.prefetch,
            overrun_s=queue.overrun,
            affinity_s=queue.affinity_wait,
            poll_s=queue.poll,
            longest_poll_s=queue.longest_poll,
            silence_s=queue.silence,
            tick_grace_s=queue.tick_grace,
        )
