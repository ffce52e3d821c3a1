"""JSON functions that make documents: json_array, json_object, json_set, json_patch and the like.

An argument that is itself the result of such a function, of json() or of `->` is put in as JSON;
any other text is put in as a text. So values reach these functions as *pieces* of JSON text, made
by `piece` or taken as they are; which of the two, the argument's expression decides.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

from m2mdb.pager.errors import DataError, ProgrammingError
from m2mdb.query.affinity import Value, shown, to_text, type_name
from m2mdb.query.jsonpath import (
    MISSING,
    Step,
    dump,
    load,
    quoted,
    real_json,
    sql_value,
    steps_of,
    walk,
)


def piece(value: Value) -> str:
    """A value as a piece of JSON text; a vector as an array, a moment as a text.

    Raises DataError: JSON holds no bytes.
    """
    kind = type(value)
    if kind is str:
        return quoted(value)
    if value is None:
        return "null"
    if isinstance(value, int):
        return str(int(value))
    if kind is float:
        return real_json(value)
    if isinstance(value, datetime.datetime):
        return quoted(to_text(value) or "")
    if hasattr(value, "dtype"):
        return "[" + ",".join(map(piece, value.tolist())) + "]"
    raise DataError(f"JSON cannot hold BLOB values: {type_name(value)} {shown(value)}")


def json_piece(text: Value) -> str:
    """The result of a function that makes JSON, as a piece."""
    return "null" if text is None else str(text)


def extracted_piece(text: Value, *paths: Value) -> str:
    """json_extract() as a piece: what is no object and no array counts as its SQL value."""
    if text is None or any(path is None for path in paths):
        return "null"
    document = load(text)
    found = [walk(document, steps_of(to_text(path) or "")) for path in paths]
    if len(found) > 1:
        return dump([None if part is MISSING else part for part in found])
    if found[0] is MISSING:
        return "null"
    return dump(found[0]) if isinstance(found[0], dict | list) else piece(sql_value(found[0]))


def _array(*pieces: str) -> Value:
    return "[" + ",".join(pieces) + "]"


def _object(*parts: Value) -> Value:
    if len(parts) % 2:
        raise ProgrammingError("json_object() requires an even number of arguments")
    pairs = []
    for label, each in zip(parts[::2], parts[1::2], strict=True):
        if type(label) is not str:
            raise DataError(f"json_object() labels must be TEXT, not {shown(label)}")
        pairs.append(f"{quoted(label)}:{each}")
    return "{" + ",".join(pairs) + "}"


def _quote(given: str) -> Value:
    return given


def _changer(name: str, *, inserts: bool, replaces: bool) -> Callable[..., Value]:
    """json_insert, json_replace, json_set: a text, then paths and pieces in turn."""

    def run(text: Value, *parts: Value) -> Value:
        if len(parts) % 2:
            raise ProgrammingError(f"{name}() needs an odd number of arguments")
        if text is None:
            return None
        document = load(text)
        for path, new in zip(parts[::2], parts[1::2], strict=True):
            if path is not None:
                steps = steps_of(to_text(path) or "")
                document = _changed(document, steps, load(new), (inserts, replaces))
        return dump(document)

    return run


def _changed(document: Any, steps: tuple[Step, ...], new: Any, may: tuple[bool, bool]) -> Any:
    """The document with a value put at the end of the steps, where it may be."""
    inserts, replaces = may
    if not steps:
        return new if replaces else document
    step, rest = steps[0], steps[1:]
    place = _place(document, step)
    if place is None:
        return document
    if walk(document, (step,)) is not MISSING:
        document[place] = _changed(document[place], rest, new, may)
        return document
    made = _made(rest, new) if inserts else MISSING
    if made is not MISSING:
        if isinstance(document, list):
            document.append(made)
        else:
            document[place] = made
    return document


def _place(document: Any, step: Step) -> Any:
    """Key or index of a step; None where the document has no such place, nor behind its end."""
    if isinstance(step, str):
        return step if isinstance(document, dict) else None
    if not isinstance(document, list):
        return None
    from_end, number = step
    place = len(document) + number if from_end else number
    return place if 0 <= place <= len(document) else None


def _made(steps: tuple[Step, ...], new: Any) -> Any:
    """The value inside of new objects and arrays, one a step; MISSING where one cannot be."""
    for step in reversed(steps):
        if isinstance(step, str):
            new = {step: new}
        elif step == (False, 0):
            new = [new]
        else:
            return MISSING
    return new


def _remove(text: Value, *paths: Value) -> Value:
    if text is None or any(path is None for path in paths):
        return None
    document = load(text)
    for path in paths:
        steps = steps_of(to_text(path) or "")
        if not steps:
            return None
        parent = walk(document, steps[:-1])
        place = None if parent is MISSING else _place(parent, steps[-1])
        if place is not None and walk(parent, steps[-1:]) is not MISSING:
            del parent[place]
    return dump(document)


def _patch(text: Value, patch: Value) -> Value:
    if text is None or patch is None:
        return None
    return dump(_merged(load(text), load(patch)))


def _merged(target: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    merged = target if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged(merged.get(key), value)
    return merged


Takes = Callable[[int], bool]  # whether the argument at a place is a piece


def _all(place: int) -> bool:
    return True


def _odd(place: int) -> bool:
    return place % 2 == 1


def _even(place: int) -> bool:
    return place >= 2 and place % 2 == 0


def _none(place: int) -> bool:
    return False


JSON_FUNCTIONS: dict[str, tuple[Callable[..., Value], int, int | None, Takes]] = {
    "json_array": (_array, 0, None, _all),
    "json_insert": (_changer("json_insert", inserts=True, replaces=False), 1, None, _even),
    "json_object": (_object, 0, None, _odd),
    "json_patch": (_patch, 2, 2, _none),
    "json_quote": (_quote, 1, 1, _all),
    "json_remove": (_remove, 1, None, _none),
    "json_replace": (_changer("json_replace", inserts=False, replaces=True), 1, None, _even),
    "json_set": (_changer("json_set", inserts=True, replaces=True), 1, None, _even),
}
JSON_AGGREGATES: dict[str, int] = {"json_group_array": 0, "json_group_object": 1}  # place of piece
MAKES_JSON = frozenset({"json", *JSON_FUNCTIONS, *JSON_AGGREGATES})


def group_array(pieces: list[str]) -> Value:
    """json_group_array() of a group's pieces."""
    return _array(*pieces)


def group_object(labels: list[Value], pieces: list[str]) -> Value:
    """json_group_object(); a row without a label is left out.

    Raises DataError: a label that is no text.
    """
    parts = [each for pair in zip(labels, pieces, strict=True) if pair[0] is not None
             for each in pair]  # fmt: skip
    return _object(*[to_text(each) if at % 2 == 0 else each for at, each in enumerate(parts)])
