"""Configs as dictionaries, for records and checkpoints."""

from dataclasses import field, fields, is_dataclass
from typing import Any

_ADDED = "added"


def added(default: Any) -> Any:
    """A dataclass field that configs got after records of them existed; its default is what they all had."""
    return field(default=default, metadata={_ADDED: True})


def to_dict(config: Any) -> dict[str, Any]:
    """A config dataclass as a dictionary of JSON values; what was `added` is left out where it has its default.

    So a record or checkpoint from before a field was added still agrees with the config that it was made from.
    """
    result: dict[str, Any] = {}
    for each in fields(config):
        value = getattr(config, each.name)
        if each.metadata.get(_ADDED) and value == each.default:
            continue
        result[each.name] = to_dict(value) if is_dataclass(value) else _plain(value)
    return result


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return to_dict(value) if is_dataclass(value) else value
