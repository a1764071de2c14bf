import pytest

from asyncproc.core.states import DUE_LATER, FINAL, State, Trigger, after
from asyncproc.errors import InvalidTransition

ALLOWED = {
    ("blocked", "be released"): "scheduled",
    ("blocked", "be cancelled"): "cancelled",
    ("scheduled", "come due"): "queued",
    ("scheduled", "be cancelled"): "cancelled",
    ("queued", "be postponed"): "scheduled",
    ("scheduled", "be postponed"): "scheduled",
    ("retrying", "be postponed"): "retrying",
    ("queued", "be replaced"): "scheduled",
    ("scheduled", "be replaced"): "scheduled",
    ("retrying", "be replaced"): "scheduled",
    ("queued", "be claimed"): "running",
    ("queued", "be cancelled"): "cancelled",
    ("running", "succeed"): "succeeded",
    ("running", "fail and be retried"): "retrying",
    ("running", "fail for good"): "failed",
    ("running", "lose its worker"): "queued",
    ("running", "put itself off"): "scheduled",
    ("queued", "pass its deadline"): "failed",
    ("scheduled", "pass its deadline"): "failed",
    ("retrying", "pass its deadline"): "failed",
    ("blocked", "pass its deadline"): "failed",
    ("running", "be cancelled"): "cancelled",
    ("retrying", "come due"): "queued",
    ("retrying", "be cancelled"): "cancelled",
    ("failed", "be retried by hand"): "queued",
}


@pytest.mark.parametrize("trigger", Trigger)
@pytest.mark.parametrize("state", State)
def test_every_state_meets_every_trigger(state: State, trigger: Trigger) -> None:
    expected = ALLOWED.get((state.value, trigger.value))
    if expected is None:
        with pytest.raises(InvalidTransition, match=f"a {state} task cannot {trigger}"):
            after(state, trigger)
    else:
        assert after(state, trigger) == expected


def test_nothing_but_a_retry_by_hand_leaves_a_final_state() -> None:
    left = {(state, trigger) for state, trigger in ALLOWED if state in FINAL}
    assert left == {(State.FAILED, Trigger.RETRY)}


def test_what_waits_for_an_instant_comes_due() -> None:
    assert {state for state, trigger in ALLOWED if trigger == Trigger.COME_DUE} == DUE_LATER
