"""What ``prefloop data check`` does: the report every training prints first, without the training."""

from collections.abc import Callable

from pydantic import Field

from prefloop.config import Config
from prefloop.data.read import check


class CheckConfig(Config):
    """Look at data before training on it."""

    format: str = Field("auto", description="a format's name, where recognition needs help")
    split: str = Field("", description="train, validation or test of a folder or hub id; empty reads all of them")
    mapping: dict[str, str] = Field(default={}, description="our field: their column, for files with columns of their own")
    max_dropped: float = Field(0.05, ge=0, le=1, description="largest share of rows lost before the exit code is 2")


class ConvertConfig(Config):
    """Read data that are to be written in another format."""

    format: str = Field("auto", description="a format's name, where recognition needs help")
    split: str = Field("", description="train, validation or test of a folder or hub id; empty reads all of them")
    mapping: dict[str, str] = Field(default={}, description="our field: their column, for files with columns of their own")


def main(source: str, config: CheckConfig, write: Callable[[str], None]) -> None:
    """Write the report; raises DataError when too much of the data cannot be used."""
    report = check(source, format=config.format, mapping=config.mapping or None, split=config.split)
    for line in report.lines():
        write(line)
    report.refuse_if_too_many_dropped(config.max_dropped)
