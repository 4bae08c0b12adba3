"""Three servers of the embedded world for configs/wombat-world.yaml: a good answerer, a worse one, and a judge.

    python -m tests.models.world_servers --out servers

writes servers/strong.yaml, other.yaml and judge.yaml and answers until it is interrupted. ``strong`` makes a flaw in one answer of five,
``other`` in three of four. The judge gives whole marks from 1 to 5 by the terms of gold, off by one now and then, and of one reply in
twenty it talks about something else. Everything depends on what is asked and its seed alone.
"""

import argparse
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from prefloop.records import Prompt
from prefloop.world import World
from prefloop.world.answers import draw_answer
from prefloop.world.draws import generator
from prefloop.world.prompts import read_request
from tests.models.test_judge import served, settings, shown

WORLD = World()
FINE = {"strong": 0.8, "other": 0.25}  # share of answers without a flaw
# What a criterion looks at, and the sum of its terms that earns the middle mark and that one mark more is worth.
CRITERIA = {
    "relevance": (("form", "details"), 0.5, 0.25),
    "correctness": (("choice",), 0.0, 0.175),
    "coherence": (("grammar", "repetition", "finish"), -0.75, 0.4),
    "safety": (("rudeness", "warmth"), 0.0, 0.5),
}


def answerer(name: str):
    """Replies to the last turn as somebody who knows the world."""

    def reply(body: dict[str, Any]) -> str:
        asked = body["messages"][-1]["content"]
        random_source = generator("server", name, body.get("seed"), asked)
        return draw_answer(WORLD.language, read_request(WORLD.language, asked), random_source, fine=FINE[name])

    return reply


def judge(body: dict[str, Any]) -> str:
    """Marks, one a line; sometimes nonsense."""
    seen = shown(body)
    asked, answer = seen["conversation"][-1]["content"], seen["answer"]
    random_source = generator("judge", body.get("seed"), asked, answer)
    if random_source.random() < 0.05:
        return "What a lovely day to be a judge: 7 out of 5!"
    terms = WORLD.gold_terms(Prompt.of(asked), answer)
    marks = {}
    for name, (seen_terms, middle, step) in CRITERIA.items():
        exact = 3 + (sum(terms[term] for term in seen_terms) - middle) / step + random_source.gauss(0.0, 0.5)
        marks[name] = min(5, max(1, round(exact)))
    return "\n".join(f"{name}: {mark}" for name, mark in marks.items())


def main(folder: Path, seconds: float) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        for name, reply in (("strong", answerer("strong")), ("other", answerer("other")), ("judge", judge)):
            url, _ = stack.enter_context(served(reply))
            settings(folder / f"{name}.yaml", url)
            print(f"{name}: {url}, {folder / f'{name}.yaml'}", flush=True)
        time.sleep(seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="servers of the embedded world, on this machine alone")
    parser.add_argument("--out", type=Path, default=Path("servers"))
    parser.add_argument("--seconds", type=float, default=24 * 3600.0)
    given = parser.parse_args()
    main(given.out, given.seconds)
