"""Asking the back-ends of live chats beside the requests of people, a thread for each reply.

A request for a turn is answered at once; its replies are asked for here and written as they come. A thread that never ends
(a function of somebody's own cannot be stopped) holds nobody up: when time is up the turn goes on without it.
"""

import logging
import threading
import time
from typing import Any

from prefloop.collect import backends, chat
from prefloop.collect.backends import BackendConfig, ChatConfig, Failed, Messages
from prefloop.collect.chat import Asked, Begun
from prefloop.collect.database import Closed, Database

AT_ONCE = 64  # replies that are being asked for
TRIAL_SECONDS, TRIAL_CHARACTERS = 30.0, 2000  # of a question asked by a manager
log = logging.getLogger("prefloop.collect")


class Talk:
    """The back-ends of one service."""

    def __init__(self, database: Database, config: ChatConfig):
        self.database, self.config = database, config
        self.http = backends.client()
        self.room = threading.BoundedSemaphore(AT_ONCE)

    def begin(self, begun: Begun) -> None:
        """Ask for the replies of a turn; returns at once."""
        ends = time.monotonic() + self.config.timeout
        for one in begun.replies:
            threading.Thread(target=self.ask, args=(one, ends), name="prefloop-reply", daemon=True).start()

    def ask(self, one: Asked, ends: float) -> None:
        began, text, error = time.monotonic(), "", ""
        if not self.room.acquire(timeout=max(0.0, ends - began)):
            error = "too many replies were being asked for"
        else:
            try:
                text = backends.reply(self.http, self.config.named(one.backend), one.messages, ends=ends)
            except Failed as failure:
                error = str(failure)
            except Exception as failure:
                log.exception("the back-end %s failed in a way that was not foreseen", one.backend)
                error = type(failure).__name__
            finally:
                self.room.release()
        if error:
            log.warning("the back-end %s gave no reply: %s", one.backend, error)
        given = {"reply_id": one.id, "text": text, "error": error, "ms": int(1000 * (time.monotonic() - began))}
        try:
            self.database.write(lambda connection: chat.keep_reply(connection, **given, now=self.database.clock()))
        except Closed:
            log.info("the service ended before a reply of %s was there", one.backend)

    def trial(self, backend: BackendConfig, messages: Messages) -> dict[str, Any]:
        """One question to one back-end, by somebody who waits for it; nothing of it is stored."""
        began, text, error = time.monotonic(), "", ""
        try:
            text = backends.reply(self.http, backend, messages, ends=began + min(self.config.timeout, TRIAL_SECONDS))
        except Failed as failure:
            error = str(failure)
        return {"text": text[:TRIAL_CHARACTERS], "error": error, "ms": int(1000 * (time.monotonic() - began))}

    def stop(self) -> None:
        """Break off what is under way."""
        self.http.close()
