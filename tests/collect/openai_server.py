"""A server that speaks OpenAI's protocol, and behaves as the model it is asked for says: a real one, on loopback."""

import asyncio
import threading
import time
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response, StreamingResponse

from tests.ports import taken_port


class Models:
    """``good`` answers at once, others do what they are called. ``heard`` is what was asked.

    ``slow`` and ``drips`` come to no end before ``let_go``: a test says when time is up, and no machine is too slow for it.
    """

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []
        self.is_let_go = threading.Event()
        app = FastAPI()
        app.add_api_route("/v1/chat/completions", self.complete, methods=["POST"])
        self.listening = taken_port()
        self.port = self.listening.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}/v1"
        self.server = uvicorn.Server(uvicorn.Config(app, port=self.port, log_level="critical"))
        self.thread = threading.Thread(target=self.server.run, args=([self.listening],), daemon=True)

    def start(self) -> "Models":
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        return self

    def let_go(self) -> None:
        """Those that were asked so far may end; the next ones wait again."""
        self.is_let_go.set()
        self.is_let_go = threading.Event()

    def stop(self) -> None:
        self.let_go()
        self.server.force_exit = self.server.should_exit = True
        self.thread.join(30)

    async def complete(self, request: Request) -> Response:
        body = await request.json()
        self.heard.append({**body, "headers": dict(request.headers)})
        number, model = len(self.heard), body["model"]
        said = body["messages"][-1]["content"]
        whole = {"choices": [{"message": {"role": "assistant", "content": f"{model} answers {said!r} ({number})"}}]}
        is_let_go = self.is_let_go
        while model == "slow" and not is_let_go.is_set():
            await asyncio.sleep(0.02)
        if model == "nonsense":
            return Response(b"<html>not what you asked for</html>")
        if model == "empty":
            return JSONResponse({"choices": [{"message": {"content": "   "}}]})
        if model == "broken":
            return JSONResponse({"error": "out of memory"}, status_code=500)
        if model == "elsewhere":
            return RedirectResponse(f"{self.address}/secret", status_code=307)
        if model in ("breaks", "drips", "endless"):
            return StreamingResponse(parts(model, is_let_go), media_type="application/json")
        return JSONResponse(whole)


async def parts(model: str, is_let_go: threading.Event):
    """The beginning of an answer, and then: nothing more, a letter now and then, or far too much."""
    yield b'{"choices": [{"message": {"content": "'
    if model == "breaks":
        raise ConnectionResetError("the model fell over")
    while model == "drips" and not is_let_go.is_set():
        await asyncio.sleep(0.05)
        yield b"x"
    for _ in range(100 if model == "endless" else 0):
        yield b"x" * 2**18
