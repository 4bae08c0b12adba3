import string

from prefloop.report.texts import LANGUAGES, words_of


def places(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


def test_both_languages_have_the_same_sentences_with_the_same_places():
    english, chinese = (words_of(lang) for lang in ("en", "zh"))
    assert set(LANGUAGES) == {"en", "zh"}
    assert set(english) == set(chinese)
    assert [key for key in english if places(english[key]) != places(chinese[key])] == []


def test_every_sentence_is_text():
    assert [key for lang in LANGUAGES for key, text in words_of(lang).items() if not isinstance(text, str) or not text] == []
