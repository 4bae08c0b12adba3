"""What policies learned from rankings are judged by: the pairs they would learn from, of prompts they did not."""

import pytest

from prefloop.data.write import write_groups
from tests.methods.test_reward import group
from tests.methods.toy import run_dpo, run_rrhf


@pytest.mark.parametrize("run", [run_dpo, run_rrhf], ids=["dpo", "rrhf"])
def test_unusable_answers_are_judged_as_they_are_learned_and_shared_prompts_are_left_out(tmp_path, run):
    write_groups(tmp_path / "data.jsonl", [group("a b", "ab", "ba"), group("c d", "cd", "dc")])
    judged = [group("b a", "ab", "ba", unusable="c,d"), group("d c", "cd", "dc"), group("a b", "ab", "ba", "c")]
    write_groups(tmp_path / "others.jsonl", judged)
    files = {"data": tmp_path / "data.jsonl", "validation": tmp_path / "others.jsonl", "epochs": 1}
    for unusable, n in ((True, 6), (False, 2)):  # ab over ba, each of them over c and d, which tie; cd over dc
        told = run(tmp_path / str(unusable), unusable=unusable, **files)
        assert told["held_out_shared"] == 1
        assert (told["pair_accuracy"]["n"], told["baselines"]["prefers_longer"]["n"]) == (n, n)
