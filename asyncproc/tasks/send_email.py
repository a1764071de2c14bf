"""An e-mail over SMTP."""

import logging
import smtplib
from email.message import EmailMessage

from pydantic import Field

from asyncproc.config import SmtpSettings
from asyncproc.processable import Processable
from asyncproc.task_context import TaskContext

log = logging.getLogger(__name__)


class SendEmail(Processable):
    """Delivers where `smtp` is configured; otherwise its result says that it only logged."""

    send_to: list[str] = Field(min_length=1, max_length=1_000)
    send_from: str = Field(min_length=1, max_length=320)
    subject: str = Field(default="", max_length=998)
    body: str = ""

    def process(self, ctx: TaskContext) -> dict[str, object]:
        smtp = ctx.service(SmtpSettings)
        if smtp is None:
            log.info("no smtp is configured: e-mail %r to %d addresses was not sent", self.subject, len(self.send_to))
            return {"delivered": 0, "loggedOnly": True}
        with smtplib.SMTP(smtp.host, smtp.port, timeout=smtp.timeout) as session:
            if smtp.starttls:
                session.starttls()
            if smtp.username is not None and smtp.password is not None:
                session.login(smtp.username, smtp.password.get_secret_value())
            refused = session.send_message(self._message(ctx.id), self.send_from, self.send_to)
        return {
            "delivered": len(self.send_to) - len(refused),
            "refused": {
                address: f"{code} {text.decode(errors='replace')}" for address, (code, text) in refused.items()
            },
            "loggedOnly": False,
        }

    def _message(self, task_id: str) -> EmailMessage:
        message = EmailMessage()
        message["From"] = self.send_from
        message["To"] = ", ".join(self.send_to)
        message["Subject"] = self.subject
        # The same on every attempt: a mail server can tell a repeat from a second e-mail.
        message["Message-ID"] = f"<{task_id}@asyncproc>"
        message.set_content(self.body)
        return message
