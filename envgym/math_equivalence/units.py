"""Unit names: ``cm``, ``centimeter`` and ``centimetres`` are one symbol. Values are never converted.

Words that count (``million``, ``dozen``, ``pairs``, ``twelfths``) are numbers, not units.
"""

from __future__ import annotations

from fractions import Fraction

__all__ = ["MULTIPLIERS", "NUMBER_WORDS", "is_known_unit", "multiplier", "says_more_than_a_unit", "unit_name"]

_ALIASES = {
    "mm": "millimeter millimeters millimetre millimetres",
    "cm": "centimeter centimeters centimetre centimetres",
    "dm": "decimeter decimeters decimetre decimetres",
    "m": "meter meters metre metres",
    "km": "kilometer kilometers kilometre kilometres kms",
    "inch": "in inches",
    "ft": "foot feet",
    "yd": "yard yards yds",
    "mi": "mile miles",
    "mg": "milligram milligrams",
    "g": "gram grams",
    "kg": "kilogram kilograms kgs",
    "lb": "lbs",
    "oz": "ounce ounces",
    "s": "sec secs second seconds",
    "ms": "millisecond milliseconds",
    "min": "mins minute minutes",
    "h": "hr hrs hour hours",
    "mL": "ml milliliter milliliters millilitre millilitres",
    "L": "liter liters litre litres",
    "mph": "",
    "Hz": "hertz",
    "kHz": "kilohertz",
    "N": "newton newtons",
    "J": "joule joules",
    "kJ": "kilojoule kilojoules",
    "W": "watt watts",
    "kW": "kilowatt kilowatts",
    "Pa": "pascal pascals",
    "kPa": "kilopascal kilopascals",
    "V": "volt volts",
    "K": "kelvin kelvins",
    "mol": "mole moles",
    "degree": "deg degs degrees",
    "rad": "radian radians",
    "cent": "cents",
    "euro": "euros",
    "unit": "units",
}
_NAMES = {alias: name for name, aliases in _ALIASES.items() for alias in (name, *aliases.split())}
_COUNTS = {
    "hundred": 100, "thousand": 1000, "lakh": 10**5, "million": 10**6, "crore": 10**7, "billion": 10**9,
    "trillion": 10**12, "quadrillion": 10**15, "dozen": 12, "gross": 144, "score": 20, "pair": 2, "couple": 2,
    "mn": 10**6, "mil": 10**6, "mln": 10**6, "bn": 10**9, "bln": 10**9, "tn": 10**12, "trn": 10**12,
}  # fmt: skip
_FRACTIONS = {
    "half": 2, "halves": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7,
    "eighth": 8, "ninth": 9, "tenth": 10, "eleventh": 11, "twelfth": 12, "thirteenth": 13, "fourteenth": 14,
    "fifteenth": 15, "sixteenth": 16, "seventeenth": 17, "eighteenth": 18, "nineteenth": 19, "twentieth": 20,
    "thirtieth": 30, "fortieth": 40, "fiftieth": 50, "sixtieth": 60, "hundredth": 100, "thousandth": 1000,
    "millionth": 10**6, "billionth": 10**9,
}  # fmt: skip
MULTIPLIERS = {"k": 10**3, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
"""Letters that multiply a number where no unit or variable is meant: ``5K``."""
NUMBER_WORDS = frozenset({
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty", "thirty",
    "forty", "fifty", "sixty", "seventy", "eighty", "ninety", "hundred", "thousand", "million", "billion",
})  # fmt: skip
_CHANGES_THE_ANSWER = NUMBER_WORDS | frozenset({
    "negative", "negated", "minus", "plus", "positive", "times", "over", "divided", "multiplied", "squared",
    "cubed", "squareroot", "root", "power", "raised", "factorial", "doubled", "tripled", "halved", "twice",
    "thrice", "double", "triple", "inverse", "reciprocal", "opposite", "mod", "modulo", "sum", "difference",
    "product", "quotient", "square", "cube", "factor", "log", "ln", "half", "wrong", "not", "false",
    "incorrect", "untrue", "invalid", "error", "mistaken", "mistake", "never", "no", "none", "nothing",
    "neither", "nor", "isnt", "aint", "without", "except", "unless", "guess", "unknown", "undefined",
    "impossible", "nonsense", "or", "maybe", "perhaps", "possibly", "probably", "either", "approximately",
    "about", "around", "roughly", "almost", "nearly", "atleast", "atmost", "least", "most", "below", "above",
    "under", "less", "fewer", "more", "greater", "answer", "option", "choice",
})  # fmt: skip
"""Words behind a number that say more than what is counted, so that ignoring them would ignore the answer."""
_LETTERS_OF_ALGEBRA = frozenset("abcxyz")


def unit_name(word: str) -> str | None:
    """Return the canonical unit that ``word`` names, or ``None`` if it reads as a product of variables.

    An unknown word of three letters or more counts as a unit of its own (``12 apples``), without its plural ``s``.
    """
    known = _NAMES.get(word) or _NAMES.get(word.lower() if len(word) > 3 else word)
    if known is not None:
        return known
    if len(word) < 3 or (len(word) == 3 and _LETTERS_OF_ALGEBRA.issuperset(word)):
        return None
    singular = word.casefold()
    return singular[:-1] if singular.endswith("s") and not singular.endswith("ss") else singular


def is_known_unit(word: str) -> bool:
    """Return whether ``word`` is a unit of measure, and not a thing that is counted."""
    return word in _NAMES or word.lower() in _NAMES


def multiplier(word: str) -> Fraction | None:
    """Return the factor that a word such as ``million``, ``dozen`` or ``twelfths`` stands for."""
    word = word.lower()
    for name in (word, word.removesuffix("s"), word.removesuffix("es")):
        if name in _COUNTS:
            return Fraction(_COUNTS[name])
        if name in _FRACTIONS:
            return Fraction(1, _FRACTIONS[name])
    return None


def says_more_than_a_unit(name: str) -> bool:
    """Return whether the unit ``name`` is no unit but a statement: ``negative``, ``squared``, ``wrong``."""
    return name in _CHANGES_THE_ANSWER or f"{name}s" in _CHANGES_THE_ANSWER
