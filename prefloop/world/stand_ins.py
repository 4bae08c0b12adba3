"""The simulated annotators as people before a screen: each a function of what stands on it.

They see the order of the screen, so whoever likes first answers best shows it where answers are really first. The same
person says the same of the same screen, whenever and however often it is asked.
"""

from collections.abc import Callable, Mapping

from prefloop.errors import DataError
from prefloop.records import Group, Ranking
from prefloop.world.annotators import POOL, Annotator, base_utility, pool, rank
from prefloop.world.prompts import read_request
from prefloop.world.world import World

StandIn = Callable[[Group], tuple[Ranking, Mapping[str, float]]]


def stand_ins(world: World, *, annotators: int = POOL, flip: float = 0.25, seed: int = 0) -> dict[str, StandIn]:
    """The first annotators of the pool by name, sim:0, sim:1 and so on."""
    if not 0 <= flip <= 0.5:
        raise DataError(f"flip is the share of labels inverted, from 0 to 0.5; got {flip}")
    return {who.name: before_a_screen(world, who, flip=flip, seed=seed) for who in pool(annotators)}


def before_a_screen(world: World, who: Annotator, *, flip: float, seed: int) -> StandIn:
    """One of them: a ranking of the group, whose completions are in the order shown, and the worth of each before noise."""
    key = (world.version, seed, who.name)

    def look(group: Group) -> tuple[Ranking, Mapping[str, float]]:
        if read_request(world.language, group.prompt.text).family == "other":
            raise DataError(
                f"a prompt is not of this world: {group.prompt.text[:60]!r}\n"
                f"  simulated annotators judge answers to prompts of prefloop world prompts only; of others people say what they think"
            )
        judged = [world.judge(group.prompt, completion.text) for completion in group.completions]
        shown = [completion.id for completion in group.completions]
        worth = {completion: base_utility(who, one) for completion, one in zip(shown, judged, strict=True)}
        return rank(group, judged, who=who, flip=flip, key=key, screen=shown), worth

    return look
