"""The errors a user may meet, under one base class, and how their sentences are made."""

from __future__ import annotations

import re
from pathlib import Path

_LONGEST_VALUE = 80
_PLAIN_NUMBER = re.compile(r"[+-]?[0-9.]+([eE][+-]?[0-9]+)?")


class AmarlError(Exception):
    """Base of every error that this project raises on purpose."""


class ScenarioError(AmarlError):
    """A scenario folder, a network or a placement is not usable."""


class TraceError(AmarlError):
    """A request trace is not usable, or not the one that was recorded."""


class RunError(AmarlError):
    """A run, a method, a model or a setting is not usable."""


class HeldError(RunError):
    """Another process is writing the run; it may be looked at again later."""


class StorageError(RunError):
    """A file or folder cannot be written: the disk is full, or it is read-only."""


class AuditError(AmarlError):
    """Recorded decisions or a ledger contradict the rules."""


def problem(
    path: str | Path | None,
    row: int | None,
    column: str | None,
    value: object,
    expected: str,
    remedy: str = "",
) -> str:
    """Compose one sentence that says where, what was given, what was expected and what to do.

    Args:
        path: File concerned (its name is shown), or None.
        row: Line number in that file, the header being line 1; None if no single row is at fault.
        column: Column or key concerned, or None.
        value: What was given; a text is quoted unless it is a number, or `column` is None and it is a remark.
        expected: What was expected, to follow the word "expected".
        remedy: What to do about it, as a sentence.

    Returns:
        For example ``links.csv row 17: capacity_kbps is -5; expected a positive integer. Give it in kbps.``
    """
    where = Path(path).name if path is not None else ""
    if row is not None:
        where = f"{where} row {row}".strip()
    is_said = isinstance(value, str) and (column is None or _PLAIN_NUMBER.fullmatch(value) is not None)
    given = str(value) if is_said else repr(value)
    if len(given) > _LONGEST_VALUE:
        given = given[: _LONGEST_VALUE - 3] + "..."
    what = f"{column} is {given}" if column is not None else given
    sentence = f"{where}: {what}; expected {expected}" if where else f"{what}; expected {expected}"
    return f"{sentence}. {remedy}".strip() if remedy else sentence
