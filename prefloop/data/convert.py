"""One function per format: what a row of it says, as records. formats.py holds the table that names them.

A row that cannot be used raises ``Unusable`` with a reason that can be counted; nothing is mended in silence, and what is
kept but worth knowing (equal answers, doubtful scores) comes back as a remark.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pydantic import ValidationError

from prefloop.data.rows import Bad, Row, Unusable, snippet
from prefloop.data.trees import Kept, Outcome
from prefloop.data.turns import (
    NO_PROMPT,
    Made,
    answer_of,
    demonstration_of,
    list_of,
    messages_of,
    number_of,
    parted_conversations,
    parted_texts,
    parted_transcripts,
    prompt_from,
    prompt_of,
    ranked_group,
    refuse_number_of_answers,
    text_of,
    tree_tag,
)
from prefloop.errors import DataError
from prefloop.records import FORMAT_VERSION, Completion, Demonstration, Group, Message, Prompt, Ranking, Rating, content_id

# --- rankings -------------------------------------------------------------------------------------------------------------


def kway(row: dict[str, Any], name: str) -> Made:
    """prefloop's own line; what it says is kept as it stands, ids included."""
    version = row["format_version"]
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise DataError(
            f"{name} was written by a newer prefloop: format_version {version}, and this one reads up to {FORMAT_VERSION}\n"
            f"  pip install -U prefloop"
        )
    try:
        group = Group.model_validate(row)
    except ValidationError as error:
        raise not_our_record(error) from None
    ids = [completion.id for completion in group.completions]
    if len(set(ids)) < len(ids):
        raise Unusable("two completions with one id", f"prompt {group.prompt.id}")
    parts = [*group.completions, *group.rankings]
    if strays := [part.id for part in parts if part.prompt_id != group.prompt.id]:
        raise Unusable("a completion or ranking of another prompt", f"{strays[0]} is not of prompt {group.prompt.id}")
    if group.rankings:
        refuse_number_of_answers(len(ids))
    return Made([group])


def not_our_record(error: ValidationError) -> Unusable:
    """Pydantic's first complaint as a reason that can be counted, and the detail."""
    first = error.errors()[0]
    detail = " ".join(first["msg"].removeprefix("Value error, ").split("\n")[0].split())
    for words, reason in {
        "never shown": "a ranking that places an answer never shown",
        "twice": "a ranking that places an answer twice",
        "not among the completions": "a ranking of answers that are not on the line",
    }.items():
        if words in detail:
            return Unusable(reason, detail)
    return Unusable("not a record of prefloop", f"{'.'.join(str(part) for part in first['loc'])}: {detail}")


def k_answers(row: dict[str, Any], name: str) -> Made:
    """{prompt, completions, ranks | scores}: low ranks are good, high scores are. With both, the ranks count."""
    prompt = prompt_of(row["prompt"], "prompt", origin=name)
    answers = [answer_of(value, "completions") for value in list_of(row["completions"], "completions")]
    if row.get("ranks") is not None:
        places = [number_of(value, "ranks") for value in list_of(row["ranks"], "ranks")]
    else:
        places = [lower_is_better(number_of(value, "scores")) for value in list_of(row.get("scores"), "scores")]
    return ranked_group(prompt, answers, places, name=name)


def lower_is_better(score: float | None) -> float | None:
    return None if score is None else -score


def unranked_answers(row: dict[str, Any], name: str) -> Made:
    prompt = prompt_of(row["prompt"], "prompt", origin=name)
    values = list_of(row["completions"], "completions")
    answers = dict.fromkeys(answer_of(value, "completions") for value in values)
    remarks = ("the same answer twice, taken as one",) if len(answers) < len(values) else ()
    if not answers:
        raise Unusable("no answer", snippet(prompt.text))
    completions = tuple(Completion.of(prompt, answer, source=f"dataset:{name}") for answer in answers)
    return Made([Group(prompt=prompt, completions=completions)], remarks)


def context_completions(row: dict[str, Any], name: str) -> Made:
    """NeMo-RL: rank 0 is best, equal ranks are tied."""
    prompt = prompt_of(row["context"], "context", origin=name)
    items = [item if isinstance(item, dict) else {} for item in list_of(row["completions"], "completions")]
    answers = [answer_of(item.get("completion"), "completions[].completion") for item in items]
    return ranked_group(prompt, answers, [number_of(item.get("rank"), "rank") for item in items], name=name)


def preference(row: dict[str, Any], name: str) -> Made:
    """{prompt, chosen, rejected}: texts, an answer's turns, whole conversations, or several texts on either side."""
    chosen, rejected = row["chosen"], row["rejected"]
    if is_conversation(chosen) and is_conversation(rejected) and (len(chosen) > 1 or len(rejected) > 1):
        shared, better, worse = parted_conversations(chosen, rejected)
        prompt = prompt_from(shared, origin=name) if shared else prompt_of(row["prompt"], "prompt", origin=name)
        return pair(prompt, [better], [worse], row, name)
    prompt = prompt_of(row["prompt"], "prompt", origin=name, tags=subset_tag(row))
    return pair(prompt, several(chosen, "chosen"), several(rejected, "rejected"), row, name)


def is_conversation(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(turn, dict) for turn in value)


def several(value: Any, column: str) -> list[str]:
    """The answers on one side: usually one; RewardBench 2 has three rejected ones."""
    if isinstance(value, list) and value and all(isinstance(text, str) for text in value):
        return [text_of(text, column) for text in value]
    return [answer_of(value, column)]


def subset_tag(row: dict[str, Any]) -> tuple[str, ...]:
    return (f"subset:{row['subset']}",) if isinstance(row.get("subset"), str) else ()


def pair(prompt: Prompt, better: Sequence[str], worse: Sequence[str], row: dict[str, Any], name: str) -> Made:
    """The better answers over the worse ones; tied where the row's own scores say that they are equal."""
    scores = scores_of(row)
    is_tied = scores is not None and scores[0] == scores[1]
    places = [0.0] * len(better) + [0.0 if is_tied else 1.0] * len(worse)
    made = ranked_group(prompt, [*better, *worse], places, name=name)
    is_doubtful = scores is not None and scores[0] < scores[1]
    return Made(made.records, (*made.remarks, *(["chosen has the lower score; the choice counts"] if is_doubtful else [])))


def scores_of(row: dict[str, Any]) -> tuple[float, float] | None:
    """score_chosen and score_rejected of binarised UltraFeedback, beside the texts or under metadata."""
    metadata = row.get("metadata")
    at = row if "score_chosen" in row else metadata if isinstance(metadata, dict) else {}
    scores = number_of(at.get("score_chosen"), "score_chosen"), number_of(at.get("score_rejected"), "score_rejected")
    return None if scores[0] is None or scores[1] is None else (scores[0], scores[1])


def implicit_preference(row: dict[str, Any], name: str) -> Made:
    """{chosen, rejected} that begin alike: conversations, Anthropic's transcripts, or plain texts."""
    chosen, rejected = row["chosen"], row["rejected"]
    if isinstance(chosen, list):
        messages, better, worse = parted_conversations(chosen, rejected)
    else:
        parted = parted_transcripts if "\n\nAssistant:" in text_of(chosen, "chosen") else parted_texts
        messages, better, worse = parted(chosen, text_of(rejected, "rejected"))
    return pair(prompt_from(messages, origin=name), [better], [worse], row, name)


def selected_rejected(row: dict[str, Any], name: str) -> Made:
    return preference({**row, "chosen": row["selected"]}, name)


def sharegpt_preference(row: dict[str, Any], name: str) -> Made:
    prompt = prompt_from([*system_turn(row), *messages_of(row["conversations"], "conversations")], origin=name)
    return pair(prompt, [answer_of(row["chosen"], "chosen")], [answer_of(row["rejected"], "rejected")], row, name)


def alpaca_preference(row: dict[str, Any], name: str) -> Made:
    prompt = instruction_of(row, name)
    return pair(prompt, [answer_of(row["chosen"], "chosen")], [answer_of(row["rejected"], "rejected")], row, name)


def alpaca_ranked(row: dict[str, Any], name: str) -> Made:
    """Alpaca's columns with a list as output: the best answer first."""
    answers = [text_of(value, "output") for value in list_of(row["output"], "output")]
    return ranked_group(instruction_of(row, name), answers, list(range(len(answers))), name=name)


def ranked_texts(row: dict[str, Any], name: str) -> Made:
    """Texts in order, best first, that answer nothing. Each row is a comparison of its own, though the stated prompt is one."""
    texts = [text_of(value, "ranked") for value in list_of(row["ranked"], "ranked")]
    if row.get("prompt"):
        prompt = prompt_of(row["prompt"], "prompt", origin=name)
    else:
        own = content_id(sorted(texts))
        prompt = Prompt(id=own, messages=(Message(role="user", content=NO_PROMPT),), origin=name, tags=(f"tree:{own}",))
    return ranked_group(prompt, texts, list(range(len(texts))), name=name)


def ultrafeedback(row: dict[str, Any], name: str) -> Made:
    """Four answers with GPT-4's marks. The mean of the four aspects counts; the overall score of early releases had a fault."""
    items = [item if isinstance(item, dict) else {} for item in list_of(row["completions"], "completions")]
    places = [lower_is_better(number_of(mark_of(item), "completions[].fine-grained_score")) for item in items]
    answers = [text_of(item.get("response"), "completions[].response") for item in items]
    return ranked_group(instruction_of(row, name), answers, places, name=name, sources=[source_of(item, name) for item in items])


def mark_of(item: dict[str, Any]) -> Any:
    return next((item[key] for key in ("fine-grained_score", "overall_score", "score") if item.get(key) is not None), None)


def alpaca_eval(row: dict[str, Any], name: str) -> Made:
    """Answers of several models with the judge's preference over a reference: higher is better."""
    items = [item if isinstance(item, dict) else {} for item in list_of(row["candidates"], "candidates")]
    places = [lower_is_better(number_of(item.get("preference"), "candidates[].preference")) for item in items]
    answers = [text_of(item.get("output"), "candidates[].output") for item in items]
    return ranked_group(instruction_of(row, name), answers, places, name=name, sources=[source_of(item, name) for item in items])


def source_of(item: dict[str, Any], name: str) -> str:
    return f"dataset:{name}:{item['model']}" if isinstance(item.get("model"), str) else f"dataset:{name}"


def unpaired(rows: Iterable[Row], name: str) -> Iterator[Outcome]:
    """Thumbs on single answers. Rows of one prompt make one group: the thumbs as ratings, up over down as a ranking."""
    labelled: dict[str, tuple[Prompt, dict[str, bool], list[str]]] = {}
    for row in rows:
        try:
            prompt, answer, label = thumb(row.value, name)
        except Unusable as problem:
            yield Bad(row.where, problem.reason, problem.detail)
            continue
        _, labels, places = labelled.setdefault(prompt.id, (prompt, {}, []))
        if labels.get(answer, label) != label:
            yield Bad(row.where, "the same answer labelled both ways", snippet(answer))
            continue
        labels[answer] = label
        places.append(row.where)
    for prompt, labels, places in labelled.values():
        yield Kept(places[0], group_of_thumbs(prompt, labels, name), len(places))


def thumb(row: dict[str, Any], name: str) -> tuple[Prompt, str, bool]:
    label = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}.get(str(row["label"]).lower())
    if label is None:
        raise Unusable("a label other than true or false", f"label is {snippet(repr(row['label']), 40)}")
    if "completion" in row:
        return prompt_of(row["prompt"], "prompt", origin=name), answer_of(row["completion"], "completion"), label
    turns = messages_of(row["messages"], "messages")
    if not turns or turns[-1].role != "assistant":
        raise Unusable("a conversation that does not end with the assistant", f"{len(turns)} turns")
    return prompt_from(turns[:-1], origin=name), turns[-1].content, label


def group_of_thumbs(prompt: Prompt, labels: dict[str, bool], name: str) -> Group:
    completions = {answer: Completion.of(prompt, answer, source=f"dataset:{name}") for answer in labels}
    ratings = tuple(
        Rating(completion_id=c.id, question="good?", scale=(0, 1), value=float(labels[answer]), annotator=f"dataset:{name}")
        for answer, c in completions.items()
    )
    up, down = (tuple(c.id for answer, c in completions.items() if labels[answer] is label) for label in (True, False))
    shown = tuple(c.id for c in completions.values())
    ranking = Ranking(prompt_id=prompt.id, tiers=(up, down), shown=shown, annotator=f"dataset:{name}") if up and down else None
    return Group(prompt=prompt, completions=tuple(completions.values()), rankings=(ranking,) if ranking else (), ratings=ratings)


# --- demonstrations, prompts, text ------------------------------------------------------------------------------------------


def own_demonstration(row: dict[str, Any], name: str) -> Made:
    try:
        return Made([Demonstration.model_validate(row)])
    except ValidationError as error:
        raise not_our_record(error) from None


def own_prompt(row: dict[str, Any], name: str) -> Made:
    try:
        return Made([Prompt.model_validate(row)])
    except ValidationError as error:
        raise not_our_record(error) from None


def prompt_completion(row: dict[str, Any], name: str) -> Made:
    prompt = prompt_of(row["prompt"], "prompt", origin=name)
    return Made([demonstration_of(prompt, answer_of(row["completion"], "completion"), name=name)])


def alpaca(row: dict[str, Any], name: str) -> Made:
    return Made([demonstration_of(instruction_of(row, name), text_of(row["output"], "output"), name=name)])


def instruction_of(row: dict[str, Any], name: str) -> Prompt:
    """Alpaca's instruction with its input on the next line, after the system text and the pairs of ``history``."""
    text = text_of(row["instruction"], "instruction")
    if given := row.get("input"):
        text = f"{text}\n{text_of(given, 'input')}" if text else text_of(given, "input")
    earlier = []
    for turn in list_of(row.get("history") or [], "history"):
        if not isinstance(turn, list) or len(turn) != 2:
            raise Unusable("a value of the wrong type", "history holds something other than [question, answer]")
        said = [text_of(words, "history") for words in turn]
        earlier += [Message(role="user", content=said[0]), Message(role="assistant", content=said[1])]
    if not text.strip():
        raise Unusable("an empty prompt", "instruction")
    return prompt_from([*system_turn(row), *earlier, Message(role="user", content=text)], origin=name)


def system_turn(row: dict[str, Any]) -> list[Message]:
    return [Message(role="system", content=text_of(row["system"], "system"))] if row.get("system") else []


def conversation(row: dict[str, Any], name: str) -> Made:
    """Every turn of the assistant is a demonstration, with all that was said before as its prompt.

    A conversation that nobody answered yet is a prompt.
    """
    column = "messages" if "messages" in row else "conversations"
    turns = [*system_turn(row), *messages_of(row[column], column)]
    asked = next((at for at, turn in enumerate(turns) if turn.role == "user"), len(turns))
    answered = [at for at, turn in enumerate(turns) if turn.role == "assistant" and at > asked]
    if asked == len(turns):
        raise Unusable("a conversation in which nobody asks", f"{len(turns)} turns")
    tags = (tree_tag(turns[asked].content),)
    if not answered:
        return Made([prompt_from(turns, origin=name, tags=tags)])
    prompts = {at: prompt_from(turns[:at], origin=name, tags=tags) for at in answered}
    return Made([demonstration_of(prompt, turns[at].content, name=name) for at, prompt in prompts.items()])


def bare_prompt(row: dict[str, Any], name: str) -> Made:
    return Made([prompt_of(row["prompt"], "prompt", origin=name)])


def bare_instruction(row: dict[str, Any], name: str) -> Made:
    return Made([instruction_of(row, name)])


def text(row: dict[str, Any], name: str) -> Made:
    said = text_of(row["text"], "text")
    if not said.strip():
        raise Unusable("an empty text")
    return Made([said])
