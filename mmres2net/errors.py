"""The one kind of error that the command line prints without a traceback."""


class UserError(ValueError):
    """An error that the user can fix: the message names the value, what is allowed and the way out."""


def reason_of(error: BaseException) -> str:
    """Return what an exception of other code says, in one line that can stand in a message.

    Messages of ``KeyError`` come without the quotes that Python puts around them; an exception without a message, or
    one whose message is a bare key, is named by its type.
    """
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    line = next((line.strip() for line in text.splitlines() if line.strip()), '')
    return line if ' ' in line else f'{type(error).__name__}: {line}'.rstrip(': ')
