"""The exception for errors the user can fix."""

import re

_LONG_WORD = re.compile(r"\S{400,}")
_MOST_CHARACTERS = 1_900


class UserError(Exception):
    """An error the user can fix: what was passed, what is wrong with it, and what to do next, in one paragraph.

    The command line prints only the message and exits with code 1, without a stack trace.

    Args:
        message: The paragraph. Parts that come from files may be very long, so long messages are shortened.
    """

    def __init__(self, message: str) -> None:
        text = _LONG_WORD.sub(lambda word: f"{word[0][:200]}…", message)
        if len(text) > _MOST_CHARACTERS:
            text = f"{text[: _MOST_CHARACTERS - 500]} … {text[-400:]}"
        super().__init__(text)
