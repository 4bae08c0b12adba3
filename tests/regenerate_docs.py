"""Writes the pages that only repeat the code, docs/cli.md and docs/api.md: ``make docs``."""

import inspect
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

import prefloop
from prefloop.cli import COMMANDS, app

ROOT = Path(__file__).parent.parent
NOTE = "<!-- Written by `make docs` from the code. A test compares the two: change the code, then run it again. -->"

# The settings of each command that takes any. A study's stages (`do:`) are COMMANDS; these are typed in two words.
SETTINGS = {name: place for name, place in COMMANDS.items() if name not in ("world", "annotate")} | {
    "world prompts": "prefloop.world.stages:PromptsConfig",
    "world corpus": "prefloop.world.stages:CorpusConfig",
    "world annotate": COMMANDS["annotate"],
    "data check": "prefloop.data.check:CheckConfig",
    "data convert": "prefloop.data.check:ConvertConfig",
    "collect export": "prefloop.collect.exports:ExportConfig",
}

Command = Any  # click's: typer brings its own copy of it, or uses the package, by version


def found(place: str) -> Any:
    """The thing that ``module:attribute`` names."""
    module, _, attribute = place.partition(":")
    return getattr(import_module(module), attribute)


def commands(command: Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Command]]:
    """Every command below one, as typed: ("data check", command)."""
    for name, inner in getattr(command, "commands", {}).items():
        if hasattr(inner, "commands"):
            yield from commands(inner, (*path, name))
        else:
            yield " ".join((*path, name)), inner


def root_command() -> Command:
    return typer.main.get_command(app)


def is_settings(parameter: Any) -> bool:
    return parameter.name == "settings" and parameter.nargs == -1


# --- docs/cli.md -------------------------------------------------------------------------------------------------------


def cli_page() -> str:
    root = root_command()
    sections = [command_section(path, command) for path, command in commands(root)]
    stages = [stage_section(name) for name in COMMANDS if COMMANDS[name] not in SETTINGS.values()]
    opening = (
        f"# Commands\n\n{NOTE}\n\n{cleaned(root.help)}\n\n"
        "A command takes one list of settings: the item without `=` is a YAML file, the others are `key=value`, with dots for\n"
        "nested keys (`optim.lr=1e-5`); what is typed wins over what is in the file. An unknown key is refused and the nearest\n"
        "one named. Exit codes: 0 done, 1 failed, 2 bad usage, settings or data, 3 waiting for people, 130 interrupted."
    )
    closing = (
        ["## Stages of a study\n\nThese have no command of their own; a study names them with `do:`.", *stages] if stages else []
    )
    return "\n\n".join([opening, *sections, *closing]) + "\n"


def command_section(path: str, command: Command) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and not p.hidden]
    usage = ["prefloop", path, *map(argument_usage, arguments), *(["[OPTIONS]"] if options else [])]
    items = [f"- `{argument_usage(p)}`: {cleaned(p.help)}" for p in arguments if not is_settings(p)]
    items += [f"- `{', '.join(p.opts)}`{value_hint(p)}: {cleaned(p.help)}" for p in options]
    parts = [f"## prefloop {path}", cleaned(command.help), f"    {' '.join(usage)}", "\n".join(items)]
    if any(is_settings(p) for p in arguments):
        parts.append(settings_table(found(SETTINGS[path])))
    return "\n\n".join(part for part in parts if part)


def stage_section(name: str) -> str:
    config = found(COMMANDS[name])
    return f"### do: {name}\n\n{cleaned(config.__doc__)}\n\n{settings_table(config)}"


def argument_usage(parameter: Any) -> str:
    if is_settings(parameter):
        return "[FILE.yaml] [key=value …]"
    name = parameter.name.upper()
    return f"{name}…" if parameter.nargs == -1 else name


def value_hint(parameter: Any) -> str:
    if parameter.is_flag:
        return ""
    if parameter.default is None or callable(parameter.default):
        return " (needed)" if parameter.required else ""
    return f" = `{parameter.default}`"


def cleaned(text: str | None) -> str:
    return " ".join((text or "").replace("|", "\\|").split())


# --- settings of a config class ----------------------------------------------------------------------------------------


def settings_table(config: type[BaseModel]) -> str:
    lines = ["| key | value | default | |", "|---|---|---|---|"]
    return "\n".join(lines + [setting_line(key, field) for key, field in settings(config)])


def settings(config: type[BaseModel], before: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every key of a config class; those of a nested one dotted, below the key that holds it."""
    for name, field in config.model_fields.items():
        yield before + name, field
        for inner in nested(field.annotation):
            yield from settings(inner, f"{before}{name}.")


def nested(annotation: Any) -> list[type[BaseModel]]:
    """The config classes a key may hold directly, ``X`` or ``X | None``; inside lists and dicts there are no dotted keys."""
    candidates = [annotation, *(get_args(annotation) if get_origin(annotation) not in (list, dict, tuple) else ())]
    return [c for c in candidates if inspect.isclass(c) and issubclass(c, BaseModel)]


def setting_line(key: str, field: FieldInfo) -> str:
    return f"| `{key}` | {cleaned(type_name(field.annotation))} | {default_of(field)} | {cleaned(field.description)} |"


def default_of(field: FieldInfo) -> str:
    if field.is_required():
        return "needed"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return ""  # its own keys follow
    return "empty" if value in ("", [], {}, ()) else "none" if value is None else f"`{value}`"


def type_name(annotation: Any) -> str:
    if inspect.isclass(annotation) and get_origin(annotation) is None:
        return "settings" if issubclass(annotation, BaseModel) else "nothing" if annotation is type(None) else annotation.__name__
    if str(get_origin(annotation)) == "typing.Literal":
        return " or ".join(f"`{value}`" for value in get_args(annotation))
    if get_origin(annotation) is dict:
        key, value = get_args(annotation)
        return f"dict of {type_name(key)} to {type_name(value)}"
    if get_origin(annotation) is list:
        return f"list of {type_name(get_args(annotation)[0])}"
    if get_origin(annotation) is tuple:
        return " and ".join(type_name(part) for part in get_args(annotation) if part is not ...)
    return " or ".join(type_name(part) for part in get_args(annotation)) or str(annotation)


# --- docs/api.md -------------------------------------------------------------------------------------------------------


def api_page() -> str:
    sections = [api_section(name, place) for name, place in prefloop.API.items()]
    opening = (
        f"# Python API\n\n{NOTE}\n\n"
        "`from prefloop import NAME` for each of these; nothing is imported before it is used. Everything else in the package\n"
        "may change from one version to the next, these only with a line in CHANGELOG.md."
    )
    return "\n\n".join([opening, *sections]) + "\n"


def api_section(name: str, place: str) -> str:
    thing = found(place)
    return f"## {name}\n\n```python\n{signature(name, thing)}\n```\n\n{first_paragraph(thing)} (`{place.replace(':', '.')}`)"


def signature(name: str, thing: Any) -> str:
    """How it is called, without the types, which the docstring gives; a record is called with its fields."""
    if inspect.isclass(thing) and issubclass(thing, BaseModel):
        return f"{name}({', '.join(key if field.is_required() else f'{key}=…' for key, field in thing.model_fields.items())})"
    bare = inspect.Signature.empty
    given = inspect.signature(thing)
    parameters = [parameter.replace(annotation=bare) for parameter in given.parameters.values()]
    returns = "" if inspect.isclass(thing) or given.return_annotation is bare else f" -> {type_text(given.return_annotation)}"
    return f"{name}{given.replace(parameters=parameters, return_annotation=bare)}{returns}"


def type_text(annotation: Any) -> str:
    """A return type without the names of the modules it comes from."""
    name = annotation.__name__ if inspect.isclass(annotation) and not get_args(annotation) else str(annotation)
    return re.sub(r"\b(?:\w+\.)+", "", name)


def first_paragraph(thing: Any) -> str:
    return cleaned((inspect.getdoc(thing) or "").partition("\n\n")[0])


PAGES = {"docs/cli.md": cli_page, "docs/api.md": api_page}


def main() -> None:
    for path, page in PAGES.items():
        (ROOT / path).write_text(page(), encoding="utf-8")
        sys.stdout.write(f"wrote {path}\n")


if __name__ == "__main__":
    main()
