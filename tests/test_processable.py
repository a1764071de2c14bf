from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from pydantic import Field, ValidationError

from asyncproc import Processable, TaskContext, task
from asyncproc.clock import TaskIds, id_text
from asyncproc.core.retry import constant
from asyncproc.core.task import OnParentFailure, Parents


class Letter(Processable, queue="letters", priority=5, retry=2):
    send_to: list[str] = Field(min_length=1)
    subject: str = ""

    def process(self, ctx: TaskContext) -> str:
        return self.subject


def context() -> TaskContext:
    return TaskContext("id", 1, "default", "w")


def processable(function: Any) -> type[Processable]:
    found: type[Processable] = function.processable
    return found


@pytest.mark.parametrize("key", ["sendTo", "send_to", "SendTo", "SENDTO", "Send_To"])
def test_keys_are_camel_case_or_as_written_or_in_any_case(key: str) -> None:
    assert Letter.model_validate({key: ["a"]}).send_to == ["a"]


def test_a_key_that_is_spelt_exactly_wins() -> None:
    assert Letter.model_validate({"SENDTO": ["b"], "sendTo": ["a"]}).send_to == ["a"]
    assert Letter.model_validate({"sendTo": ["a"], "SENDTO": ["b"]}).send_to == ["a"]


def test_json_is_matched_like_python() -> None:
    assert Letter.model_validate_json(b'{"SendTo": ["a"], "Subject": "s", "unknown": 1}').subject == "s"


def test_a_payload_that_fails_its_model_is_named_by_the_key_of_its_alias() -> None:
    with pytest.raises(ValidationError) as refusal:
        Letter.model_validate({"SendTo": []})

    assert refusal.value.errors()[0]["loc"] == ("sendTo",)


def test_options_are_class_arguments() -> None:
    options = Letter.task_options

    assert (options.name, options.queue, options.priority, options.retry, options.pool) == (
        "Letter", "letters", 5, 2, None,
    )  # fmt: skip


def test_options_are_not_inherited() -> None:
    class Postcard(Letter, name="Card"):
        """Has fields and work of a letter."""

    assert (Postcard.task_options.name, Postcard.task_options.queue) == ("Card", None)
    assert Postcard.model_validate({"SendTo": ["a"], "Subject": "s"}).process(context()) == "s"


def test_an_unknown_class_option_is_refused() -> None:
    with pytest.raises(TypeError, match="qeue is no class option"):
        type("Typo", (Processable,), {}, qeue="letters")


def test_a_type_without_process_says_so() -> None:
    class Idle(Processable):
        """Does nothing yet."""

    with pytest.raises(NotImplementedError, match=r"Idle has no process\(self, ctx\)"):
        Idle().process(context())


# ---- functions


@task
def add(first_number: int, second_number: int = 2) -> int:
    return first_number + second_number


@task(name="Show", queue="shows", priority=1, retry=constant(5, 1.0))
def show(ctx: TaskContext, n: int) -> str:
    return f"{n} in {ctx.queue}"


@task
async def later(n: int) -> int:
    return n


def test_a_task_stays_the_function_it_was() -> None:
    assert add(1) == 3


def test_the_parameters_of_a_function_are_its_payload() -> None:
    made = processable(add)

    assert made.model_validate({"firstNumber": 1}).process(context()) == 3
    assert made.model_validate({"FIRST_NUMBER": 1, "SecondNumber": 5}).process(context()) == 6
    assert made.task_options.name == "add"
    with pytest.raises(ValidationError):
        made.model_validate({"firstNumber": "x"})


def test_a_parameter_for_the_context_is_no_part_of_the_payload() -> None:
    made = processable(show)

    assert set(made.model_fields) == {"n"}
    assert made.model_validate({"n": 1}).process(context()) == "1 in default"
    assert (made.task_options.name, made.task_options.retry) == ("Show", constant(5, 1.0))


async def test_an_async_function_stays_async() -> None:
    assert await processable(later).model_validate({"n": 7}).process(context()) == 7


def test_parameters_without_a_name_of_their_own_are_refused() -> None:
    def anything(*args: int) -> None: ...
    def keywords(**kwargs: int) -> None: ...
    def positional(n: int, /) -> None: ...

    for function in (anything, keywords, positional):
        with pytest.raises(TypeError, match="must be an ordinary one"):
            task(function)


# ---- the context


def test_a_child_may_depend_on_others() -> None:
    ids = TaskIds()
    ctx = TaskContext("me", 1, "default", "w", _make_id=lambda: id_text(ids.make()))
    first = ctx.enqueue(Letter(send_to=["a"]))
    ctx.enqueue(Letter(send_to=["b"]), depends_on=[first, first], on_parent_failure="run")
    assert ctx.children[1].terms.parents == Parents((UUID(first).bytes,), OnParentFailure.RUN)

    wrongs: list[dict[str, Any]] = [
        {"depends_on": first},
        {"depends_on": ["a"]},
        {"depends_on": [first], "on_parent_failure": "no"},
    ]
    for wrong in wrongs:
        with pytest.raises(ValueError, match=r"depends_on is|must be fail, skip or run"):
            ctx.enqueue(Letter(send_to=["c"]), **wrong)
    many = [id_text(ids.make()) for _ in range(10_000)]
    ctx.enqueue(Letter(send_to=["d"]), depends_on=many)
    with pytest.raises(ValueError, match="20000 together"):
        ctx.enqueue(Letter(send_to=["e"]), depends_on=many)


def test_children_are_gathered_with_ids_of_their_own() -> None:
    numbers = iter("abc")
    ctx = TaskContext("id", 1, "default", "w", _make_id=lambda: next(numbers))

    first = ctx.enqueue(Letter(send_to=["a"]), queue="q", priority=3, delay=timedelta(minutes=1))
    second = ctx.enqueue(Letter(send_to=["b"]), delay=1)

    assert (first, second) == ("a", "b")
    children = [(child.id, child.options.queue, child.options.priority, child.delay_s) for child in ctx.children]
    assert children == [
        ("a", "q", 3, 60.0),
        ("b", None, None, 1.0),
    ]


@pytest.mark.parametrize("delay", [-1, 1e300, float("nan"), float("inf"), timedelta(seconds=-1)])
def test_a_delay_that_is_no_wait_is_refused(delay: float | timedelta) -> None:
    ctx = context()

    with pytest.raises(ValueError, match="it must be between 0 and 31622400 seconds"):
        ctx.enqueue(Letter(send_to=["a"]), delay=delay)
    assert ctx.children == []


def test_a_service_is_found_by_its_type() -> None:
    ctx = TaskContext("id", 1, "default", "w", {int: 7})

    assert (ctx.service(int), ctx.service(str)) == (7, None)
