"""A folder of pictures, sounds or clips as items of a project. Every folder in it that holds files is a prompt with its answers:

    pictures/
      a sun that sets over the sea/    the prompt; a prompt.txt in it says more than a name can
        prompt.txt
        large@900.png                  an answer, from policy:large@900
        small@300.png

Files are known by their bytes, as with every upload. All of them are looked at before anything is stored.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from prefloop.collect import media, stripped
from prefloop.collect.database import Database
from prefloop.collect.identity import new_id
from prefloop.collect.media import Kind
from prefloop.collect.refusals import Refused
from prefloop.data.rows import READERS, suffix_of
from prefloop.errors import DataError
from prefloop.records import Audio, Completion, Group, Image, Prompt, Video

WORDS = "prompt.txt"
CONTENT = {"image": Image, "audio": Audio, "video": Video}
BLOCK = 2**20
Outcome = tuple[str, Group | str]  # where, and what is there or why it cannot be used


class Lying(NamedTuple):
    """A file of the folder."""

    path: Path
    kind: Kind
    n_bytes: int


@dataclass
class MediaFolder:
    """A folder, and by their hashes the files that were found in it."""

    root: Path
    files: dict[str, Lying] = field(default_factory=dict)

    def groups(self) -> Iterator[Outcome]:
        """Every prompt with its answers, by name; a problem in place of what cannot be used."""
        for folder in [self.root, *sorted(path for path in self.root.rglob("*") if path.is_dir() and is_seen(path, self.root))]:
            answers = [path for path in sorted(folder.iterdir()) if path.is_file() and is_seen(path, self.root)]
            asked = next((path for path in answers if path.name == WORDS), None)
            if folder == self.root and answers and asked is None:
                yield self.name(answers[0]), f"a file in no folder; a prompt is a folder, or has its words in {WORDS}"
            elif answers:
                yield from self.group(folder, asked, [path for path in answers if path != asked])

    def group(self, folder: Path, asked: Path | None, answers: list[Path]) -> Iterator[Outcome]:
        try:
            words = asked.read_text(encoding="utf-8").strip() if asked else folder.name
        except (OSError, UnicodeDecodeError) as error:
            yield self.name(folder), f"its {WORDS} cannot be read: {error}"
            return
        if not words:
            yield self.name(folder), f"its {WORDS} is empty"
            return
        prompt, completions, problems = Prompt.of(words), [], []
        for path in answers:
            try:
                sha256, lying = looked_at(path)
            except (Refused, OSError) as problem:
                problems.append((self.name(path), str(problem)))
                continue
            self.files[sha256] = lying
            content = CONTENT[lying.kind.medium](uri=self.name(path), sha256=sha256)
            completions.append(Completion(prompt_id=prompt.id, content=content, source=f"policy:{path.stem}"))
        yield from problems or [(self.name(folder), Group(prompt=prompt, completions=tuple(completions)))]

    def name(self, path: Path) -> str:
        """A place in the folder, from its own name on: the same wherever the folder lies."""
        return path.relative_to(self.root.parent).as_posix()

    def whole(self) -> list[Group]:
        """All of it, or DataError with everything that is wrong."""
        found = list(self.groups())
        if wrong := [f"  {where}, {outcome}" for where, outcome in found if isinstance(outcome, str)]:
            raise DataError("\n".join([f"{len(wrong):,} problems in {self.root.name}", *wrong, "  nothing was imported"]))
        return [outcome for _, outcome in found if isinstance(outcome, Group)]


def media_folder(path: str | Path) -> MediaFolder | None:
    """A folder of files of its own kind, or None where there are rows to be read, or nothing."""
    root = Path(path)
    if not root.is_dir():
        return None
    files = [one for one in root.rglob("*") if one.is_file() and is_seen(one, root) and one.name != WORDS]
    has_rows = any(suffix_of(one) in READERS for one in files)
    return MediaFolder(root.resolve()) if files and not has_rows else None


def is_seen(path: Path, root: Path) -> bool:
    """Whether somebody put it there; desktops leave files of their own."""
    return path.name != "Thumbs.db" and not any(part.startswith((".", "__MACOSX")) for part in path.relative_to(root).parts)


def looked_at(path: Path) -> tuple[str, Lying]:
    """The hash of a file and what it is; Refused where it is nothing that is taken."""
    kind, digest = media.kind_of(path), hashlib.sha256()
    if kind.medium == "image":
        stripped.stripped(path.read_bytes(), kind)  # so that one that cannot be is refused now
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest(), Lying(path, kind, path.stat().st_size)


def store(database: Database, service_folder: Path, project_id: str, found: MediaFolder) -> None:
    """Copy the files to where the service has them; the hash is taken again on the way, for they may have changed since."""
    for sha256, lying in found.files.items():
        copy(lying, media.place(service_folder, sha256), sha256)
        given = {"sha256": sha256, "kind": lying.kind, "n_bytes": lying.n_bytes, "user_id": None, "now": database.clock()}
        database.write(lambda connection, given=given: media.add(connection, project_id=project_id, **given))


def copy(lying: Lying, place: Path, sha256: str) -> None:
    """A file to its place, pictures without what they say about themselves; the hash is of the whole."""
    place.parent.mkdir(parents=True, exist_ok=True)
    waiting, digest = place.parent / f"upload-{new_id()}", hashlib.sha256()
    try:
        with lying.path.open("rb") as file, waiting.open("wb") as out:
            while block := file.read(BLOCK):
                digest.update(block)
                out.write(block)
            out.flush()
            os.fsync(out.fileno())
        if digest.hexdigest() != sha256:
            raise DataError(f"{lying.path} changed while it was imported\n  import the folder again")
        stripped.strip(waiting, lying.kind)
        os.replace(waiting, place)
    finally:
        waiting.unlink(missing_ok=True)
