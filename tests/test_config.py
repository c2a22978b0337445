"""Configs as dictionaries: whole, and in agreement with records that are older than a field."""

from dataclasses import dataclass, field

from lib.config import added, to_dict


@dataclass(frozen=True)
class Inner:
    size: int = 3
    later: bool = added(False)


@dataclass(frozen=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    several: tuple[int, ...] = (1, 2)
    option: Inner | None = added(None)


def test_an_added_field_is_left_out_only_where_it_has_its_default():
    assert to_dict(Outer()) == {"inner": {"size": 3}, "several": [1, 2]}
    assert to_dict(Outer(inner=Inner(later=True)))["inner"] == {"size": 3, "later": True}
    assert to_dict(Outer(option=Inner()))["option"] == {"size": 3}
