"""HTML by small functions that escape unless told otherwise. Model output is hostile input: it only ever enters as text.

A ``str`` is text and is escaped; an ``Html`` is markup that one of these functions built. Two more places make ``Html``
themselves: ``plots.for_page`` (matplotlib's drawing) and ``shell.document`` (the style sheet and the outermost tags).
"""

import html
import unicodedata
from dataclasses import dataclass

LONGEST_TEXT = 4000  # characters of one text on the page; what is cut is said
PLAIN = "\n\t\u200c\u200d"  # of the unseen characters, those that texts need: line breaks, tabs, joiners of emoji and scripts
VOID = {"br", "meta", "col", "line", "circle", "rect", "path"}  # elements written without an end


@dataclass(frozen=True)
class Html:
    """Markup that is safe to put in a page."""

    text: str

    def __str__(self) -> str:
        return self.text


Child = Html | str | None


def tag(name: str, /, *children: Child, **attributes: str | int | float | bool | None) -> Html:
    """An element. Underscores in attribute names become hyphens (``class_`` is class); None and False are left out."""
    written = "".join(attribute(key, value) for key, value in attributes.items() if value is not None and value is not False)
    if name in VOID and not children:
        return Html(f"<{name}{written}/>")
    return Html(f"<{name}{written}>{join(*children).text}</{name}>")


def attribute(key: str, value: str | int | float | bool) -> str:
    name = key.rstrip("_").replace("_", "-") if key != "viewBox" else key
    return f" {name}" if value is True else f' {name}="{html.escape(visible(str(value)))}"'


def join(*children: Child, between: str = "") -> Html:
    """Several parts one after the other; None is nothing."""
    return Html(html.escape(between).join(markup_of(child) for child in children if child is not None))


def markup_of(child: Html | str) -> str:
    return child.text if isinstance(child, Html) else html.escape(visible(child))


def visible(text: str) -> str:
    """The text with every character that could hide, reorder or break the page drawn as what it is.

    Control characters become their pictures, half a surrogate pair and the marks that reverse the direction of
    reading become their code points; line breaks, tabs and every visible character stay.
    """
    return "".join(character if is_plain(character) else picture(character) for character in text.replace("\r\n", "\n"))


def is_plain(character: str) -> bool:
    return character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cf", "Cs") or character in "\u200d\u200c"


def picture(character: str) -> str:
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    return f"⟨U+{code:04X}⟩"


def cut(text: str, note: str, longest: int = LONGEST_TEXT) -> str:
    """At most ``longest`` characters, with ``note`` (which has a {n}) saying how many were left off."""
    if len(text) <= longest:
        return text
    return text[:longest] + " " + note.format(n=f"{len(text) - longest:,}")
