"""What the commands do on the machine the service runs on: whoever can read its files needs no account."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, select

from prefloop.collect import accounts, backup, folders, imports, projects
from prefloop.collect.access import ROLES
from prefloop.collect.database import Database
from prefloop.collect.schema import TaskSchema, read_schema, template
from prefloop.collect.serve import SQLITE_NAME, first_owner, locked_file, open_database
from prefloop.collect.tables import app_user, member, project
from prefloop.errors import ConfigError, DataError, RunError

DAY = 86_400_000


@contextmanager
def existing(folder: Path, url: str, *, may_be_new: bool = False) -> Iterator[Database]:
    """The service's database, open for a command."""
    if not url and not may_be_new and not (folder / SQLITE_NAME).is_file():
        raise DataError(
            f"there is no service in {folder}\n  prefloop collect serve --data {folder} begins one; --data names another folder"
        )
    database = open_database(folder, url)
    try:
        yield database
    finally:
        database.close()


def begin(folder: Path, url: str, address: str) -> str:
    """A service that is ready to be started; the line to print, with the link that makes its owner where there is none."""
    database = open_database(folder, url)
    try:
        link = first_owner(database, address.rstrip("/"))
    finally:
        database.close()
    return (
        f"{folder} is ready; this link makes its owner, once, within 7 days:\n  {link}"
        if link
        else f"{folder} is ready, and has an owner"
    )


def import_file(
    database: Database,
    name: str,
    source: Path,
    *,
    folder: Path,
    template: str,
    schema: Path | None,
    overlap: int,
    dry_run: bool,
    skip_bad: bool,
    priority: int,
) -> str:
    """Items into a project, which is made where a template or schema says what it asks; the lines to print. A project is made
    only once its first file was looked at and is good: what was refused can be mended and imported by the same words."""
    found = project_named(database, name, template_name=template, schema=schema)
    files = folders.media_folder(source)
    given = files or source
    asked = schema_given(template, schema) if found is None else None

    def before(project_id: str) -> str:
        identity = project_id or new_project(database, name, schema_given(template, schema), overlap)
        if files:
            folders.store(database, folder, identity, files)
        return identity

    if dry_run:
        report = imports.look(database, found or "", given, schema=asked)
    else:
        report = imports.run(database, found or "", given, skip_bad=skip_bad, priority=priority, schema=asked, before=before)
    done = "nothing was stored (--dry-run)" if dry_run else f"{report.added:,} items are now in {name}"
    if dry_run and report.n_problems:
        raise DataError("\n".join([f"{report.n_problems:,} problems", *report.lines(), f"  {done}"]))
    return "\n".join([*report.lines(), done])


def project_named(database: Database, name: str, *, template_name: str, schema: Path | None) -> str | None:
    """The id of a project; none where it is to be made."""
    found = database.read(lambda connection: connection.scalar(select(project.c.id).where(project.c.slug == name)))
    if found is not None and (template_name or schema):
        raise ConfigError(f"the project {name} is there already and asks what it asks\n  leave --template and --schema out")
    if found is None and not template_name and not schema:
        known = database.read(lambda connection: list(connection.scalars(select(project.c.slug).order_by(project.c.slug))))
        raise ConfigError(
            f"there is no project {name}\n  projects: {', '.join(known) or 'none'}\n  to make it, say what it asks: --template rank, or --schema FILE.yaml"
        )
    return found


def new_project(database: Database, name: str, asked: TaskSchema, overlap: int, *, title: str = "") -> str:
    """A project that hands out work at once."""
    now = database.clock()

    def make(connection: Connection) -> str:
        identity = projects.create(connection, slug=name, title=title, schema=asked, overlap=overlap, user_id=None, now=now)
        projects.set_state(connection, identity, "active", user_id=None, now=now)
        return identity

    return database.write(make)


def schema_given(template_name: str, schema: Path | None) -> TaskSchema:
    if template_name and schema:
        raise ConfigError("give either --template or --schema, not both")
    if schema is None:
        return template(template_name)
    try:
        return read_schema(schema.read_text(encoding="utf-8"), where=str(schema))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{schema} cannot be read: {error}") from None


def invitation(database: Database, name: str, role: str) -> str:
    """The secret of a link."""
    now = database.clock()

    def make(connection: Connection) -> str:
        project_id = projects.find(connection, name).id if name else None
        given = {"project_id": project_id, "role": role if name else "owner", "created_by": None}
        return accounts.create_invite(connection, **given, now=now)

    return database.write(make)


def new_token(database: Database, login: str, *, scopes: Sequence[str], project: str, days: int) -> str:
    """A token; for sim:… and judge:… the account is made too."""
    now = database.clock()
    is_stand_in = login.partition(":")[0] in ("sim", "judge", "policy") and ":" in login

    def make(connection: Connection) -> str:
        found = accounts.by_login(connection, login)
        if found is None and not is_stand_in:
            raise no_such_user(connection, login)
        user_id = found.id if found else accounts.create_user(connection, login=login, speaks_as=login, now=now)
        if project:
            project_id = projects.find(connection, project).id
            accounts.join(connection, project_id=project_id, user_id=user_id, role=ROLES[2], now=now)
        expires = now + days * DAY if days else None
        return accounts.create_token(connection, user_id=user_id, name="command line", scopes=scopes, expires=expires, now=now)[1]

    return database.write(make)


def no_such_user(connection: Connection, login: str) -> DataError:
    known = list(connection.scalars(select(app_user.c.login).order_by(app_user.c.login).limit(20)))
    return DataError(f"there is no account {login!r}\n  accounts: {', '.join(known) or 'none yet'}")


def user_id_of(database: Database, login: str) -> str:
    def look(connection: Connection) -> str:
        found = accounts.by_login(connection, login)
        if found is None:
            raise no_such_user(connection, login)
        return found.id

    return database.read(look)


def set_password(database: Database, login: str, words: str) -> None:
    user_id, stored = user_id_of(database, login), accounts.hashed(words)
    database.write(lambda connection: accounts.set_password(connection, user_id, stored))


def erase(database: Database, login: str) -> None:
    user_id = user_id_of(database, login)
    database.write(lambda connection: accounts.erase(connection, user_id))


def accounts_listed(database: Database) -> list[str]:
    """A line for each account."""

    def look(connection: Connection) -> list[str]:
        joined = app_user.outerjoin(member, member.c.user_id == app_user.c.id).outerjoin(
            project, project.c.id == member.c.project_id
        )
        columns = (app_user.c.login, app_user.c.state, app_user.c.is_owner, project.c.slug, member.c.role)
        roles: dict[str, list[str]] = {}
        for row in connection.execute(select(*columns).select_from(joined).order_by(app_user.c.login, project.c.slug)):
            said = roles.setdefault(
                row.login, [*(["owner"] if row.is_owner else []), *([row.state] if row.state != "active" else [])]
            )
            said += [f"{row.role} of {row.slug}"] if row.slug else []
        return [f"{login}: {', '.join(said) or 'in no project'}" for login, said in roles.items()]

    return database.read(look)


def put_back(source: Path, folder: Path, *, is_check_only: bool) -> str:
    """Restore a backup, or only check it; the line to print."""
    if is_check_only:
        rows = backup.verify(source)
        return f"{source} is sound: {rows['judgment']:,} judgments of {rows['item']:,} items"
    folder.mkdir(parents=True, exist_ok=True)
    with locked_file(folder) as is_ours:
        if not is_ours:
            raise RunError(f"a server works in {folder}\n  stop it, then restore")
        rows = backup.restore(source, folder / SQLITE_NAME)
    return f"restored {rows['judgment']:,} judgments of {rows['item']:,} items into {folder}"
