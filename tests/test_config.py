"""Settings: files and key=value items to frozen configs; what is wrong with them is said in one message."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from prefloop.config import Config, Optimiser, Options, config_of, load_config, parse, read_yaml
from prefloop.errors import ConfigError


class Inner(Config):
    """Settings inside settings."""

    lr: float = Field(1e-3, gt=0)
    steps: int = 10


class Outer(Config):
    """One of everything."""

    name: str = "plain"
    share: float = 0.5
    n: int = 3
    is_on: bool = False
    measure: dict[str, str] = Field(default={})
    inner: Inner = Inner()
    maybe: Inner | None = None


text = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), max_size=12)
numbers = st.floats(1e-12, 1e12, allow_nan=False)
outers = st.builds(
    Outer, name=text, share=numbers, n=st.integers(-(10**9), 10**9), is_on=st.booleans(),
    measure=st.dictionaries(text, text, max_size=2), inner=st.builds(Inner, lr=numbers, steps=st.integers(0, 10**9)),
    maybe=st.none() | st.builds(Inner, lr=numbers),
)  # fmt: skip


@given(outers)
def test_what_a_run_folder_keeps_is_read_back_as_it_was(config):
    assert parse(Outer, yaml.safe_load(config.to_yaml()), where="the folder") == config


@given(numbers, st.integers(0, 10**9))
def test_a_dotted_item_reaches_the_inner_setting_and_no_other(lr, steps):
    config = load_config(Outer, [f"inner.lr={lr!r}", f"inner.steps={steps}", "n=7"])
    assert config == Outer(n=7, inner=Inner(lr=lr, steps=steps))


@pytest.mark.parametrize("spelt", ["1e-5", "1E-5", "1.0e-5", "0.00001", "1e-05"])
def test_scientific_notation_is_a_number_in_a_file_and_on_the_command_line_at_any_depth(tmp_path, spelt):
    (tmp_path / "c.yaml").write_text(f"share: {spelt}\ninner: {{lr: {spelt}}}\n")
    expected = Outer(share=1e-5, inner=Inner(lr=1e-5))
    assert load_config(Outer, [str(tmp_path / "c.yaml")]) == expected
    assert load_config(Outer, [f"share={spelt}", f"inner.lr={spelt}"]) == expected
    assert Outer.of(share=spelt, inner={"lr": spelt}) == expected


def test_a_whole_number_may_be_written_so_too():
    assert load_config(Outer, ["n=1e3", "maybe.steps=2e4"]) == Outer(n=1000, maybe=Inner(steps=20_000))


def test_where_text_is_wanted_it_stays_text():
    assert load_config(Outer, ["name=1e5"]).name == "1e5"
    assert load_config(Outer, ["measure.gold=1e5"]).measure == {"gold": "1e5"}


def test_items_win_over_the_file_and_later_ones_over_earlier_ones(tmp_path):
    (tmp_path / "c.yaml").write_text("n: 1\ninner: {lr: 0.5, steps: 2}\n")
    config = load_config(Outer, [str(tmp_path / "c.yaml"), "inner.lr=0.25", "n=5", "n=6"])
    assert config == Outer(n=6, inner=Inner(lr=0.25, steps=2))


def test_an_empty_file_and_an_empty_value_mean_the_defaults_and_nothing(tmp_path):
    (tmp_path / "c.yaml").write_text("# nothing\n")
    assert load_config(Outer, [str(tmp_path / "c.yaml")]) == Outer()
    assert load_config(Outer, ["name="]).name == ""


def test_a_config_cannot_be_changed():
    with pytest.raises(ValidationError):
        Outer().n = 4  # pyright: ignore[reportAttributeAccessIssue]


def refusal(*items: str) -> str:
    with pytest.raises(ConfigError) as error:
        load_config(Outer, list(items))
    return str(error.value)


@pytest.mark.parametrize(
    ("item", "told"),
    [
        ("shar=1", "unknown key 'shar'; did you mean 'share'?"),
        ("inner.lrr=1", "unknown key 'inner.lrr'; did you mean 'inner.lr'?"),
        ("maybe.stepss=1", "unknown key 'maybe.stepss'; did you mean 'maybe.steps'?"),
        ("lr=1", "unknown key 'lr'; did you mean 'inner.lr'?"),
        ("inner.zzzz=1", "unknown key 'inner.zzzz'; known keys: inner."),
        ("zzzz=1", "unknown key 'zzzz'; known keys: inner, is_on, maybe, measure, n, name, share"),
        ("n=three", "n: input should be a valid integer, unable to parse string as an integer, got 'three'"),
        ("n=1.5", "n: input should be a valid integer, got a number with a fractional part, got 1.5"),
        ("inner.lr=0", "inner.lr: input should be greater than 0, got 0"),
        ("inner=5", "inner: input should be a valid dictionary or instance of Inner, got 5"),
        ("=5", "'=5' has an empty key; write key=value or outer.inner=value"),
        ("inner..lr=5", "'inner..lr=5' has an empty key"),
        ("name=[1", "the value in 'name=[1' is not valid YAML; quote it"),
    ],
)
def test_what_is_wrong_with_an_item_is_said(item, told):
    assert told in refusal(item)


def test_an_item_cannot_reach_into_a_number():
    assert refusal("n=3", "n.deep=4") == "'n.deep=4': n is 3, which has no settings of its own"


def test_every_problem_of_a_file_is_in_one_message():
    told = refusal("n=x", "shar=1", "inner.steps=y")
    assert told.startswith("the command line cannot be used as written:\n")
    assert len(told.splitlines()) == 4


def test_files_that_are_no_settings(tmp_path):
    (tmp_path / "broken.yaml").write_text("a: [1,\n")
    (tmp_path / "list.yaml").write_text("- 1\n")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "train.yaml").write_text("n: 1\n")
    assert "is not valid YAML" in refusal(str(tmp_path / "broken.yaml"))
    assert "must hold key: value lines, it holds a list" in refusal(str(tmp_path / "list.yaml"))
    assert "cannot be read as a configuration file" in refusal(str(tmp_path / "bytes.yaml"))
    assert "cannot be read as a configuration file" in refusal(str(tmp_path))
    assert f"nearest: {tmp_path / 'train.yaml'}" in refusal(str(tmp_path / "trian.yaml"))
    assert "settings are written key=value" in refusal(str(tmp_path / "nowhere" / "x.yaml"))
    assert "one configuration file at a time, got 2: a.yaml, b.yaml" in refusal("a.yaml", "b.yaml")


def test_python_gets_the_same_messages():
    with pytest.raises(ConfigError, match=r"the call cannot be used as written:\n  unknown key 'shar'; did you mean 'share'\?"):
        Outer.of(shar=1)


def test_every_setting_of_every_command_is_explained_and_has_a_place_in_yaml():
    """Commands are looked up as ``prefloop run`` does; a seed explains itself, and nested settings explain theirs."""
    from prefloop.study import COMMANDS, config_class

    for command in COMMANDS:
        cls = config_class(command)[0]
        own = {name: field for name, field in cls.model_fields.items() if config_of(field) is None and name != "seed"}
        assert all(field.description for field in own.values()), command
        needed = {name: "x" for name, field in cls.model_fields.items() if field.is_required() and field.annotation is str}
        one_of_two = {"sample": {"model": "x"}, "rrhf": {"data": "x"}, "benchmark": {"draws": "x", "rewards": {"x": "x"}}}
        needed |= one_of_two.get(command, {})  # neither is required
        if all(not field.is_required() or name in needed for name, field in cls.model_fields.items()) and command != "pretrain":
            config = cls.of(**needed)
            assert parse(cls, yaml.safe_load(config.to_yaml()), where="the folder") == config


def test_defaults_are_inside_their_own_limits():
    """pydantic does not look at defaults unless asked to."""

    class Wrong(Config):
        n: int = Field(0, ge=1)

    with pytest.raises(ConfigError, match="n: input should be greater than or equal to 1, got 0"):
        Wrong.of()


def test_options_and_the_optimiser_have_the_defaults_the_pages_state(tmp_path):
    assert Options(out=tmp_path) == Options(out=Path(tmp_path), resume=False, device="auto", dry_run=False)
    assert Optimiser().model_dump() == {
        "lr": 1e-3, "schedule": "cosine", "final": 0.1, "warmup": 0, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.0,
        "grad_clip": 1.0, "micro_batch": 0, "micro_tokens": 2048,
    }  # fmt: skip
    assert read_yaml_of(Optimiser()) == {**Optimiser().model_dump(mode="json")}


def read_yaml_of(config: Config) -> dict:
    return yaml.safe_load(config.to_yaml())


def test_read_yaml_gives_the_mapping_of_a_file(tmp_path):
    (tmp_path / "c.yaml").write_text("a: {b: [1, two]}\n")
    assert read_yaml(tmp_path / "c.yaml") == {"a": {"b": [1, "two"]}}


# ------------------------------------------------------------------------------------------------------ values that are none


class Numbers(Config):
    """Numbers in every kind of place."""

    shares: list[float] = Field(default=[])
    weights: dict[str, float] = Field(default={})
    reward: str | dict[str, float] = "r"
    either: bool | int = 0
    pair: tuple[int, float] = (1, 1.0)
    inner: Outer = Outer()
    optim: Optimiser = Optimiser()


@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan", "inf", "nan", "1e999"])
@pytest.mark.parametrize("key", ["inner.share", "inner.inner.lr", "optim.lr", "weights.a"])
def test_no_number_is_infinite_or_none(key, value):
    with pytest.raises(ConfigError, match=rf"{key}: input should be a finite number"):
        load_config(Numbers, [f"{key}={value}"])
    with pytest.raises(ConfigError, match=r"reward\.dict\[str,float\]\.a: input should be a finite number"):
        load_config(Numbers, [f"reward.a={value}"])


@pytest.mark.parametrize("value", ["[1, .inf]", "[.nan, 1]"])
def test_nor_is_one_in_a_list(value):
    for key in ("shares", "pair"):
        with pytest.raises(ConfigError, match=rf"{key}\.\d: input should be a finite number"):
            load_config(Numbers, [f"{key}={value}"])


@pytest.mark.parametrize(
    ("item", "told"),
    [
        ("inner.n=true", "inner.n: true and false are no numbers, got True"),
        ("inner.share=false", "inner.share: true and false are no numbers, got False"),
        ("inner.maybe.steps=yes", "inner.maybe.steps: true and false are no numbers, got True"),
        ("shares=[1, true]", "shares: true and false are no numbers"),
        ("pair=[true, 1]", "pair: true and false are no numbers"),
        ("weights.a=true", "weights: true and false are no numbers"),
    ],
)
def test_true_is_not_taken_for_one(item, told):
    with pytest.raises(ConfigError) as error:
        load_config(Numbers, [item])
    assert told in str(error.value)


def test_where_true_is_wanted_it_is_taken():
    config = load_config(Numbers, ["inner.is_on=true", "either=true"])
    assert config.inner.is_on is True and config.either is True


@pytest.mark.parametrize("value", ["", "''", "' '"])
def test_a_text_that_is_needed_is_not_empty(value):
    class Needs(Config):
        model: str
        note: str = "x"

    with pytest.raises(ConfigError, match=r"model: must not be empty, got ' ?'"):
        load_config(Needs, [f"model={value}", "note="])
    assert load_config(Needs, ["model=m", "note="]).note == ""


@pytest.mark.parametrize("betas", ["[0.9, 2]", "[1, 0.9]", "[-0.1, 0.9]"])
def test_a_decay_is_a_share(betas):
    with pytest.raises(ConfigError, match=r"optim\.betas: each decay has to be at least 0 and less than 1"):
        load_config(Numbers, [f"optim.betas={betas}"])
    assert load_config(Numbers, ["optim.betas=[0, 0.99]"]).optim.betas == (0.0, 0.99)


def test_a_key_given_twice_is_refused_with_both_lines(tmp_path):
    (tmp_path / "twice.yaml").write_text("n: 1\ninner:\n  lr: 0.1\n  steps: 2\n  lr: 0.2\n")
    told = refusal(str(tmp_path / "twice.yaml"))
    assert "twice.yaml is not valid YAML\n  line 5: 'lr' has a value already, in line 3\n  leave one of the two out" in told
    assert "'inner={lr: 1, lr: 2}' cannot be read: line 1: 'lr' has a value already" in refusal("inner={lr: 1, lr: 2}")


def test_a_key_that_is_merged_in_may_be_given_again(tmp_path):
    (tmp_path / "c.yaml").write_text("inner: &a {lr: 0.5, steps: 2}\nmaybe: {<<: *a, lr: 0.25}\n")
    config = load_config(Outer, [str(tmp_path / "c.yaml")])
    assert config.maybe == Inner(lr=0.25, steps=2) and config.inner == Inner(lr=0.5, steps=2)
