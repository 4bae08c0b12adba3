"""KTO: where it begins, the distance, labels of every source, what is refused. The majority it ends at is in test_kto_optimum.py."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from prefloop.data.read import read_groups
from prefloop.data.write import write_groups
from prefloop.errors import DataError
from prefloop.methods.kto import KTOConfig, auc_of_labels, distance_of, labelled, logprobs_of, referred, with_partners
from prefloop.models.load import load_policy
from prefloop.records import Ranking
from tests.helpers import assert_close
from tests.methods.toy import WORLD, history, run_kto, shorter_than_the_last_step, table, toy, toy_encoder


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def unpaired(path, rows) -> str:
    lines = [json.dumps({"prompt": prompt, "completion": answer, "label": label}) for prompt, answer, label in rows]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.mark.parametrize(("desirable", "undesirable"), [(1.0, 1.0), (1.3, 0.6)])
def test_before_the_first_update_every_answer_costs_half_of_its_weight(tmp_path, desirable, undesirable):
    """Policy and reference agree: h = z_0 = 0, and sigmoid(0) = 1/2."""
    summary = run_kto(tmp_path, batch=1000, desirable=desirable, undesirable=undesirable)
    good = summary["good"] / (summary["good"] + summary["bad"])
    first = history(tmp_path)[0]
    assert_close(np.float32(first["loss"]), 0.5 * (desirable * good + undesirable * (1 - good)))
    assert_close(np.array([first["kl"], first["rewards/margins"]]), np.zeros(2))
    assert_close(np.float32(first["count/chosen"]), good)


def test_it_learns_to_tell_good_from_bad_on_prompts_it_has_not_seen(tmp_path):
    summary = run_kto(tmp_path, epochs=6, held_out=0.3, optim={"lr": 3e-3})
    margin = [step["rewards/margins"] for step in history(tmp_path)]
    assert np.mean(margin[-4:]) > np.mean(margin[:4]) + 0.05
    assert 0 < summary["label_accuracy"]["mean"] < 1 and summary["label_accuracy"]["n_prompts"] > 0
    assert summary["pair_accuracy"]["mean"] > 0.55
    assert summary["auc"]["mean"] > 0.5 and summary["auc"]["n"] == summary["label_accuracy"]["n"]
    assert summary["held_out_loss"] < 0.5


def test_the_policy_it_makes_gives_what_people_liked_more_often(tmp_path):
    run_kto(tmp_path, epochs=6, optim={"lr": 3e-3})
    before, after = (
        float((np.exp(table(m)) * WORLD.rewards).sum(1).mean()) for m in (toy() / "sft" / "model", tmp_path / "model")
    )
    assert after > before + 0.2


def test_the_first_step_from_another_model_than_the_reference_is_the_papers_equation_by_hand(tmp_path):
    """Every prompt, every answer, the drawn partners, from the exact tables of both models."""
    groups = shorter_than_the_last_step(read_groups(toy() / "rankings.jsonl").records)
    write_groups(tmp_path / "few.jsonl", groups)
    own = {"data": tmp_path / "few.jsonl", "batch": 1000, "beta": 0.7, "desirable": 1.2, "labels": "best"}
    run_kto(tmp_path / "run", reference=toy() / "base", **own)
    ratio = table(toy() / "sft" / "model") - table(toy() / "base")  # P N
    answers = [
        (WORLD.prompts.index(group.prompt), WORLD.texts.index(completion.text), group.rankings[0].places()[completion.id] == 0)
        for group in groups
        for completion in group.completions
    ]
    distance = history(tmp_path / "run")[0]["kl"]
    assert distance > 0.1  # the SFT model gives the world's words, whatever they answer, more often than the random base does
    assert abs(distance - np.mean([ratio[p, n] for p, n, _ in answers])) > 0.01  # of answers to other prompts, not of one's own
    costs = [
        1.2 * (1 - sigmoid(0.7 * (ratio[p, n] - distance))) if good else 1 - sigmoid(0.7 * (distance - ratio[p, n]))
        for p, n, good in answers
    ]
    assert_close(np.float32(history(tmp_path / "run")[0]["loss"]), np.mean(costs))


def test_a_partner_answers_another_prompt_and_every_answer_is_one_once(tmp_path):
    groups = read_groups(toy() / "rankings.jsonl").records[:40]
    answers, prompt_of = labelled(toy_encoder(), groups, KTOConfig.of(model="m", data="d"))
    numbered = answers.completion.clone()
    row, place = answers.is_candidate.nonzero(as_tuple=True)
    for number, (p, k) in enumerate(zip(row.tolist(), place.tolist(), strict=True)):
        numbered[p, k] = number
    tagged = replace(answers, completion=numbered)
    other = with_partners(tagged, prompt_of, torch.Generator().manual_seed(0))
    partner = other.completion[row, place, 0].tolist()
    assert sorted(partner) == list(range(len(row)))
    assert all(prompt_of[row[mine]] != prompt_of[row[theirs]] for mine, theirs in enumerate(partner))
    assert other.completion_length[row, place].tolist() == answers.completion_length[row[partner], place[partner]].tolist()
    again = with_partners(tagged, prompt_of, torch.Generator().manual_seed(1))
    assert again.completion[row, place, 0].tolist() != partner


@pytest.mark.parametrize("sign", [1, -1])
def test_the_distance_is_the_mean_log_ratio_of_the_partners_and_never_negative(sign):
    groups = shorter_than_the_last_step(read_groups(toy() / "rankings.jsonl").records)
    encoder = toy_encoder()
    answers, prompt_of = labelled(encoder, groups, KTOConfig.of(model="m", data="d"))
    partners = with_partners(answers, prompt_of, torch.Generator().manual_seed(0))
    folders = [toy() / "sft" / "model", toy() / "base"][::sign]
    policy, reference = (load_policy(str(folder)) for folder in folders)
    exact = table(folders[0]) - table(folders[1])  # P N
    ratios = []
    for row, name in enumerate(prompt_of):
        p = next(i for i, prompt in enumerate(WORLD.prompts) if prompt.id == name)
        for k in answers.is_candidate[row].nonzero()[:, 0].tolist():
            said = encoder.decode(partners.completion[row, k, : partners.completion_length[row, k]].tolist())
            ratios.append(exact[p, WORLD.texts.index(said)])
    assert_close(np.float32(distance_of(policy, referred(partners, reference))), max(0.0, np.mean(ratios)))
    assert (np.mean(ratios) > 0) == (sign > 0)


def test_thumbs_are_read_as_they_are(tmp_path):
    rows = [(f"{a} {b}", text, text == f"{a} {b}") for a in "abcd" for b in "abcd" if a != b for text in (f"{a} {b}", "! !")]
    summary = run_kto(tmp_path / "run", data=unpaired(tmp_path / "thumbs.jsonl", rows), batch=4)
    assert (summary["good"], summary["bad"], summary["prompts"]) == (12, 12, 12)
    assert_close(summary["balance"], 1.0)


def test_every_labelled_answer_counts_the_same_however_many_its_prompt_has(tmp_path):
    """Prompts with 1, 3 and 2 answers; 2 of the 6 are good, and one that nobody labelled is in no row."""
    rows = [
        ("a b", "a", True),
        ("c d", "a", True),
        ("c d", "b", False),
        ("c d", "c", False),
        ("b a", "b", False),
        ("b a", "c", False),
    ]
    summary = run_kto(tmp_path / "run", data=unpaired(tmp_path / "thumbs.jsonl", rows), batch=3)
    assert (summary["good"], summary["bad"], summary["prompts"]) == (2, 4, 3)
    first = history(tmp_path / "run")[0]
    assert_close(np.float32([first["count/chosen"], first["count/rejected"], first["loss"]]), [2 / 6, 4 / 6, 1 / 2])


def test_the_area_under_the_curve_is_over_all_answers_beside_that_of_their_length():
    """By hand from the exact tables: every good answer against every bad one, of whatever prompt."""
    groups = shorter_than_the_last_step(read_groups(toy() / "rankings.jsonl").records)[:30]
    answers, prompt_of = labelled(toy_encoder(), groups, KTOConfig.of(model="m", data="d", labels="best"))
    before = referred(answers, load_policy(str(toy() / "base")))
    score = logprobs_of(load_policy(str(toy() / "sft" / "model")), answers) - before.ref_logprobs
    ratio = table(toy() / "sft" / "model") - table(toy() / "base")  # P N
    exact: dict[bool, list[float]] = {True: [], False: []}
    lengths: dict[bool, list[int]] = {True: [], False: []}
    for group in groups:
        for completion in group.completions:
            is_best, n = group.rankings[0].places()[completion.id] == 0, WORLD.texts.index(completion.text)
            exact[is_best].append(round(float(ratio[WORLD.prompts.index(group.prompt), n]), 4))
            lengths[is_best].append(WORLD.lengths[n])
    for values, told in (
        (exact, auc_of_labels(score.round(decimals=4), answers, prompt_of)),
        (lengths, auc_of_labels(answers.completion_length, answers, prompt_of)),
    ):
        pairs = [1.0 if good > bad else 0.5 if good == bad else 0.0 for good in values[True] for bad in values[False]]
        assert_close(told["mean"], float(np.mean(pairs)))
        assert (told["n"], told["n_prompts"]) == (len(exact[True]) + len(exact[False]), len(set(prompt_of)))


def test_with_an_adapter_only_the_adapter_learns_and_the_reference_is_what_lies_under_it(tmp_path):
    run_kto(tmp_path, epochs=2, adapter={"rank": 2}, optim={"lr": 1e-2})
    assert (tmp_path / "model" / "adapter_model.safetensors").is_file()
    assert_close(np.float32(history(tmp_path)[0]["loss"]), 0.5)
    assert np.abs(table(toy() / "sft" / "model") - table(tmp_path / "model")).max() > 0.05


def test_classes_of_unlike_weight_are_told_with_the_weights_that_balance_them(tmp_path, capsys):
    rows = [(f"{a} {b}", text, text == "a") for a in "abcd" for b in "abcd" if a != b for text in ("a", "b", "! !", "c c")]
    summary = run_kto(tmp_path / "run", data=unpaired(tmp_path / "thumbs.jsonl", rows), batch=4)
    assert_close(summary["balance"], 12 / 36)
    assert "12 good and 36 bad answers weigh 0.33 to 1 together" in capsys.readouterr().err
    run_kto(tmp_path / "mended", data=str(tmp_path / "thumbs.jsonl"), batch=4, desirable=3.5)
    assert "to 1 together" not in capsys.readouterr().err


@pytest.mark.parametrize("label", [True, False])
def test_answers_that_are_all_called_the_same_are_refused(tmp_path, label):
    rows = [("a b", "a b", label), ("c d", "c d", label), ("b a", "b", label)]
    with pytest.raises(DataError, match=r"and needs both(.|\n)*prefloop sft"):
        run_kto(tmp_path / "run", data=unpaired(tmp_path / "thumbs.jsonl", rows))


def test_answers_of_one_prompt_alone_have_nobody_to_be_compared_with(tmp_path):
    rows = [("a b", "a b", True), ("a b", "c d", False), ("a b", "d", False)]
    with pytest.raises(DataError, match=r"3 of 3 answers belong to one prompt"):
        run_kto(tmp_path / "run", data=unpaired(tmp_path / "thumbs.jsonl", rows))


def test_a_ranking_in_which_all_are_tied_calls_nothing(tmp_path):
    groups = read_groups(toy() / "rankings.jsonl").records[:30]
    ids = [tuple(c.id for c in group.completions) for group in groups]
    tied = [
        group.model_copy(update={"rankings": (Ranking(prompt_id=group.prompt.id, tiers=(names,), shown=names, annotator="ada"),)})
        for group, names in zip(groups, ids, strict=True)
    ]
    write_groups(tmp_path / "tied.jsonl", tied)
    with pytest.raises(DataError, match="0 good and 0 bad answers"):
        run_kto(tmp_path / "run", data=str(tmp_path / "tied.jsonl"))
