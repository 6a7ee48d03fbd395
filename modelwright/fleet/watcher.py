"""Who is told how a change goes, server by server. The command line shows it."""

from __future__ import annotations

from typing import Literal

Stage = Literal[
    "reached",
    "loading",
    "waiting",
    "replaying",
    "under load",
    "serves it",
    "failed",
    "putting back",
    "put back",
    "not put back",
]


class Watcher:
    """Silent by default."""

    def server(self, url: str, stage: Stage, text: str = "") -> None:
        """A server came to another stage; `text` has the particulars."""

    def say(self, text: str) -> None:
        """One line about the whole."""
