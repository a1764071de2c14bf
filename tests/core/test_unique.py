"""Who holds a key is there, and what becomes of those that ask for it is decided without any clock or table."""

from itertools import count

import pytest

from asyncproc.core.retry import constant
from asyncproc.core.states import State
from asyncproc.core.task import NO_TERMS, NewTask, Options, Parents, TaskId
from asyncproc.core.unique import NOT_ENDED, WAITING, Asked, Holder, OnConflict, Settled, Settling, Wanted, Wish

NOW = 1_000.0
OPTIONS = Options("Note", "default", 0, constant(1, 1.0), "")
RETURN = Wish(NOT_ENDED)
REJECT = Wish(NOT_ENDED, on_conflict=OnConflict.REJECT)

_ids = count(1)


def task(key: str = "k", delay_s: float = 0.0, type_: str = "Note") -> NewTask:
    terms = NO_TERMS._replace(unique_key=key)
    return (next(_ids).to_bytes(16), b"{}", OPTIONS._replace(type=type_), delay_s, terms)


def holder(state: State = State.QUEUED) -> Holder:
    return Holder(next(_ids).to_bytes(16), state, 0, "default")


def settle(settling: Settling, *tasks: NewTask, wish: Wish | None = RETURN) -> Settled:
    return settling.settle(Asked(tasks, [wish] * len(tasks)))


def ids(settling: Settling) -> list[TaskId]:
    return [one[0] for one in settling.tasks()]


def nobody() -> Settling:
    return Settling({}, (), NOW)


def test_where_nobody_holds_its_key_a_task_is_new() -> None:
    settling, one = nobody(), task()

    settled = settle(settling, one)

    assert (settled.new, settled.found, settled.conflicts) == ([one[0]], {}, {})
    assert ids(settling) == [one[0]]


def test_the_holder_in_the_table_stands_for_it() -> None:
    held, one = holder(), task()
    settling = Settling({Wanted("Note", "k", NOT_ENDED, 0.0): held}, (), NOW)

    settled = settle(settling, one)

    assert settled.found == {0: held}
    assert not settled.leans
    assert ids(settling) == []


def test_only_holders_of_the_states_and_the_time_that_it_names_are_in_its_way() -> None:
    wish = Wish(WAITING, 60.0)

    assert Asked([task()], [wish]).wanted(NOW) == [Wanted("Note", "k", WAITING, NOW - 60.0)]
    assert Asked([task()], [RETURN]).wanted(NOW) == [Wanted("Note", "k", NOT_ENDED, 0.0)]
    assert Asked([task()], [None]).wanted(NOW) == []


def test_of_a_key_that_comes_twice_in_a_request_or_in_two_at_once_the_first_is_made() -> None:
    settling, first = nobody(), task()

    settled = settle(settling, first, task(), task("other"))
    later = settle(settling, task())

    assert settled.found == {1: Holder(first[0], State.QUEUED, 0, "default")}
    assert later.found == {0: Holder(first[0], State.QUEUED, 0, "default")}
    assert later.leans
    assert len(settling.tasks()) == 2


def test_a_key_is_held_by_type() -> None:
    settling = nobody()

    settle(settling, task(), task(type_="Other"))

    assert len(settling.tasks()) == 2


def test_a_task_that_is_not_to_wait_in_that_state_is_in_nobodys_way() -> None:
    settling, scheduled = nobody(), Wish((State.SCHEDULED,))

    settle(settling, task(), wish=scheduled)
    settle(settling, task(), wish=scheduled)
    settle(settling, task(delay_s=5.0), wish=scheduled)
    last = settle(settling, task(delay_s=5.0), wish=scheduled)

    assert len(settling.tasks()) == 3
    assert [one.state for one in last.found.values()] == [State.SCHEDULED]


def test_a_request_that_is_rejected_leaves_nothing_behind() -> None:
    held = holder(State.RUNNING)
    settling = Settling({Wanted("Note", "held", NOT_ENDED, 0.0): held}, (), NOW)

    settled = settle(settling, task("free"), task("held"), wish=REJECT)
    after = settle(settling, task("free"), wish=REJECT)

    assert settled.conflicts == {1: held}
    assert settled.new == []
    assert after.new == ids(settling)


def test_a_request_that_names_a_key_twice_rejects_itself() -> None:
    settling, first = nobody(), task()

    settled = settle(settling, first, task(), wish=REJECT)

    assert [one.id for one in settled.conflicts.values()] == [first[0]]
    assert settling.tasks() == []


@pytest.mark.parametrize("wish", [RETURN, REJECT], ids=lambda wish: wish.on_conflict)
def test_what_an_earlier_call_has_brought_is_not_made_again(wish: Wish) -> None:
    brought, other = task(), task("other")
    settling = Settling({Wanted("Note", "k", NOT_ENDED, 0.0): holder()}, {brought[0]}, NOW)

    settled = settle(settling, brought, other, wish=wish)

    assert settled.new == [brought[0], other[0]]
    assert ids(settling) == [other[0]]


def test_a_task_is_not_in_its_own_way() -> None:
    one = task()
    settling = Settling({Wanted("Note", "k", NOT_ENDED, 0.0): Holder(one[0], State.RUNNING, 0, "default")}, (), NOW)

    assert settle(settling, one, wish=REJECT).conflicts == {}


def test_tasks_without_a_wish_are_made_beside_the_others() -> None:
    settling, plain = nobody(), task("")

    settled = settling.settle(Asked([task(), plain, task()], [RETURN, None, RETURN]))

    assert list(settled.found) == [2]
    assert plain[0] in ids(settling)


REPLACE = Wish(NOT_ENDED, on_conflict=OnConflict.REPLACE)


@pytest.mark.parametrize("state", State)
def test_one_that_waits_is_replaced_and_any_other_stands_for_it(state: State) -> None:
    held, one = holder(state), task(delay_s=5.0)
    settling = Settling({Wanted("Note", "k", NOT_ENDED, 0.0): held}, (), NOW)

    settled = settle(settling, one, wish=REPLACE)

    if state in {State.QUEUED, State.SCHEDULED, State.RETRYING}:
        assert settling.replaced() == [(held.id, *one[1:])]
        assert settled.found == {0: Holder(held.id, State.SCHEDULED, 0, "default")}
        assert settled.replaced == {0}
    else:
        assert settling.replaced() == []
        assert (settled.found, settled.replaced) == ({0: held}, set())


def test_of_many_that_replace_one_the_last_does() -> None:
    held, first, last = holder(), task(), task(delay_s=1.0)
    settling = Settling({Wanted("Note", "k", NOT_ENDED, 0.0): held}, (), NOW)

    settle(settling, first, wish=REPLACE)
    settle(settling, last, wish=REPLACE)

    assert settling.replaced() == [(held.id, *last[1:])]
    assert settle(settling, task()).found[0].state is State.SCHEDULED


def test_one_that_is_not_committed_yet_is_replaced_before_it_is() -> None:
    settling, first, second = nobody(), task(), task()

    settled = settle(settling, first, second, wish=REPLACE)
    later = settle(settling, third := task(), wish=REPLACE)

    assert (settled.new, settled.replaced, later.replaced) == ([first[0]], {1}, {0})
    assert settling.tasks() == [(first[0], *third[1:])]
    assert settling.replaced() == []


def test_a_request_that_is_rejected_replaces_nothing() -> None:
    held, kept = holder(), task("new")
    settling = Settling({Wanted("Note", key, NOT_ENDED, 0.0): held for key in ("k", "held")}, (), NOW)
    settle(settling, kept)
    before = settling.tasks()

    settled = settling.settle(
        Asked([task("k"), task("new", 5.0), task("other"), task("held")], [REPLACE, REPLACE, REPLACE, REJECT])
    )

    assert list(settled.conflicts) == [3]
    assert (settling.tasks(), settling.replaced()) == (before, [])
    assert settle(settling, task("other")).found == {}


def test_what_waits_for_one_that_is_not_made_waits_for_the_one_that_stands_for_it() -> None:
    held, one, other = holder(), task(), task(key="")
    refs = b'{"a": "%s"}'
    parents = Parents((one[0], other[0]), refs=refs % one[0].hex().encode())
    child: NewTask = (*task(key="")[:4], NO_TERMS._replace(parents=parents))
    settling = Settling({Wanted("Note", "k", NOT_ENDED, 0.0): held}, (), NOW)

    settled = settling.settle(Asked([child, one, other], [None, RETURN, None]))

    assert settled.found == {1: held}
    waiting = settling.tasks()[0][4].parents
    assert waiting == Parents((held.id, other[0]), refs=refs % held.id.hex().encode())
