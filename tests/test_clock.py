from uuid import UUID

from asyncproc.clock import AnchoredClock, TaskIds, id_text, spread, wall_now


def test_ids_of_one_maker_are_strictly_increasing_versions_7() -> None:
    before = wall_now()
    ids = TaskIds()

    made = [ids.make() for _ in range(20_000)]

    assert made == sorted(set(made))
    assert {(UUID(bytes=task_id).version, UUID(bytes=task_id).variant) for task_id in made} == {
        (7, "specified in RFC 4122")
    }
    first_ms = int.from_bytes(made[0][:6])
    assert int(before * 1000) - 1 <= first_ms <= wall_now() * 1000


def test_ids_of_two_makers_do_not_meet() -> None:
    one, other = TaskIds(), TaskIds()

    made = [maker.make() for _ in range(5_000) for maker in (one, other)]

    assert len(set(made)) == len(made)


def test_an_id_is_written_as_people_know_it() -> None:
    task_id = TaskIds().make()

    assert id_text(task_id) == str(UUID(bytes=task_id))


def test_an_anchored_clock_goes_on_from_its_anchor_and_never_back() -> None:
    clock = AnchoredClock(1_000_000.0)

    readings = [clock.now() for _ in range(1_000)]

    assert readings[0] >= 1_000_000.0
    assert readings == sorted(readings)


def test_a_spread_stays_within_one() -> None:
    drawn = [spread() for _ in range(1_000)]

    assert all(-1 <= value <= 1 for value in drawn)
    assert min(drawn) < 0 < max(drawn)
