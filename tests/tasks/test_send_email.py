"""E-mail through a real SMTP server on loopback."""

import socket
from collections.abc import Iterator
from email import message_from_bytes
from email.message import Message
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from asyncproc.config import SmtpSettings
from asyncproc.task_context import TaskContext
from asyncproc.tasks import SendEmail


class Mailbox:
    """Takes mail for everybody but `nobody@...`."""

    def __init__(self) -> None:
        self.envelopes: list[Envelope] = []
        self.logins: list[tuple[bytes, bytes]] = []

    def messages(self) -> list[Message]:
        contents = (envelope.content for envelope in self.envelopes)
        return [message_from_bytes(content) for content in contents if isinstance(content, bytes)]

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address.startswith("nobody@"):
            return "550 there is no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        self.envelopes.append(envelope)
        return "250 OK"

    def authenticate(self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        self.logins.append((data.login, data.password))
        return AuthResult(success=data.password == b"right", handled=False)


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


@pytest.fixture
def smtp(mailbox: Mailbox) -> Iterator[SmtpSettings]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    controller = Controller(
        mailbox, "127.0.0.1", port, authenticator=mailbox.authenticate, auth_require_tls=False, auth_required=False
    )
    controller.start()
    yield SmtpSettings.model_validate({"host": "127.0.0.1", "port": port})
    controller.stop()


def context(smtp: SmtpSettings | None) -> TaskContext:
    return TaskContext("0199-id", 1, "default", "w", {} if smtp is None else {SmtpSettings: smtp})


def letter(*send_to: str, **fields: str) -> SendEmail:
    return SendEmail(send_to=list(send_to), send_from="bob@example.org", **fields)


def test_an_email_is_delivered_to_all_it_is_sent_to(mailbox: Mailbox, smtp: SmtpSettings) -> None:
    result = letter("a@example.org", "b@example.org", subject="Grüße", body="Zeile 1\nZeile 2 ☃").process(context(smtp))

    (envelope,) = mailbox.envelopes
    (message,) = mailbox.messages()
    payload = message.get_payload(decode=True)
    assert isinstance(payload, bytes)
    assert result == {"delivered": 2, "refused": {}, "loggedOnly": False}
    assert (envelope.mail_from, envelope.rcpt_tos) == ("bob@example.org", ["a@example.org", "b@example.org"])
    assert (message["From"], message["To"]) == ("bob@example.org", "a@example.org, b@example.org")
    assert payload.decode().splitlines() == ["Zeile 1", "Zeile 2 ☃"]


def test_every_attempt_sends_the_same_message_id(mailbox: Mailbox, smtp: SmtpSettings) -> None:
    for _ in range(2):
        letter("a@example.org").process(context(smtp))

    assert [message["Message-ID"] for message in mailbox.messages()] == ["<0199-id@asyncproc>"] * 2


def test_a_refused_recipient_is_said_and_the_others_are_served(mailbox: Mailbox, smtp: SmtpSettings) -> None:
    result = letter("nobody@example.org", "b@example.org").process(context(smtp))

    assert result == {
        "delivered": 1,
        "refused": {"nobody@example.org": "550 there is no such mailbox"},
        "loggedOnly": False,
    }


def test_an_email_that_nobody_takes_fails(smtp: SmtpSettings) -> None:
    with pytest.raises(OSError, match="there is no such mailbox"):
        letter("nobody@example.org").process(context(smtp))


def test_it_logs_in_where_a_user_is_configured(mailbox: Mailbox, smtp: SmtpSettings) -> None:
    known = smtp.model_dump() | {"username": "bob", "password": "right"}

    letter("a@example.org").process(context(SmtpSettings.model_validate(_by_alias(known))))

    assert mailbox.logins == [(b"bob", b"right")]
    assert len(mailbox.envelopes) == 1


def test_a_wrong_password_fails_without_showing_it(mailbox: Mailbox, smtp: SmtpSettings) -> None:
    wrong = smtp.model_dump() | {"username": "bob", "password": "SECRET"}

    with pytest.raises(OSError, match="535") as refusal:
        letter("a@example.org").process(context(SmtpSettings.model_validate(_by_alias(wrong))))
    assert "SECRET" not in str(refusal.value)
    assert mailbox.envelopes == []


def test_an_absent_server_fails(smtp: SmtpSettings) -> None:
    absent = smtp.model_copy(update={"port": 1})

    with pytest.raises(OSError, match="refused"):
        letter("a@example.org").process(context(absent))


@pytest.mark.parametrize("field", ["subject", "sendFrom"])
def test_a_header_cannot_be_smuggled_in(mailbox: Mailbox, smtp: SmtpSettings, field: str) -> None:
    payload = {"sendTo": ["a@example.org"], "sendFrom": "b@example.org", field: "x\r\nBcc: everybody@example.org"}

    with pytest.raises(ValueError, match="may not contain linefeed"):
        SendEmail.model_validate(payload).process(context(smtp))
    assert mailbox.envelopes == []


def test_without_a_server_it_says_that_it_only_logged() -> None:
    assert letter("a@example.org").process(context(None)) == {"delivered": 0, "loggedOnly": True}


def _by_alias(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
