"""The embedded world: prompts, corpus, gold reward and simulated annotators. docs/world.md describes it."""

from prefloop.world.world import World

__all__ = ["World"]
