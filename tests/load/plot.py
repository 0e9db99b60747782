"""Chart of a benchmark; runs with the peers' packages and reads its panels from standard input.

Each workload has a panel, and each server a bar: its requests/s as multiples of the best peer's.
"""

import json
import sys

import matplotlib as mpl
from matplotlib import pyplot as plt

OURS, FILE, OTHERS = "#1f6f8b", "#b8b8b8", "#d9a441"


def main() -> None:
    """Read panels from standard input and write a picture."""
    panels = json.load(sys.stdin)
    mpl.use("Agg")
    height = sum(0.34 * len(panel["bars"]) + 0.75 for panel in panels)
    figure, axes = plt.subplots(
        len(panels),
        1,
        figsize=(8, height),
        squeeze=False,
        sharex=True,
        layout="constrained",
        height_ratios=[len(panel["bars"]) + 1 for panel in panels],
    )
    for axis, panel in zip(axes[:, 0], panels, strict=True):
        bars = panel["bars"]
        drawn = axis.barh(
            [bar["title"] for bar in bars],
            [bar["ratio"] for bar in bars],
            color=[_colour(bar["name"]) for bar in bars],
            height=0.7,
        )
        axis.bar_label(drawn, [f"{bar['ratio']:.2g}" for bar in bars], padding=4, fontsize=9)
        axis.axvline(1, color="black", linewidth=0.8)
        axis.invert_yaxis()
        axis.set_title(panel["title"], loc="left", fontsize=11, fontweight="bold")
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.tick_params(left=False, labelsize=9)
    last = axes[-1, 0]
    # A page from nginx is dozens of times as fast as one from Python; both must be visible.
    last.set_xscale("log")
    last.set_xlim(0.05, 2.5 * max(bar["ratio"] for panel in panels for bar in panel["bars"]))
    last.xaxis.set_major_formatter("{x:g}")
    last.set_xlabel("requests/s as multiples of the best peer's", fontsize=9)
    figure.savefig(sys.argv[1], dpi=110)


def _colour(name: str) -> str:
    if name.startswith("catalog"):
        return OURS
    return FILE if name == "nginx-file" else OTHERS


if __name__ == "__main__":
    main()
