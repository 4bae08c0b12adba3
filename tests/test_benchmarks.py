"""The benchmarks without their timings: what is counted, how turns are taken, what is written down, and the table made of it."""

import json
import random
import subprocess
import sys
from itertools import pairwise
from types import SimpleNamespace

import pytest

from benchmarks import collect_table, duel, gpu, ours, scaling, table
from benchmarks.cases import CASES, MODEL, tiny
from benchmarks.inputs import TINY_MODEL, answer_lengths, completion_lengths, prepare, word_tokenizer
from benchmarks.machine import ROOT, Clock, Rates, machine, memory, others
from benchmarks.peers import SIDES as PEERS
from benchmarks.work import cache_bytes, floor, trunk_weights, visible, weight_bytes, work
from prefloop.config import Optimiser
from prefloop.data.read import read_groups, read_prompts
from prefloop.methods.dpo import DPOConfig
from prefloop.methods.ppo import PPOConfig
from prefloop.models.encode import Encoder
from prefloop.models.load import load_policy
from tests.helpers import assert_close

NAMES = [
    "reward_k9",
    "reward_k4",
    "pairs",
    "pairs_skewed",
    "ppo_shared",
    "ppo_separate",
    "group_rl",
    "sampling",
    "sampling_group",
    "dpo",
]
CASE = {case.name: case for case in CASES}
RESULTS = sorted(
    path for path in (ROOT / "benchmarks" / "results").glob("*.json") if not path.stem.startswith(("scaling", "gpu", "collect_"))
)
SPREAD = {"median", "min", "max"}


def spec(name: str, **drawn) -> dict:
    return {"shape": CASE[name].shape, "kind": CASE[name].kind, "ideal": CASE[name].ideal, "model_shape": MODEL, "drawn": drawn}


# --- the cases -----------------------------------------------------------------------------------------------------------


def test_the_ten_benchmarks_are_there_and_each_has_a_peer():
    assert [case.name for case in CASES] == NAMES
    assert {case.kind for case in CASES} <= PEERS.keys()
    assert all(case.must <= case.aim for case in CASES)


def n_parameters(shape: dict[str, int]) -> int:
    per_layer = 4 * shape["width"] ** 2 + 3 * shape["width"] * shape["inner"] + 2 * shape["width"]
    return shape["layers"] * per_layer + shape["width"] + 2 * shape["width"] * shape["vocabulary"]


def test_the_model_that_is_made_has_the_size_its_numbers_say_which_is_6_8_million(tmp_path):
    assert round(n_parameters(MODEL) / 1e6, 1) == 6.8
    prepare(tiny(CASE["pairs"]), tmp_path / "case", model_shape=TINY_MODEL)
    assert sum(p.numel() for p in load_policy(tmp_path / "case" / "model").parameters()) == n_parameters(TINY_MODEL)


def test_both_sides_read_the_same_pairs_at_the_lengths_the_case_asks_for(tmp_path):
    case = tiny(CASE["pairs_skewed"])
    file = prepare(case, tmp_path / "case", model_shape=TINY_MODEL)
    lengths = json.loads(file.read_text())["drawn"]["completion_lengths"]
    encoder = Encoder(word_tokenizer(TINY_MODEL["vocabulary"]), template="plain")
    ranked = encoder.ranked(read_groups(str(tmp_path / "case" / "rankings.jsonl")).records)
    assert ranked.prompt_length.tolist() == [case.shape["prompt"]] * case.shape["prompts"]
    assert ranked.completion_length.sum(1).tolist() == [sum(own) for own in lengths]

    pairs = [json.loads(line) for line in (tmp_path / "case" / "pairs.jsonl").read_text().splitlines()]
    assert len(pairs) == case.shape["prompts"]  # K = 2: one pair a prompt
    tokens = lambda text: encoder.tokenizer(text)["input_ids"]  # noqa: E731
    ours = [p.text for p in read_prompts(str(tmp_path / "case" / "prompts.jsonl")).records]
    for pair, prompt, own in zip(pairs, ours, lengths, strict=True):
        assert pair["prompt"] == prompt
        assert sorted(len(tokens(prompt + pair[side])) + 1 for side in ("chosen", "rejected")) == sorted(
            case.shape["prompt"] + length for length in own
        )


def test_skewed_lengths_lie_between_the_ends_and_most_are_short():
    case = CASE["pairs_skewed"]
    drawn = [length for own in completion_lengths(random.Random(0), case) for length in own]
    low, high = case.shape["completion"]
    assert low <= min(drawn) and max(drawn) <= high
    middle = 1 / ((1 / low + 1 / high) / 2)  # the reciprocal is uniform, so its middle is the median
    assert abs(sum(length <= middle for length in drawn) - len(drawn) / 2) <= 2 * len(drawn) ** 0.5


def test_pre_drawn_answer_lengths_are_geometric():
    shape = {"prompts": 4000, "k": 1, "new_tokens": 10**6, "mean": 48, "lengths": "geometric"}
    drawn = answer_lengths(random.Random(0), SimpleNamespace(shape=shape))
    assert min(drawn) == 1
    standard_error = 48 / 4000**0.5  # the deviation of a geometric length is about its mean
    assert abs(sum(drawn) / len(drawn) - 48) <= 4 * standard_error
    cut = answer_lengths(random.Random(0), SimpleNamespace(shape={**shape, "new_tokens": 50}))
    assert cut == [min(length, 50) for length in drawn]


# --- what the idea alone would give --------------------------------------------------------------------------------------


def test_nine_ranked_answers_are_thirty_six_pairs_of_rows_against_one_row():
    lengths = [[64] * 9] * 4
    assert_close(work(spec("reward_k9", completion_lengths=lengths)).ratio, 72 * 320 / (256 + 9 * 64))
    assert_close(work(spec("reward_k4", completion_lengths=[[64] * 4] * 8)).ratio, 12 * 320 / (256 + 4 * 64))
    assert_close(work(spec("pairs", completion_lengths=[[64, 64]] * 32)).ratio, 640 / 384)


def test_padding_counts_up_to_the_longest_of_the_rows_computed_at_once():
    shape = {**CASE["pairs_skewed"].shape, "rows": 2}
    given = {**spec("pairs_skewed", completion_lengths=[[16, 16], [16, 128], [20, 30]]), "shape": shape}
    theirs = 4 * (256 + 128) + 2 * (256 + 30)
    assert work(given)[1:] == (3 * 256 + 32 + 144 + 50, theirs)


def test_a_shared_trunk_saves_the_updates_of_the_other_one():
    shared, separate = work(spec("ppo_shared")), work(spec("ppo_separate"))
    assert_close(
        separate.ours - shared.ours, 32 * 128 * 3 * 4 * trunk_weights(MODEL)
    )  # rows, tokens, forward and backward, epochs, trunk
    assert separate.theirs == shared.theirs
    assert shared.ratio > separate.ratio > 1


def test_eight_answers_to_a_prompt_read_it_once_not_eight_times():
    rows, new = 64, 64
    assert_close(work(spec("group_rl")).ratio, rows * (256 + new) / (8 * 256 + rows * new))


def test_a_row_that_ends_early_costs_its_own_length_not_that_of_the_longest():
    assert_close(work(spec("sampling_group", limits=[10] * 63 + [100])).ratio, 64 * 356 / (8 * 256 + 730))


def test_a_step_of_sampling_reads_weights_and_cache_and_concatenation_moves_the_cache_twice_more():
    weights, cache = weight_bytes(MODEL), cache_bytes(MODEL, [32 * column for column in range(64, 128)])
    assert_close(work(spec("sampling", limits=[64] * 32)).ratio, (64 * weights + 3 * cache) / (64 * weights + cache))
    assert cache_bytes(MODEL, [1]) == 2 * MODEL["layers"] * MODEL["width"] * 4  # one token: a key and a value in each layer


def test_a_completion_sees_the_prompt_and_itself_but_no_other_completion():
    assert visible(3, [2, 2]) == (1 + 2 + 3) + 2 * (4 + 5)


def test_the_floor_of_an_update_is_six_operations_a_weight_and_token_and_its_attention():
    lengths = [[64] * 9] * 4
    linear = 6 * trunk_weights(MODEL) * 4 * (256 + 9 * 64)
    attention = 3 * 4 * MODEL["layers"] * MODEL["width"] * 4 * visible(256, [64] * 9)
    assert_close(floor(spec("reward_k9", completion_lengths=lengths), flops=1e9, bandwidth=1.0), (linear + attention) / 1e9)


def test_the_floor_of_decoding_is_the_longer_of_bytes_and_operations():
    one = {**spec("sampling", limits=[1] * 32), "shape": {**CASE["sampling"].shape, "new_tokens": 1}}
    two = {**spec("sampling", limits=[2] * 32), "shape": {**CASE["sampling"].shape, "new_tokens": 2}}
    moved = weight_bytes(MODEL) + cache_bytes(MODEL, [32 * 65])
    seconds = lambda case: floor(case, flops=1e18, bandwidth=1e9)  # noqa: E731  operations for nothing
    assert_close(seconds(two) - seconds(one), moved / 1e9)
    at_once = floor(two, flops=1e9, bandwidth=1e18) - floor(one, flops=1e9, bandwidth=1e18)
    head = MODEL["width"] * MODEL["vocabulary"]
    operations = 32 * (2 * (trunk_weights(MODEL) + head) + 4 * MODEL["layers"] * MODEL["width"] * 65)
    assert_close(at_once, operations / 1e9)


@pytest.mark.parametrize("name", ["ppo_shared", "ppo_separate", "group_rl", "dpo", "sampling_group"])
def test_half_the_speed_of_the_machine_doubles_every_floor(name):
    given = spec(name, completion_lengths=[[20, 30]] * 32, limits=[40] * 64) if name != "ppo_shared" else spec(name)
    assert_close(floor(given, flops=1e9, bandwidth=1e8), 2 * floor(given, flops=2e9, bandwidth=2e8))


# --- our side ------------------------------------------------------------------------------------------------------------


def settings_given(monkeypatch, name: str, **shape) -> dict:
    """What our side would run a method with."""
    given: list[dict] = []
    monkeypatch.setattr(ours, "run_method", lambda method, config, settings, **rest: given.append(settings))
    ours.SIDES[CASE[name].kind]({"shape": {**CASE[name].shape, **shape}, "folder": "f"}, None)
    return given[0]


@pytest.mark.parametrize(("share", "critic"), [("none", "reward"), ("trunk", "policy"), ("adapters", "policy")])
def test_networks_are_shared_as_the_case_says(monkeypatch, share, critic):
    config = PPOConfig.of(**settings_given(monkeypatch, "ppo_shared", share=share))
    assert (config.share, config.critic) == (share, critic)


def test_tokens_at_once_are_what_a_run_takes_by_itself_unless_others_are_tried(monkeypatch):
    assert DPOConfig.of(**settings_given(monkeypatch, "dpo")).optim.micro_tokens == Optimiser().micro_tokens
    assert DPOConfig.of(**settings_given(monkeypatch, "dpo", micro_tokens=77)).optim.micro_tokens == 77


def test_without_cuda_the_benchmark_of_real_shapes_says_so_and_measures_nothing(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmarks.gpu"])
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(gpu, "Machine", lambda *given, **settings: pytest.fail("measured"))
    gpu.main()  # and so ends with exit code 0
    assert "this machine has no CUDA" in capsys.readouterr().out


# --- how cost grows ------------------------------------------------------------------------------------------------------


def test_the_floor_of_a_way_is_its_tokens_and_the_pairs_that_see_each_other():
    sizes = {"k": 3, "prompt": 5, "completion": 2}
    forward_of = lambda tokens, seen: 2 * trunk_weights(MODEL) * tokens + 4 * MODEL["layers"] * MODEL["width"] * seen  # noqa: E731
    once = forward_of(5 + 3 * 2, visible(5, [2, 2, 2]))
    each = forward_of(3 * (5 + 2), 3 * (7 * 8 / 2))
    assert_close(scaling.operations(scaling.ONCE, MODEL, **sizes), 3 * scaling.PROMPTS * once)
    assert_close(scaling.operations(scaling.EACH, MODEL, **sizes), 3 * scaling.PROMPTS * each)
    alone = {"k": 1, "prompt": 5, "completion": 2}  # then both ways are the same row
    assert_close(scaling.operations(scaling.ONCE, MODEL, **alone), scaling.operations(scaling.EACH, MODEL, **alone))


def grown(**more) -> dict:
    def at(once, each):
        return {way: {"median": s, "min": s / 2, "max": s * 2} for way, s in ((scaling.ONCE, once), (scaling.EACH, each))}

    floor = {scaling.ONCE: 0.1, scaling.EACH: 0.3}
    points = [{"at": 2, "seconds": at(0.5, 1.0), "floor": floor}, {"at": 4, "seconds": at(0.4, 2.0), "floor": floor}]
    told = {"repeats": 3, "prompts": 4, "micro_tokens": 2048, "machine": "here", "threads": 2, "others": 0.01, "commit": "abc"}
    return {"points": points, **told, **more}


def test_what_is_said_of_an_axis_are_its_ends_their_ratio_and_the_share_of_the_floor():
    said = scaling.lines({"k": grown()})
    assert "| k 2 | 0.5 (0.25 to 1) | 1 (0.5 to 2) | **2** | 0.1 | 20% |" in said
    assert "| k 4 | 0.4 (0.2 to 0.8) | 2 (1 to 4) | **5** | 0.1 | 25% |" in said


def test_the_same_figures_give_the_same_picture(tmp_path):
    pytest.importorskip("matplotlib")
    for name in ("a.svg", "b.svg"):
        scaling.draw({"k": grown(), "prompt": grown()}, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert scaling.LABELS["prompt"] in (tmp_path / "a.svg").read_text(encoding="utf-8")


def test_the_page_shows_how_cost_grows_as_it_was_measured():
    found = json.loads(scaling.RESULT.read_text(encoding="utf-8"))
    assert list(found) == list(scaling.AXES)
    assert [[p["at"] for p in one["points"]] for one in found.values()] == [list(values) for values in scaling.AXES.values()]
    assert all(one["repeats"] >= 3 and one["model"] == MODEL for one in found.values())
    assert scaling.page(found) == scaling.PAGE.read_text(encoding="utf-8"), "write it anew: python -m benchmarks.scaling --draw"


# --- turns ---------------------------------------------------------------------------------------------------------------


class Pretender:
    """A side whose steps take the seconds it is told to."""

    def __init__(self, name: str, seconds: float, order: list[tuple[str, int]]):
        self.name, self.seconds, self.order = name, seconds, order

    def turn(self, steps: int) -> duel.Turn:
        self.order.append((self.name, steps))
        return duel.Turn(self.seconds * steps, self.seconds * steps * 2, 10 * steps, 900.0, 200.0)


def test_sides_alternate_and_a_quick_one_makes_several_steps_a_turn():
    order: list[tuple[str, int]] = []
    taken = duel.take_turns(Pretender("a", 0.5, order), Pretender("b", 9.0, order), pairs=5, warmup=1)
    assert [name for name, _ in order] == ["a", "b"] * 6
    assert all(first != second for (first, _), (second, _) in pairwise(order))
    assert order[:2] == [("a", 1), ("b", 1)] and order[2:4] == [("a", 8), ("b", 1)]  # 4 seconds' worth, and never none
    assert len(taken.ours) == len(taken.theirs) == len(taken.others) == 5


def test_a_result_has_every_key_and_its_ratio_is_that_of_the_pairs(monkeypatch):
    monkeypatch.setattr(duel, "commit", lambda: "abc1234")
    ours = [duel.Turn(1.0, 2.0, units, 900.0, 200.0) for units in (60, 40, 50)]
    theirs = [duel.Turn(2.0, 4.0, units, 1000.0, 200.0) for units in (20, 20, 40)]
    given = spec("reward_k9", completion_lengths=[[64] * 9] * 4) | {
        "name": "reward_k9", "peer": "peer", "unit": "pairs", "must": 18, "aim": 28, "threads": 2,
    }  # fmt: skip
    found = duel.result(
        given, duel.Turns(ours, theirs, [0.1, 0.0, 0.2], (1, 1)), {"ours": 1.0, "theirs": 2.0}, {}, Rates(1e11, 1e10)
    )
    assert found["ratio"] == {"median": 4.0, "min": 2.5, "max": 6.0}  # 60/10, 40/10, 50/20, pair by pair
    assert found["ours"] == {"median": 50.0, "min": 40.0, "max": 60.0, "unit": "pairs/s"}
    assert found["memory_mb"] == {"ours": 900, "theirs": 1000}
    assert found["memory_above_torch_mb"] == {"ours": 700, "theirs": 800}
    check(found)
    assert "4 (2.5 to 6)" in table.sentence(found) and "**4** (2.5 to 6)" in table.row(found)


def test_a_worker_answers_each_turn_on_its_own_channel_whatever_is_printed():
    side = (
        "from benchmarks.turns import Turns\n"
        "turns = Turns()\n"
        "for step in range(100):\n"
        "    print('noise', flush=True)\n"
        "    turns.done(3)\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", side], cwd=ROOT, input='{"steps": 2}\n{"steps": 1}\n', capture_output=True, text=True, timeout=600
    )
    said = [json.loads(line) for line in process.stdout.splitlines()]
    assert [one["units"] for one in said] == [3, 6, 3]  # the start, two steps, one step; then nobody asked any more
    assert process.returncode == 0 and process.stderr.count("noise") == 4


# --- the machine ---------------------------------------------------------------------------------------------------------


def test_others_are_what_was_busy_and_not_ours():
    assert_close(others(Clock(100, 400), Clock(108, 410), own=6), 0.2)
    assert others(Clock(100, 400), Clock(105, 410), own=6) == 0.0  # clocks of unlike grain


def test_memory_is_read_in_megabytes_and_the_machine_by_its_processor():
    assert 5 < memory(field="VmRSS") <= memory() < 100_000
    assert machine().endswith("cores")


# --- what is written down ------------------------------------------------------------------------------------------------


def check(found: dict) -> None:
    """The keys others may rely on, and that the figures are not out of order."""
    assert {"name", "peer", "ours", "theirs", "ratio", "memory_mb", "machine", "commit"} <= found.keys()
    for side in ("ours", "theirs"):
        assert found[side].keys() == SPREAD | {"unit"} and found[side]["unit"].endswith("/s")
    assert found["ratio"].keys() == SPREAD and found["memory_mb"].keys() == {"ours", "theirs"}
    for values in (found["ours"], found["theirs"], found["ratio"]):
        assert 0 < values["min"] <= values["median"] <= values["max"]
    assert found["name"] in NAMES and found["commit"]


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_every_result_has_the_keys_of_the_schema_and_was_measured_as_the_case_stands(path):
    found = json.loads(path.read_text())
    check(found)
    case = CASE[found["name"]]
    assert path.stem == found["name"] and found["pairs"] >= 5
    assert (found["shape"], found["must"], found["model"]) == (case.shape, case.must, MODEL)
    assert found["versions"]["ours"]["torch"] == found["versions"]["theirs"]["torch"]


def test_the_pages_show_the_tables_of_the_results():
    assert collect_table.page() == collect_table.PAGE.read_text(encoding="utf-8"), (
        "write it anew: python -m benchmarks.collect_table"
    )
    assert table.page() == table.PAGE.read_text(encoding="utf-8"), "write it anew: python -m benchmarks.table"
