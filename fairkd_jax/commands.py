"""The commands that the package installs, such as `fairkd-train`; `python -m fairkd_jax` lists them.

This module imports almost nothing: before Ctrl-C is handled, Python would print a traceback.
"""

import sys

PREFIX = "fairkd-"


class Command:
    """A program that a user can start, as `fairkd-NAME` or `python -m fairkd_jax NAME`.

    Attributes:
      name: Name of the command.
      main: Function of the program, as `module:function`; its result is the exit code.
      summary: What the program does, in one sentence.
      tunes_memory: Whether the program trains or evaluates, and so wants XLA's settings of the C library.
    """

    def __init__(self, name: str, main: str, summary: str, tunes_memory: bool = False) -> None:
        """Takes the attributes."""
        self.name, self.main, self.summary, self.tunes_memory = name, main, summary, tunes_memory

    def __call__(self) -> int | None:
        """Starts the program with the arguments of this process.

        Returns:
          The exit code; None for success.
        """
        from fairkd_jax import interrupt

        interrupt.install()
        from pkgutil import resolve_name

        from fairkd_jax import host_memory

        escape_unencodable()
        sys.unraisablehook = show_unraisable
        if self.tunes_memory:
            interrupt.hold()  # the program may start itself again, without a handler at first
            host_memory.tune()
            interrupt.install()
        result: int | None = resolve_name(f"fairkd_jax.programs.{self.main}")()
        return result


train = Command(
    "train",
    "train:run",
    "Trains a student, with its teacher before it, and prints how they compare.",
    tunes_memory=True,
)
evaluate = Command(
    "eval", "eval:run", "Scores a run on a split, and compares it with a baseline.", tunes_memory=True
)
compare = Command("compare", "compare_runs:run", "Compares evaluated runs: methods over their seeds.")
sweep = Command("sweep", "sweep:run", "Trains every combination of config values, and collects runs.")
prepare = Command("prepare", "prepare_data:main", "Prepares a data set, and prints its counts.")
inspect = Command("inspect", "inspect_data:run", "Draws images and counts of a data set before training.")
report = Command("report", "report:main", "Writes a report on evaluated runs, as a page and as JSON.")
card = Command("card", "card:main", "Writes the model card of an evaluated run.")
demo = Command(
    "demo", "demo:main", "Serves a page on which people try the models of finished runs.", tunes_memory=True
)
power = Command(
    "power", "power_analysis:run", "Computes the differences that a test set can detect, before training."
)
class_means = Command(
    "class-means",
    "class_means:run",
    "Computes a teacher's mean embedding of each class, for KD++.",
    tunes_memory=True,
)
convert = Command("convert", "convert_weights:main", "Converts weights between timm, torchvision and Keras.")
benchmark = Command(
    "benchmark",
    "benchmark:main",
    "Measures training, inference, data and start-up, against PyTorch too.",
    tunes_memory=True,
)
simulate = Command(
    "simulate", "simulate_statistics:run", "Checks intervals and tests on simulated models of known bias."
)
debiasing_table = Command(
    "debiasing-table",
    "debiasing_table:run",
    "Compares all ways of debiasing on the digits, over seeds.",
    tunes_memory=True,
)
COMMANDS = {
    command.name: command
    for command in (
        train,
        evaluate,
        compare,
        sweep,
        prepare,
        inspect,
        report,
        card,
        demo,
        power,
        class_means,
        convert,
        benchmark,
        simulate,
        debiasing_table,
    )
}


def escape_unencodable() -> None:
    """Makes the standard streams escape what a terminal cannot show, such as the name of a class."""
    import io

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def show_unraisable(found: "sys.UnraisableHookArgs") -> None:
    """Prints an error that no code could catch, but not those that follow from one that a line tells.

    Where an array of a checkpoint cannot be read or written, the library gives up all other arrays. Its
    threads then find the event loop closed, once for each array.

    Args:
      found: The error, as `sys.unraisablehook` gets it.
    """
    if not (isinstance(found.exc_value, RuntimeError) and str(found.exc_value) == "Event loop is closed"):
        sys.__unraisablehook__(found)


def format_commands() -> str:
    """Formats the list of all commands."""
    width = max(map(len, COMMANDS))
    lines = [f"  {PREFIX}{name:{width}}  {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(["Commands; each one has --help:", *lines])


def main(arguments: list[str] | None = None) -> int | None:
    """Starts the command that the first argument names, or prints the list.

    Args:
      arguments: Name of the program, and its arguments; None for those of this process.

    Returns:
      The exit code.
    """
    _, *words = sys.argv if arguments is None else arguments
    if not words or words[0] in ("-h", "--help"):
        print(format_commands())
        return 0
    command = COMMANDS.get(words[0].removeprefix(PREFIX))
    if command is None:
        print(f"fairkd_jax: there is no command {words[0]!r}; use {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    # Messages and usage lines name the program by its own name.
    folder, slash, _ = sys.argv[0].rpartition("/")
    sys.argv = [f"{folder}{slash}{PREFIX}{command.name}", *words[1:]]
    return command()
