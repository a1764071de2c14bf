"""What somebody asked for."""

from typing import TYPE_CHECKING, assert_never

from asyncproc.core.cancel import cancel_asked
from asyncproc.core.change import bulk_asked, change_asked, retry_asked
from asyncproc.core.decision import RulesReply
from asyncproc.core.events import (
    BulkAsked,
    CancelAsked,
    ChangeAsked,
    Draining,
    OverdueFound,
    Purged,
    QueueReranked,
    RetryAsked,
    RulesChanged,
    Steering,
)
from asyncproc.core.expiry import expire_those_that_are
from asyncproc.core.purge import purge

if TYPE_CHECKING:
    from asyncproc.core.step import Core


def steer(core: "Core", event: Steering) -> None:
    match event:
        case RetryAsked():
            retry_asked(core, event)
        case CancelAsked():
            cancel_asked(core, event)
        case OverdueFound():
            expire_those_that_are(core, event.ticket, event.tasks)
        case ChangeAsked():
            change_asked(core, event)
        case BulkAsked():
            bulk_asked(core, event)
        case RulesChanged():
            core.backlog.obey(event.rules)
            core.schedules.draining = event.rules.draining
            core.decision.replies.append(RulesReply(event.ticket))
        case QueueReranked():
            core.backlog.reread(event.queue, event.lanes)
        case Purged():
            purge(core, event)
        case Draining():
            core.draining = True
        case _:
            assert_never(event)
