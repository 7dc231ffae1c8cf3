"""Frozen dataclasses as plain data and back, checked by their annotations: what a `config.yaml` holds.

Every message names the entry at fault by its path (`method.loop.batch_size`), what was expected there, and for a
misspelt name the closest one.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from presage.common.plugins import advice

T = TypeVar("T")


class ConfigError(ValueError):
    """A configuration is wrong; the message names the entry, what it must be, and how to fix it."""


class UsageError(Exception):
    """What was typed on a command line cannot be understood; the message says why."""


def to_plain(value: Any) -> Any:
    """A configuration as dicts, lists, numbers, strings and None.

    Raises:
        ConfigError: it holds something else.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ConfigError(f"a configuration holds {value!r}, which is no number, string, tuple or dataclass of such")


def from_plain(kind: type[T], data: Any, where: str = "", narrowed: Mapping[str, type[Any]] | None = None) -> T:
    """The dataclass `kind` with the numbers in `data`, of which `to_plain` makes the same data again.

    Args:
        kind: a dataclass; its annotations say what every entry must be.
        data: a mapping; entries that are left out keep their defaults.
        where: path of `data` in the whole configuration, for messages.
        narrowed: dataclasses of entries whose annotation leaves them open, such as a type variable.

    Raises:
        ConfigError: an unknown or missing entry, a value of the wrong type, or values that contradict each other.
    """
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where or 'the configuration'} must map {kind.__name__}'s settings to values, got {data!r}")
    if not is_dataclass(kind):
        raise TypeError(f"{kind!r} is no dataclass")
    hints = get_type_hints(kind) | dict(narrowed or {})
    known = {field.name: field for field in fields(kind)}
    for name in data:
        if name not in known:
            raise ConfigError(f"{_path(where, name)} is no setting of {kind.__name__}; {advice(str(name), known)}")
    read = {name: _read(hints[name], item, _path(where, name)) for name, item in data.items()}
    for name, field in known.items():
        if name not in data and field.default is MISSING and field.default_factory is MISSING:
            raise ConfigError(f"{_path(where, name)} is missing; {kind.__name__} has no default for it")
    try:
        found: T = kind(**read)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{where}: {error}" if where else str(error)) from error
    return found


def _path(where: str, name: Any) -> str:
    return f"{where}.{name}" if where else str(name)


def _read(wanted: Any, value: Any, where: str) -> Any:
    """`value` as the annotation `wanted` has it."""
    origin, arguments = get_origin(wanted), get_args(wanted)
    if is_dataclass(origin or wanted):
        return from_plain(origin or wanted, value, where)
    if wanted is Any:
        return value
    if origin is Literal:
        if value in arguments and type(value) in map(type, arguments):
            return value
        raise ConfigError(f"{where}={value!r} must be one of {', '.join(map(repr, arguments))}")
    if origin in (Union, types.UnionType):
        return _read_union(arguments, value, where)
    if origin is tuple:
        return _read_tuple(arguments, value, where)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise _wrong(where, value, "a mapping")
        return {str(key): _read(arguments[1], item, _path(where, key)) for key, item in value.items()}
    if wanted is float and type(value) in (int, float):
        return float(value)
    if wanted in (bool, int, float, str) and type(value) is wanted:
        return value
    if wanted is type(None) and value is None:
        return None
    raise _wrong(where, value, _described(wanted))


def _read_union(members: tuple[Any, ...], value: Any, where: str) -> Any:
    # a number that is exactly one of the members is that one: 1 under int | float stays an int
    if type(value) in members:
        return value
    for member in members:
        try:
            return _read(member, value, where)
        except ConfigError as error:
            last = error
    structured = [member for member in members if is_dataclass(member)]
    raise last if structured else _wrong(where, value, " or ".join(map(_described, members)))


def _read_tuple(members: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise _wrong(where, value, "a list")
    if len(members) == 2 and members[1] is Ellipsis:
        members = (members[0],) * len(value)
    if len(members) != len(value):
        raise _wrong(where, value, f"a list of {len(members)}")
    pairs = enumerate(zip(members, value, strict=True))
    return tuple(_read(member, item, f"{where}[{i}]") for i, (member, item) in pairs)


def _described(wanted: Any) -> str:
    plain = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}
    return plain.get(wanted, str(wanted))


def _wrong(where: str, value: Any, wanted: str) -> ConfigError:
    return ConfigError(f"{where}={value!r} must be {wanted}")
