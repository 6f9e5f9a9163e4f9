"""Fields of a frozen dataclass that are checked on construction, for what a user states as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, fields
from typing import Any

from amarl_core.errors import TraceError, problem


def text(default: str = "", one_of: tuple[str, ...] = ()) -> Any:
    """Declare a text, one of `one_of` if that is given."""

    def check(key: str, value: Any) -> str:
        if not isinstance(value, str) or (one_of and value not in one_of):
            raise wrong(key, value, f"one of {', '.join(map(repr, one_of))}" if one_of else "a text")
        return value

    return field(default=default, metadata={"check": check})


def number(default: float | None, least: float = 0.0, above: bool = True) -> Any:
    """Declare a number of at least `least`, or above it; None only if that is the default."""

    def check(key: str, value: Any) -> float | None:
        if value is None and default is None:
            return None
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not least <= value <= 1e15 or (above and value == least):
            raise wrong(key, value, f"a number {'above' if above else 'of at least'} {least:g}")
        return float(value)

    return field(default=default, metadata={"check": check})


def flag(default: bool) -> Any:
    """Declare true or false."""

    def check(key: str, value: Any) -> bool:
        if not isinstance(value, bool):
            raise wrong(key, value, "true or false")
        return value

    return field(default=default, metadata={"check": check})


def texts() -> Any:
    """Declare a list of texts, kept as a tuple."""

    def check(key: str, value: Any) -> tuple[str, ...]:
        if not isinstance(value, (list, tuple)) or not all(isinstance(text, str) for text in value):
            raise wrong(key, value, "a list of texts")
        return tuple(value)

    return field(default=(), metadata={"check": check})


def table() -> Any:
    """Declare a table of texts by text."""

    def check(key: str, value: Any) -> Mapping[str, str]:
        if not isinstance(value, Mapping) or not all(isinstance(text, str) for pair in value.items() for text in pair):
            raise wrong(key, value, 'a table of texts, such as {"5161": "DU-VM"}')
        return dict(value)

    return field(default_factory=dict, metadata={"check": check})


def shares() -> Any:
    """Declare shares by name that sum to 1."""

    def check(key: str, value: Any) -> Mapping[str, float]:
        is_table = isinstance(value, Mapping) and all(isinstance(service, str) for service in value)
        if not is_table or not all(type(share) in (int, float) and 0 <= share <= 1 for share in value.values()):
            raise wrong(key, value, 'a share from 0 to 1 for each service, such as {"video": 0.7, "voice": 0.3}')
        if value and abs(sum(value.values()) - 1) > 1e-6:
            raise wrong(key, value, f"shares that sum to 1 (they sum to {sum(value.values()):g})")
        return {service: float(share) for service, share in value.items()}

    return field(default_factory=dict, metadata={"check": check})


def wrong(key: str, value: Any, expected: str, remedy: str = "") -> TraceError:
    """Return the error for a value of a mapping."""
    return TraceError(problem(None, None, f"mapping: {key}", value, expected, remedy))


class Rule:
    """A part of a mapping: its fields are checked on construction, then what they must be together."""

    section = ""

    def __post_init__(self) -> None:
        for each in fields(self):  # type: ignore[arg-type]
            checked = each.metadata["check"](self.section + each.name, getattr(self, each.name))
            object.__setattr__(self, each.name, checked)
        self.check()

    def check(self) -> None:
        """Refuse fields that contradict each other."""
