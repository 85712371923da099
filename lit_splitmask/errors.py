"""The exception for errors the user can fix."""


class UserError(Exception):
    """An error the user can fix: what was passed, what is wrong with it, and what to do next, in one paragraph.

    The command line prints only the message and exits with code 1, without a stack trace.
    """
