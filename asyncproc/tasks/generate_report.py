"""A report of what the queue did and holds, sent to whom it may concern."""

from typing import Protocol, TypedDict

from pydantic import Field

from asyncproc.config import SmtpSettings
from asyncproc.processable import Processable
from asyncproc.task_context import TaskContext
from asyncproc.tasks.send_email import SendEmail

Row = tuple[str, str, str, int, float | None, float | None]
"""State, queue, type, number of tasks, mean run time in seconds, longest wait in seconds."""


class FiguresReader(Protocol):
    """Where a worker gets the queue's figures from; workers have no database of their own."""

    async def read(self) -> list[Row]: ...


class Figures:
    """The key under which a worker offers its `FiguresReader`."""

    def __init__(self, reader: FiguresReader) -> None:
        self.reader = reader


class Report(TypedDict):
    reportType: str
    tasks: int
    byState: dict[str, int]
    waitingByQueue: dict[str, int]
    meanSecondsByType: dict[str, float]
    longestWaitSeconds: float
    text: str


class NoFigures(Exception):
    """The worker was started without access to the queue's figures."""


class GenerateReport(Processable):
    notify: list[str] = Field(default_factory=list, max_length=1_000)
    report_type: str = Field(min_length=1, max_length=200)

    async def process(self, ctx: TaskContext) -> Report:
        figures = ctx.service(Figures)
        if figures is None:
            raise NoFigures("this worker offers no figures: run the task in an asyncproc pool")
        report = build_report(self.report_type, await figures.reader.read())
        if self.notify:
            smtp = ctx.service(SmtpSettings)
            sender = smtp.sender if smtp is not None else "asyncproc@localhost"
            ctx.enqueue(SendEmail(send_to=self.notify, send_from=sender, subject=self.report_type, body=report["text"]))
        return report


def build_report(report_type: str, rows: list[Row]) -> Report:
    by_state: dict[str, int] = {}
    waiting: dict[str, int] = {}
    seconds: dict[str, tuple[float, int]] = {}
    longest_s = 0.0
    for state, queue, type_name, number, mean_s, wait_s in rows:
        by_state[state] = by_state.get(state, 0) + number
        if state == "queued":
            waiting[queue] = waiting.get(queue, 0) + number
            longest_s = max(longest_s, wait_s or 0.0)
        if mean_s is not None:
            total, known = seconds.get(type_name, (0.0, 0))
            seconds[type_name] = (total + mean_s * number, known + number)
    means = {name: round(total / known, 6) for name, (total, known) in sorted(seconds.items())}
    lines = [report_type, ""]
    lines += [f"{state}: {number}" for state, number in sorted(by_state.items())]
    lines += [f"waiting in {queue}: {number}" for queue, number in sorted(waiting.items())]
    lines += [f"mean run time of {name}: {mean} s" for name, mean in means.items()]
    return {
        "reportType": report_type,
        "tasks": sum(by_state.values()),
        "byState": by_state,
        "waitingByQueue": waiting,
        "meanSecondsByType": means,
        "longestWaitSeconds": round(longest_s, 3),
        "text": "\n".join(lines),
    }
