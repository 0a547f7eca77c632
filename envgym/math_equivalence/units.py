"""Unit names: ``cm``, ``centimeter`` and ``centimetres`` are one symbol. Values are never converted."""

from __future__ import annotations

__all__ = ["unit_name"]

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
