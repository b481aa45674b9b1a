"""Tables, JSON and plots."""

import json
import pathlib
import platform
import time


def machine():
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    cores = sum(line.startswith("processor") for line in lines)
    return {"processor": model, "cores": cores, "system": platform.platform(), "date": time.strftime("%Y-%m-%d")}


def table(head, rows):
    """A table that reads well as text and is one in Markdown too."""
    cells = [head, *rows]
    widths = [max(len(str(row[column])) for row in cells) for column in range(len(head))]
    line = lambda row: "| " + " | ".join(str(cell).ljust(width) for cell, width in zip(row, widths)) + " |"
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([line(head), rule, *map(line, rows)])


def save(arguments, result, draw):
    if arguments.json:
        pathlib.Path(arguments.json).write_text(json.dumps(result, indent=1) + "\n")
    if arguments.svg:
        draw(arguments.svg)


def curves(path, lines, x_label, y_label, x_range=None, x_log=False):
    """Draws lines of (x, y) points by name, y on a logarithmic scale, as SVG."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "ochre"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5))
    for name, points in lines.items():
        is_ours = name.startswith("ochre")
        axes.plot(*zip(*points), label=name, marker="o", markersize=3, linewidth=2.5 if is_ours else 1.2)
    axes.set_yscale("log")
    if x_log:
        axes.set_xscale("log")
    if x_range:
        axes.set_xlim(*x_range)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(True, which="both", alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def bars(path, values, x_label):
    """Draws a bar for each name, on a logarithmic scale, as SVG."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "ochre"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 0.4 * len(values) + 1))
    names = list(values)[::-1]
    axes.barh(names, [values[name] for name in names])
    axes.set_xscale("log")
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xlabel(x_label)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
