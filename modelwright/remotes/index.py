"""`modelwright-remote.json`, at a remote's root: what was pushed there, with the SHA-256 of every object.

It says which objects are ours, and it saves reading them: an object is trusted to be what the index says while its size
and its stamp are as they were when it was checked. A file at the root of a repository is not looked at by a server.
A push writes the names of what it is about to write before it does so, without stamps; and all of it at its end.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated

from pydantic import Field, PlainSerializer

from modelwright import __version__
from modelwright.digest import parse_json
from modelwright.errors import RemoteError
from modelwright.facts.part import DamagedError, Integer, Part, validated
from modelwright.remotes.store import Entry, RemoteStore
from modelwright.repository.ledger import ServingState

INDEX = "modelwright-remote.json"
SCHEMA = 1


class RemoteObject(Part):
    sha256: str
    size_bytes: Integer
    stamp: str = ""  # "": it may not be there yet


class RemoteIndex(Part):
    schema_: Annotated[Integer, Field(alias="schema")] = Field(SCHEMA, alias="schema")
    modelwright: str = __version__  # its version
    time: Annotated[datetime, PlainSerializer(datetime.isoformat)]
    who: str
    highest: dict[str, Integer] = Field(default_factory=dict)  # the highest number that each model ever had
    serving: dict[str, ServingState] = Field(default_factory=dict)  # what operators decided
    objects: dict[str, RemoteObject] = Field(default_factory=dict)

    def sha256(self, name: str, entry: Entry) -> str:
        """The SHA-256 of an object that is as it was; "" for one that nothing is known of."""
        known = self.objects.get(name)
        same = known is not None and known.stamp and (known.size_bytes, known.stamp) == (entry.size_bytes, entry.stamp)
        return known.sha256 if known is not None and same else ""

    def text(self) -> bytes:
        return (json.dumps(self.as_json(), indent=1, sort_keys=True) + "\n").encode()


def read_index(store: RemoteStore) -> RemoteIndex | None:
    """None where nothing was pushed. Raises RemoteError for one that is damaged, or that a newer Modelwright wrote."""
    data = store.read(INDEX)
    if data is None:
        return None
    where = store.place.of(INDEX)
    try:
        content = parse_json(data)
        schema = content["schema"]
        if type(schema) is int and schema > SCHEMA:
            problem = (
                f"schema {schema}: written by a newer Modelwright ({content.get('modelwright', 'unknown version')})"
            )
            raise RemoteError(f"{where}: {problem}", f"update Modelwright: this one is {__version__}")
        return validated(RemoteIndex, content)
    except (ValueError, KeyError, TypeError, AttributeError, DamagedError) as error:
        hint = "remove that object: the next push looks at what is there, and writes it again"
        raise RemoteError(f"{where}: damaged: {error}", hint) from None
