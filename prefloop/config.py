"""Strict configuration: pydantic models, YAML files, dotted ``key=value`` overrides. No torch here.

An unknown key is an error that names the nearest known one; nothing is ignored, nothing is guessed.
"""

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo

from prefloop.errors import ConfigError, nearest_path


class Config(BaseModel):
    """Settings of one command: frozen, unknown keys refused, every field described; numbers are finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def what_pydantic_lets_pass(cls, value: Any, info: ValidationInfo) -> Any:
        """``true`` for a number, which it takes for 1, and nothing at all for a text that is needed."""
        field = cls.model_fields[info.field_name or ""]
        takes_numbers = may_be(field.annotation, int) or may_be(field.annotation, float)
        if takes_numbers and not may_be(field.annotation, bool) and config_of(field) is None and holds_a_truth(value):
            raise ValueError("true and false are no numbers")
        if field.is_required() and field.annotation is str and isinstance(value, str) and not value.strip():
            raise ValueError("must not be empty")
        return value

    @classmethod
    def of(cls, **settings: Any) -> Self:
        """Settings from Python, with the same messages as from a file."""
        return parse(cls, settings, where="the call")

    def to_yaml(self) -> str:
        """Every setting with its value, defaults included: what a run folder keeps as config.yaml."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


class Optimiser(Config):
    """AdamW and its schedule; a method that wants other defaults states them in its own file."""

    lr: float = Field(default=1e-3, gt=0, description="peak learning rate")
    schedule: Literal["cosine", "linear", "constant"] = Field(default="cosine", description="how the rate falls after warm-up")
    final: float = Field(default=0.1, ge=0, le=1, description="last rate as a share of the peak; unused by constant")
    warmup: int = Field(default=0, ge=0, description="steps of linear warm-up")
    betas: tuple[float, float] = Field(default=(0.9, 0.95), description="decay of the first and second moment")
    eps: float = Field(default=1e-8, gt=0, description="added to the root of the second moment")
    weight_decay: float = Field(default=0.0, ge=0, description="decoupled weight decay")
    grad_clip: float = Field(default=1.0, ge=0, description="largest norm of the gradient; 0 leaves it alone")
    micro_batch: int = Field(default=0, ge=0, description="rows computed at once; 0 = the whole batch; never changes a gradient")
    micro_tokens: int = Field(
        default=2048, ge=0, description="tokens computed at once, padding included; 0 = no limit; never changes a gradient"
    )

    @field_validator("betas")
    @classmethod
    def a_decay_is_below_one(cls, betas: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError("each decay has to be at least 0 and less than 1")
        return betas


class Adapter(Config):
    """A LoRA adapter (arXiv 2106.09685) instead of the model's own weights; the base stays frozen."""

    rank: int = Field(default=0, ge=0, description="rank of the adapter; 0 trains the model's own weights")
    alpha: float = Field(default=16.0, gt=0, description="the adapter's update is multiplied by alpha / rank")
    targets: str | list[str] = Field(
        default="all-linear", description="layers that get one, by name; all-linear is every linear layer"
    )


@dataclass(frozen=True)
class Options:
    """What a person types at the command line beside the settings."""

    out: Path
    resume: bool = False
    device: str = "auto"  # auto | cpu | cuda | cuda:1 | mps
    dry_run: bool = False


C = TypeVar("C", bound=Config)


def load_config(cls: type[C], items: list[str]) -> C:
    """The settings given as ``[FILE.yaml] [key=value ...]``: the item without ``=`` is the file."""
    files = [item for item in items if "=" not in item]
    if len(files) > 1:
        raise ConfigError(
            f"one configuration file at a time, got {len(files)}: {', '.join(files)}\n  overrides are written key=value, without spaces"
        )
    settings = read_yaml(Path(files[0])) if files else {}
    for item in items:
        if "=" in item:
            settings = override(settings, item)
    return parse(cls, settings, where=files[0] if files else "the command line")


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping."""
    try:
        content = from_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"there is no configuration file {path}\n  {instead_of(path)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as a configuration file: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML\n  {error}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold key: value lines, it holds a {type(content).__name__}")
    return content


def instead_of(path: Path) -> str:
    """Where a YAML file is not: the one that was probably meant, else those that are there, else what was wanted."""
    near = nearest_path(path, lambda found: found.is_dir() or found.suffix in (".yaml", ".yml"))
    if near is not None and near.is_file():
        return f"nearest: {near}"
    here = sorted(found.name for found in path.parent.glob("*.y*ml")) if path.suffix and path.parent.is_dir() else []
    if here:
        return f"in {path.parent} there are: {', '.join(here[:8])}" + (", …" if len(here) > 8 else "")
    return "settings are written key=value, a file is a path to YAML"


class KeyGivenTwice(yaml.YAMLError):
    """Of two values for one key YAML would keep the last and say nothing."""


class OneValueEach(yaml.SafeLoader):
    """YAML in which no mapping names a key twice; a key merged in with ``<<`` may be named again."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, Any], int] = {}
        for key, _ in node.value:
            name = (key.tag, key.value)
            if not isinstance(key, yaml.ScalarNode):
                continue
            if name in lines:
                raise KeyGivenTwice(
                    f"line {key.start_mark.line + 1}: {key.value!r} has a value already, in line {lines[name] + 1}\n"
                    f"  leave one of the two out"
                )
            lines[name] = key.start_mark.line
        return node


def from_yaml(text: str) -> Any:
    """What a YAML text says."""
    loader = OneValueEach(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def override(settings: dict[str, Any], item: str) -> dict[str, Any]:
    """The settings with one dotted ``key=value`` applied; the value is read as YAML."""
    key, _, text = item.partition("=")
    try:
        value = from_yaml(text) if text else ""
    except KeyGivenTwice as error:
        raise ConfigError(f"{item!r} cannot be read: {error}") from None
    except yaml.YAMLError:
        raise ConfigError(f"the value in {item!r} is not valid YAML; quote it: {key}='\"…\"'") from None
    return put(settings, key.strip().split("."), value, item)


def with_numbers(cls: type[BaseModel], settings: dict[str, Any]) -> dict[str, Any]:
    """``1e-5`` is a number to everyone but YAML 1.1, which wants 1.0e-5. Where text is asked for, it stays text."""
    read = {}
    for key, value in settings.items():
        field = cls.model_fields.get(key)
        inner = config_of(field)
        if isinstance(value, str) and field and field.annotation is not str:
            value = number(value)
        elif isinstance(value, dict) and inner:
            value = with_numbers(inner, value)
        read[key] = value
    return read


def number(text: str) -> Any:
    """The number a text is in scientific notation, else the text."""
    try:
        return float(text) if "e" in text.lower() and text.lower().strip("0123456789.e+-") == "" else text
    except ValueError:
        return text


def put(settings: dict[str, Any], path: list[str], value: Any, item: str) -> dict[str, Any]:
    if not all(path):
        raise ConfigError(f"{item!r} has an empty key; write key=value or outer.inner=value")
    head, *rest = path
    if not rest:
        return {**settings, head: value}
    inner = settings.get(head) or {}
    if not isinstance(inner, dict):
        raise ConfigError(f"{item!r}: {head} is {inner!r}, which has no settings of its own")
    return {**settings, head: put(inner, rest, value, item)}


def parse(cls: type[C], settings: dict[str, Any], *, where: str) -> C:
    """Settings checked against a config class; every problem of the file in one message."""
    try:
        return cls.model_validate(with_numbers(cls, settings))
    except ValidationError as error:
        problems = "\n".join(f"  {explain(cls, problem)}" for problem in error.errors())
        raise ConfigError(f"{where} cannot be used as written:\n{problems}") from None


def explain(cls: type[Config], problem: Any) -> str:
    """One pydantic error as a line a person can act on."""
    path = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        *outer, last = (str(part) for part in problem["loc"])
        known = known_keys(cls, problem["loc"][:-1])
        deeper = [key for key in known_paths(cls) if key.endswith(f".{last}")]
        near = deeper or [".".join([*outer, key]) for key in difflib.get_close_matches(last, known, n=1, cutoff=0.5)]
        hint = (
            f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join('.'.join([*outer, key]) for key in sorted(known))}"
        )
        return f"unknown key {path!r}; {hint}"
    if problem["type"] == "missing":
        field = cls.model_fields.get(str(problem["loc"][0]))
        return f"{path} is needed" + (f": {field.description}" if field and field.description else "")
    message = problem["msg"].removeprefix("Value error, ")
    if not path:
        return message
    return f"{path}: {message[0].lower() + message[1:]}, got {problem['input']!r}"


def known_paths(cls: type[BaseModel]) -> list[str]:
    """Every key inside a nested place, dotted."""
    inner = {name: config_of(field) for name, field in cls.model_fields.items()}
    return [f"{name}.{key}" for name, config in inner.items() if config for key in config.model_fields]


def known_keys(cls: type[BaseModel], path: tuple[Any, ...]) -> list[str]:
    """The keys a nested place accepts."""
    for part in path:
        inner = config_of(cls.model_fields.get(str(part)))
        if inner is None:
            return []
        cls = inner
    return list(cls.model_fields)


def config_of(field: FieldInfo | None) -> type[BaseModel] | None:
    """The config a field holds, or may hold."""
    types = (field.annotation, *get_args(field.annotation)) if field else ()
    return next((t for t in types if isinstance(t, type) and issubclass(t, BaseModel)), None)


def may_be(annotation: Any, kind: Any) -> bool:
    """Whether a field, or something inside it, is of this type."""
    return annotation in (kind, Any) or any(may_be(inner, kind) for inner in get_args(annotation))


def holds_a_truth(value: Any) -> bool:
    """Whether a value, or something inside it, is true or false."""
    if isinstance(value, dict):
        return any(map(holds_a_truth, value.values()))
    return any(map(holds_a_truth, value)) if isinstance(value, list | tuple) else isinstance(value, bool)
