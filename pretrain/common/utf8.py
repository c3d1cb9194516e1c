"""Commands in locales that know ASCII alone."""

import codecs
import locale
import os
import sys

__all__ = ["use_utf8"]


def use_utf8() -> None:
    """Starts this command anew in Python's UTF-8 mode, where the locale knows ASCII alone, as in many containers.

    Files, their names, the arguments and what is printed would otherwise be taken for ASCII, also by libraries.
    """
    if sys.flags.utf8_mode or codecs.lookup(locale.getpreferredencoding(False)).name != "ascii":
        return
    os.environ["PYTHONUTF8"] = "1"  # for the processes that it starts
    os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
