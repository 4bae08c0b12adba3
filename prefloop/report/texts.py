"""The sentences of the page: English and Chinese, each in a YAML file beside this one."""

from functools import cache
from importlib.resources import files

import yaml

from prefloop.errors import ConfigError

Words = dict[str, str]
LANGUAGES = {"en": "texts.en.yaml", "zh": "texts.zh.yaml"}


@cache
def words_of(lang: str) -> Words:
    """The sentences in one language."""
    if lang not in LANGUAGES:
        raise ConfigError(f"the page speaks {' and '.join(LANGUAGES)}, got lang = {lang!r}")
    return yaml.safe_load(files("prefloop.report").joinpath(LANGUAGES[lang]).read_text(encoding="utf-8"))
