"""Who may do what: one table from rights to roles, and nothing decided anywhere else.

A role is held in one project. The owner of the installation may do everything in every project. A token has some of the
rights of the person it belongs to: its scopes are rights.
"""

from typing import NamedTuple

ROLES = ("manager", "reviewer", "annotator", "viewer")

RIGHTS: dict[str, tuple[str, ...]] = {  # who has each, besides the owner
    "annotate": ("manager", "reviewer", "annotator"),
    "view": ("manager", "reviewer", "viewer"),  # counts and charts
    "read": ("manager", "reviewer"),  # items with their sources, judgments by pseudonym
    "import": ("manager",),
    "export": ("manager",),
    "manage": ("manager",),  # settings, questions, people
    "own": (),  # the installation: making projects, accounts
}
SCOPES = frozenset(RIGHTS)


class Standing(NamedTuple):
    """Somebody before a project."""

    role: str  # owner, one of ROLES, or empty: not a member
    scopes: frozenset[str]

    def may(self, right: str) -> bool:
        if right == "see":  # that a project is there, and what it is called: every member, every token
            return bool(self.role)
        return right in self.scopes and (self.role == "owner" or self.role in RIGHTS[right])
