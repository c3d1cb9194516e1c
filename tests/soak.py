#!/usr/bin/env python3
"""Soak the commands: kills, full disks, damaged files and nonsense, drawn from a seed, for as long as asked.

    python tests/soak.py --minutes 30 --seed 0

Each case runs in a process of its own with limits on time and memory. The table at the end counts, for each kind:

  dead ends          a run that cannot be resumed to its end
  inexact            a resumed run that ends otherwise than the uninterrupted one, by a bit or by a file left over
  silently accepted  something damaged that was taken without a word
  tracebacks         an end without a sentence: a traceback, or a signal
  hangs              no word for half a minute

exit code: 0 nothing found; 1 something found, each with the command that shows it again; 2 the soak itself failed
"""

import argparse
import os
import random
import shutil
import signal
import sys
import time
import traceback
from itertools import count, cycle
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from soaking.cases import Kind, Tally

SUPPORT = Path(__file__).resolve().parent / "support"
ORDER = ("kills", "ranks", "full-disk", "checkpoints", "annotations", "images", "flags", "overrides")
"""All kinds, in the order in which they take turns."""


def main() -> None:
    args = parse_args()
    os.environ.update(OMP_NUM_THREADS="1", PYTHONWARNINGS="ignore")  # before PyTorch; the comparison is by bits
    sys.path.insert(0, str(SUPPORT))
    from soaking.cases import Tally
    from soaking.kinds import KINDS
    from soaking.trainings import import_all, lab

    import_all()
    tally, code = Tally(), 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # it, too, ends with the table
    try:
        soak(args, KINDS, tally)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
    except Exception:
        traceback.print_exc()
        print("error: the soak itself failed; what it found before:", file=sys.stderr)
        code = 2
    finally:
        shutil.rmtree(lab.root, ignore_errors=True)
    print(f"\n{tally.table(KINDS)}")
    if tally.found:
        print("\n" + "\n".join(tally.found))
    sys.exit(code or bool(tally.found))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30, help="how long (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of all cases (default: %(default)s)")
    parser.add_argument("--kinds", nargs="+", choices=ORDER, default=ORDER, help="default: all")
    parser.add_argument("--case", metavar="KIND:NUMBER", help="this case alone; its output and folder are kept")
    args = parser.parse_args()
    kind, _, number = (args.case or "kills:0").partition(":")
    if kind not in ORDER or not number.isdigit():
        parser.error(f"--case must be KIND:NUMBER with a kind of {', '.join(ORDER)}, got {args.case}")
    return args


def soak(args: argparse.Namespace, kinds: "dict[str, Kind]", tally: "Tally") -> None:
    """Runs cases in turn until the time is over, or the one that is named."""
    from soaking.cases import Case

    def try_one(kind: str, number: int, folder: Path) -> None:
        verdict = kinds[kind](Case(random.Random(f"{args.seed}:{kind}:{number}"), folder))
        tally.add(kind, number, args.seed, verdict)
        if verdict.fault or args.case:
            print(f"{kind}:{number} {verdict.fault or 'held'}: {verdict.shown}\n    {verdict.details}", flush=True)

    if args.case:
        kind, _, number = args.case.partition(":")
        os.environ["SOAK_SHOWS_OUTPUT"] = "1"
        folder = Path(mkdtemp(prefix=f"soak-{kind}-{number}-"))
        try_one(kind, int(number), folder)
        print(f"its files: {folder}")
        return
    numbers = {kind: count() for kind in args.kinds}
    end = time.monotonic() + 60 * args.minutes
    for kind in cycle(args.kinds):
        if time.monotonic() >= end:
            return
        with TemporaryDirectory(prefix="soak-case-", ignore_cleanup_errors=True) as folder:
            try_one(kind, next(numbers[kind]), Path(folder))


if __name__ == "__main__":
    main()
