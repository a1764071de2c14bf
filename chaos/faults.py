"""The faults by name: what each does to the system, once for every time that it strikes."""

import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import psutil

from chaos import disks, migration
from chaos.proxy import Cut
from chaos.scene import PATIENCE_S, Scene, wait
from chaos.system import QUEUE, REPLICA, WORKER, until

AT_THE_QUEUE: Final = (
    "queue.after_receive",
    "queue.after_decision",
    "queue.before_commit",
    "queue.after_commit",
    "queue.after_answer",
)
AT_THE_TAKEOVER: Final = ("queue.before_epoch", "queue.after_epoch", "queue.mid_load", "queue.after_load")
AT_THE_API: Final = ("api.before_send", "api.after_commit")
AT_THE_WORKER: Final = (
    "worker.before_effect",
    "worker.after_effect",
    "worker.before_send",
    "worker.after_receive",
    "worker.after_recorded",
    "worker.before_register",
    "worker.after_register",
)
AT_A_START: Final = ("queue.after_worker_start",)


@dataclass(frozen=True)
class Fault:
    name: str
    text: str
    strike: Callable[[Scene, int], None]
    variants: tuple[str, ...]
    """All of them must have struck, else the run shows nothing."""
    brief_variants: tuple[int, ...] = (0,)
    """Which of them the short form takes."""
    pause_s: tuple[float, float] = (3.0, 10.0)
    gap: str = ""
    """After what the gap in service is measured; empty where none is."""
    kills_workers: bool = False
    nodes: int = 0
    """So many further nodes, with workers on all of them, before anything is asked for."""
    once: bool = False
    """Each variant strikes once, however long the rest takes."""
    own_disk: bool = False
    """Postgres needs a small disk of its own."""

    def struck_by(self, *, brief: bool) -> list[int]:
        """The variants of a run."""
        return list(self.brief_variants) if brief else list(range(len(self.variants)))


def _nothing(scene: Scene, _: int) -> None:
    scene.fired.add("nothing")


def _queue_kill(scene: Scene, _: int) -> None:
    before = scene.system.only(QUEUE).pid
    scene.kill_queue("QueueActor killed")
    until(lambda: scene.system.only(QUEUE).pid != before, PATIENCE_S, "another QueueActor")


def _failpoints(scene: Scene, variant: int) -> None:
    name = FAILPOINTS.variants[variant]
    if name in AT_THE_API:
        scene.fire(name, "kill")
        until(lambda: scene.system.is_healthy(), PATIENCE_S, "the API")
    elif name in migration.POINTS:
        migration.interrupt(scene.system, name)
        scene.struck(name)
    else:
        scene.fire(name, "kill", queue_dies=name in AT_THE_TAKEOVER, gap=True)


def _zombie(scene: Scene, variant: int) -> None:
    """The frozen one wakes up, in half of the cases into the reign of another, and must not do any harm."""
    queue = scene.system.only(QUEUE)
    queue.send_signal(signal.SIGSTOP)
    scene.struck(ZOMBIE.variants[variant])
    if variant == 0:
        wait(scene.seconds(6, 2))
        queue.send_signal(signal.SIGCONT)
        scene.healed("QueueActor wakes")
        return
    epoch = scene.system.query("SELECT epoch FROM asyncproc.reign")[0][0]
    with (scene.folder / "second.log").open("ab") as log:
        second = subprocess.Popen(
            [sys.executable, "-m", "chaos.second", scene.system.gcs_address()],
            cwd=scene.system.start_dir,
            env=scene.system.environment(),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        until(
            lambda: scene.system.query("SELECT epoch FROM asyncproc.reign")[0][0] > epoch,
            PATIENCE_S,
            "the reign of a second QueueActor",
        )
        wait(scene.seconds(2, 0.5))
        queue.send_signal(signal.SIGCONT)
        scene.healed("QueueActor wakes in another's reign")
        until(lambda: not queue.is_running(), PATIENCE_S, "the end of a QueueActor whose reign is over")
    finally:
        second.kill()
        second.communicate()


def _worker_kill(scene: Scene, _: int) -> None:
    worker = scene.chance.choice(until(lambda: scene.system.named(WORKER), PATIENCE_S, "a worker"))
    worker.send_signal(signal.SIGSTOP)
    until(lambda: worker.status() == psutil.STATUS_STOPPED, PATIENCE_S, "a worker that stands still")
    scene.end_frozen_worker(worker.pid)
    scene.struck("worker killed")


def _worker_failpoints(scene: Scene, variant: int) -> None:
    name = WORKER_FAILPOINTS.variants[variant]
    if name in AT_A_START:
        _worker_kill(scene, 0)
        scene.fire(name, "kill", gap=False)
        return
    frozen = scene.fire(name, "stop:n1", queue_dies="register" in name)
    for pid in frozen:
        until(lambda pid=pid: psutil.Process(pid).status() == psutil.STATUS_STOPPED, PATIENCE_S, "a stop")  # type: ignore[misc]
        scene.end_frozen_worker(pid)


def _postgres_restart(scene: Scene, _: int) -> None:
    scene.quit_postgres("Postgres stopped at once")
    scene.start_postgres("Postgres is back")


def _postgres_down(scene: Scene, _: int) -> None:
    scene.quit_postgres("Postgres down")
    wait(scene.seconds(60, 3))
    scene.start_postgres("Postgres is back")


def _cut(scene: Scene, variant: int) -> None:
    cut = (Cut.SWALLOW, Cut.RESET, Cut.HOLE)[variant]
    hole_s = scene.seconds(12, 3)
    scene.system.proxy.cut_next(cut, hole_s).result(PATIENCE_S)
    scene.struck(CUT.variants[variant])
    if cut is Cut.HOLE:
        wait(hole_s)
        scene.healed("the hole is closed")


def _serve_kill(scene: Scene, variant: int) -> None:
    title = (REPLICA, "haproxy", "ray::HAProxyManager")[variant]
    scene.kill(scene.system.only(title), SERVE_KILL.variants[variant])
    until(lambda: scene.system.is_healthy(), PATIENCE_S, "the API")


def _ray_kill(scene: Scene, _: int) -> None:
    system = scene.system
    system.kill()
    scene.struck("the whole of Ray killed", gap=True)
    writers = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'asyncproc-queue'"
    until(lambda: system.query(writers)[0][0] == 0, PATIENCE_S, "the end of the last transaction")
    scene.may_double += system.query("SELECT count(*) FROM asyncproc.task_live WHERE state = 'running'")[0][0]
    system.start()
    scene.healed("Ray is back")


def _nodes(scene: Scene, variant: int) -> None:
    what = NODES.variants[variant]
    if variant == 1:
        scene.system.join()
    else:
        name = scene.chance.choice(scene.system.nodes())
        for process in scene.system.freeze_node(name):
            scene.may_double += scene.runs_on(process.pid)
        scene.system.kill_node(name)
    scene.struck(what)


def _client_retries(scene: Scene, _: int) -> None:
    before = scene.clients.hurried
    scene.clients.hasty = 0.5
    try:
        until(lambda: scene.clients.hurried > before + 5, PATIENCE_S, "clients that do not wait")
        scene.struck("clients do not wait for answers")
        wait(scene.seconds(10, 1))
    finally:
        scene.clients.hasty = 0.0
    scene.healed("clients wait again")


def _slow_fsync(scene: Scene, _: int) -> None:
    with disks.slow_fsync(scene.system, scene.folder / "strace.log", 0.1):
        scene.struck("fsync takes 100 ms")
        wait(scene.seconds(15, 3))
    scene.healed("fsync is fast again")


def _disk_full(scene: Scene, _: int) -> None:
    with disks.full(scene.system):
        scene.struck("disk full")
        wait(scene.seconds(10, 2))
    scene.healed("disk has room again", gap=True)
    disks.revive(scene.system)


NOTHING: Final = Fault("nothing", "no fault at all, to compare with", _nothing, ("nothing",))
QUEUE_KILL: Final = Fault(
    "queue_kill", "SIGKILL of the QueueActor", _queue_kill, ("QueueActor killed",), gap="QueueActor kill"
)
FAILPOINTS: Final = Fault(
    "failpoints",
    "SIGKILL at each failpoint of QueueActor, API and migration",
    _failpoints,
    (*AT_THE_QUEUE, *AT_THE_TAKEOVER, *AT_THE_API, *migration.POINTS),
    brief_variants=(3, 6, 12),
    pause_s=(2.0, 5.0),
    gap="QueueActor kill",
)
ZOMBIE: Final = Fault(
    "zombie",
    "SIGSTOP of the QueueActor and its waking up, with and without a second one started by hand meanwhile",
    _zombie,
    ("QueueActor frozen", "QueueActor frozen, a second one started"),
    brief_variants=(1,),
)
WORKER_KILL: Final = Fault(
    "worker_kill", "SIGKILL of a worker", _worker_kill, ("worker killed",), pause_s=(1.0, 4.0), kills_workers=True
)
WORKER_FAILPOINTS: Final = Fault(
    "worker_failpoints",
    "SIGKILL at each failpoint of the workers",
    _worker_failpoints,
    (*AT_THE_WORKER, *AT_A_START),
    brief_variants=(1, 4),
    pause_s=(2.0, 5.0),
    kills_workers=True,
)
POSTGRES_RESTART: Final = Fault(
    "postgres_restart",
    "Postgres restarted as `-m immediate` does",
    _postgres_restart,
    ("Postgres stopped at once",),
    gap="return of Postgres",
)
POSTGRES_DOWN: Final = Fault(
    "postgres_down",
    "Postgres down for 60 s",
    _postgres_down,
    ("Postgres down",),
    pause_s=(10.0, 20.0),
    gap="return of Postgres",
)
CUT: Final = Fault(
    "cut",
    "the connection cut during COMMIT: answer swallowed, reset, black hole",
    _cut,
    ("answer to COMMIT swallowed", "reset before COMMIT", "black hole from COMMIT on"),
    brief_variants=(0, 1, 2),
    pause_s=(1.0, 4.0),
)
DISK_FULL: Final = Fault(
    "disk_full",
    "the disk of Postgres full",
    _disk_full,
    ("disk full",),
    pause_s=(5.0, 10.0),
    gap="return of Postgres",
    own_disk=True,
)
SLOW_FSYNC: Final = Fault(
    "slow_fsync", "each fsync of Postgres takes 100 ms longer", _slow_fsync, ("fsync takes 100 ms",)
)
SERVE_KILL: Final = Fault(
    "serve_kill",
    "SIGKILL of Serve's replica, of its load balancer, and of that one's keeper",
    _serve_kill,
    ("replica killed", "load balancer killed", "its keeper killed"),
    brief_variants=(0, 1),
)
RAY_KILL: Final = Fault(
    "ray_kill",
    "the whole of Ray killed and started again",
    _ray_kill,
    ("the whole of Ray killed",),
    gap="kill of Ray",
    kills_workers=True,
)
NODES: Final = Fault(
    "nodes",
    "five nodes: one killed, one joined, another one killed",
    _nodes,
    ("a node killed", "a node joins", "another node killed"),
    brief_variants=(0, 1, 2),
    pause_s=(10.0, 20.0),
    kills_workers=True,
    nodes=4,
    once=True,
)
CLIENT_RETRIES: Final = Fault(
    "client_retries",
    "clients that give up within milliseconds, and ask again even after an answer",
    _client_retries,
    ("clients do not wait for answers",),
)

FAULTS: Final = {
    fault.name: fault
    for fault in (
        NOTHING,
        QUEUE_KILL,
        FAILPOINTS,
        ZOMBIE,
        WORKER_KILL,
        WORKER_FAILPOINTS,
        POSTGRES_RESTART,
        POSTGRES_DOWN,
        CUT,
        DISK_FULL,
        SLOW_FSYNC,
        SERVE_KILL,
        RAY_KILL,
        NODES,
        CLIENT_RETRIES,
    )
}
