"""The one kind of error a user is meant to read."""


class InputError(ValueError):
    """Input that cannot be used.

    The message is one sentence that names the file, the row or the cell, and
    what to do. Everything else that is raised is a defect of this software.
    """
