"""Who holds how much of each device: the bookings that keep every load within the limits.

A model that rests is booked as measured. One that moves is booked, on every device, with the larger
of what it held and what it will hold at most on the way; so the sum of the bookings is never below
what is really held, at any moment of a move. Bytes throughout.
"""

from __future__ import annotations

from collections.abc import Mapping

from headrace.serving.arbiter_types import Sizes


def larger(one: Sizes, other: Sizes) -> Sizes:
    """The larger of both on each device."""
    return {device: max(one.get(device, 0), other.get(device, 0)) for device in {**one, **other}}


def growth(before: Sizes, after: Sizes) -> Sizes:
    """`after` minus `before`, on each device; negative where it shrinks."""
    devices = {**before, **after}
    return {device: after.get(device, 0) - before.get(device, 0) for device in devices}


class Ledger:
    """The bookings of one decision. It copies what it is given."""

    def __init__(self, limits: Sizes, other: Sizes, held: Mapping[str, Sizes]) -> None:
        self.limits = limits
        self.other = other
        self.held: dict[str, Sizes] = dict(held)

    def of(self, model: str) -> Sizes:
        return self.held.get(model, {})

    def book(self, model: str, sizes: Sizes) -> None:
        """Book a model anew; nothing is booked for one that holds nothing."""
        kept = {device: size for device, size in sizes.items() if size > 0}
        if kept:
            self.held[model] = kept
        else:
            self.held.pop(model, None)

    def free(self) -> Sizes:
        """What the bookings and everything else leave of each limit; negative if it is passed."""
        left = {d: limit - self.other.get(d, 0) for d, limit in self.limits.items()}
        for sizes in self.held.values():
            for device, size in sizes.items():
                if device in left:
                    left[device] -= size
        return left

    def lack(self, needed: Sizes, taken: Sizes | None = None) -> Sizes:
        """What is missing of each limited device to book `needed` more; `taken` is free room that
        is promised to others. Empty if it fits."""
        free, taken = self.free(), taken or {}
        missing = {}
        for device, size in needed.items():
            if size > 0 and device in free:
                short = size + taken.get(device, 0) - free[device]
                if short > 0:
                    missing[device] = short
        return missing

    def over(self) -> Sizes:
        """By how much each limit is passed; empty if none is."""
        return {device: -left for device, left in self.free().items() if left < 0}
