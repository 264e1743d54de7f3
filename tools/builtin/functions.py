"""The functions, constants and operations that the calculator knows, each bounded before it computes."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass

Number = int | float

MAX_BITS = 13_500  # about 4000 decimal digits; Python prints no integer of more than 4300
_MAX_FACTORIAL = 1400  # 12,630 bits
_MAX_PLACES = 300  # decimal places of round(); a float has no more

CONSTANTS: dict[str, Number] = {"pi": math.pi, "e": math.e, "tau": math.tau}


@dataclass(frozen=True)
class Function:
    """A function with the number of arguments that it takes."""

    compute: Callable[..., Number]
    least: int = 1
    most: int | None = 1
    """``None``: as many as are given."""

    def accepts(self, count: int) -> bool:
        """Whether it takes that many arguments."""
        return self.least <= count and (self.most is None or count <= self.most)

    @property
    def arity(self) -> str:
        """How many arguments it takes, in words."""
        if self.most is None:
            return f"{self.least} or more"
        return " or ".join(str(count) for count in range(self.least, self.most + 1))


def power(base: Number, exponent: Number) -> Number:
    """``base ** exponent``, refused where the integer would be too large; complex for some negative bases."""
    integers = isinstance(base, int) and isinstance(exponent, int)
    if integers and abs(base) > 1 and (int(base).bit_length() - 1) * exponent > MAX_BITS:
        raise OverflowError
    result: Number = base**exponent
    return result


def factorial(number: Number) -> int:
    """``number!`` of a whole number that is not too large."""
    whole = _whole(number)
    if whole < 0:
        raise ValueError("a factorial needs a number that is not negative")
    if whole > _MAX_FACTORIAL:
        raise OverflowError
    return math.factorial(whole)


def _whole(number: Number) -> int:
    if number != int(number):
        raise ValueError(f"a whole number is needed, {number} is none")
    return int(number)


def _square_root(number: Number) -> Number:
    if isinstance(number, int) and number >= 0 and math.isqrt(number) ** 2 == number:
        return math.isqrt(number)  # exact, and also for integers that no float can hold
    return math.sqrt(number)


def _cube_root(number: Number) -> Number:
    root = math.cbrt(number)
    return round(root) if isinstance(number, int) and round(root) ** 3 == number else root


def _round(number: Number, places: Number = 0) -> Number:
    places = _whole(places)
    if abs(places) > _MAX_PLACES:
        raise ValueError(f"rounding to {places} places is not possible, {_MAX_PLACES} at most")
    return round(number, places) if places else round(number)


def _near_zero(function: Callable[[Number], float]) -> Callable[[Number], float]:
    """``sin(pi)`` is 0, and not what is left because a float cannot hold pi."""

    def compute(angle: Number) -> float:
        value = function(angle)
        return value if abs(value) > 1e-15 or abs(angle) < 1e-3 else 0.0

    return compute


FUNCTIONS: dict[str, Function] = {
    "abs": Function(abs),
    "acos": Function(math.acos),
    "asin": Function(math.asin),
    "atan": Function(math.atan),
    "cbrt": Function(_cube_root),
    "ceil": Function(math.ceil),
    "cos": Function(_near_zero(math.cos)),
    "degrees": Function(math.degrees),
    "exp": Function(math.exp),
    "factorial": Function(factorial),
    "floor": Function(math.floor),
    "gcd": Function(lambda *numbers: math.gcd(*map(_whole, numbers)), most=None),
    "lcm": Function(lambda *numbers: math.lcm(*map(_whole, numbers)), most=None),
    "ln": Function(math.log),
    "log": Function(math.log, most=2),
    "log10": Function(math.log10),
    "log2": Function(math.log2),
    "max": Function(lambda *numbers: max(numbers), most=None),
    "mean": Function(lambda *numbers: sum(numbers) / len(numbers), most=None),
    "min": Function(lambda *numbers: min(numbers), most=None),
    "pow": Function(power, least=2, most=2),
    "radians": Function(math.radians),
    "round": Function(_round, most=2),
    "sin": Function(_near_zero(math.sin)),
    "sqrt": Function(_square_root),
    "sum": Function(lambda *numbers: sum(numbers), most=None),
    "tan": Function(_near_zero(math.tan)),
    "trunc": Function(math.trunc),
}

OPERATIONS: dict[str, Callable[[Number, Number], Number]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "of": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
    "mod": operator.mod,
    "**": power,
}
