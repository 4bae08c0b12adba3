"""Skills that no reward prompt exercises: what a policy forgets while it learns to please."""

from functools import partial

from torch import nn

from prefloop.models.encode import Encoder
from prefloop.models.sampling import sample
from prefloop.records import Prompt
from prefloop.world import World


def skill_hits(model: nn.Module, encoder: Encoder, skill: str, *, n: int, language: str, seed: int = 0) -> list[float]:
    """1.0 for every held-out item whose greedy continuation is the answer, in the order of the items."""
    items = World(language=language).skill_items(skill, n, seed=seed)
    plain = Encoder(encoder.tokenizer, template="plain")
    ask = partial(
        sample,
        model,
        plain,
        k=1,
        max_new_tokens=max(len(plain.completion_ids(item.answer)) for item in items) + 2,
        greedy=True,
        seed=0,
    )
    samples = ask([Prompt.of(item.prompt) for item in items])
    return [float(item.is_solved_by(said.text)) for said, item in zip(samples.completions, items, strict=True)]
