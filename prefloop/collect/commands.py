"""``prefloop collect …``. The imports inside each command keep ``prefloop --help`` instant."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from prefloop.collect.database import Database

Explained = Callable[[bool], AbstractContextManager[None]]

Data = Annotated[Path, typer.Option("--data", help="folder of the service: database, uploads, exports, backups")]
DatabaseUrl = Annotated[
    str,
    typer.Option(
        "--database", envvar="PREFLOOP_DATABASE", help="postgresql://USER@HOST/NAME for a team; SQLite in --data otherwise"
    ),
]
Debug = Annotated[bool, typer.Option("--debug", help="show tracebacks")]
FOLDER = Path("collect")


def collect_app(explained: Explained) -> typer.Typer:
    """The commands; ``explained`` turns failures into one message and an exit code, as everywhere."""
    app = typer.Typer(no_args_is_help=True, help="Where people speak: collect rankings, ratings and edits in the browser.")
    user_app = typer.Typer(no_args_is_help=True, help="Accounts and their tokens, from the machine the service runs on.")
    app.add_typer(user_app, name="user")

    @app.command()
    def serve(
        data: Data = FOLDER,
        database: DatabaseUrl = "",
        host: Annotated[
            str, typer.Option("--host", help="address to listen on; 0.0.0.0 is every one of this machine")
        ] = "127.0.0.1",
        port: Annotated[int, typer.Option("--port", help="port to listen on")] = 8090,
        proxy: Annotated[
            str, typer.Option("--proxy", help="addresses of a TLS proxy whose X-Forwarded headers are believed")
        ] = "",
        debug: Debug = False,
    ) -> None:
        """Start the service; the first time, print the link that makes its owner."""
        with explained(debug):
            from prefloop.collect.serve import serve as run

            run(data, url=database, host=host, port=port, proxy=proxy, say=typer.echo)

    @app.command("init")
    def init(
        address: Annotated[str, typer.Option("--address", help="where people will reach the service")] = "http://127.0.0.1:8090",
        data: Data = FOLDER,
        database: DatabaseUrl = "",
        debug: Debug = False,
    ) -> None:
        """Make the folder and the database, and print the link that makes the owner; serve does it too, when it first starts."""
        with explained(debug):
            from prefloop.collect.desk import begin

            typer.echo(begin(data, database, address))

    @app.command("demo")
    def demo(
        port: Annotated[int, typer.Option("--port", help="port to listen on")] = 8090,
        data: Data = Path("collect-demo"),
        debug: Debug = False,
    ) -> None:
        """A service with two small projects to try everything on, in a folder of its own."""
        with explained(debug):
            from prefloop.collect.demo import links
            from prefloop.collect.serve import serve as run

            with opened(data, "", may_be_new=True) as found:
                for line in links(found, f"http://127.0.0.1:{port}"):
                    typer.echo(line)
            run(data, port=port, say=typer.echo)

    @app.command("import")
    def import_(
        project: Annotated[str, typer.Argument(help="name of the project; made if it is not there and --template is given")],
        source: Annotated[
            Path,
            typer.Argument(
                help="prompts with their answers: a file or folder in any accepted format, or a folder of pictures by prompt"
            ),
        ],
        template: Annotated[str, typer.Option("--template", help="make the project, asking what this template asks")] = "",
        schema: Annotated[
            Path | None, typer.Option("--schema", help="make the project, asking what this YAML asks", show_default=False)
        ] = None,
        overlap: Annotated[int, typer.Option("--overlap", help="judgments wanted of each item of a new project")] = 1,
        dry_run: Annotated[
            bool, typer.Option("--dry-run", help="look at the whole file, say what is wrong and where, store nothing")
        ] = False,
        skip_bad: Annotated[bool, typer.Option("--skip-bad", help="leave bad rows out instead of refusing the file")] = False,
        priority: Annotated[int, typer.Option("--priority", help="higher ones are handed out first")] = 0,
        data: Data = FOLDER,
        database: DatabaseUrl = "",
        debug: Debug = False,
    ) -> None:
        """Put items into a project, while the service runs or not."""
        with explained(debug):
            from prefloop.collect.desk import import_file

            settings = {"template": template, "schema": schema, "overlap": overlap, "dry_run": dry_run, "skip_bad": skip_bad}
            with opened(data, database, may_be_new=bool(template or schema)) as found:
                typer.echo(import_file(found, project, source, folder=data, priority=priority, **settings))

    @app.command()
    def export(
        project: Annotated[str, typer.Argument(help="name of the project")],
        out: Annotated[Path, typer.Option("--out", help="a new folder")],
        settings: Annotated[list[str] | None, typer.Argument(help="a YAML file and key=value items", show_default=False)] = None,
        format: Annotated[
            str,
            typer.Option(
                "--format",
                help="kway, trl_preference, rm_group, kto, sft, openrlhf, stepwise, argilla, labelstudio, answers, csv, parquet or audit",
            ),
        ] = "kway",
        data: Data = FOLDER,
        database: DatabaseUrl = "",
        debug: Debug = False,
    ) -> None:
        """Write a project's judgments, with a manifest and a datasheet."""
        with explained(debug):
            from prefloop.collect.exports import ExportConfig
            from prefloop.collect.exports import export as write
            from prefloop.config import load_config

            with opened(data, database) as found:
                manifest = write(found, project, out, format=format, config=load_config(ExportConfig, settings or []))
            typer.echo(f"wrote {manifest['judgments']:,} judgments of {manifest['items']:,} items to {out}")

    @user_app.command("invite")
    def invite(
        project: Annotated[
            str, typer.Argument(help="name of the project; leave out to invite an owner", show_default=False)
        ] = "",
        role: Annotated[str, typer.Option("--role", help="manager, reviewer, annotator or viewer")] = "annotator",
        address: Annotated[str, typer.Option("--address", help="where people reach the service")] = "http://127.0.0.1:8090",
        data: Data = FOLDER,
        database: DatabaseUrl = "",
        debug: Debug = False,
    ) -> None:
        """Print a link with which one person joins."""
        with explained(debug):
            from prefloop.collect.desk import invitation

            with opened(data, database) as found:
                typer.echo(f"{address.rstrip('/')}/invite#{invitation(found, project, role)}")

    @user_app.command("token")
    def token(
        login: Annotated[str, typer.Argument(help="whose it is; a stand-in such as sim:3 is made if it is not there")],
        scope: Annotated[
            list[str] | None,
            typer.Option("--scope", help="annotate, view, read, import, export, manage, own", show_default="annotate"),
        ] = None,
        project: Annotated[str, typer.Option("--project", help="make this account an annotator of a project")] = "",
        days: Annotated[int, typer.Option("--days", help="until it runs out; 0 = never")] = 0,
        data: Data = FOLDER,
        database: DatabaseUrl = "",
        debug: Debug = False,
    ) -> None:
        """Print a token for programs, this once."""
        with explained(debug):
            from prefloop.collect.desk import new_token

            with opened(data, database) as found:
                typer.echo(new_token(found, login, scopes=scope or ["annotate"], project=project, days=days))

    @user_app.command("password")
    def password(
        login: Annotated[str, typer.Argument(help="whose it is")],
        data: Data = FOLDER,
        database: DatabaseUrl = "",
        debug: Debug = False,
    ) -> None:
        """Set somebody's password (asked for, not shown) and end their sessions."""
        with explained(debug):
            from prefloop.collect.desk import set_password

            words = typer.prompt("new password", hide_input=True, confirmation_prompt=True)
            with opened(data, database) as found:
                set_password(found, login, words)
            typer.echo(f"{login} has a new password")

    @user_app.command("erase")
    def erase(
        login: Annotated[str, typer.Argument(help="whom to forget; their judgments stay under a pseudonym")],
        data: Data = FOLDER,
        database: DatabaseUrl = "",
        debug: Debug = False,
    ) -> None:
        """Forget who somebody was."""
        with explained(debug):
            from prefloop.collect.desk import erase as forget

            with opened(data, database) as found:
                forget(found, login)
            typer.echo(f"{login} is forgotten")

    @user_app.command("list")
    def list_(data: Data = FOLDER, database: DatabaseUrl = "", debug: Debug = False) -> None:
        """Every account, and its roles."""
        with explained(debug):
            from prefloop.collect.desk import accounts_listed

            with opened(data, database) as found:
                for line in accounts_listed(found):
                    typer.echo(line)

    @app.command("doctor")
    def doctor(data: Data = FOLDER, database: DatabaseUrl = "", debug: Debug = False) -> None:
        """Whether a service can run in a folder: the database, room, fsync, the clock; what would not work and what mends it."""
        with explained(debug):
            from prefloop.collect.doctor import main

            raise typer.Exit(main(data, database, typer.echo))

    @app.command("backup")
    def backup(
        target: Annotated[Path, typer.Argument(help="the file to write: NAME.sqlite")],
        data: Data = FOLDER,
        database: DatabaseUrl = "",
        debug: Debug = False,
    ) -> None:
        """Copy the database while the service runs."""
        with explained(debug):
            from prefloop.collect.backup import verify, write

            with opened(data, database) as found:
                file = write(found, target)
            rows = verify(file)
            typer.echo(f"wrote {file}: {rows['judgment']:,} judgments of {rows['item']:,} items, checked")

    @app.command("restore")
    def restore(
        source: Annotated[Path, typer.Argument(help="a backup: NAME.sqlite")],
        data: Data = FOLDER,
        verify: Annotated[bool, typer.Option("--verify", help="only check the backup")] = False,
        debug: Debug = False,
    ) -> None:
        """Put a backup in place of the database; the old one is kept beside it. The service must not run."""
        with explained(debug):
            from prefloop.collect.desk import put_back

            typer.echo(put_back(source, data, is_check_only=verify))

    return app


def opened(folder: Path, url: str, *, may_be_new: bool = False) -> AbstractContextManager["Database"]:
    """The database that exists; a command does not make one by a misspelt folder."""
    from prefloop.collect.desk import existing

    return existing(folder, url, may_be_new=may_be_new)
