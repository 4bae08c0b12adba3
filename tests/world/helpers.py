"""What the tests of the world share: answers of every kind, and groups of them."""

from functools import cache

from prefloop.records import Completion, Group, Prompt
from prefloop.world import World
from prefloop.world.answers import draw_answer, write_answer
from prefloop.world.draws import generator
from prefloop.world.prompts import read_request


def answer(world: World, prompt: Prompt, *, flaws: tuple[str, ...] = (), markers: int = 0, key: int = 0) -> str:
    """An answer from the grammar, the same for the same arguments."""
    request = read_request(world.language, prompt.text)
    return write_answer(world.language, request, generator("test", prompt.text, key), flaws=flaws, markers=markers)


@cache
def groups_of(world: World, n: int, k: int, *, seed: int = 100, split: str = "validation") -> list[Group]:
    """Prompts with ``k`` answers each, as mixed as demonstrations are."""

    def completion(prompt: Prompt, number: int) -> Completion:
        random_source = generator("test", seed, prompt.text, number)
        request = read_request(world.language, prompt.text)
        return Completion.of(
            prompt, draw_answer(world.language, request, random_source, fine=0.5), source=f"policy:test@{number}"
        )

    prompts = world.prompts(n, split=split, seed=seed)  # type: ignore[arg-type]
    return [Group(prompt=prompt, completions=tuple(completion(prompt, number) for number in range(k))) for prompt in prompts]
