"""Scores by reward models, ensembles, word lists and functions."""

import gzip
from pathlib import Path

import pytest
import torch

from prefloop.errors import ConfigError, DataError, PrefloopError, RunError
from prefloop.models.encode import Encoder
from prefloop.models.heads import sequence_rewards
from prefloop.models.load import new_reward, save_model
from prefloop.models.scorer import load_scorer, reward_scorer
from prefloop.models.tokenizer import train_tokenizer
from prefloop.records import Completion, Prompt
from prefloop.world import World
from tests.helpers import assert_close
from tests.models.tiny import CONTEXT, LINES, encoder, policy, prompts, tokenizer

PROMPTS = prompts(6)
TEXTS = ["a cat", "the dog sat in the sun", "", "so", "the fox saw the cat and", "12 + 34 = 46"]
COMPLETIONS = [Completion.of(prompt, text) for prompt, text in zip(PROMPTS, TEXTS, strict=True)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> list[Path]:
    """Two reward models; the second has a shift."""
    made = tmp_path_factory.mktemp("rewards")
    base = save_model(policy(), tokenizer(), made / "policy", card={})
    models = [new_reward(base, seed=seed) for seed in (1, 2)]
    models[1].config.prefloop_reward_shift = 0.75
    limits = encoder(max_prompt=30, max_completion=30)
    return [save_model(model, tokenizer(), made / f"reward-{i}", card={}, encoder=limits) for i, model in enumerate(models)]


@torch.no_grad()
def one_at_a_time(seed: int, folder: Path) -> list[float]:
    model, encode = new_reward(folder.parent / "policy", seed=seed), encoder()
    rows = [torch.tensor([row]) for row in encode.conversations(PROMPTS, TEXTS)]
    return [float(sequence_rewards(model, row, torch.tensor([row.shape[1]]))) for row in rows]


@pytest.mark.parametrize(("batch_rows", "tokens"), [(1, 2048), (4, 2048), (64, 2048), (64, 40), (64, 1)])
def test_a_score_is_that_of_the_text_alone_whatever_stands_beside_it(folders, batch_rows, tokens, monkeypatch):
    monkeypatch.setattr("prefloop.models.scorer.TOKENS_AT_ONCE", tokens)
    scores = load_scorer(str(folders[0]), batch_rows=batch_rows)(PROMPTS, COMPLETIONS)
    assert_close(scores, one_at_a_time(1, folders[0]))
    backwards = load_scorer(str(folders[0]), batch_rows=batch_rows)(PROMPTS[::-1], COMPLETIONS[::-1])
    assert_close(backwards[::-1], scores)


def test_the_shift_is_subtracted(folders):
    raw = one_at_a_time(2, folders[1])
    assert_close(load_scorer(str(folders[1]))(PROMPTS, COMPLETIONS), [score - 0.75 for score in raw])


def test_an_ensemble_is_the_mean_of_its_members(folders):
    members = [load_scorer(str(folder))(PROMPTS, COMPLETIONS) for folder in folders]
    both = load_scorer(f"{folders[0]}, {folders[1]}")(PROMPTS, COMPLETIONS)
    assert_close(both, [(a + b) / 2 for a, b in zip(*members, strict=True)])


def test_models_in_memory_score_as_their_folders_do(folders):
    models = [new_reward(folders[0].parent / "policy", seed=seed) for seed in (1, 2)]
    models[1].config.prefloop_reward_shift = 0.75
    together = load_scorer(f"{folders[0]},{folders[1]}")(PROMPTS, COMPLETIONS)
    assert_close(reward_scorer(models, encoder())(PROMPTS, COMPLETIONS), together)
    assert_close(reward_scorer(models[0], encoder())(PROMPTS, COMPLETIONS), load_scorer(str(folders[0]))(PROMPTS, COMPLETIONS))
    assert_close(reward_scorer(folders[1])(PROMPTS, COMPLETIONS), load_scorer(str(folders[1]))(PROMPTS, COMPLETIONS))
    with pytest.raises(ConfigError, match="needs the encoder"):
        reward_scorer(models[0])


def test_a_reward_model_with_another_tokenizer_reads_the_same_text_its_own_way(tmp_path):
    other = train_tokenizer(["so it goes and goes and goes"], vocab_size=270)
    base = save_model(policy(vocab_size=len(other)), other, tmp_path / "policy", card={})
    model = new_reward(base, seed=0)
    folder = save_model(model, other, tmp_path / "reward", card={})
    encode = Encoder(other)
    tokens, length = encode.text_batch(encode.conversations(PROMPTS, TEXTS))
    with torch.no_grad():
        expected = sequence_rewards(model, tokens, length)
    assert_close(load_scorer(str(folder))(PROMPTS, COMPLETIONS), expected)


def test_a_reward_model_keeps_the_template_it_was_trained_with(folders):
    assert_close(
        load_scorer(str(folders[0]), template="chat")(PROMPTS, COMPLETIONS), load_scorer(str(folders[0]))(PROMPTS, COMPLETIONS)
    )
    with pytest.raises(ConfigError, match="trained on text rendered with template 'chat'"):
        load_scorer(str(folders[0]), template="dialogue")


def test_dropout_is_off_while_scoring_and_modes_come_back(folders):
    model = new_reward(folders[0].parent / "policy", seed=1).train()
    for module in model.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.5
    assert_close(reward_scorer(model, encoder())(PROMPTS, COMPLETIONS), load_scorer(str(folders[0]))(PROMPTS, COMPLETIONS))
    assert model.training


def test_a_text_longer_than_the_reward_model_reads_is_refused_by_name(folders):
    long = Prompt.of("cat " * CONTEXT)
    with pytest.raises(DataError, match=rf"prompt {long.id} .* for the reward model, which reads {CONTEXT}"):
        load_scorer(str(folders[0]))([PROMPTS[0], long], [COMPLETIONS[0], Completion.of(long, "so")])


def test_nothing_to_score_is_no_error(folders):
    assert load_scorer(str(folders[0]))([], []) == []


# ------------------------------------------------------------------------------------------------ word lists


LEXICON = "token,mean,sd\nhappy,2.7,0.9\nsad,-2.1,0.5\nDon't,-1.0,0.1\n:),3.0,0.1\n"


@pytest.fixture(params=["plain", "packed"])
def lexicon(request, tmp_path) -> Path:
    if request.param == "plain":
        path = tmp_path / "words.csv"
        path.write_text(LEXICON)
        return path
    path = tmp_path / "words.csv.gz"
    path.write_bytes(gzip.compress(LEXICON.encode()))
    return path


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("happy", 2.7),
        ("Happy, SAD!", (2.7 - 2.1) / 2),
        ("a happy cat", 2.7 / 3),
        ("don't", -1.0),
        ("don’t", -1.0),
        ("unhappy sadly", 0.0),
        ("", 0.0),
        ("12 + 3 :)", 0.0),
        ("happy happy happy", 2.7),
    ],
)
def test_a_lexicon_scores_the_mean_valence_of_the_words(lexicon, text, score):
    prompt = Prompt.of("how?")
    assert_close(load_scorer(f"lexicon:{lexicon}")([prompt], [Completion.of(prompt, text)]), [score])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        ("", "has the columns of an empty file"),
        ("word,value\na,1\n", r"has the columns word, value\n  expected token and mean"),
        ("token,mean\na,high\n", "a mean that is no number"),
    ],
)
def test_a_lexicon_of_another_kind_is_explained(tmp_path, content, message):
    path = tmp_path / "words.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=message):
        load_scorer(f"lexicon:{path}")


# ------------------------------------------------------------------------------------------------ functions


def length_of(prompts, completions):
    return [len(completion.text) for completion in completions]


def too_few(prompts, completions):
    return [1.0]


def not_numbers(prompts, completions):
    return [float("nan")] * len(completions)


def test_a_function_of_ones_own_scores():
    assert load_scorer(f"python:{__name__}:length_of")(PROMPTS, COMPLETIONS) == [float(len(text)) for text in TEXTS]


def some_not(prompts, completions):
    return [0.5, None, float("inf"), *[1.0] * (len(completions) - 3)]


def in_words(prompts, completions):
    return ["0.5"] * len(completions)


def one_word(prompts, completions):
    return "x" * len(completions)


def none_at_all(prompts, completions):
    return None


def as_a_tensor(prompts, completions):
    return torch.arange(len(completions), dtype=torch.float32)


def as_a_generator(prompts, completions):
    yield from (torch.tensor(len(completion.text)) for completion in completions)


def late(prompts, completions):
    yield 1.0
    raise LookupError("no such word")


def broken(prompts, completions):
    return [1 / len(completion.text) for completion in completions]


def with_a_reason(prompts, completions):
    raise DataError("a reason of its own")


@pytest.mark.parametrize("name", ["too_few", "not_numbers", "some_not", "in_words", "one_word", "none_at_all"])
def test_a_function_that_returns_something_else_is_caught(name):
    with pytest.raises(RunError, match="one finite number per completion"):
        load_scorer(f"python:{__name__}:{name}")(PROMPTS, COMPLETIONS)


def test_the_first_score_that_is_none_is_named_with_its_prompt_and_answer():
    with pytest.raises(RunError) as stop:
        load_scorer(f"python:{__name__}:some_not")(PROMPTS, COMPLETIONS)
    told = str(stop.value)
    assert f"python:{__name__}:some_not gave 2 of 6 completions no finite number, the first of them None" in told
    assert f"prompt {PROMPTS[1].id} begins {PROMPTS[1].text[:60]!r}, its answer 'the dog sat in the sun'" in told


def test_numbers_may_come_as_a_tensor_or_one_by_one():
    assert load_scorer(f"python:{__name__}:as_a_tensor")(PROMPTS, COMPLETIONS) == [0, 1, 2, 3, 4, 5]
    assert load_scorer(f"python:{__name__}:as_a_generator")(PROMPTS, COMPLETIONS) == [len(text) for text in TEXTS]


@pytest.mark.parametrize(
    ("name", "told"), [("broken", "ZeroDivisionError: division by zero"), ("late", "LookupError: no such word")]
)
def test_a_function_that_fails_is_named_with_what_it_raised(name, told):
    with pytest.raises(RunError, match=f"python:{__name__}:{name} failed on 6 completions, {told}") as stop:
        load_scorer(f"python:{__name__}:{name}")(PROMPTS, COMPLETIONS)
    assert type(stop.value.__cause__).__name__ == told.partition(":")[0]  # --debug shows it


def test_a_failure_that_explains_itself_is_passed_on():
    with pytest.raises(DataError, match=r"^a reason of its own$"):
        load_scorer(f"python:{__name__}:with_a_reason")(PROMPTS, COMPLETIONS)


def test_a_module_that_cannot_be_imported_is_named(tmp_path, monkeypatch):
    (tmp_path / "a_broken_taste.py").write_text("def score(prompts, completions) return 1")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="python:a_broken_taste:score cannot be imported, SyntaxError"):
        load_scorer("python:a_broken_taste:score")


def test_a_reward_model_that_gives_no_number_is_named_alone_and_in_an_ensemble(folders, tmp_path):
    broken_model = new_reward(folders[0].parent / "policy", seed=1)
    with torch.no_grad():
        broken_model.score.weight.fill_(torch.nan)
    folder = save_model(broken_model, tokenizer(), tmp_path / "broken", card={})
    for spec in (str(folder), f"{folders[0]},{folder}"):
        with pytest.raises(RunError, match=f"the reward model {folder} gave 6 of 6 completions no finite number"):
            load_scorer(spec)(PROMPTS, COMPLETIONS)


def test_so_is_a_word_list_with_a_word_worth_nothing(tmp_path):
    (tmp_path / "words.csv").write_text("token,mean\nfox,nan\n")
    with pytest.raises(
        RunError, match=r"lexicon:.*words\.csv gave 1 of 6 completions no finite number(.|\n)*its answer 'the fox"
    ):
        load_scorer(f"lexicon:{tmp_path / 'words.csv'}")(PROMPTS, COMPLETIONS)


def test_gold_of_the_world_is_a_scorer_too():
    world = World(language="en")
    shown = world.demonstrations(5, seed=0)
    expected = [world.gold(d.prompt, d.completion.text) for d in shown]
    assert_close(load_scorer("world:en")([d.prompt for d in shown], [d.completion for d in shown]), expected)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("python:no.such.module:f", "cannot be found"),
        (f"python:{LINES.__class__.__module__}:no_such_name", "cannot be found"),
        ("python:math:pi", "no function"),
        ("python:math", "no function"),
        ("", "names no model folder"),
        ("a,,b", "names no model folder"),
        ("world:tlh", "tlh"),
        ("runs/nothing/here", "there is no model folder"),
    ],
)
def test_a_scorer_that_is_none_is_named(spec, message):
    with pytest.raises(PrefloopError, match=message):
        load_scorer(spec)


def test_a_model_in_memory_that_gives_no_number_is_named_too(folders):
    broken_model = new_reward(folders[0].parent / "policy", seed=1)
    with torch.no_grad():
        broken_model.score.weight.fill_(torch.nan)
    with pytest.raises(RunError, match=r"the reward model gave 6 of 6 completions no finite number"):
        reward_scorer(broken_model, encoder())(PROMPTS, COMPLETIONS)


# ------------------------------------------------------------------------------------------------ policies, sums


def test_a_policy_scores_the_log_probability_per_token_of_the_answer_its_end_included(folders):
    """Whatever stands beside it, and whether answers of a prompt are neighbours or not."""
    folder = folders[0].parent / "policy"
    model, encode = policy(), encoder()
    expected = []
    for prompt, text in zip(PROMPTS, TEXTS, strict=True):
        ids, answer = encode.prompt_ids(prompt), encode.completion_ids(text)
        with torch.no_grad():
            said = model(input_ids=torch.tensor([ids + answer])).logits.log_softmax(-1)[0]
        expected.append(sum(float(said[len(ids) + t - 1, token]) for t, token in enumerate(answer)) / len(answer))
    scorer = load_scorer(f"policy:{folder}", template="chat")
    assert_close(scorer(PROMPTS, COMPLETIONS), expected)
    assert_close(scorer(PROMPTS[::-1], COMPLETIONS[::-1]), expected[::-1])
    twice = [*PROMPTS, *PROMPTS[:2]], [*COMPLETIONS, *COMPLETIONS[:2]]
    assert_close(scorer(*twice), expected + expected[:2])
    beside = [PROMPTS[1]] * 3, [COMPLETIONS[1], Completion.of(PROMPTS[1], "a"), COMPLETIONS[1]]
    assert_close([scorer(*beside)[i] for i in (0, 2)], [expected[1]] * 2)
    assert scorer([], []) == []


@pytest.mark.parametrize(
    ("spec", "weights"),
    [
        ("0.7*{a} + 0.3*python:tests.evaluate.scorers:words", (0.7, 0.3)),
        ("{a} + python:tests.evaluate.scorers:words", (1.0, 1.0)),
        ("2*{a} + -.5*python:tests.evaluate.scorers:words", (2.0, -0.5)),
        ("  1e-1 * {a}  +  python:tests.evaluate.scorers:words ", (0.1, 1.0)),
        ("3*{a}", (3.0, 0.0)),
    ],
)
def test_several_rewards_are_their_weighted_sum(folders, spec, weights):
    a = load_scorer(str(folders[0]))(PROMPTS, COMPLETIONS)
    words = [float(len(text.split())) for text in TEXTS]
    expected = [weights[0] * x + weights[1] * y for x, y in zip(a, words, strict=True)]
    assert_close(load_scorer(spec.format(a=folders[0]))(PROMPTS, COMPLETIONS), expected)


def test_a_term_of_a_sum_may_be_an_ensemble(folders):
    one, two = (load_scorer(str(folder))(PROMPTS, COMPLETIONS) for folder in folders)
    both = load_scorer(f"{folders[0]},{folders[1]} + 0.5*{folders[0]}")(PROMPTS, COMPLETIONS)
    assert_close(both, [(x + y) / 2 + x / 2 for x, y in zip(one, two, strict=True)])


@pytest.mark.parametrize("spec", ["0.5*", "0.5* + a", "a +  + b", "2*a + "])
def test_a_term_without_a_scorer_is_refused(spec):
    with pytest.raises(ConfigError, match=r"has a term without a scorer(.|\n)*WEIGHT\*SCORER"):
        load_scorer(spec)


def test_a_term_that_scores_no_number_is_named(folders):
    with pytest.raises(RunError, match=r"python:tests.evaluate.scorers:nothing gave 6 of 6 completions no finite number"):
        load_scorer(f"{folders[0]} + 0*python:tests.evaluate.scorers:nothing")(PROMPTS, COMPLETIONS)
