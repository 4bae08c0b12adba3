"""The languages of the world by code."""

from prefloop.world.chinese import CHINESE
from prefloop.world.english import ENGLISH
from prefloop.world.language import Language

LANGUAGES: dict[str, Language] = {language.code: language for language in (ENGLISH, CHINESE)}
