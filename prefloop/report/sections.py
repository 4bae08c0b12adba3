"""The sections below the first screen: what the answer rests on. Each takes the data and the words, and gives its content."""

from collections.abc import Callable, Sequence

from prefloop.report.curves import curves, frontier, selection
from prefloop.report.data import ROWS, Answer, Figure, ReportData, RewardModel, Sample
from prefloop.report.figures import duration, number, percent, whole
from prefloop.report.findings import fluency_name, in_short, place, policy_name
from prefloop.report.fresh import fresh
from prefloop.report.markup import Html, cut, join, tag
from prefloop.report.plots import ink_of
from prefloop.report.shell import absent, folded, swatch, table
from prefloop.report.texts import Words
from prefloop.report.trust import reward

MOST_SAMPLES = 24  # prompts on the page; the rest is in the run folder
OPEN_SAMPLES = 3
METRICS = ("gold", "proxy", "win", "kl", "length", "skill")  # of policies
FLUENCY = ("nll", "distinct_1", "distinct_1_of_all")  # what stands for its neighbours, too
OF_STUDIES = ("interval", "paired")
OF_POLICIES = ("overoptimisation",)
OF_REWARDS = ("pair_accuracy", "loss", "prefers_longer", "bayes_ceiling", "gold_accuracy", "calibration", "length_correlation")


def loop(data: ReportData, words: Words) -> Html:
    """The loop as a picture, every step with what went through it."""
    names = {"baseline": in_short(data, words), "policy": policy_name(best_known(data), words)}
    steps = [
        tag(
            "li",
            tag("b", words[f"loop.{step}"]),
            *(tag("span", f"{words[f'loop.{key}'].format(**names)}: {value}") for key, value in facts.items()),
        )
        for step, facts in loop_facts(data, words).items()
    ]
    return join(tag("ol", *steps, class_="loop"), tag("p", "↻ ", words["loop.again"], class_="again"))


def best_known(data: ReportData) -> str:
    """The policy that stands for the trained ones: PPO or PPO-ptx, else the first that was measured."""
    measured = [name for name in data.judged() if data.row(name)]
    return min(measured, key=place, default="ppo")


def loop_facts(data: ReportData, words: Words) -> dict[str, dict[str, str]]:
    """What each step of the loop says, in the order of the loop."""
    policy = data.row(best_known(data))
    model, before = data.reward_model or RewardModel(), data.row(data.baseline)
    counted = {name: whole(value, words) for name, value in data.counts.model_dump().items()}

    def mean(figure: Figure | None, write: Callable[[float], str] = number) -> str:
        return words["missing"] if figure is None else write(figure.mean)

    return {
        "prompts": {"training_prompts": counted["training_prompts"]},
        "answers": {"answers_per_prompt": counted["answers_per_prompt"]},
        "rankings": {"annotators": counted["annotators"], "rankings_n": counted["rankings"], "pairs": counted["pairs"]},
        "reward": {"accuracy": mean(model.pair_accuracy, percent), "ceiling": mean(model.bayes_ceiling, percent)},
        "policy": {"episodes": counted["episodes"], "kl": mean(policy.kl if policy else None)},
        "evaluate": {
            "evaluation_prompts": counted["evaluation_prompts"],
            "before": mean(before.gold if before else None),
            "after": mean(policy.gold if policy else None),
        },
    }


def samples(data: ReportData, words: Words) -> Html:
    """The same prompts answered by every policy; the words of a model enter as text and as nothing else."""
    if not data.samples:
        return absent(words)
    shown = data.samples[:MOST_SAMPLES]
    names = [row.name for row in data.rows] or [answer.policy for sample in shown for answer in sample.answers]
    blocks = [
        folded(cut(sample.prompt, words["cut"], 600), answers(sample, names, words), is_open=index < OPEN_SAMPLES)
        for index, sample in enumerate(shown)
    ]
    more = len(data.samples) - len(shown)
    return join(
        tag("p", words["samples.text"]), *blocks, tag("p", words["samples.more"].format(n=more), class_="muted") if more else None
    )


def answers(sample: Sample, names: Sequence[str], words: Words) -> Html:
    if not sample.answers:
        return absent(words)
    blocks = [
        tag(
            "div",
            tag("h4", swatch(ink_of(answer.policy, names)), policy_name(answer.policy, words)),
            tag("div", cut(answer.text, words["cut"]), class_="text", dir="auto")
            if answer.text.strip()
            else tag("p", words["samples.empty"], class_="muted"),
            tag("small", worth(answer, words)),
        )
        for answer in sorted(sample.answers, key=lambda answer: place(answer.policy))
    ]
    return tag("div", *blocks, class_="answers")


def worth(answer: Answer, words: Words) -> str:
    """What the rewards that were measured think of one answer."""
    measured = {"gold": answer.gold, "proxy": answer.proxy}
    told = [words[f"samples.{name}"].format(value=number(value)) for name, value in measured.items() if value is not None]
    return " · ".join(told) or words["missing"]


def data_reports(data: ReportData, words: Words) -> Html:
    if not data.data_reports:
        return absent(words)
    return join(*(folded(report.name, tag("pre", "\n".join(report.lines) or words["none"])) for report in data.data_reports))


def stages(data: ReportData, words: Words) -> Html:
    """Where the time went, each stage on the scale of the longest."""
    if not data.stages:
        return absent(words)
    longest = max((stage.seconds or 0.0 for stage in data.stages), default=0.0) or 1.0
    rows = [
        [
            stage.name,
            words["skipped"] if stage.skipped else words["missing"] if stage.seconds is None else duration(stage.seconds),
            bar(0.0 if stage.skipped else (stage.seconds or 0.0) / longest),
        ]
        for stage in data.stages
    ]
    total = [[words["total"], duration(data.seconds), ""]] if data.seconds is not None else []
    return table([words["column.stage"], words["column.time"], ""], rows + total, class_="bars")


def bar(share: float) -> Html:
    drawn = tag("rect", x=0, y=1, width=round(200 * min(max(share, 0.0), 1.0), 1), height=6, rx=1.5, class_="f-muted")
    return tag("svg", drawn, class_="bar", viewBox="0 0 200 8", preserveaspectratio="none", aria_hidden="true")


def reproduce(data: ReportData, words: Words) -> Html:
    """The command, the machine, and every artefact by its hash."""
    unmeasured = tag("span", words["missing"], class_="missing")
    facts = tag(
        "dl",
        tag("dt", words["command"]),
        tag("dd", tag("code", data.command) if data.command else unmeasured),
        tag("dt", words["machine"]),
        tag("dd", data.machine or unmeasured),
    )
    if not data.lineage:
        return join(facts, tag("h3", words["column.hash"]), absent(words))
    heads = [words[f"column.{key}"] for key in ("artefact", "hash", "parents")]
    rows = [[entry.name, tag("code", entry.hash, class_="wrap"), ", ".join(entry.parents) or "–"] for entry in data.lineage]
    return join(facts, tag("p", words["lineage.text"]), table(heads, rows, class_="plain"))


def glossary(data: ReportData, words: Words) -> Html:
    """Every metric and every row of this page in one line."""
    names = {"baseline": words.get(f"model.{data.baseline}", data.baseline)}
    rows = {row.name.partition("@")[0] for row in data.rows} or set(ROWS)
    lines = [] if data.is_of_rewards else [(metric_name(name, data, words), f"glossary.{name}") for name in METRICS]
    if any(row.fluency for row in data.rows):
        lines += [(fluency_name(name, words), f"glossary.{name}") for name in FLUENCY]
    terms = OF_STUDIES + (() if data.is_of_rewards else OF_POLICIES) + OF_REWARDS
    lines += [(words[f"term.{name}"], f"glossary.{name}") for name in terms]
    if not data.is_of_rewards:
        known = [name for name in ROWS if name in rows]
        lines += [(policy_name(name, words), f"glossary.{name}") for name in known]
        lines += [(words["reference"], "glossary.baseline")]
    return tag("dl", *(part for name, key in lines for part in (tag("dt", name), tag("dd", words[key].format(**names)))))


def metric_name(name: str, data: ReportData, words: Words) -> str:
    return words[f"metric.{name}"].format(baseline=in_short(data, words))


SECTIONS: dict[str, Callable[[ReportData, Words], Html]] = {
    "frontier": frontier,
    "loop": loop,
    "curves": curves,
    "reward": reward,
    "selection": selection,
    "samples": samples,
    "data": data_reports,
    "stages": stages,
    "reproduce": reproduce,
    "glossary": glossary,
}  # in the order of the page
ASKED_SELDOM: dict[str, Callable[[ReportData, Words], Html]] = {"fresh": fresh}  # sections that few studies have anything for
