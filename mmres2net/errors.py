"""The one kind of error that the command line prints without a traceback."""


class UserError(ValueError):
    """A mistake that the user can mend: the message names the value, what is allowed and the way out."""
