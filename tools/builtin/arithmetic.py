"""Arithmetic from text, without ``eval``: a parser that calculates while it reads.

The rules are Python's (precedence, exact integers, ``//``, ``**``), with what people and models write beside
them:

- ``^``, ``×``, ``÷``, ``−`` and ``x`` between numbers; ``5!``; a trailing ``=``; currency signs, which are
  passed over;
- ``%`` as percent where no operand follows: ``15% of 80`` is 12, ``200 + 10%`` is 220 (ten percent of what
  stands before it), ``10%`` alone is 0.1. Where an operand follows it is the remainder: ``17 % 5`` is 2;
- thousands separators: ``1,234.5`` is one number. Inside the parentheses of a function a comma separates
  arguments, as in ``max(1,234)``.

Everything is bounded: the length and depth of an expression, and the size of an integer before it is
computed, so that no input takes noticeable time or memory.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from tools.arguments import closest
from tools.builtin.functions import CONSTANTS, FUNCTIONS, MAX_BITS, OPERATIONS, Number, factorial
from tools.errors import ToolInputError

_MAX_LENGTH = 1000  # characters
_MAX_DEPTH = 40  # parentheses, signs and powers inside each other

_TOKEN = re.compile(
    r"\s*(?:(?P<number>0[xX][0-9a-fA-F]+|(?:[0-9]+(?:_[0-9]+)*\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
    r"|(?P<operator>\*\*|//|[-+*/%^!(),]|[xX](?=[\s0-9(.]))"
    r"|(?P<name>[^\W\d]\w*))"
)
_GROUPED = re.compile(r"\s*(?P<number>[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?)(?![0-9,.\w])")
_SPELLINGS = str.maketrans(
    {
        "$": "",
        "€": "",
        "£": "",
        "×": "*",
        "·": "*",
        "⋅": "*",
        "÷": "/",
        "−": "-",
        "–": "-",
        "π": " pi ",
        "²": "**2",
        "³": "**3",
    }
)
_SYNONYMS = {"^": "**", "x": "*", "percent": "%"}
_PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2, "//": 2, "%": 2, "of": 2, "mod": 2, "**": 4}
_SIGN = 3  # binds tighter than a product and looser than a power: -2**2 is -4


@dataclass(frozen=True)
class _Token:
    kind: str  # "number", "name", "operator" or "end"
    text: str


@dataclass(frozen=True)
class _Value:
    number: Number
    percent: bool = False


def evaluate(expression: str) -> Number:
    """The value of an arithmetic expression.

    Raises:
        ToolInputError: It cannot be read, has no real value, or is too large; says why and where.
    """
    if len(expression) > _MAX_LENGTH:
        raise ToolInputError(f"the expression is longer than {_MAX_LENGTH} characters: calculate it in parts")
    text = expression.translate(_SPELLINGS).strip().rstrip(" =?")
    return _Parser(_tokens(text), expression.strip()).parse()


def format_number(number: Number) -> str:
    """A number as people write it: integers exact, floats to 15 digits, so that 0.1 + 0.2 is 0.3."""
    if isinstance(number, float):
        return str(int(number)) if number.is_integer() and abs(number) < 1e15 else f"{number:.15g}"
    return str(number)


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    calls: list[bool] = []  # for each open parenthesis, whether it holds the arguments of a function
    position = 0
    while position < len(text):
        in_call = bool(calls) and calls[-1]
        match = (None if in_call else _GROUPED.match(text, position)) or _TOKEN.match(text, position)
        if not match:
            wrong = text[position:].strip()[0]
            raise ToolInputError(f"{wrong!r} cannot be read: use numbers, + - * / // % ** ( ) and functions")
        kind = match.lastgroup or ""
        word = match[kind].lower()
        token = _Token(kind, _SYNONYMS.get(word, word))
        if token.text == "(":
            calls.append(bool(tokens) and tokens[-1].text in FUNCTIONS)
        elif token.text == ")" and calls:
            calls.pop()
        tokens.append(token)
        position = match.end()
    return [*tokens, _Token("end", "")]


class _Parser:
    """Precedence climbing: each method reads one kind of phrase and gives back its value."""

    def __init__(self, tokens: list[_Token], expression: str) -> None:
        self._tokens = tokens
        self._expression = expression
        self._next = 0
        self._depth = 0

    def parse(self) -> Number:
        if self._token.kind == "end":
            raise ToolInputError("the expression is empty: give one like 15 * 23")
        value = self._phrase(0)
        if self._token.kind != "end":
            self._unexpected()
        return value.number

    @property
    def _token(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        token = self._token
        self._next += 1
        return token

    def _phrase(self, lowest: int) -> _Value:
        """Operands joined by operators that bind tighter than ``lowest``."""
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise ToolInputError(f"more than {_MAX_DEPTH} levels of nesting: calculate it in parts")
        left = self._operand()
        while (precedence := _PRECEDENCE.get(self._token.text, 0)) > lowest:
            symbol = self._take().text
            # A power groups from the right, and its exponent may carry a sign: 2 ** -1.
            right = self._phrase(_SIGN if symbol == "**" else precedence)
            left = _Value(self._apply(symbol, left, right))
        self._depth -= 1
        return left

    def _operand(self) -> _Value:
        token = self._token
        if token.text in ("+", "-"):
            self._take()
            value = self._phrase(_SIGN)
            return _Value(-value.number if token.text == "-" else value.number, value.percent)
        if token.kind == "number":
            value = _Value(self._literal(self._take().text))
        elif token.kind == "name" and token.text not in OPERATIONS:
            value = _Value(self._named(self._take().text))
        elif token.text == "(":
            self._take()
            value = _Value(self._phrase(0).number)
            self._expect(")")
        else:
            self._unexpected()
        return self._suffixes(value)

    def _suffixes(self, value: _Value) -> _Value:
        while self._token.text == "!" or (self._token.text == "%" and not self._operand_follows()):
            if self._take().text == "!":
                value = _Value(self._checked(factorial, value.number))
            else:
                value = _Value(self._checked(OPERATIONS["/"], value.number, 100), percent=True)
        return value

    def _operand_follows(self) -> bool:
        following = self._tokens[self._next + 1]
        if following.text in ("of", "mod"):
            return False
        return following.kind in ("number", "name") or following.text == "("

    def _literal(self, text: str) -> Number:
        digits = text.replace(",", "")
        if digits.startswith("0x"):
            return self._checked(lambda hexadecimal: int(hexadecimal, 16), digits)
        return self._checked(float if set(digits) & set(".e") else int, digits)

    def _named(self, name: str) -> Number:
        if name in CONSTANTS:
            return CONSTANTS[name]
        if name not in FUNCTIONS:
            known = ", ".join(sorted([*FUNCTIONS, *CONSTANTS]))
            hint = closest(name, [*FUNCTIONS, *CONSTANTS])
            raise ToolInputError(f"{name!r} is not known.{hint} Known names: {known}")
        if self._token.text != "(":
            raise ToolInputError(f"{name} needs parentheses, as in {name}(2)")
        function, arguments = FUNCTIONS[name], self._arguments()
        if not function.accepts(len(arguments)):
            raise ToolInputError(f"{name} takes {function.arity} argument(s), not {len(arguments)}")
        return self._checked(function.compute, *arguments)

    def _arguments(self) -> list[Number]:
        self._expect("(")
        found: list[Number] = []
        while self._token.text != ")":
            found.append(self._phrase(0).number)
            if self._token.text != ",":
                break
            self._take()
        self._expect(")")
        return found

    def _apply(self, symbol: str, left: _Value, right: _Value) -> Number:
        amount = right.number
        if symbol in ("+", "-") and right.percent and not left.percent:
            amount = self._checked(OPERATIONS["*"], left.number, right.number)
        return self._checked(OPERATIONS[symbol], left.number, amount)

    def _checked(self, function: Callable[..., Number], *arguments: Number | str) -> Number:
        """Calculate, and put Python's errors into words."""
        try:
            result = function(*arguments)
        except ZeroDivisionError:
            raise ToolInputError(f"division by zero in {self._expression!r}") from None
        except OverflowError:
            raise ToolInputError(f"a value in {self._expression!r} is too large") from None
        except ValueError as error:
            reason = "a value is outside of what the function takes" if "domain" in str(error) else str(error)
            raise ToolInputError(f"{self._expression!r} has no value: {reason}") from None
        if isinstance(result, complex):
            raise ToolInputError("a fractional power of a negative number is not a real number")
        finite = isinstance(result, int) or math.isfinite(result)
        if not finite or (isinstance(result, int) and result.bit_length() > MAX_BITS):
            raise ToolInputError(f"a value in {self._expression!r} is too large")
        return result

    def _expect(self, text: str) -> None:
        if self._token.text != text:
            self._unexpected(f": {text!r} is missing")
        self._take()

    def _unexpected(self, hint: str = "") -> NoReturn:
        token = self._token
        if token.kind == "end":
            raise ToolInputError(f"{self._expression!r} ends too early{hint}")
        before = self._tokens[self._next - 1].text if self._next else "the beginning"
        if token.kind in ("number", "name") or token.text == "(":
            hint = hint or ": an operator is missing (a product is written 2 * 3)"
        raise ToolInputError(f"{token.text!r} does not fit after {before!r} in {self._expression!r}{hint}")
