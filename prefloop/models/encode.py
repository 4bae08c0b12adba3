"""Text to tokens and back: the one rendering that training, sampling and scoring share.

Templates turn a conversation into text:

    chat      the tokenizer's own chat template
    dialogue  "\\n\\nHuman: …\\n\\nAssistant:", answers begin with a space (Anthropic HH)
    plain     the contents joined, and the answer goes on where they end
    auto      chat where the tokenizer has a template, dialogue elsewhere

An answer ends with the token that ends an answer in the template (EOS where it says nothing else); one that had to be cut
does not, so nothing learns to stop there. Special tokens written out inside a message are plain text, never control
tokens. A BOS comes from the chat template, or else from the tokenizer, never from both.
"""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import takewhile
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from prefloop.errors import ConfigError, DataError
from prefloop.models.batch import RankedBatch, TokenBatch, take
from prefloop.ops.logprobs import length_mask, span_mask
from prefloop.ops.ranking import n_pairs
from prefloop.ops.weights import sequence_mean, token_mean
from prefloop.records import Demonstration, Group, Prompt, Ranking

Template = Literal["auto", "chat", "dialogue", "plain"]
TEMPLATES = ("auto", "chat", "dialogue", "plain")
SPEAKERS = {"system": "\n\nSystem:", "user": "\n\nHuman:", "assistant": "\n\nAssistant:"}
FIRST_MARK = 0xF0000  # a private-use plane, where no text has characters


class Encoder:
    """A tokenizer with a template and limits. ``counts`` tells what was encoded, left out and cut so far."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, *, template: Template = "auto", max_prompt: int = 512, max_completion: int = 512
    ):
        if template not in TEMPLATES:
            raise ConfigError(f"there is no template {template!r}\n  templates: {', '.join(TEMPLATES)}")
        if template == "chat" and not tokenizer.chat_template:
            raise ConfigError(
                f"template=chat, but the tokenizer of {tokenizer.name_or_path or 'this model'} has no chat template\n"
                f"  use template=dialogue or plain, or save a chat_template.jinja beside the tokenizer"
            )
        self.tokenizer: Any = tokenizer
        self.template = template if template != "auto" else ("chat" if tokenizer.chat_template else "dialogue")
        self.max_prompt = max_prompt
        self.max_completion = max_completion
        self.counts: Counter[str] = Counter()  # prompts, prompts_too_long, completions, completions_cut, rankings_without_order
        self.begin = opening(tokenizer)
        self.anchor = space_anchor(tokenizer)
        self.end = self.end_of_answer()
        self.stops: list[int] = sorted({self.end, int(self.tokenizer.eos_token_id)})

    # ------------------------------------------------------------------------------------------- one text

    def render(self, prompt: Prompt) -> str:
        """The conversation as the text the model reads before it answers."""
        if self.template == "chat":
            turns = [{"role": message.role, "content": message.content} for message in prompt.messages]
            return self.chat(turns, add_generation_prompt=True)
        if self.template == "plain":
            return "".join(message.content for message in prompt.messages)
        said = "".join(f"{SPEAKERS[message.role]} {message.content}" for message in prompt.messages)
        return said + SPEAKERS["assistant"]

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        """The conversation as tokens, however long."""
        if self.template != "chat":
            return self.begin + self.text_ids(self.render(prompt)) or [self.end]  # a model needs something to begin from
        turns = [{"role": message.role, "content": message.content} for message in prompt.messages]
        controls = {token for turn in turns for token in self.tokenizer.all_special_tokens if token in turn["content"]}
        if not controls:
            return self.template_ids(self.chat(turns, add_generation_prompt=True))
        return self.marked_ids(turns, sorted(controls, key=len, reverse=True))

    def completion_ids(self, text: str) -> list[int]:
        """An answer as tokens, with its end; cut to ``max_completion`` and then without an end."""
        if self.template == "dialogue" and text:
            text = " " + text
        ids = [*self.text_ids(text, goes_on=True), self.end]
        self.counts["completions"] += 1
        self.counts["completions_cut"] += len(ids) > self.max_completion
        return ids[: self.max_completion]

    def decode(self, ids: Sequence[int]) -> str:
        """The answer as text: up to its end, without padding, other special tokens spelt out so that nothing is hidden."""
        pad = self.pad
        said = takewhile(lambda token: token not in self.stops, ids)
        shown = self.anchor + [token for token in said if token != pad]
        text = self.tokenizer.decode(shown, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        if self.anchor:
            text = text[len(self.tokenizer.decode(self.anchor, clean_up_tokenization_spaces=False)) :]
        return text.removeprefix(" ") if self.template == "dialogue" else text

    def fits(self, prompt: Prompt) -> bool:
        """Whether a prompt keeps to ``max_prompt``; counted."""
        return self.is_short(self.prompt_ids(prompt))

    def that_fit(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """The prompts no longer than ``max_prompt`` tokens; the others are counted."""
        return [prompt for prompt in prompts if self.fits(prompt)]

    # ------------------------------------------------------------------------------------------- many texts

    def text_batch(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Token lists as one right-padded tensor: (B T, B)."""
        return padded(rows, self.pad)

    def conversations(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[list[int]]:
        """Each prompt followed by its answer, as tokens. Equal neighbours are encoded once."""
        rows, known, last = [], [], None
        for prompt, answer in zip(prompts, answers, strict=True):
            if prompt is not last:
                known, last = self.prompt_ids(prompt), prompt
            rows.append(known + self.completion_ids(answer))
        return rows

    def demonstrations(
        self, demonstrations: Sequence[Demonstration], *, weights: str = "token_mean", learn_prompt: bool = False
    ) -> TokenBatch:
        """Prompt and answer in a row; the answer is what is learned. Rows with too long a prompt are left out and counted."""
        prompts = [self.prompt_ids(shown.prompt) for shown in demonstrations]
        kept = [
            (prompt, self.completion_ids(shown.completion.text))
            for prompt, shown in zip(prompts, demonstrations, strict=True)
            if self.is_short(prompt)
        ]
        tokens, length = self.text_batch([prompt + answer for prompt, answer in kept])
        start = torch.tensor([len(prompt) for prompt, _ in kept], dtype=torch.long)
        return token_batch(tokens, length, torch.ones_like(start) if learn_prompt else start, weights)

    def ranked(self, groups: Sequence[Group], *, unusable: bool = True, tied: bool = False) -> RankedBatch:
        """A row per ranking, its placed completions side by side; the rankings of one prompt share its weight.

        Rankings that order nothing (all tied) and rankings of too long a prompt are left out and counted. ``tied`` keeps the
        former, for losses to which a tie says something.
        """
        rows: list[tuple[list[int], list[list[int]], list[int], float]] = []
        for group in groups:
            rankings = in_force(group.rankings)
            places = [ranking.places(with_unusable=unusable) for ranking in rankings]
            telling = [place for place in places if len(place if tied else set(place.values())) > 1]
            self.counts["rankings_without_order"] += len(places) - len(telling)
            prompt = self.prompt_ids(group.prompt)
            if not telling or not self.is_short(prompt):
                continue
            answers = {completion.id: self.completion_ids(completion.text) for completion in group.completions}
            for place in telling:
                rows.append((prompt, [answers[c] for c in place], list(place.values()), 1 / len(telling)))
        return ranked_batch(rows, self.pad)

    def candidates(self, groups: Sequence[Group]) -> RankedBatch:
        """A row per group, all its completions side by side, placed or not; every place is 0. To be scored, not learned from."""
        answers = [[self.completion_ids(completion.text) for completion in group.completions] for group in groups]
        rows = [(self.prompt_ids(group.prompt), ids, [0] * len(ids), 1.0) for group, ids in zip(groups, answers, strict=True)]
        return ranked_batch(rows, self.pad)

    def packed_text(self, texts: Sequence[str], block: int, *, control_tokens: bool = False) -> TokenBatch:
        """Texts one after the other, cut into rows of ``block`` tokens; see ``packed``.

        ``control_tokens``: the texts were rendered by somebody who may mark turns, so "<|user|>" is the token of that name.
        """
        spelt = not control_tokens
        encoded = self.tokenizer(list(texts), add_special_tokens=False, split_special_tokens=spelt)["input_ids"] if texts else []
        begin = self.begin if self.begin != [self.tokenizer.eos_token_id] else []  # one token may be both: once is enough
        return self.packed([begin + ids for ids in encoded], block)

    def packed(self, rows: Sequence[Sequence[int]], block: int) -> TokenBatch:
        """Token lists, EOS after each, as rows of ``block`` tokens that overlap by one, so each token is predicted once.

        What is left at the end makes a shorter last row. A model sees the texts before one in its row, as in GPT-3's
        pretraining; an EOS stands between them.
        """
        eos = int(self.tokenizer.eos_token_id)
        begins = bool(rows) and list(rows[0][:1]) == self.begin != []
        stream = [] if begins else [eos]  # something has to stand before the first token
        for row in rows:
            stream += [*row, eos]
        cut = [stream[start : start + block] for start in range(0, len(stream) - 1, block - 1)] if rows else []
        tokens, length = self.text_batch(cut)
        return token_batch(tokens, length, torch.ones_like(length), "token_mean")

    # ------------------------------------------------------------------------------------------- pieces

    @property
    def pad(self) -> int:
        return int(self.tokenizer.pad_token_id)

    def is_short(self, prompt: Sequence[int]) -> bool:
        self.counts["prompts"] += 1
        self.counts["prompts_too_long"] += len(prompt) > self.max_prompt
        return len(prompt) <= self.max_prompt

    def text_ids(self, text: str, *, goes_on: bool = False) -> list[int]:
        """Plain text as tokens. ``goes_on``: it follows other text, so no word-initial space may be made up."""
        anchor = self.anchor if goes_on else []
        lead = "\n" if anchor else ""
        ids = self.tokenizer(lead + text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return ids[len(anchor) :]

    def template_ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False, split_special_tokens=False)["input_ids"]

    def chat(self, turns: list[dict[str, str]], *, add_generation_prompt: bool) -> str:
        return self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=add_generation_prompt)

    def marked_ids(self, turns: list[dict[str, str]], controls: list[str]) -> list[int]:
        """Tokens of a conversation in which somebody wrote out control tokens: theirs stay text, the template's do not."""
        marks = {token: chr(FIRST_MARK + index) for index, token in enumerate(controls)}
        pattern = re.compile("|".join(map(re.escape, controls)))
        safe = [{**turn, "content": pattern.sub(lambda found: marks[found[0]], turn["content"])} for turn in turns]
        meaning = {mark: token for token, mark in marks.items()}
        pieces = re.split(f"([{''.join(meaning)}])", self.chat(safe, add_generation_prompt=True))
        return [
            token
            for piece in pieces
            if piece
            for token in (self.text_ids(meaning[piece]) if piece in meaning else self.template_ids(piece))
        ]

    def end_of_answer(self) -> int:
        """The control token the chat template puts after an answer (<|im_end|>, <end_of_turn>), else EOS."""
        eos = int(self.tokenizer.eos_token_id)
        if self.template != "chat":
            return eos
        turns = [{"role": "user", "content": "question"}, {"role": "assistant", "content": "answer"}]
        rendered = self.chat(turns, add_generation_prompt=False)
        after = self.template_ids(rendered[rendered.rindex("answer") + len("answer") :].lstrip()) if "answer" in rendered else []
        return after[0] if after and after[0] in self.tokenizer.all_special_ids else eos


def opening(tokenizer: Any) -> list[int]:
    """[BOS] where the tokenizer puts one before every text."""
    ids = tokenizer("a")["input_ids"]
    return [ids[0]] if ids and ids[0] == tokenizer.bos_token_id else []


def space_anchor(tokenizer: Any) -> list[int]:
    """Tokens of a line break for tokenizers that put a space before every text (SentencePiece), else nothing.

    Text that goes on after other text is encoded behind it and decoded behind it, so that spaces survive both ways.
    """

    def plain(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    anchor = plain("\n")
    makes_space_up = plain("a") != plain("\na")[len(anchor) :] and plain("\na")[: len(anchor)] == anchor
    return anchor if makes_space_up else []


def in_force(rankings: Sequence[Ranking]) -> list[Ranking]:
    """Rankings nobody corrected."""
    corrected = {ranking.supersedes for ranking in rankings}
    return [ranking for ranking in rankings if ranking.id not in corrected]


def padded(rows: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Token lists as one right-padded tensor: (B T, B); T is at least 1."""
    length = torch.tensor([len(row) for row in rows], dtype=torch.long)
    width = max([1, *length.tolist()])
    tokens = torch.full((len(rows), width), pad, dtype=torch.long)
    tokens[length_mask(length, width)] = torch.tensor([token for row in rows for token in row], dtype=torch.long)
    return tokens, length


def token_batch(tokens: Tensor, length: Tensor, start: Tensor, weights: str) -> TokenBatch:
    """Rows whose tokens from ``start`` (B) on are learned."""
    averages = {"token_mean": token_mean, "sequence_mean": sequence_mean}
    if weights not in averages:
        raise ConfigError(f"demonstrations cannot be weighed by {weights!r}\n  weights: {', '.join(averages)}")
    row, token = averages[weights](span_mask(start, length, tokens.shape[1]))
    return TokenBatch(tokens, length, token.float(), row)


def ranked_batch(rows: Sequence[tuple[list[int], list[list[int]], list[int], float]], pad: int) -> RankedBatch:
    """Rows of (prompt, answers, place of each answer, weight) as tensors."""
    k = max([1, *(len(answers) for _, answers, _, _ in rows)])
    prompt, prompt_length = padded([prompt for prompt, _, _, _ in rows], pad)
    flat, flat_length = padded([answer for _, answers, _, _ in rows for answer in answers + [[]] * (k - len(answers))], pad)
    tier = torch.tensor([tier + [0] * (k - len(tier)) for _, _, tier, _ in rows], dtype=torch.long).view(len(rows), k)
    n_answers = torch.tensor([len(answers) for _, answers, _, _ in rows], dtype=torch.long)
    return RankedBatch(
        prompt=prompt,
        prompt_length=prompt_length,
        completion=flat.view(len(rows), k, flat.shape[1]),
        completion_length=flat_length.view(len(rows), k),
        tier=tier,
        is_candidate=length_mask(n_answers, k),
        weight=torch.tensor([weight for _, _, _, weight in rows], dtype=torch.float32),
    )


def only_informative(ranked: RankedBatch, name: str) -> RankedBatch:
    """Without the rows whose answers are all tied: they form no pair, so they must not share the weight. DataError if all are."""
    informative = n_pairs(ranked.tier, ranked.is_candidate) > 0
    if not informative.any():
        raise DataError(
            f"no prompt of {name} has two answers in different places, so there is nothing to learn\n  see prefloop data check {name}"
        )
    return take(ranked, informative.nonzero()[:, 0])
