"""The pages as a browser gets them, and their words in both languages."""

import gzip
import json
import re
from pathlib import Path

import httpx
import pytest

import prefloop.collect
from prefloop.collect.web.pages import LANGUAGES, PAGES, assets, imported, version
from tests.collect.site import Site


def texts(language: str) -> dict[str, str]:
    return json.loads(assets()[f"texts.{language}.json"].content)


PLACEHOLDER = re.compile(r"\{(\w+)\}")
LITERAL = re.compile(r'\b(?:t|has)\(\s*"([\w.]+)"|\b(?:name|title): "([a-z_]+\.[\w.]+)"')
CODES = re.compile(r'(?:Refused|problem)\(\s*\d{3},\s*"(\w+)"')


@pytest.fixture(scope="module")
def site(new_url, tmp_path_factory):
    opened = Site(tmp_path_factory.mktemp("site"), new_url("sqlite")).start()
    yield opened
    opened.stop()


@pytest.fixture(scope="module")
def web(site):
    with httpx.Client(base_url=site.address, trust_env=False, headers={"Accept-Encoding": "identity"}, timeout=120) as client:
        yield client


# --- what is sent -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(PAGES))
def test_a_page_is_a_shell_with_nothing_inline_and_nothing_from_elsewhere(web, path):
    answer = web.get(path.replace("{project}", "main"))
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert "require-trusted-types-for 'script'; trusted-types prefloop" in policy
    assert re.findall(r"<script(?![^>]* src=)|<style| style=| on\w+=", answer.text) == []
    links = re.findall(r'(?:src|href)="([^"]+)"', answer.text)
    assert links and all(link.startswith(f"/static/{version()}/") for link in links)
    for link in links:
        assert web.get(link).status_code == 200


def test_a_browser_keeps_a_file_for_ever_and_asks_for_a_page_each_time(web):
    page, file = web.get("/login"), web.get(f"/static/{version()}/base.js")
    assert (page.headers["cache-control"], file.headers["cache-control"]) == ("no-cache", "public, max-age=31536000, immutable")
    for answer in (page, file):
        again = web.get(answer.url, headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert web.get(answer.url, headers={"If-None-Match": '"another"'}).content == answer.content
        assert web.head(answer.url).headers["content-length"] == str(len(answer.content))


def test_a_file_is_sent_zipped_where_the_browser_can_read_that(web):
    path = f"/static/{version()}/base.css"
    plain = web.get(path)
    with web.stream("GET", path, headers={"Accept-Encoding": "gzip"}) as zipped:
        raw = b"".join(zipped.iter_raw())
    assert zipped.headers["content-encoding"] == "gzip" and zipped.headers["vary"] == "Accept-Encoding"
    assert gzip.decompress(raw) == plain.content and len(raw) < len(plain.content) / 2


@pytest.mark.parametrize("name", ["shell.html", "../web/app.py", "..%2fweb%2fapp.py", "nothing.js", "", "base.js/", "%00"])
def test_only_the_files_of_the_pages_can_be_fetched(web, name):
    assert web.get(f"/static/{version()}/{name}").status_code == 404
    assert web.get("/static/another/base.js").status_code == 404


def test_a_module_brings_all_it_imports():
    for name in {*PAGES.values()}:
        found = imported(assets(), f"{name}.js")
        assert found[0] == f"{name}.js" and "base.js" in found and len(found) == len(set(found))
        for module in found:
            source = without_comments(module)
            assert not re.search(r"""^(?:import|export)[^;]*?from\s*["'](?!\./)|\bimport\(""", source, re.MULTILINE), (
                f"{module}: from elsewhere"
            )
            assert not re.search(r"\beval\(|new Function|outerHTML =|insertAdjacentHTML|document\.write", source), module
            assert ("innerHTML" in source) == (module == "base.js"), f"{module}: markup comes in by showHtml alone"


def without_comments(module: str) -> str:
    return re.sub(r"/\*.*?\*/", "", assets()[module].content.decode(), flags=re.DOTALL)


def test_the_first_pages_are_under_150_kb_and_every_page_is_as_it_is_sent():
    for name in {*PAGES.values()}:
        modules = imported(assets(), f"{name}.js")
        styles = {module.replace(".js", ".css") for module in modules} & set(assets())
        needed = [assets()[one] for one in (*modules, *styles, "early.js", "icon.svg", f"texts.{name}.zh.json")]
        assert sum(len(one.zipped) for one in needed) < 100_000, name
        if name in ("home", "login", "invite"):
            assert sum(len(one.content) for one in needed) < 150_000, name  # even unzipped


# --- the words --------------------------------------------------------------------------------------------------------------


def test_both_languages_say_the_same_things_with_the_same_gaps():
    english, chinese = texts("en"), texts("zh")
    assert set(english) == set(chinese)
    for key, text in english.items():
        if not key.endswith(".one"):
            assert set(PLACEHOLDER.findall(text)) == set(PLACEHOLDER.findall(chinese[key])), key
        assert text.strip() and chinese[key].strip()
    same = [key for key, text in english.items() if text == chinese[key] and re.search("[a-z]{3}", PLACEHOLDER.sub("", text))]
    assert same == []  # but for what is the same everywhere, as ICC(2,k)


def test_every_text_that_a_module_asks_for_is_sent_with_its_page():
    for page in {*PAGES.values()}:
        for language in LANGUAGES:
            sent = set(json.loads(assets()[f"texts.{page}.{language}.json"].content))
            assert sent <= set(texts(language))
            for module in imported(assets(), f"{page}.js"):
                asked = {one or other for one, other in LITERAL.findall(without_comments(module))}
                assert asked - sent == set(), (page, module)


def test_every_refusal_of_the_service_has_words():
    sources = Path(prefloop.collect.__file__).parent.rglob("*.py")
    codes = {code for path in sources for code in CODES.findall(path.read_text(encoding="utf-8"))}
    assert len(codes) > 30
    assert {code for code in codes if f"problem.{code}" not in texts("en")} == set()
