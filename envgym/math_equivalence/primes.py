"""Prime factors of numbers under roots and in logarithms."""

from __future__ import annotations

__all__ = ["factorise"]

_LIMIT = 1000
_PRIMES = [n for n in range(2, _LIMIT) if all(n % d for d in range(2, int(n**0.5) + 1))]


def factorise(number: int) -> tuple[dict[int, int], bool]:
    """Return the exponents of a positive integer by prime, and whether every factor is known to be prime.

    Trial division stops at 1000 to bound the time, so a composite factor over a million may stay whole.
    """
    powers: dict[int, int] = {}
    for prime in _PRIMES:
        if prime * prime > number:
            break
        while number % prime == 0:
            powers[prime] = powers.get(prime, 0) + 1
            number //= prime
    if number > 1:
        powers[number] = powers.get(number, 0) + 1
    return powers, number < _LIMIT * _LIMIT
