"""A text as Markdown, made into HTML that is safe to show: answers, prompts and guidelines are hostile input.

One way in and one corpus of attacks (tests/collect/test_render.py): markdown-it without HTML, code by Pygments, formulas as
MathML, and then nh3 keeps what is on a short list, whatever came before it. Nothing is loaded from anywhere: pictures become their words, and
characters that cannot be seen, or that turn the direction of a line, become visible.
"""

import html
import re
from functools import lru_cache
from typing import Any
from xml.etree import ElementTree

import nh3
from latex2mathml.converter import convert
from markdown_it import MarkdownIt
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from pygments import highlight
from pygments.formatters.html import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

LONGEST = 200_000  # characters that are drawn; longer ones are shown as typed
MOST_MARKS = 5000  # of one kind: more of them are no Markdown, and take time that grows with their square
LONGEST_CODE = 20_000  # of a block that is coloured
TAGS = {
    "a", "blockquote", "br", "code", "del", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p", "pre", "s", "span",
    "strong", "table", "tbody", "td", "th", "thead", "tr", "ul",
}  # fmt: skip
MATH = {
    "math", "menclose", "mfrac", "mi", "mmultiscripts", "mn", "mo", "mover", "mpadded", "mphantom", "mroot", "mrow", "mspace",
    "msqrt", "mstyle", "msub", "msubsup", "msup", "mtable", "mtd", "mtext", "mtr", "munder", "munderover",
}  # fmt: skip
# At most 1000 characters: $x$ as Pandoc reads it, so that "$5 and $10" is money; $$x$$; \(x\) and \[x\] as models write them.
FORMULA = re.compile(
    r"\$\$(.{1,1000}?)\$\$|\\\[(.{1,1000}?)\\\]|\\\((.{1,1000}?)\\\)|\$(?!\s)([^$\n]{0,1000}?[^\s$\\])\$(?!\d)", re.DOTALL
)
ATTRIBUTES = {"math": {"display"}, "a": {"href", "title"}, "ol": {"start"}, "span": {"class", "title"}}
OURS = re.compile(r"[a-z]{1,3}[0-9]?|unseen-character|no-picture")  # classes of Pygments, and two of our own

# Zero width and bidirectional controls (Trojan Source, arXiv 2111.00169). The joiners of emoji and of Indic and Arabic
# scripts are left alone between letters that need them.
UNSEEN = re.compile("[\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff\u061c\u00ad]|[\U000e0000-\U000e007f]")

markdown = MarkdownIt("commonmark", {"html": False, "linkify": False, "maxNesting": 30}).enable(["table", "strikethrough"])
formatter = HtmlFormatter(nowrap=True, classprefix="")


def coloured(code: str, language: str, _attributes: str) -> str:
    """A block of code with Pygments' classes; as it is where the language is unknown."""
    try:
        lexer = get_lexer_by_name(language, stripnl=False) if language and len(code) <= LONGEST_CODE else None
    except ClassNotFound:
        lexer = None
    return highlight(code, lexer, formatter) if lexer else html.escape(code)


def no_picture(_renderer: Any, tokens: list[Token], place: int, _options: Any, _environment: Any) -> str:
    """A picture is never fetched: who looks at an item, and when, is nobody's business."""
    token = tokens[place]
    return (
        f'<span class="no-picture" title="{html.escape(str(token.attrGet("src") or ""))}">🖼 {html.escape(token.content)}</span>'
    )


def formula(state: StateInline, silent: bool) -> bool:
    """Takes a formula out of the text before Markdown reads its underscores and stars."""
    found = FORMULA.match(state.src, state.pos)
    if found is None:
        return False
    if not silent:
        token = state.push("formula", "", 0)
        token.content, token.info = found[0], "block" if found[1] or found[2] else "inline"
        token.meta["latex"] = next(part for part in found.groups() if part)
    state.pos = found.end()
    return True


def drawn_formula(_renderer: Any, tokens: list[Token], place: int, _options: Any, _environment: Any) -> str:
    """MathML, built anew from what is on the list; the source where there is anything else, or no sense."""
    token = tokens[place]
    source = f"<code>{html.escape(token.content)}</code>"
    try:
        tree = ElementTree.fromstring(convert(token.meta["latex"]))
    except Exception:  # of many kinds: LaTeX is a programming language, and this reads a part of it
        return source
    for element in tree.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib.clear()
    if any(element.tag not in MATH for element in tree.iter()):
        return source
    tree.set("display", token.info)
    return ElementTree.tostring(tree, encoding="unicode")


markdown.inline.ruler.before("escape", "formula", formula)
markdown.add_render_rule("formula", drawn_formula)
markdown.options["highlight"] = coloured
markdown.add_render_rule("image", no_picture)


@lru_cache(maxsize=4096)
def render(text: str) -> str:
    """HTML of a Markdown text, in the tags and attributes above and no others."""
    if len(text) > LONGEST or max(map(text.count, "[*_`~$\\<>!-|&")) > MOST_MARKS:
        return f"<pre>{html.escape(text)}</pre>"
    drawn = markdown.render(text.replace("\r\n", "\n").replace("\r", "\n"))
    clean = nh3.clean(
        drawn, tags=TAGS | MATH, attributes=ATTRIBUTES, url_schemes={"http", "https", "mailto"}, link_rel="noopener noreferrer nofollow",
        set_tag_attribute_values={"a": {"target": "_blank"}}, attribute_filter=kept,
    )  # fmt: skip
    return outside_tags(clean)


def kept(tag: str, attribute: str, value: str) -> str | None:
    """What stays of an attribute: only links that say where they lead, only classes we give."""
    if attribute == "href":
        return value if re.match(r"(https?://|mailto:)", value, re.IGNORECASE) else None
    if attribute == "class":
        return value if OURS.fullmatch(value) else None
    return value


def outside_tags(clean: str) -> str:
    """Unseen characters marked where they stand in text, taken out where they stand in an attribute."""
    parts = re.split(r"(<[^>]*>)", clean)
    return "".join(UNSEEN.sub("", part) if place % 2 else UNSEEN.sub(marked, part) for place, part in enumerate(parts))


def marked(found: re.Match[str]) -> str:
    return f'<span class="unseen-character">U+{ord(found[0]):04X}</span>'
