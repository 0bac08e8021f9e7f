"""Bicep, as far as deploy/aci uses it, read and evaluated: no package has a compiler of it.

Declarations must come before their use, as they do in the templates. Whatever is not known raises
BicepError.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_SPACE = re.compile(r"(?:\s|//[^\n]*)*")
_BLANKS = re.compile(r"[ \t]*")
_SEPARATORS = re.compile(r"(?:[\s,]|//[^\n]*)*")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NUMBER = re.compile(r"[0-9]+")
_ESCAPES = {"\\": "\\", "'": "'", "n": "\n", "r": "\r", "t": "\t", "$": "$"}
_CONSTANTS = {"true": True, "false": False, "null": None}


class BicepError(Exception):
    """The template is not understood; the text says where."""


@dataclass(frozen=True)
class Parameter:
    """A parameter; `default` is None where it has none."""

    type: str
    default: Any
    decorators: Mapping[str, Any]

    @property
    def is_secure(self) -> bool:
        return "secure" in self.decorators


@dataclass(frozen=True)
class Resource:
    """A resource; one that exists is only referred to."""

    type: str
    api_version: str
    exists: bool
    body: dict[str, Any]


@dataclass
class Template:
    """What a template declares, by name, evaluated."""

    parameters: dict[str, Parameter] = field(default_factory=dict)
    resources: dict[str, Resource] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)


def read_template(text: str, values: Mapping[str, Any], outside: Mapping[str, Any]) -> Template:
    """Evaluate a template.

    Args:
        text: the template.
        values: those of parameters; the others have their defaults, or None.
        outside: the functions, and what only Azure knows of the resources, by their symbolic names.
    """
    return _Reader(text, values, outside).template()


class _Reader:
    def __init__(self, text: str, values: Mapping[str, Any], outside: Mapping[str, Any]) -> None:
        self._text = text
        self._at = 0
        self._values = values
        self._names = dict(outside)

    def template(self) -> Template:
        template = Template()
        while self._skip(_SPACE) < len(self._text):
            decorators = self._decorators()
            match keyword := self._word():
                case "param":
                    name, kind = self._word(), self._word()
                    default = self._expression() if self._take("=") else None
                    template.parameters[name] = Parameter(kind, default, decorators)
                    self._names[name] = self._values.get(name, default)
                case "var":
                    name = self._word()
                    self._expect("=")
                    self._names[name] = self._expression()
                case "resource":
                    name = self._word()
                    template.resources[name] = self._resource()
                    self._names.setdefault(name, name)
                case "output":
                    name, _ = self._word(), self._word()
                    self._expect("=")
                    template.outputs[name] = self._expression()
                case _:
                    raise self._error(f"{keyword} is no declaration that is known here")
        if unknown := set(self._values) - set(template.parameters):
            raise BicepError(f"no such parameters: {', '.join(sorted(unknown))}")
        return template

    def _decorators(self) -> dict[str, Any]:
        decorators = {}
        while self._take("@"):
            name = self._word()
            decorators[name] = self._arguments()
        return decorators

    def _resource(self) -> Resource:
        kind, _, api_version = self._expression().partition("@")
        exists = self._take("existing")
        self._expect("=")
        return Resource(kind, api_version, exists, self._expression())

    def _expression(self) -> Any:
        value = self._operand()
        if self._text.startswith("?", self._skip(_BLANKS)):
            self._expect("?")
            chosen = self._expression()
            self._expect(":")
            other = self._expression()
            return chosen if value else other
        return value

    def _operand(self) -> Any:
        value = self._primary()
        while True:
            if self._take_at_once("."):
                value = value[self._word()]
            elif self._take_at_once("["):
                value = value[self._expression()]
                self._expect("]")
            elif self._text.startswith("(", self._at):
                value = value(*self._arguments())
            else:
                return value

    def _primary(self) -> Any:
        self._skip(_SPACE)
        if self._take_at_once("'"):
            return self._string()
        if self._take_at_once("["):
            return self._items()
        if self._take_at_once("{"):
            return self._object()
        if number := _NUMBER.match(self._text, self._at):
            self._at = number.end()
            return int(number[0])
        name = self._word()
        if name in _CONSTANTS:
            return _CONSTANTS[name]
        if name not in self._names:
            raise self._error(f"{name} is not declared")
        return self._names[name]

    def _string(self) -> str:
        pieces = []
        while not self._take_at_once("'"):
            if self._take_at_once("${"):
                pieces.append(str(self._expression()))
                self._expect("}")
            elif self._take_at_once("\\"):
                pieces.append(_ESCAPES[self._text[self._at]])
                self._at += 1
            elif self._text.startswith("\n", self._at):
                raise self._error("a string has no end")
            else:
                pieces.append(self._text[self._at])
                self._at += 1
        return "".join(pieces)

    def _items(self) -> list[Any]:
        items = []
        self._skip(_SEPARATORS)
        while not self._take_at_once("]"):
            items.append(self._expression())
            self._skip(_SEPARATORS)
        return items

    def _object(self) -> dict[str, Any]:
        members = dict[str, Any]()
        self._skip(_SEPARATORS)
        while not self._take_at_once("}"):
            key = self._string() if self._take_at_once("'") else self._word()
            self._expect(":")
            if key in members:
                raise self._error(f"{key} is there twice")
            members[key] = self._expression()
            self._skip(_SEPARATORS)
        return members

    def _arguments(self) -> list[Any]:
        self._expect("(")
        arguments = []
        self._skip(_SEPARATORS)
        while not self._take_at_once(")"):
            arguments.append(self._expression())
            self._skip(_SEPARATORS)
        return arguments

    def _word(self) -> str:
        word = _WORD.match(self._text, self._skip(_SPACE))
        if word is None:
            raise self._error("a name is missing")
        self._at = word.end()
        return word[0]

    def _expect(self, token: str) -> None:
        if not self._take(token):
            raise self._error(f"{token} is missing")

    def _take(self, token: str) -> bool:
        """Read a token, if it comes next, after any space; return whether it did."""
        self._skip(_SPACE)
        return self._take_at_once(token)

    def _take_at_once(self, token: str) -> bool:
        """Read a token, if it comes at once; return whether it did."""
        found = self._text.startswith(token, self._at)
        self._at += len(token) if found else 0
        return found

    def _skip(self, what: re.Pattern[str]) -> int:
        found = what.match(self._text, self._at)
        self._at = found.end() if found else self._at
        return self._at

    def _error(self, reason: str) -> BicepError:
        return BicepError(f"line {self._text.count(chr(10), 0, self._at) + 1}: {reason}")
