"""The built-in task types."""

from asyncproc.tasks.cpu_process import CPUProcess
from asyncproc.tasks.generate_report import GenerateReport
from asyncproc.tasks.send_email import SendEmail

__all__ = ["CPUProcess", "GenerateReport", "SendEmail"]
