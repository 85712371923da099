"""The exception for mistakes that a user can mend."""


class UserError(Exception):
    """What was passed, which rule it broke, and what to do next, in one paragraph.

    The command line prints the message alone and exits with code 1; it never shows a stack trace for it.
    """
