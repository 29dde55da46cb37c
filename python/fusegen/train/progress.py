"""What a run tells people while it goes on."""

import contextlib
import sys
from collections.abc import Callable, Sequence


class Progress:
    """tqdm's bar where tqdm is installed and stderr is a terminal; the lines alone otherwise."""

    def __init__(self, steps: int, done: int, say: Callable[[str], None] | None, *, quiet: bool = False):
        self._bar = None
        if not quiet:
            with contextlib.suppress(ModuleNotFoundError):
                from tqdm import tqdm

                # disable=None: none where stderr is not a terminal. leave: the lines tell the story.
                shown = {"unit": "step", "disable": None, "dynamic_ncols": True, "leave": False}
                self._bar = tqdm(total=steps, initial=done, **shown)
        self._say = (lambda line: None) if quiet else say or self._print

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def say(self, line: str) -> None:
        self._say(line)

    def _print(self, line: str) -> None:
        if self._bar is not None:
            self._bar.write(line, file=sys.stdout)
        else:
            print(line)
        sys.stdout.flush()

    def advance(self, loss: float | None, wrong: Sequence[str] = ()) -> None:
        """One step more. loss: as last read. wrong: the names of what goes wrong."""
        if self._bar is not None:
            if loss is not None:
                self._bar.set_postfix_str(", ".join((f"loss {loss:.3f}", *wrong)), refresh=False)
            self._bar.update()
