"""The picture of a run of ann.py: QPS over recall, build time, memory, disk, cold start, churn.

above   QPS over recall, a line a store: a query a call, all in one call, and a query a call under
        filters that 10 % and 1 % of the rows pass
below   bars a store: CPU seconds of the build, bytes of a process that searches, bytes on disk,
        wall time to the first answer, CPU time of a changed row
"""

from __future__ import annotations

from typing import Any

from stores import LABELS

OURS = "m2mdb"
LEAST_RECALL = 0.7
BARS = (
    ("build, CPU seconds", lambda result: result["build"]),
    ("memory, MB", lambda result: result["memory"] / 1e6),
    ("disk, MB", lambda result: result["disk"] / 1e6),
    ("first answer, ms", lambda result: result["cold"] * 1e3),
    (
        "a changed row, CPU us",
        lambda result: (
            churn["seconds"] / churn["rows"] * 1e6 if (churn := result.get("churn")) else None
        ),
    ),
)


def plot(results: list[dict[str, Any]], k: int, title: str, path: str) -> None:
    """Draw the stores that were there into a file."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    there = [result for result in results if "absent" not in result]
    colours = pyplot.get_cmap("tab20").colors
    of = {result["name"]: colours[i % len(colours)] for i, result in enumerate(there)}
    figure, grid = pyplot.subplots(2, 5, figsize=(26, 11))
    curves = [("a query a call", "plain"), ("all in one call", "batch")]
    for axes, (name, key) in zip(grid[0], curves, strict=False):
        _curves(axes, name, [(each, each[key]) for each in there], of, k)
    for axes, share in zip(grid[0][2:], LABELS, strict=False):
        some = [(each, _filtered(each, share)) for each in there]
        _curves(axes, f"filtered, {100 // share} % pass", some, of, k)
    handles, names = grid[0][0].get_legend_handles_labels()
    grid[0][4].axis("off")
    grid[0][4].legend(handles, names, loc="center", fontsize=13)
    for axes, (name, value) in zip(grid[1], BARS, strict=True):
        _bars(axes, name, [(each["name"], value(each)) for each in there], of)
    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def _filtered(result: dict[str, Any], share: int) -> list[list[Any]]:
    """JSON makes texts of the shares."""
    found = result["filtered"]
    return found.get(str(share)) or found.get(share) or []


def _curves(axes: Any, name: str, some: list[tuple[dict[str, Any], Any]], of: Any, k: int) -> None:
    for result, measured in some:
        points = sorted((point[1], point[2]) for point in measured)
        points = [point for point in points if point[0] >= LEAST_RECALL]
        width = 3 if result["name"] == OURS else 1
        style = {"color": of[result["name"]], "linewidth": width, "label": result["name"]}
        axes.plot([p[0] for p in points], [p[1] for p in points], marker="o", **style)
    axes.set(title=name, xlabel=f"recall@{k}", ylabel="queries per CPU second", yscale="log")
    axes.set_xlim(LEAST_RECALL, 1.005)
    axes.grid(alpha=0.3)


def _bars(axes: Any, name: str, some: list[tuple[str, float | None]], of: Any) -> None:
    there = [(store, value) for store, value in some if value is not None and value > 0]
    there.sort(key=lambda each: each[1], reverse=True)
    axes.barh([s for s, _ in there], [v for _, v in there], color=[of[s] for s, _ in there])
    for place, (_, value) in enumerate(there):
        told = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
        axes.text(value, place, f" {told}", va="center", fontsize=9)
    axes.set(title=f"{name} (less is better)", xscale="log")
    axes.margins(x=0.25)
