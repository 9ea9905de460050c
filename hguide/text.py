"""The grammar of the text form: numbers, names, calls, [lists], `+` and `|`; every error points at the character."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hguide.errors import ParseError

__all__ = ["Call", "List", "Name", "Node", "Number", "Operation", "fail", "read"]


@dataclass(frozen=True)
class Number:
    """A number as written."""

    at: int
    text: str

    @property
    def value(self) -> float | int:
        """An int where it is written as one."""
        return int(self.text) if re.fullmatch(r"[+-]?\d+", self.text) else float(self.text)


@dataclass(frozen=True)
class Name:
    """A bare name."""

    at: int
    text: str


@dataclass(frozen=True)
class List:
    """`[a, b, ...]`."""

    at: int
    items: tuple[Node, ...]


@dataclass(frozen=True)
class Call:
    """`name(a, b, key=c)`; `keys` holds the keyword arguments with the place of each key."""

    at: int
    name: str
    items: tuple[Node, ...]
    keys: tuple[tuple[Name, Node], ...]


@dataclass(frozen=True)
class Operation:
    """`a | b | ...` or `a + b + ...`."""

    at: int
    symbol: str
    parts: tuple[Node, ...]


Node = Number | Name | List | Call | Operation

# The reader and what builds from its nodes call themselves once per level; Python allows about a thousand calls.
_DEEPEST = 32
_LONGEST_NUMBER = 64

_TOKEN = re.compile(
    r"\s*(?:(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<name>[A-Za-z_][\w.*-]*)|(?P<symbol>[()\[\],=|+]))"
)


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    at: int


def fail(text: str, at: int, message: str) -> ParseError:
    """A `ParseError` that shows the text with a mark under character `at`."""
    return ParseError(f"{message}\n  {text}\n  {' ' * at}^")


def read(text: str) -> Node:
    """The expression written in `text`.

    Raises:
        ParseError: the text does not follow the grammar, has brackets more than 31 deep or a number of more than 64
            characters; points at the character.
    """
    return _Reader(text).whole()


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = self._split()
        self.next = 0
        self.depth = 0

    def _split(self) -> Sequence[_Token]:
        tokens: list[_Token] = []
        at = 0
        while at < len(self.text.rstrip()):
            match = _TOKEN.match(self.text, at)
            if match is None:
                at += len(self.text[at:]) - len(self.text[at:].lstrip())
                raise fail(self.text, at, f"unexpected character {self.text[at]!r}.")
            kind = str(match.lastgroup)
            if kind == "number" and len(match[kind]) > _LONGEST_NUMBER:
                raise fail(self.text, match.start(kind), f"a number has at most {_LONGEST_NUMBER} characters.")
            # "a +1" is a sum of a and 1 to the eye, not a followed by the number +1.
            if kind == "number" and match["number"][0] == "+" and tokens and tokens[-1].text not in "(,=[|+":
                tokens.append(_Token("symbol", "+", match.start(kind)))
                at = match.start(kind) + 1
                continue
            tokens.append(_Token(kind, match[kind], match.start(kind)))
            at = match.end()
        tokens.append(_Token("end", "end of text", len(self.text.rstrip())))
        return tokens

    def whole(self) -> Node:
        node = self.expression()
        if self.peek().kind != "end":
            raise self.unexpected("the end, '|' or '+'")
        return node

    def peek(self) -> _Token:
        return self.tokens[self.next]

    def take(self, symbol: str | None = None) -> _Token:
        token = self.peek()
        if symbol is not None and token.text != symbol:
            raise self.unexpected(repr(symbol))
        self.next += 1
        return token

    def unexpected(self, wanted: str) -> ParseError:
        token = self.peek()
        got = token.text if token.kind == "end" else repr(token.text)
        return fail(self.text, token.at, f"expected {wanted}, got {got}.")

    def expression(self) -> Node:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise fail(self.text, self.tokens[self.next - 1].at, f"brackets are at most {_DEEPEST - 1} deep.")
        node = self.operation("|", lambda: self.operation("+", self.atom))
        self.depth -= 1
        return node

    def operation(self, symbol: str, part: Callable[[], Node]) -> Node:
        at = self.peek().at
        parts = [part()]
        while self.peek().text == symbol:
            self.take()
            parts.append(part())
        return parts[0] if len(parts) == 1 else Operation(at, symbol, tuple(parts))

    def atom(self) -> Node:
        token = self.peek()
        if token.text == "(":
            self.take()
            node = self.expression()
            self.take(")")
            return node
        if token.text == "[":
            self.take()
            return List(token.at, tuple(self.arguments("]")[0]))
        if token.kind == "number":
            self.take()
            return Number(token.at, token.text)
        if token.kind != "name":
            raise self.unexpected("a name, a number, '(' or '['")
        self.take()
        if self.peek().text != "(":
            return Name(token.at, token.text)
        self.take()
        items, keys = self.arguments(")")
        return Call(token.at, token.text, tuple(items), tuple(keys))

    def arguments(self, close: str) -> tuple[list[Node], list[tuple[Name, Node]]]:
        items: list[Node] = []
        keys: list[tuple[Name, Node]] = []
        while self.peek().text != close:
            value = self.expression()
            if self.peek().text == "=" and isinstance(value, Name) and close == ")":
                self.take()
                keys.append((value, self.expression()))
            elif keys:
                raise fail(self.text, value.at, "a value without a name cannot follow one with a name.")
            else:
                items.append(value)
            if self.peek().text != close:
                if self.peek().text != ",":
                    raise self.unexpected(f"',' or {close!r}")
                self.take()
        self.take(close)
        return items, keys
