"""Progress of a preparation: a bar on a terminal, elsewhere a line every ten seconds."""

import sys
import time

from tqdm import tqdm

LINE_SECONDS = 10.0


class PreparationProgress:
    """Reporter of the number of finished files, on stderr."""

    def __init__(self, title: str) -> None:
        """Starts the report.

        Args:
          title: Text in front of the numbers.
        """
        self._title = title
        self._bar = tqdm(desc=title, unit=" images", file=sys.stderr) if sys.stderr.isatty() else None
        self._last = time.monotonic()

    def update(self, done: int, skipped: int) -> None:
        """Reports the number of files so far.

        Args:
          done: Number of finished files, including the skipped files.
          skipped: Number of skipped files.
        """
        if self._bar is not None:
            self._bar.update(done - self._bar.n)
            self._bar.set_postfix(skipped=skipped)
        elif time.monotonic() - self._last >= LINE_SECONDS:
            self._last = time.monotonic()
            print(f"{self._title}: {done} images, {skipped} skipped", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Closes the bar."""
        if self._bar is not None:
            self._bar.close()
