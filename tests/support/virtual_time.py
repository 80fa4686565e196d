"""Time that passes at once when nothing is left to do, for tests that wait long and open no sockets."""

import asyncio
import functools
import selectors


class _Selector(selectors.DefaultSelector):
    """Counts the seconds that its loop would have waited, and waits for none of them."""

    def __init__(self):
        super().__init__()
        self.seconds = 0.0

    def select(self, timeout=None):
        if timeout is None:
            raise AssertionError("nothing will ever happen: no timer is set and no callback is due")
        self.seconds += max(timeout, 0.0)
        return super().select(0)


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self):
        self._waiting = _Selector()
        super().__init__(self._waiting)

    def time(self):
        return self._waiting.seconds


def in_virtual_time(test):
    """Run an asynchronous test in a loop of its own whose timers are due as soon as nothing else can go on."""

    @functools.wraps(test)
    def run(*arguments, **named):
        with asyncio.Runner(loop_factory=_Loop, debug=True) as runner:
            runner.run(test(*arguments, **named))

    return run
