"""The one exception that means "the user can mend this"."""


class UsageError(ValueError):
    """A mistake in what the user asked for or supplied.

    Its message is one line that names the fault and says what to do. The command-line programs print
    that line and exit with code 2; everything else that is raised is a defect and shows a traceback.
    """
