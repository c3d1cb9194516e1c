#!/usr/bin/env python3
"""Does pretraining pay on real images? Detectors or classifiers from random and from pretrained weights, by labels; and
which targets of pretraining do.

    python tools/label_study.py nuclei DATA output/nuclei
    python tools/label_study.py clothing DATA output/clothing
    python tools/label_study.py targets DATA output/targets

Runs for hours on a CPU, `targets` for minutes; stopped, it goes on where it was. Writes results.json, table.md and, for
nuclei, plot.png.
"""

import argparse
import logging
import os
import sys
from pathlib import Path

from pretrain.common.commands import add_traceback_option, exit_on_user_error
from pretrain.common.temporary import replacing
from pretrain.common.utf8 import use_utf8

ROOT = Path(__file__).resolve().parents[1]
STUDIES = ("nuclei", "clothing", "targets")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("data", type=Path, help="nuclei: COCO-format set; others: photos in folders of classes")
    parser.add_argument("output", type=Path, help="folder of the study")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(default: 0 1 2)")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="runs at a time (default: one a core)")
    add_traceback_option(parser)
    args = parser.parse_args(argv)
    if args.processes < 1 or min(args.seeds) < 0:
        parser.error("--processes must be at least 1 and seeds at least 0")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stdout)
    data, output = args.data.resolve(), args.output.resolve()
    with exit_on_user_error():
        # Imported only now: they take seconds, which --help and a mistake in the arguments should not.
        from convmae_det.study import clothing, nuclei, report, targets

        run, table_of = {
            "nuclei": (nuclei.run_nuclei, report.nuclei_table),
            "clothing": (clothing.run_clothing, report.clothing_table),
            "targets": (targets.run_targets, report.targets_table),
        }[args.study]
        rows = run(data, output, ROOT, args.processes, args.seeds)
        report.save_results(rows, output / "results.json", ["tools/label_study.py", args.study, "DATA", "OUTPUT"])
        table = table_of(rows)
        with replacing(output / "table.md") as temporary:
            temporary.write_text(table + "\n")
        if args.study == "nuclei":
            report.plot_nuclei(rows, output / "plot.png")
    print(f"{table}\n\n{output}/results.json, table.md" + (", plot.png" if args.study == "nuclei" else ""))


if __name__ == "__main__":
    use_utf8()
    main()
