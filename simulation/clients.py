"""Clients: they enqueue until it is acknowledged or they lose patience, retry what failed, and one deletes rows."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from asyncproc.core.decision import EnqueueReply, Reply, RetryReply
from asyncproc.core.events import Purged
from asyncproc.core.retry import RetryPolicy
from asyncproc.core.states import State
from asyncproc.core.task import NO_TERMS, NewTask, Options, TaskId
from asyncproc.core.unique import NOT_ENDED, OnConflict, Wish
from simulation.family import some_parents
from simulation.faults import Fault
from simulation.ledger import name
from simulation.network import Link, Network
from simulation.queue_actor import Answered, KeyedReply, QueueActor
from simulation.rules import Rule, require
from simulation.scene import Scene
from simulation.steering import CONCURRENCY_KEYS, FAIRNESS_KEYS, SHAPES

QUEUES: Final = ("mail", "images", "video")
PATIENCE_S: Final = 5.0
TRIES: Final = 20


@dataclass(slots=True, eq=False)
class _Request:
    tasks: list[NewTask]
    link: Link = field(default_factory=Link)
    tries: int = 0
    open: bool = True
    key: str = ""
    """Sent again by its key the request has other tasks each time, as if another replica of the API had made them."""
    answer: tuple[TaskId, ...] = ()


class Clients:
    def __init__(self, scene: Scene, network: Network, find: Callable[[], QueueActor | None]) -> None:
        self._scene = scene
        self._network = network
        self._find = find
        self._made = 0
        self._open = 0
        self._types = scene.chance.choice(
            (("Tiny",), ("Tiny", "Tiny", "Tiny", "Long"), ("Short",), ("Long",), ("Tiny", "Short", "Long"))
        )
        self._families = scene.chance.odds(0.5)
        self._delays = scene.chance.choice(((0.0,), (0.0, 0.0, 0.0, 1e-9, 0.3, 5.0)))

    def over(self) -> bool:
        return not self._open

    # ---- tasks

    def plan(self, tasks: int, within_s: float) -> None:
        """So many tasks, some of them at once and the others spread over the time."""
        chance = self._scene.chance
        flood = chance.choice((0, 0, tasks // 2, tasks))
        while tasks > 0:
            size = min(tasks, chance.choice((1, 1, 2, 5, 10)))
            at = 0.1 if tasks <= flood else chance.uniform(0.0, within_s)
            self._scene.agenda.after(at, self._enqueue, size)
            tasks -= size

    def make_child(self, parent: TaskId, result: bytes) -> NewTask:
        task = self._new()
        self._scene.ledger.post(task, (parent, result))
        return task

    def _new(self) -> NewTask:
        scene, chance = self._scene, self._scene.chance
        self._made += 1
        task_id = self._made.to_bytes(16)
        retry = RetryPolicy(chance.randint(1, 3), chance.choice((0.0, 0.2, 2.0)), 2.0, 5.0, 0.5)
        options = Options(
            chance.choice(self._types), chance.choice(QUEUES), chance.choice((-1, 0, 0, 2)), retry, "history"
        )
        if scene.rules is not None:
            options = options._replace(
                concurrency_key=chance.choice(CONCURRENCY_KEYS), fairness_key=chance.choice(FAIRNESS_KEYS)
            )
        if scene.affine:
            options = options._replace(affinity_key=chance.choice(("", "red", "blue")))
        if scene.shaped:
            options = options._replace(resources=chance.choice(SHAPES))
        if scene.nemesis.tries(Fault.POISON):
            scene.poison.add(task_id)
        if scene.nemesis.strikes(Fault.BAD_ROW):
            scene.table.unfit.add(task_id)
        return (task_id, b"x" * chance.choice((0, 10, 40)), options, chance.choice(self._delays), NO_TERMS)

    def _enqueue(self, size: int) -> None:
        tasks = [self._new() for _ in range(size)]
        requested = self._scene.away_until <= self._scene.agenda.now and self._scene.nemesis.strikes(Fault.REQUESTED)
        if not requested:
            tasks = self._related(tasks)
        for task in tasks:
            self._scene.ledger.post(task)
        if requested:
            self._request(tasks)
            return
        self._open += 1
        key = f"key {int.from_bytes(tasks[0][0])}" if self._scene.chance.odds(0.4) else ""
        self._send(_Request(tasks, key=key))

    def _request(self, tasks: list[NewTask]) -> None:
        """In a transaction of the client's own: from its commit on the tasks are promised."""
        scene = self._scene
        scene.say("client asks for %s", ", ".join(name(task[0]) for task in tasks))
        scene.table.requests.update((task[0], task) for task in tasks)
        scene.ledger.acked.update(task[0] for task in tasks if task[0] not in scene.table.unfit)

    def _related(self, tasks: list[NewTask]) -> list[NewTask]:
        """Some of them wait for others of the request, or for tasks that are there."""
        if not self._families:
            return tasks
        table = self._scene.table
        older = [task_id for task_id in self._scene.ledger.acked if task_id in table.live or task_id in table.done]
        older = sorted(older)[-20:]
        related: list[NewTask] = []
        for task in tasks:
            parents = some_parents(self._scene.chance, older)
            related.append((*task[:4], task[4]._replace(parents=parents)))
            older.append(task[0])
        return related

    def _anew(self, tasks: list[NewTask]) -> list[NewTask]:
        """The same tasks under ids of their own."""
        scene, made = self._scene, list[NewTask]()
        ids: dict[TaskId, TaskId] = {}
        for task in tasks:
            self._made += 1
            task_id = self._made.to_bytes(16)
            for marked in (scene.poison, scene.table.unfit):
                if task[0] in marked:
                    marked.add(task_id)
            ids[task[0]] = task_id
            parents = task[4].parents
            if parents is not None:
                parents = parents._replace(ids=tuple(ids.get(parent, parent) for parent in parents.ids))
            made.append((task_id, *task[1:4], task[4]._replace(parents=parents)))
            scene.ledger.post(made[-1])
        return made

    def _send(self, request: _Request) -> None:
        if not request.open:
            return
        request.tries += 1
        again, number = request.tries > 1, request.tries
        actor = self._find()
        if actor is None:
            self._answered(request, number, None, 0)
            return
        if again:
            self._scene.nemesis.note(Fault.REPEATED_ENQUEUE)
        if request.key and again:
            self._scene.nemesis.note(Fault.REPEATED_KEY)
            request.tasks = self._anew(request.tasks)
        self._scene.say("client enqueues %s at %s", ", ".join(name(task[0]) for task in request.tasks), actor.name)
        answered = partial(self._answered, request, number)
        if request.key:
            self._send_keyed(request.key, request.tasks, request.link, actor, answered)
            if self._scene.chance.odds(0.3):
                # Sent twice at once, by way of two replicas.
                self._send_keyed(request.key, self._anew(request.tasks), Link(), actor, answered)
        else:
            self._network.call(
                request.link,
                actor,
                lambda actor, back: actor.enqueue(request.tasks, again, back),
                answered,
                # The copies of one call travel together: no later one can tell that the task has ended meanwhile.
                doubled_after=(0.0,),
                in_order=True,
            )
        self._scene.agenda.after(PATIENCE_S, self._answered, request, number, None, 0)

    def _send_keyed(self, key: str, tasks: list[NewTask], link: Link, actor: QueueActor, answered: Answered) -> None:
        self._scene.ledger.tries[key].append(tuple(task[0] for task in tasks))
        self._network.call(
            link,
            actor,
            lambda actor, back: actor.enqueue_once(key, tasks, back),
            answered,
            doubled_after=(0.0, 0.05, 1.0, 4.0),
        )

    def _answered(self, request: _Request, number: int, reply: Reply | None, _: int) -> None:
        if not request.open or number != request.tries:
            return
        if isinstance(reply, KeyedReply):
            self._answered_once(request, reply.ids)
        elif isinstance(reply, EnqueueReply) and not reply.full:
            self._scene.ledger.acked.update(task[0] for task in request.tasks)
            self._close(request)
        elif self._gives_up(request):
            self._close(request)
        else:
            self._scene.agenda.after(self._scene.chance.uniform(0.05, 1.0), self._send, request)

    def _answered_once(self, request: _Request, ids: tuple[TaskId, ...]) -> None:
        scene = self._scene
        require(ids in scene.ledger.tries[request.key], Rule.ONE_ANSWER, f"{request.key} is answered with {ids}")
        require(request.answer in {(), ids}, Rule.ONE_ANSWER, f"{request.key} has a second answer")
        scene.ledger.acked.update(ids)
        if not request.answer and scene.chance.odds(0.3):
            # Somebody lost the answer, and asks again: the tasks may have ended by then.
            request.answer = ids
            scene.agenda.after(scene.chance.uniform(0.0, 5.0), self._send, request)
        else:
            self._close(request)

    def _gives_up(self, request: _Request) -> bool:
        unfit = self._scene.table.unfit
        return (
            any(task[0] in unfit for task in request.tasks)
            or request.tries >= TRIES
            or (not self._scene.calm and self._scene.chance.odds(0.1))
        )

    def _close(self, request: _Request) -> None:
        request.open = False
        self._open -= 1

    # ---- people

    def act(self) -> None:
        nemesis = self._scene.nemesis
        if nemesis.tries(Fault.RETRIED_BY_HAND):
            self._retry()
        if nemesis.tries(Fault.ROW_TAKEN):
            self._take_row()
        if nemesis.tries(Fault.PURGED):
            self._purge()
        if nemesis.tries(Fault.UNIQUE):
            self._ask_for_the_only_one()

    def _ask_for_the_only_one(self) -> None:
        chance = self._scene.chance
        task_id, _, options, delay_s, _ = self._new()
        terms = NO_TERMS._replace(unique_key=chance.choice(("a", "b")))
        tasks = [(task_id, b"the only %d" % self._made, options, delay_s, terms)]
        if chance.odds(0.3):
            tasks.append(self._new())
        for task in tasks:
            self._scene.ledger.post(task)
        self._send_unique(tasks, Wish(NOT_ENDED, 0.0, chance.choice(tuple(OnConflict))), Link(), 1)

    def _send_unique(self, tasks: list[NewTask], wish: Wish, link: Link, tries: int) -> None:
        actor = self._find()
        if actor is None:
            return
        again = tries > 1
        self._scene.nemesis.note(Fault.UNIQUE_AGAIN if again else Fault.UNIQUE)
        names = ", ".join(name(task[0]) for task in tasks)
        self._scene.say("client asks for the only task with %s: %s, %s", tasks[0][4].unique_key, names, wish[2])
        self._network.call(
            link,
            actor,
            lambda actor, back: actor.enqueue_unique(tasks, wish, again, back),
            partial(self._told_of_the_only_one, tasks, wish, link, tries),
            in_order=True,
        )

    def _told_of_the_only_one(
        self, tasks: list[NewTask], wish: Wish, link: Link, tries: int, reply: Reply | None, _: int
    ) -> None:
        if isinstance(reply, KeyedReply):
            self._scene.ledger.acked.update(reply.ids)
        elif tries < TRIES and not self._scene.calm:
            self._scene.agenda.after(
                self._scene.chance.uniform(0.05, 1.0), self._send_unique, tasks, wish, link, tries + 1
            )

    def _purge(self) -> None:
        """What waits is read first; much may become of it until the QueueActor hears of it."""
        scene, queue = self._scene, self._scene.chance.choice(QUEUES)
        rows = [
            (row.id, row.lease)
            for row in scene.table.live.values()
            if row.queue == queue and row.state is not State.RUNNING
        ]
        actor = self._find()
        if rows and actor is not None:
            scene.nemesis.note(Fault.PURGED)
            scene.ledger.purged.update(task_id for task_id, _ in rows)
            wait_s = scene.chance.choice((0.0, 0.05, 1.0))
            scene.agenda.after(wait_s, self._tell_of_purge, actor, queue, rows)

    def _tell_of_purge(self, actor: QueueActor, queue: str, rows: list[tuple[TaskId, int]]) -> None:
        if not actor.over and actor.epoch:
            actor.post(Purged(next(self._scene.tickets), queue, rows, "purged"))

    def _retry(self) -> None:
        scene = self._scene
        failed = [task_id for task_id, row in scene.table.done.items() if row.state is State.FAILED]
        actor = self._find()
        if not failed or actor is None:
            return
        task_id = scene.chance.choice(failed)
        scene.nemesis.note(Fault.RETRIED_BY_HAND)
        for _ in range(1 + scene.nemesis.strikes(Fault.RETRIED_TWICE)):
            self._network.call(
                Link(),
                actor,
                lambda actor, back: actor.retry(task_id, back),
                partial(self._retried, task_id),
                doubled_after=(0.0, 0.05, 1.0),
            )

    def _retried(self, task_id: TaskId, reply: Reply | None, _: int) -> None:
        if isinstance(reply, RetryReply) and reply.refused is None:
            self._scene.ledger.revivals_acked.add(task_id)

    def _take_row(self) -> None:
        scene = self._scene
        # Nobody would ever say that the row of a parent is gone, before a new reign looks.
        waiting = [
            row.id
            for row in scene.table.live.values()
            if row.state is not State.RUNNING and not scene.table.edges.is_parent(row.id)
        ]
        if waiting:
            task_id = scene.chance.choice(waiting)
            scene.nemesis.note(Fault.ROW_TAKEN)
            scene.say("somebody deletes %s", name(task_id))
            del scene.table.live[task_id]
            scene.ledger.taken.add(task_id)
