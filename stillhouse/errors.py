"""The three ways a step can fail, as the process that waits for it needs to tell them apart."""


class StillhouseError(Exception):
    """An error with a one-line `message`, a `fix` a person can act on, and the command's exit `code`."""

    code = 1
    type = "bug"

    def __init__(self, message: str, fix: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.message}. {self.fix}" if self.fix else self.message


class UserError(StillhouseError):
    """Bad input or settings: trying again cannot help (exit 2)."""

    code = 2
    type = "user"


class BugError(StillhouseError):
    """The code is wrong: trying again cannot help either (exit 1)."""


class WorkerError(StillhouseError):
    """The process was lost (signal, out of memory, deadline): trying again may help (exit 1)."""

    type = "worker"


class Refused(StillhouseError):
    """The gate, or the registry's own checks, said no: nothing was promoted (exit 3)."""

    code = 3
    type = "refused"


def nearest(word: str, known: list[str] | set[str]) -> str:
    """`; did you mean "x"?`, or the allowed words when none is near."""
    from difflib import get_close_matches

    words = sorted(known)
    match = get_close_matches(word, words, n=1, cutoff=0.6)
    return f'did you mean "{match[0]}"?' if match else f"allowed: {', '.join(words) or 'nothing'}"
