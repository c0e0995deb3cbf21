"""The log of a run: what a training prints is also written to a file in its folder."""

import contextlib
import datetime
import logging as standard_logging
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import TextIO

from absl import logging


class _RunLog(standard_logging.Handler):
    """A file that gets the lines of a run, once the run's folder holds another file.

    A run that is refused leaves no file. Trouble with the file does not stop a training.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(standard_logging.INFO)
        self._path = path
        self._file: TextIO | None = None
        self._waiting: list[str] = []
        self.addFilter(is_worth_reading)

    def write_line(self, text: str) -> None:
        now = datetime.datetime.now().isoformat(" ", "seconds")
        self._waiting.append(f"{now}  {text}\n")
        with contextlib.suppress(OSError):
            if self._file is None and any(self._path.parent.iterdir()):
                self._file = self._path.open("a", encoding="utf-8")
            if self._file is not None:
                self._file.writelines(self._waiting)
                self._file.flush()
                self._waiting.clear()

    def emit(self, record: standard_logging.LogRecord) -> None:
        self.write_line(record.getMessage())

    def close(self) -> None:
        super().close()
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()


def is_worth_reading(record: standard_logging.LogRecord) -> bool:
    """Returns whether to show a log record: all warnings, but information only from this package.

    A library that logs an exception raises it too, and the program tells it once.
    """
    is_own = Path(record.pathname).is_relative_to(Path(__file__).parent)
    return is_own or (record.levelno > standard_logging.INFO and not record.exc_info)


_LOGS: ContextVar[tuple[_RunLog, ...]] = ContextVar("_LOGS", default=())


@contextlib.contextmanager
def keep_log(path: Path) -> Iterator[None]:
    """Writes the lines of `write_log`, and what absl logs, to a file as well.

    Args:
      path: The file, which grows. Its folder must exist before the first line.

    Yields:
      None. Logs may be nested; each gets all lines.
    """
    log = _RunLog(path)
    token = _LOGS.set((*_LOGS.get(), log))
    logging.get_absl_logger().addHandler(log)
    try:
        yield
    finally:
        logging.get_absl_logger().removeHandler(log)
        log.close()
        _LOGS.reset(token)


def write_log(text: str) -> None:
    """Writes a line to the logs that are kept now.

    Args:
      text: The line, without a line break.
    """
    for log in _LOGS.get():
        log.write_line(text)


def say(text: str) -> None:
    """Prints a line, and writes it to the logs that are kept now.

    Args:
      text: The line, without a line break.
    """
    print(text, flush=True)
    write_log(text)
