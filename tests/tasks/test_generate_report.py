from typing import Any

import pytest

from asyncproc.config import SmtpSettings
from asyncproc.task_context import TaskContext
from asyncproc.tasks import CPUProcess, GenerateReport, SendEmail
from asyncproc.tasks.cpu_process import FailsOnPurpose
from asyncproc.tasks.generate_report import Figures, NoFigures, Row, build_report

ROWS: list[Row] = [
    ("queued", "default", "Note", 3, None, 12.5),
    ("queued", "letters", "SendEmail", 2, None, 40.0),
    ("queued", "letters", "Note", 1, None, None),
    ("running", "default", "Note", 1, None, None),
    ("succeeded", "default", "Note", 30, 0.5, None),
    ("failed", "letters", "Note", 10, 0.1, None),
    ("succeeded", "letters", "SendEmail", 4, 0.0, None),
]


class Known:
    """Figures that are known already."""

    async def read(self) -> list[Row]:
        return ROWS


def context(**services: Any) -> TaskContext:
    known = {type(service): service for service in services.values()}
    return TaskContext("id", 1, "default", "w", known, lambda: "child")


def test_a_report_says_what_there_is_and_how_long_it_takes() -> None:
    report = build_report("Financial Report", ROWS)

    assert report["tasks"] == 51
    assert report["byState"] == {"queued": 6, "running": 1, "succeeded": 34, "failed": 10}
    assert report["waitingByQueue"] == {"default": 3, "letters": 3}
    assert report["meanSecondsByType"] == {"Note": 0.4, "SendEmail": 0.0}
    assert report["longestWaitSeconds"] == 40.0
    assert report["text"].splitlines()[0] == "Financial Report"
    assert "waiting in letters: 3" in report["text"]


def test_a_report_of_nothing_is_a_report() -> None:
    assert build_report("Empty", [])["byState"] == {}


async def test_a_report_is_mailed_to_those_in_notify() -> None:
    ctx = context(figures=Figures(Known()), smtp=SmtpSettings(host="h", sender="reports@example.org"))

    report = await GenerateReport(notify=["a@example.org", "b@example.org"], report_type="Weekly").process(ctx)

    (child,) = ctx.children
    mail = child.model
    assert isinstance(mail, SendEmail)
    assert (mail.send_to, mail.send_from) == (["a@example.org", "b@example.org"], "reports@example.org")
    assert (mail.subject, mail.body) == ("Weekly", report["text"])


async def test_a_report_for_nobody_is_not_mailed() -> None:
    ctx = context(figures=Figures(Known()))

    await GenerateReport(report_type="Weekly").process(ctx)

    assert ctx.children == []


async def test_a_worker_without_figures_fails_the_report() -> None:
    with pytest.raises(NoFigures, match="this worker offers no figures"):
        await GenerateReport(report_type="Weekly").process(context())


def test_a_cpu_process_fails_on_purpose() -> None:
    with pytest.raises(FailsOnPurpose, match=r"CPUProcess 'want to fail' fails on purpose \(attempt 1\)"):
        CPUProcess(process_type="want to fail").process(context())
