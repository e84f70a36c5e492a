"""The ladder as a picture: quality against speed, the area of a point its size on the disk."""

from pathlib import Path
from typing import Any


def draw_ladder(ladder: dict[str, Any], path: Path) -> None:
    """Write an SVG; the same figures give the same bytes."""
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "stillhouse", "svg.fonttype": "none"}):
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 4.5), layout="constrained")
        axes = figure.subplots()
        for rung in ladder["rungs"]:
            speed, quality = rung["measured"]["texts_per_second"], rung["quality"]
            chosen = rung["name"] == ladder["chosen"]
            colour = "tab:green" if chosen else "tab:blue" if not rung["over_budget"] else "tab:grey"
            # A bootstrap interval need not hold the value itself.
            error = [[max(0.0, quality["value"] - quality["low"])], [max(0.0, quality["high"] - quality["value"])]]
            axes.errorbar(speed, quality["value"], yerr=error, color=colour, alpha=0.5, capsize=3)
            axes.scatter(speed, quality["value"], s=8 * rung["bytes"] / 1e6 + 10, color=colour, zorder=3)
            label = f"{rung['name']}, {rung['bytes'] / 1e6:.1f} MB"
            axes.annotate(label, (speed, quality["value"]), textcoords="offset points", xytext=(8, 6))
        front = sorted(
            (r for r in ladder["rungs"] if r["measured"]["pareto"]), key=lambda r: r["measured"]["texts_per_second"]
        )
        axes.plot(
            [rung["measured"]["texts_per_second"] for rung in front],
            [rung["quality"]["value"] for rung in front],
            color="tab:blue", alpha=0.3, zorder=1,
        )  # fmt: skip
        axes.axhline(ladder["baseline"], color="black", linestyle=":", linewidth=1)
        axes.annotate("baseline", (0.01, ladder["baseline"]), xycoords=("axes fraction", "data"), va="bottom")
        axes.set_xscale("log")
        axes.set_xlabel("texts per second")
        axes.set_ylabel(f"{ladder['metric']} (validation)")
        figure.savefig(path, metadata={"Date": None})
