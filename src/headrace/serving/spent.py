"""What the calls of a model spent their time on: waiting for their turn, or being worked for."""

from __future__ import annotations


class Spent:
    """Seconds of all calls so far. A call waits until the first of its texts, or its stream, goes
    to a worker; what it then waits for behind the one batch that a worker has in hand counts as
    work."""

    def __init__(self) -> None:
        self.calls = 0
        self.waited = 0.0
        self.worked = 0.0

    def add(self, waited: float, worked: float) -> None:
        self.calls += 1
        self.waited += waited
        self.worked += worked
