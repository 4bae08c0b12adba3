"""Markdown of strangers becomes HTML that is safe to show: an allow-list holds whatever came before it."""

import re
from html.parser import HTMLParser

import pytest

from prefloop.collect.render import ATTRIBUTES, LONGEST, MATH, TAGS, render
from tests.collect.hostile import EVERYTHING, SCRIPTS, UNSEEN


class Seen(HTMLParser):
    """Every tag and attribute of a text as a browser would read them."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]


def complaints(text: str) -> list[str]:
    """What stands in HTML that must not."""
    seen = Seen(text)
    found = [tag for tag in seen.tags if tag not in TAGS | MATH]
    for tag, name, value in seen.attributes:
        is_ours = (tag, name) in {("a", "rel"), ("a", "target")}
        if not is_ours and name not in ATTRIBUTES.get(tag, ()):
            found.append(f"{tag} {name}={value}")
        if name == "href" and not re.match("https?://|mailto:", value):
            found.append(f"href={value}")
    return found


@pytest.mark.parametrize("text", SCRIPTS)
def test_nothing_hostile_is_left_of_a_text(text):
    assert complaints(render(text)) == []


def test_nothing_hostile_is_left_of_everything_at_once_and_the_checker_sees_what_would_be():
    assert complaints(render(EVERYTHING)) == []
    assert complaints("<p onclick=x>") == ["p onclick=x"] and complaints("<img>") == ["img"]
    assert complaints('<a href="//evil.example">') == ["href=//evil.example"]


def test_markdown_is_drawn():
    drawn = render("# T\n\n**b** *i* ~~s~~ `c`\n\n3. x\n\n> q\n\n| a |\n|---|\n| 1 |\n\n[l](https://example.org 'why')")
    for part in (
        "<h1>T</h1>",
        "<strong>b</strong>",
        "<em>i</em>",
        "<s>s</s>",
        "<code>c</code>",
        '<ol start="3">',
        "<blockquote>",
        "<td>1</td>",
    ):
        assert part in drawn
    link = re.search("<a [^>]*>", drawn)[0]
    assert 'href="https://example.org"' in link and 'rel="noopener noreferrer nofollow"' in link and 'target="_blank"' in link


def test_code_is_coloured_where_the_language_is_known_and_stays_as_it_is_elsewhere():
    assert '<span class="k">return</span>' in render("```python\nreturn 1\n```")
    assert "<pre><code>a &lt; b\n</code></pre>" in render("```nonsense\na < b\n```")


def test_a_picture_is_its_words_and_where_it_would_have_come_from():
    assert render("![a cat](http://evil.example/cat.png)") == (
        '<p><span class="no-picture" title="http://evil.example/cat.png">🖼 a cat</span></p>\n'
    )


def test_characters_that_cannot_be_seen_are_shown():
    drawn = render(UNSEEN)
    for code in ("202E", "202C", "200B", "00AD", "E0041"):
        assert f'<span class="unseen-character">U+{code}</span>' in drawn
    assert "\u202e" not in drawn and "\u200b" not in drawn
    assert render("👩‍👩‍👧 नमस्‍ते") == "<p>👩‍👩‍👧 नमस्‍ते</p>\n"  # joiners belong to what they join
    assert 'title="xy"' in render("[l](https://example.org 'x\u202ey')")


def test_a_text_that_is_too_long_is_shown_as_typed():
    assert render("*a*" * LONGEST).startswith("<pre>*a**a*")
    assert complaints(render("<script>" * LONGEST)) == []


@pytest.mark.parametrize("text", ["[" * 10_000, "> " * 10_000 + "x", "*a " * 10_000, "`" * 50_000, "- " * 10_000, "<" * 50_000])
def test_a_text_made_to_be_slow_is_drawn_all_the_same(text):
    assert complaints(render(text)) == []


@pytest.mark.parametrize("text", [r"so $\frac{a_1}{b*c}$ it is", r"so \(\frac{a_1}{b*c}\) it is"])
def test_a_formula_is_drawn_and_markdown_leaves_it_alone(text):
    drawn = render(text)
    assert '<math display="inline"><mrow><mfrac><mrow><msub><mi>a</mi><mn>1</mn></msub></mrow>' in drawn
    assert "<em>" not in drawn and drawn.startswith("<p>so ") and drawn.endswith(" it is</p>\n")
    for block in (r"$$x^2$$", "\\[\nx^2\n\\]"):
        assert '<math display="block"><mrow><msup><mi>x</mi><mn>2</mn></msup></mrow></math>' in render(block)


def test_money_is_no_formula_and_a_formula_without_sense_stays_as_typed():
    assert render("it costs $5 and then $10, or $ 3 $") == "<p>it costs $5 and then $10, or $ 3 $</p>\n"
    assert render("`$x$`") == "<p><code>$x$</code></p>\n"
    assert "<math" not in render(r"$\frac{$") and r"\frac{" in render(r"$\frac{$")


@pytest.mark.parametrize(
    "inside",
    [
        *SCRIPTS[:12],
        r"\href{javascript:window.hit=1}{x}",
        r"\style{background:url(//evil.example)}{x}",
        "</math><script>x</script>",
    ],
)
def test_nothing_hostile_comes_out_of_a_formula(inside):
    for text in (rf"$\text{{{inside}}}$", f"$$ {inside} $$", rf"\( {inside} \)"):
        assert complaints(render(text)) == []


@pytest.mark.parametrize(
    "text", ["$" * 5000, r"\(" * 5000, "$" + "{" * 1900 + "x" + "}" * 1900 + "$", "$" + r"\frac" * 390 + "$", "$x$ " * 1000]
)
def test_formulas_made_to_be_slow_are_shown_all_the_same(text):
    assert complaints(render(text)) == []
