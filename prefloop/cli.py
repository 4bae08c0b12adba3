"""Every command of prefloop. The import inside each is where to read next."""

import errno
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from prefloop.collect.commands import FOLDER, Data, DatabaseUrl, collect_app
from prefloop.study import COMMANDS


class Guide(TyperGroup):
    """Commands with their whole first sentence in the list, and a word of help for whoever types a setting as an option."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        command = super().get_command(ctx, cmd_name)
        if command is not None and not command.short_help and command.help:
            command.short_help = " ".join(command.help.split("\n\n")[0].split())  # what is left to click is cut at 45 letters
        return command

    def invoke(self, ctx: Any) -> Any:
        typed = [*getattr(ctx, "_protected_args", ()), *ctx.args]
        try:
            return super().invoke(ctx)
        except Exception as error:  # click's own, of which typer brings a copy, or uses the package, by version
            option = getattr(error, "option_name", None)
            command = getattr(getattr(error, "ctx", None), "command", None)
            takes_settings = any(parameter.name == "settings" for parameter in getattr(command, "params", ()))
            if option and takes_settings and not getattr(error, "is_explained", False):
                error.message += f"\n  {as_a_setting(option, typed)}"  # type: ignore[attr-defined]
                error.possibilities, error.is_explained = None, True  # type: ignore[attr-defined]
            raise


def as_a_setting(option: str, typed: list[str]) -> str:
    """How ``--model X`` is written here."""
    key = option.lstrip("-").replace("-", "_")
    at = next((index for index, word in enumerate(typed) if word.partition("=")[0] == option), len(typed))
    value = "".join(typed[at : at + 1]).partition("=")[2] or next(
        (w for w in typed[at + 1 : at + 2] if not w.startswith("-")), ""
    )
    return f"settings are written key=value, without dashes: {key}={value or 'VALUE'}"


app = typer.Typer(
    cls=Guide,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Teach a language model from people's preferences.",
)
world_app = typer.Typer(cls=Guide, no_args_is_help=True, help="The embedded world as files: prompts, corpus, simulated rankings.")
data_app = typer.Typer(cls=Guide, no_args_is_help=True, help="Look at data before training on it, and convert it.")
app.add_typer(world_app, name="world")
app.add_typer(data_app, name="data")

Settings = Annotated[
    list[str] | None, typer.Argument(help="a YAML file and key=value items, dotted for nested keys", show_default=False)
]
Out = Annotated[Path | None, typer.Option("--out", help="folder of the run", show_default=False)]
Resume = Annotated[bool, typer.Option("--resume", help="go on with an interrupted run")]
Again = Annotated[bool, typer.Option("--resume", help="leave a finished run as it is, begin an interrupted one again")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 or mps")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="print data counts, memory, steps and a time estimate; train nothing")]
DryStudy = Annotated[
    bool, typer.Option("--dry-run", help="print every stage, where it writes and what is there already; run nothing")
]
Debug = Annotated[bool, typer.Option("--debug", help="show tracebacks")]


def print_version(wanted: bool) -> None:
    if wanted:
        from prefloop import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def options_before_the_command(
    version: Annotated[bool, typer.Option("--version", callback=print_version, is_eager=True, help="print the version")] = False,
) -> None:
    pass


@app.command()
def demo(
    out: Out = Path("runs/demo"),
    seed: Annotated[int, typer.Option("--seed", help="of everything random")] = 0,
    every: Annotated[bool, typer.Option("--all", help="also RLP (UML, SPG), RRHF, DPO and RLOO: under 15 minutes")] = False,
    device: Device = "auto",
    debug: Debug = False,
) -> None:
    """The main job on the embedded world, minutes on two CPU cores; ends with a table and report.html."""
    with explained(debug):
        from prefloop.demo import main

        main(out or Path("runs/demo"), seed=seed, device=device, every=every)


@app.command()
def run(
    study: Annotated[Path, typer.Argument(help="a study: YAML of named stages, seeds, sweeps")],
    out: Out = None,
    device: Device = "auto",
    dry_run: DryStudy = False,
    debug: Debug = False,
) -> None:
    """Run a study; stages whose inputs have not changed are skipped."""
    with explained(debug):
        from prefloop.demo import run_and_report
        from prefloop.study import load_study

        command = f"prefloop run {study}" + (f" --out {out}" if out else "")
        run_and_report(load_study(study), out or Path("runs") / study.stem, device=device, dry_run=dry_run, command=command)


@app.command()
def pretrain(
    settings: Settings = None,
    out: Out = None,
    resume: Resume = False,
    device: Device = "auto",
    dry_run: DryRun = False,
    debug: Debug = False,
) -> None:
    """A tokenizer and a small language model from scratch."""
    run_command("pretrain", settings, out, resume, device, dry_run, debug)


@app.command()
def sft(
    settings: Settings = None,
    out: Out = None,
    resume: Resume = False,
    device: Device = "auto",
    dry_run: DryRun = False,
    debug: Debug = False,
) -> None:
    """Imitate demonstrations."""
    run_command("sft", settings, out, resume, device, dry_run, debug)


@app.command()
def reward(
    settings: Settings = None,
    out: Out = None,
    resume: Resume = False,
    device: Device = "auto",
    dry_run: DryRun = False,
    debug: Debug = False,
) -> None:
    """Learn a reward from rankings of K answers per prompt."""
    run_command("reward", settings, out, resume, device, dry_run, debug)


@app.command()
def select(
    settings: Settings = None,
    out: Out = None,
    resume: Again = False,
    device: Device = "auto",
    dry_run: DryRun = False,
    debug: Debug = False,
) -> None:
    """Choose among the epochs of an SFT run by reward."""
    run_command("select", settings, out, resume, device, dry_run, debug)


@app.command()
def ppo(
    settings: Settings = None,
    out: Out = None,
    resume: Resume = False,
    device: Device = "auto",
    dry_run: DryRun = False,
    debug: Debug = False,
) -> None:
    """Improve a policy by PPO against a reward; with ptx > 0, PPO-ptx."""
    run_command("ppo", settings, out, resume, device, dry_run, debug)


@app.command()
def reinforce(
    settings: Settings = None,
    out: Out = None,
    resume: Resume = False,
    device: Device = "auto",
    dry_run: DryRun = False,
    debug: Debug = False,
) -> None:
    """Improve a policy without a critic: RLOO, GRPO, Dr. GRPO, DAPO, REINFORCE++."""
    run_command("reinforce", settings, out, resume, device, dry_run, debug)


@app.command()
def dpo(
    settings: Settings = None,
    out: Out = None,
    resume: Resume = False,
    device: Device = "auto",
    dry_run: DryRun = False,
    debug: Debug = False,
) -> None:
    """Learn from rankings directly: DPO, cDPO, IPO, SimPO, ORPO."""
    run_command("dpo", settings, out, resume, device, dry_run, debug)


@app.command()
def kto(
    settings: Settings = None,
    out: Out = None,
    resume: Resume = False,
    device: Device = "auto",
    dry_run: DryRun = False,
    debug: Debug = False,
) -> None:
    """Learn from single answers that were called good or bad."""
    run_command("kto", settings, out, resume, device, dry_run, debug)


@app.command()
def rrhf(
    settings: Settings = None,
    out: Out = None,
    resume: Resume = False,
    device: Device = "auto",
    dry_run: DryRun = False,
    debug: Debug = False,
) -> None:
    """Rank answers by their own likelihood and imitate the best."""
    run_command("rrhf", settings, out, resume, device, dry_run, debug)


@app.command()
def rules(
    settings: Settings = None,
    out: Out = None,
    resume: Resume = False,
    device: Device = "auto",
    dry_run: DryRun = False,
    debug: Debug = False,
) -> None:
    """Learn which answers break which rules: a reward that is minus the weighted chances."""
    run_command("rules", settings, out, resume, device, dry_run, debug)


@app.command()
def relearn(
    settings: Settings = None,
    out: Out = None,
    resume: Resume = False,
    device: Device = "auto",
    dry_run: DryRun = False,
    debug: Debug = False,
) -> None:
    """Learn the reward again, on the policy's own answers (RLP)."""
    run_command("relearn", settings, out, resume, device, dry_run, debug)


@app.command()
def sample(
    settings: Settings = None,
    out: Out = None,
    resume: Again = False,
    device: Device = "auto",
    dry_run: DryRun = False,
    debug: Debug = False,
) -> None:
    """Draw K answers to each prompt."""
    run_command("sample", settings, out, resume, device, dry_run, debug)


@app.command()
def score(
    settings: Settings = None,
    out: Out = None,
    resume: Again = False,
    device: Device = "auto",
    dry_run: DryRun = False,
    debug: Debug = False,
) -> None:
    """Completions to rewards."""
    run_command("score", settings, out, resume, device, dry_run, debug)


@app.command()
def rank(
    settings: Settings = None,
    out: Out = None,
    resume: Again = False,
    device: Device = "auto",
    dry_run: DryRun = False,
    debug: Debug = False,
) -> None:
    """Rank completions as simulated people would whose taste is a scorer."""
    run_command("rank", settings, out, resume, device, dry_run, debug)


@app.command()
def prompts(settings: Settings = None, out: Out = None, dry_run: DryRun = False, debug: Debug = False) -> None:
    """Prompts from any text, to practise on and to judge by."""
    run_command("prompts", settings, out, False, "cpu", dry_run, debug)


@app.command()
def evaluate(
    settings: Settings = None,
    out: Out = None,
    resume: Again = False,
    device: Device = "auto",
    dry_run: DryRun = False,
    debug: Debug = False,
) -> None:
    """Policies side by side on held-out prompts."""
    run_command("evaluate", settings, out, resume, device, dry_run, debug)


@app.command()
def trust(
    settings: Settings = None,
    out: Out = None,
    resume: Again = False,
    device: Device = "auto",
    dry_run: DryRun = False,
    debug: Debug = False,
) -> None:
    """Reward models on fresh answers of policies, beside a truth."""
    run_command("trust", settings, out, resume, device, dry_run, debug)


@app.command()
def benchmark(
    settings: Settings = None,
    out: Out = None,
    resume: Again = False,
    device: Device = "auto",
    dry_run: DryRun = False,
    debug: Debug = False,
) -> None:
    """Methods under simulated labels, beside the truth of the embedded world."""
    run_command("benchmark", settings, out, resume, device, dry_run, debug)


@app.command()
def merge(
    adapter: Annotated[Path, typer.Argument(help="folder of a PEFT adapter")],
    out: Annotated[Path, typer.Option("--out", help="folder of the merged model")],
    debug: Debug = False,
) -> None:
    """Fold an adapter into its base model."""
    with explained(debug):
        from prefloop.models.load import merge

        merge(str(adapter), out)
        typer.echo(f"merged {adapter} into {out}")


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="run or study folders")],
    out: Annotated[Path, typer.Option("--out", help="the page")] = Path("report.html"),
    language: Annotated[str, typer.Option("--language", help="en or zh")] = "en",
    debug: Debug = False,
) -> None:
    """Runs to one self-contained HTML page."""
    with explained(debug):
        from prefloop.report.pages import write_page

        write_page(runs, out, language=language)
        typer.echo(f"wrote {out}")


@app.command()
def doctor() -> None:
    """Versions, builds, devices, extras, disk; what would not work and the line that mends it."""
    from prefloop.doctor import main

    raise typer.Exit(main(typer.echo))


@data_app.command("check")
def data_check(
    source: Annotated[str, typer.Argument(help="a file, folder or hub id")],
    settings: Settings = None,
    debug: Debug = False,
) -> None:
    """Format, rows kept and dropped with reasons, duplicates, contradictions, lengths."""
    with explained(debug):
        from prefloop.config import load_config
        from prefloop.data.check import CheckConfig, main

        main(source, load_config(CheckConfig, settings or []), typer.echo)


@data_app.command("convert")
def data_convert(
    source: Annotated[str, typer.Argument(help="a file, folder or hub id")],
    target: Annotated[Path, typer.Argument(help="the file to write: .jsonl or .jsonl.gz")],
    settings: Settings = None,
    to: Annotated[str, typer.Option("--to", help="kway, trl (preference pairs), demonstrations or prompts")] = "kway",
    force: Annotated[bool, typer.Option("--force", help="replace a file that is there")] = False,
    debug: Debug = False,
) -> None:
    """Any accepted format to another, columns renamed by mapping.OURS=THEIRS."""
    with explained(debug):
        from prefloop.config import load_config
        from prefloop.data.check import ConvertConfig
        from prefloop.data.write import convert
        from prefloop.errors import ConfigError

        how = load_config(ConvertConfig, settings or [])
        if target.exists() and not force:
            raise ConfigError(f"{target} is there already\n  choose another name, or --force to replace it")
        typer.echo(convert(source, target, to=to, format=how.format, mapping=how.mapping or None, split=how.split))
        typer.echo(f"written to {target}")


@world_app.command("prompts")
def world_prompts(
    settings: Settings = None,
    out: Annotated[Path, typer.Option("--out", help="the file to write")] = Path("prompts.jsonl"),
    debug: Debug = False,
) -> None:
    """Prompts of the world, one JSON record a line."""
    with explained(debug):
        from prefloop.config import load_config
        from prefloop.world.stages import PromptsConfig, write_prompt_file

        typer.echo(write_prompt_file(load_config(PromptsConfig, settings or []), out))


@world_app.command("corpus")
def world_corpus(
    settings: Settings = None,
    out: Annotated[Path, typer.Option("--out", help="the file to write")] = Path("corpus.txt"),
    debug: Debug = False,
) -> None:
    """Pretraining text of the world, one document a line."""
    with explained(debug):
        from prefloop.config import load_config
        from prefloop.world.stages import CorpusConfig, write_corpus_file

        typer.echo(write_corpus_file(load_config(CorpusConfig, settings or []), out))


@world_app.command("annotate")
def world_annotate(settings: Settings = None, out: Out = None, debug: Debug = False) -> None:
    """Rank completions as the 13 simulated annotators would."""
    run_command("annotate", settings, out, False, "cpu", False, debug)


def run_command(
    command: str, settings: list[str] | None, out: Path | None, resume: bool, device: str, dry_run: bool, debug: bool
) -> None:
    """Settings to config, config to a run."""
    with explained(debug):
        from prefloop.config import Options, load_config
        from prefloop.errors import ConfigError
        from prefloop.study import config_class

        if not settings:
            raise ConfigError(
                f"prefloop {command} needs a YAML file or key=value settings\n  every key is explained in docs/cli.md; for a start: prefloop demo"
            )
        cls, main = config_class(command)
        main(
            load_config(cls, settings), Options(out=out or Path("runs") / command, resume=resume, device=device, dry_run=dry_run)
        )


OF_A_PLACE = {  # what the system says of a file or folder that somebody named
    errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EACCES, errno.EPERM, errno.EROFS, errno.ELOOP, errno.ENAMETOOLONG,
}  # fmt: skip


class explained:
    """Turns failures that prefloop understands into one message and an exit code; others too, unless --debug."""

    def __init__(self, debug: bool):
        self.debug = debug or bool(os.environ.get("PREFLOOP_DEBUG"))

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind, error: BaseException | None, trace) -> bool:
        from prefloop.errors import PrefloopError

        if error is None or self.debug or isinstance(error, typer.Exit | SystemExit):
            return False
        if isinstance(error, KeyboardInterrupt):
            typer.echo("interrupted", err=True)
            raise SystemExit(130)
        if isinstance(error, PrefloopError):
            typer.echo(f"prefloop: {error}", err=True)
            raise SystemExit(error.exit_code)
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            typer.echo(
                f"prefloop: the disk is full ({error.filename or 'no file named'})\n"
                f"  what was complete before is intact; free some space and run the same command again, with --resume where it has that",
                err=True,
            )
            raise SystemExit(1)
        if isinstance(error, OSError) and error.errno in OF_A_PLACE and error.filename is not None:
            typer.echo(
                f"prefloop: {error.filename} cannot be used: {error.strerror}\n  give another place, or mend this one", err=True
            )
            raise SystemExit(2)
        if isinstance(error, ModuleNotFoundError):
            typer.echo(f"prefloop: the package {error.name!r} is not installed\n  pip install 'prefloop[train,report]'", err=True)
            raise SystemExit(2)
        typer.echo(
            f"prefloop: {type(error).__name__}: {error}\n  this is not a failure prefloop knows; --debug shows where it happened",
            err=True,
        )
        raise SystemExit(1)


where_people_speak = collect_app(explained)
where_people_speak.info.cls = Guide
app.add_typer(where_people_speak, name="collect")


@where_people_speak.command("simulate")
def collect_simulate(  # here because it joins two parts that do not know each other: the service and the world
    project: Annotated[str, typer.Argument(help="name of the project; its prompts are of the embedded world")],
    annotators: Annotated[int, typer.Option("--annotators", min=1, max=13, help="how many of the thirteen")] = 13,
    at_most: Annotated[int, typer.Option("--at-most", min=0, help="judgments of each; 0 = until there is nothing left")] = 0,
    flip: Annotated[float, typer.Option("--flip", min=0, max=0.5, help="share of pairs they get wrong")] = 0.25,
    language: Annotated[str, typer.Option("--language", help="of the prompts: en or zh")] = "en",
    seed: Annotated[int, typer.Option("--seed", help="of everything random in them")] = 0,
    address: Annotated[str, typer.Option("--address", help="where the service answers")] = "http://127.0.0.1:8090",
    data: Data = FOLDER,
    database: DatabaseUrl = "",
    debug: Debug = False,
) -> None:
    """Let simulated people answer a project over HTTP, while the service runs."""
    with explained(debug):
        from prefloop.collect.commands import opened
        from prefloop.collect.simulate import admitted, simulate
        from prefloop.world import World
        from prefloop.world.stand_ins import stand_ins

        people = stand_ins(World(language=language), annotators=annotators, flip=flip, seed=seed)
        with opened(data, database) as found, admitted(found, project, people) as tokens:
            done = simulate(address, project, tokens, people, at_most=at_most)
        typer.echo("\n".join([*(f"{name}: {n:,}" for name, n in done.items()), f"{sum(done.values()):,} judgments"]))


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    sys.exit(main())

__all__ = ["COMMANDS", "app", "main"]
