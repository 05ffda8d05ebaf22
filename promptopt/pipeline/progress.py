"""What a pipeline says while it works. Knows no terminal: the CLI draws it, tests record it."""

from typing import Protocol


class Progress(Protocol):
    """Receives what happens, in order. Must be quick: it is called after every example."""

    def stage(self, name: str, state: str) -> None:
        """Stage `name` is "running", "done" or "kept" (finished by an earlier run)."""
        ...

    def step(self, done: int, total: int, text: str, speed: str = "") -> None:
        """Within the running stage: `done` of `total` units, one line about them, and one about how fast it goes."""
        ...

    def say(self, text: str) -> None:
        """One line a person should read."""
        ...


class Silent:
    """Says nothing."""

    def stage(self, name: str, state: str) -> None:
        """Ignore it."""

    def step(self, done: int, total: int, text: str, speed: str = "") -> None:
        """Ignore it."""

    def say(self, text: str) -> None:
        """Ignore it."""
