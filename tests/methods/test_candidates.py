"""Candidates of any mix of sources, RRHF's sampling policies by name, and the flaws of the released code that are about them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from prefloop.config import Options
from prefloop.data.read import read_groups
from prefloop.data.write import write_groups
from prefloop.errors import ConfigError, DataError
from prefloop.methods.rrhf import RRHFConfig
from prefloop.methods.sample import SampleConfig
from prefloop.methods.sample import main as run_sample
from prefloop.models.beam import beam_search
from prefloop.models.candidates import draw_candidates, ordered, sampling_policy, side_by_side
from prefloop.models.load import load_policy
from prefloop.records import Completion, Group, Prompt
from tests.helpers import assert_close
from tests.methods.toy import WORLD, history, run_rrhf, saved, toy, toy_encoder
from tests.models.test_judge import served, settings

N_NEW = WORLD.n_steps - 1


def drawn(out: Path, **own) -> tuple[dict, list[Group]]:
    given = {"model": str(toy() / "sft" / "model"), "prompts": str(toy() / "prompts.jsonl"), "template": "plain"}
    summary = run_sample(SampleConfig.of(**{**given, "max_new_tokens": N_NEW, **own}), Options(out=out, device="cpu"))
    return summary, read_groups(out / "completions.jsonl", allow_unranked=True).records


def peoples(path: Path) -> str:
    """Two answers to each of the world's prompts, by people."""
    groups = [
        Group(prompt=p, completions=tuple(Completion.of(p, text, source="human:ada") for text in (p.text, "! !")))
        for p in WORLD.prompts
    ]
    write_groups(path, groups)
    return str(path)


def texts(groups: list[Group], source: str) -> list[list[str]]:
    return [[c.text for c in group.completions if c.source.startswith(source)] for group in groups]


@pytest.mark.parametrize(
    ("recipe", "people", "own", "groups"),
    [("BP", 2, 4, 1), ("DP", 2, 4, 4), ("D", 0, 4, 4), ("P", 2, 0, 1)],
)
def test_the_papers_policies_by_name(tmp_path, recipe, people, own, groups):
    """Table 1: 4 by beam, or by diverse beam at temperature 0.8, beside the 2 of the data set, or either alone."""
    given = {"answers": peoples(tmp_path / "said.jsonl")} if people else {}
    summary, made = drawn(tmp_path / "run", recipe=recipe, **given)
    assert texts(made, "human:") == ([[p.text, "! !"] for p in WORLD.prompts] if people else [[]] * len(WORLD.prompts))
    if own:
        policy = load_policy(str(toy() / "sft" / "model"))
        how = {"beams": own, "groups": groups, "diversity": float(groups > 1), "temperature": 0.8 if groups > 1 else 1.0}
        found = beam_search(policy, toy_encoder(), WORLD.prompts, max_new_tokens=N_NEW, **how)
        for p, group in enumerate(made):
            expected = dict.fromkeys(
                [
                    *([WORLD.prompts[p].text, "! !"] if people else []),
                    *(c.text for c in found.completions[own * p : own * p + own]),
                ]
            )
            assert [c.text for c in group.completions] == list(expected)
    assert summary["prompts"] == len(WORLD.prompts)
    assert summary["completions"] + summary["identical_answers_merged"] == len(WORLD.prompts) * (people + own)


def test_6_the_temperature_of_a_search_and_the_kind_of_search_have_an_effect(tmp_path):
    """Released: a temperature without drawing does nothing, and the flag for diverse beams is never read."""
    ways = {
        "beam": {"decoding": "beam"},
        "diverse": {"decoding": "diverse_beam"},
        "cool": {"decoding": "beam", "temperature": 0.2},
    }
    found = {name: texts(drawn(tmp_path / name, **own)[1], "policy:") for name, own in ways.items()}
    assert found["beam"] != found["diverse"]
    policy = load_policy(str(toy() / "sft" / "model"))
    worth = [
        beam_search(policy, toy_encoder(), WORLD.prompts, beams=2, max_new_tokens=N_NEW, temperature=t).logprob
        for t in (1.0, 0.2)
    ]
    assert np.abs(np.subtract(*worth)).max() > 0.1


def test_answers_of_people_of_a_server_and_of_the_policy_stand_side_by_side(tmp_path):
    with served(lambda body: f"{body['messages'][-1]['content']} !") as (url, asked):
        file = settings(tmp_path / "other.yaml", url)
        summary, made = drawn(tmp_path / "other", model=f"server:{file}", answers=peoples(tmp_path / "said.jsonl"), k=1)
        assert len(asked) == len(WORLD.prompts) == summary["prompts"]
    assert texts(made, "policy:tiny") == [[f"{p.text} !"] for p in WORLD.prompts]
    mixed = f"{tmp_path / 'other' / 'completions.jsonl'}"
    summary, made = drawn(tmp_path / "all", answers=mixed, k=2, decoding="beam")
    sources = {c.source.partition(":")[0] + ":" + c.source.partition(":")[2][:4] for group in made for c in group.completions}
    assert {"human:ada", "policy:tiny", "policy:all@"} <= sources
    assert summary["given_answers"] == 3 * len(WORLD.prompts)


def test_the_same_words_are_one_candidate_whoever_said_them():
    prompt = Prompt.of("a b")
    said = [
        Completion.of(prompt, text, source=source) for text, source in (("x", "human:ada"), ("y", "policy:p"), ("x", "policy:p"))
    ]
    (group,) = side_by_side([prompt, Prompt.of("c")], {prompt.id: said[:1]}, {prompt.id: said[1:]})
    assert [(c.text, c.source) for c in group.completions] == [("x", "human:ada"), ("y", "policy:p")]
    (group,) = side_by_side([prompt], {prompt.id: said[:1]}, {prompt.id: said[1:]}, repeats=True)
    assert [c.source for c in group.completions] == ["human:ada", "policy:p", "policy:p#2"]


def test_equal_scores_share_a_place_and_one_answer_alone_orders_nothing():
    prompt = Prompt.of("a b")
    three = Group(prompt=prompt, completions=tuple(Completion.of(prompt, text) for text in "xyz"))
    ids = [c.id for c in three.completions]
    assert ordered([three], [[1.0, 2.0, 1.0]], "sim:0")[0].rankings[0].tiers == ((ids[1],), (ids[0], ids[2]))
    assert ordered([three], [[1.0, 1.0, 1.0]], "sim:0")[0].rankings[0].pairs() == []
    one = three.model_copy(update={"completions": three.completions[:1]})
    assert ordered([one], [[1.0]], "sim:0")[0].rankings[0].pairs() == []


@pytest.mark.parametrize(
    ("own", "told"),
    [
        ({"recipe": "BP"}, "name their file with answers="),
        ({"recipe": "P"}, "k = 0 and no answers="),
        ({"k": 0}, "k = 0 and no answers="),
        ({"model": ""}, "model is empty, and k = 4"),
        ({"decoding": "beam", "top_k": 3}, "would ignore them"),
        ({"decoding": "beam", "repeats": True}, "finds each once"),
        ({"model": "server:x.yaml", "decoding": "beam"}, "a server draws"),
        ({"model": "server:x.yaml", "dtype": "bfloat16"}, "a server computes as it does"),
        ({"model": "server:x.yaml", "compile": True}, "a server computes as it does"),
        ({"decoding": "beam", "compile": True}, "compile is for drawing in float32"),
        ({"dtype": "bfloat16", "compile": True}, "compile is for drawing in float32"),
        ({"recipe": "SP"}, "recipe"),
    ],
)
def test_sources_that_do_not_go_together_are_refused(own, told):
    with pytest.raises(ConfigError, match=told):
        SampleConfig.of(**{"model": "m", "prompts": "p", **own})


@pytest.mark.parametrize("own", [{"dtype": "bfloat16"}, {"compile": True}])
def test_precision_and_compiler_reach_the_model_that_draws(tmp_path, monkeypatch, own):
    seen = []

    def noting(model, *given, compile, **rest):
        seen.append((str(model.dtype), compile))
        return draw_candidates(model, *given, **rest)

    monkeypatch.setattr("prefloop.methods.sample.draw_candidates", noting)
    _, groups = drawn(tmp_path / "run", k=2, repeats=True, **own)
    assert seen == [(f"torch.{own.get('dtype', 'float32')}", "compile" in own)]
    assert [len(group.completions) for group in groups] == [2] * len(WORLD.prompts)


def test_answers_to_other_prompts_are_refused(tmp_path):
    other = Prompt.of("d a")
    write_groups(tmp_path / "said.jsonl", [Group(prompt=other, completions=(Completion.of(other, "a"),))])
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(json.dumps({"prompt": "c c"}) + "\n")
    with pytest.raises(DataError, match="answers none of the 1 prompts"):
        drawn(tmp_path / "run", prompts=str(prompts), answers=str(tmp_path / "said.jsonl"))


# ------------------------------------------------------------------------------------------------ candidates of the run's own


def own(**more) -> dict:
    """Settings of a run that makes its candidates and orders them by gold."""
    made = {"prompts": str(toy() / "prompts.jsonl"), "reward": "python:tests.methods.toy:gold", "max_new_tokens": N_NEW}
    return {"data": "", "held_out": 0.0, "batch": 4, "epochs": 2, "optim": {"lr": 2e-3}, "candidates": {**made, **more}}


def rounds(run: Path) -> list[list[Group]]:
    return [read_groups(file).records for file in sorted((run / "candidates").glob("*.jsonl"))]


@pytest.mark.parametrize(
    ("policy", "n_rounds", "n_steps", "per_round"),
    [("D", 1, 4, 8), ("IP-1", 1, 4, 8), ("IP-3", 3, 12, 8), ("OP-1", 4, 4, 4), ("OP-3", 2, 4, 8), ("OP-9", 1, 4, 8)],
)
def test_rounds_of_candidates(tmp_path, policy, n_rounds, n_steps, per_round):
    """8 prompts, 4 a step, 2 passes: 4 steps; IP-n has n times as many; OP-k makes what the next k steps ask for."""
    summary = run_rrhf(tmp_path, **own(policy=policy))
    steps = history(tmp_path)
    assert (summary["rounds"], summary["steps"], len(steps)) == (n_rounds, n_steps, n_steps)
    made = rounds(tmp_path)
    assert len(made) == n_rounds and len(made[0]) == per_round
    assert [line["step"] for line in steps if "candidates/score" in line] == [
        r * (n_steps // n_rounds if policy != "OP-3" else 3) for r in range(n_rounds)
    ]
    assert all(group.rankings[0].annotator == f"sim:{policy}" for group in made[0])
    if policy != "OP-9":
        return
    assert summary["rankings"] + summary["tied_rankings"] == 8


def test_the_first_round_is_that_of_the_starting_policy_and_a_later_one_that_of_the_trained(tmp_path):
    run_rrhf(tmp_path, **own(policy="IP-2"))
    start = load_policy(str(toy() / "sft" / "model"))
    how = {"beams": 4, "groups": 4, "diversity": 1.0, "temperature": 0.8, "max_new_tokens": N_NEW}
    first, second = rounds(tmp_path)
    for made, is_same in ((first, True), (second, False)):
        prompts = [group.prompt for group in made]
        found = beam_search(start, toy_encoder(), prompts, **how).completions
        expected = [list(dict.fromkeys(c.text for c in found[4 * p : 4 * p + 4])) for p in range(len(prompts))]
        assert ([[c.text for c in group.completions] for group in made] == expected) is is_same


def test_candidates_are_ordered_by_the_scorer_best_first(tmp_path):
    run_rrhf(tmp_path / "run", **own(policy="DP", answers=peoples(tmp_path / "said.jsonl")))
    for group in rounds(tmp_path / "run")[0]:
        gold = {c.id: WORLD.gold(group.prompt, c.text.replace("<pad>", "")) for c in group.completions}
        assert [sorted({gold[c] for c in tier}) for tier in group.rankings[0].tiers] == [
            [value] for value in sorted(set(gold.values()), reverse=True)
        ]
        assert {"human:ada"} <= {c.source for c in group.completions}


def test_killed_inside_a_round_it_goes_on_with_the_same_candidates(tmp_path, monkeypatch):
    from prefloop.engine import checkpoint

    given = {**own(policy="IP-2"), "save_every": 1}
    run_rrhf(tmp_path / "whole", **given)
    for occasion in (2, 5):  # inside the first round, and inside the second
        reached = []

        def reach(point, reached=reached, occasion=occasion):
            reached.append(point)
            if reached.count("step done") == occasion and point == "step done":
                raise ZeroDivisionError

        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, "reach", reach)
            with pytest.raises(ZeroDivisionError):
                run_rrhf(tmp_path / str(occasion), **given)
        run_rrhf(tmp_path / str(occasion), resume=True, **given)
        assert saved(tmp_path / str(occasion)) == saved(tmp_path / "whole")
        strip = [{k: v for k, v in line.items() if not k.startswith("candidates/")} for line in history(tmp_path / str(occasion))]
        assert strip == [
            {k: v for k, v in line.items() if not k.startswith("candidates/")} for line in history(tmp_path / "whole")
        ]


def test_more_rounds_make_better_candidates(tmp_path):
    """IP: what it learned from one round's best is where the next one begins."""
    run_rrhf(tmp_path, **{**own(policy="IP-3", decoding="draw", temperature=1.0, k=6), "epochs": 15, "imitation": "sum"})
    score = [line["candidates/score"] for line in history(tmp_path) if "candidates/score" in line]
    assert len(score) == 3 and score[-1] > score[0] + 0.2


def test_prompts_whose_candidates_are_all_worth_the_same_teach_nothing_and_are_counted(tmp_path):
    given = own(policy="D")
    given["candidates"]["reward"] = "python:tests.evaluate.scorers:constant"
    summary = run_rrhf(tmp_path, **given)
    assert (summary["rankings"], summary["tied_rankings"]) == (0, 8)
    assert history(tmp_path)[0]["candidates/equal"] == 8
    weights = [load_policy(str(folder)).state_dict() for folder in (toy() / "sft" / "model", tmp_path / "model")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize(
    ("candidates", "more", "told"),
    [
        ({"policy": "IP-0"}, {}, "there is no sampling policy 'IP-0'"),
        ({"policy": "SP"}, {}, "known: BP, DP, D, P, IP-n"),
        ({"policy": "D", "reward": "r"}, {}, r"needs candidates\.prompts"),
        ({"policy": "DP", "prompts": "p", "reward": "r"}, {}, r"needs candidates\.answers"),
        ({"policy": "D", "prompts": "p", "reward": "0.1*world:en + r"}, {}, "no training may see"),
        ({"policy": "D", "prompts": "p", "reward": "r"}, {"data": "d"}, "one of them"),
        ({}, {}, "one of them"),
        ({"policy": "D", "prompts": "p", "reward": "r"}, {"held_out": 0.2}, "validation="),
    ],
)
def test_settings_of_candidates_that_make_no_sense_are_refused(candidates, more, told):
    with pytest.raises(ConfigError, match=told):
        RRHFConfig.of(model="m", candidates=candidates, **more)


def test_names_are_taken_apart():
    assert [tuple(sampling_policy(name)) for name in ("BP", "P", "IP-3", "OP-32")] == [("BP", 1), ("P", 1), ("IP", 3), ("OP", 32)]


def test_they_are_judged_on_rankings_of_other_prompts_only(tmp_path):
    prompts = tmp_path / "some.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": p.text}) + "\n" for p in WORLD.prompts[:4]))
    summary = run_rrhf(tmp_path / "run", **{**own(policy="D", prompts=str(prompts)), "validation": str(toy() / "rankings.jsonl")})
    assert summary["pair_accuracy"]["n_prompts"] == 4 and summary["held_out_shared"] > 0
    assert_close(summary["rankings"] + summary["tied_rankings"], 4)
    with pytest.raises(DataError, match="every prompt of validation"):
        run_rrhf(tmp_path / "none", **{**own(policy="D"), "validation": str(toy() / "rankings.jsonl")})
