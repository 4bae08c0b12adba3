"""A server that speaks OpenAI's protocol, and behaves as the model it is asked for says: a real one, on loopback."""

import asyncio
import threading
import time
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response, StreamingResponse

from tests.collect.server import free_port


class Models:
    """``good`` answers at once, others do what they are called. ``heard`` is what was asked."""

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []
        self.slow_takes = 2.0
        app = FastAPI()
        app.add_api_route("/v1/chat/completions", self.complete, methods=["POST"])
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}/v1"
        self.server = uvicorn.Server(uvicorn.Config(app, port=self.port, log_level="critical"))
        self.thread = threading.Thread(target=self.server.run, daemon=True)

    def start(self) -> "Models":
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        return self

    def stop(self) -> None:
        self.server.force_exit = self.server.should_exit = True
        self.thread.join(30)

    async def complete(self, request: Request) -> Response:
        body = await request.json()
        self.heard.append({**body, "headers": dict(request.headers)})
        number, model = len(self.heard), body["model"]
        said = body["messages"][-1]["content"]
        whole = {"choices": [{"message": {"role": "assistant", "content": f"{model} answers {said!r} ({number})"}}]}
        if model == "slow":
            await asyncio.sleep(self.slow_takes)
        if model == "nonsense":
            return Response(b"<html>not what you asked for</html>")
        if model == "empty":
            return JSONResponse({"choices": [{"message": {"content": "   "}}]})
        if model == "broken":
            return JSONResponse({"error": "out of memory"}, status_code=500)
        if model == "elsewhere":
            return RedirectResponse(f"{self.address}/secret", status_code=307)
        if model in ("breaks", "drips", "endless"):
            return StreamingResponse(parts(model), media_type="application/json")
        return JSONResponse(whole)


async def parts(model: str):
    """The beginning of an answer, and then: nothing more, a letter now and then, or far too much."""
    yield b'{"choices": [{"message": {"content": "'
    if model == "breaks":
        raise ConnectionResetError("the model fell over")
    for _ in range(100):
        await asyncio.sleep(0.05 if model == "drips" else 0)
        yield b"x" * (1 if model == "drips" else 2**18)
