"""Says how far a preparation is: a bar on a terminal, a line now and then elsewhere."""

import sys
import time

from tqdm import tqdm

LINE_SECONDS = 10.0


class Progress:
    """Reports to stderr how many files are done."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._bar = tqdm(desc=title, unit=" images", file=sys.stderr) if sys.stderr.isatty() else None
        self._last = time.monotonic()

    def update(self, done: int, skipped: int) -> None:
        """Reports that `done` files have been seen, of which `skipped` are left out."""
        if self._bar is not None:
            self._bar.update(done - self._bar.n)
            self._bar.set_postfix(skipped=skipped)
        elif time.monotonic() - self._last >= LINE_SECONDS:
            self._last = time.monotonic()
            print(f"{self._title}: {done} images, {skipped} skipped", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Ends the bar."""
        if self._bar is not None:
            self._bar.close()
