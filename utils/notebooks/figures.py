"""Outputs for the notebooks: image grids, curves, and the source of imported objects."""

from __future__ import annotations

import inspect
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Code, display

from utils.data.image_files import tile

COLOURS = "inferno"  # matplotlib's scale of colours for values that are not grey levels


def show_grids(grids: dict[str, np.ndarray], columns: int = 10, zoom: float = 1.5):
    """Show grids of images side by side, with their titles. Returns the matplotlib figure.

    Args:
        grids: images uint8 (N, C, H, W), by title.
        columns: number of images in a row of a grid.
        zoom: the width of 8 pixels, in tenths of an inch. Grids with the same number of columns have the same width.
    """
    tiles = [tile(images, columns) for images in grids.values()]
    width = tiles[0].shape[1] / 80 * zoom
    height = max(t.shape[0] for t in tiles) / 80 * zoom
    figure, axes = plt.subplots(1, len(tiles), figsize=(width * len(tiles), height + 0.4), squeeze=False)
    for axis, picture, title in zip(axes[0], tiles, grids):
        axis.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axis.set_title(title)
        axis.axis("off")
    figure.tight_layout()
    return figure


def show_rows(rows: dict[str, np.ndarray], zoom: float = 1.5):
    """Show rows of images uint8 (N, C, H, W) with their labels. Returns the matplotlib figure.

    Shorter rows are padded with black. If some rows are in colour, grey rows stay grey.
    """
    length = max(1, *(len(images) for images in rows.values()))
    channels = max(images.shape[1] for images in rows.values())
    filled = [np.pad(x, [(0, length - len(x))] + [(0, 0)] * 3) for x in rows.values()]
    picture = tile(np.concatenate([x.repeat(channels // x.shape[1], axis=1) for x in filled]), length)
    height, width = picture.shape[:2]
    figure, axis = plt.subplots(figsize=(width / 80 * zoom + 2, height / 80 * zoom))
    axis.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    step = height / len(rows)
    axis.set_yticks([step * (i + 0.5) for i in range(len(rows))], list(rows))
    axis.set_xticks([])
    for side in axis.spines.values():
        side.set_visible(False)
    axis.tick_params(length=0)
    figure.tight_layout()
    return figure


def coloured(values: np.ndarray, highest: float) -> np.ndarray:
    """Values (N, 1, H, W) as colours uint8 (N, 3, H, W): black is 0, white is `highest` or more."""
    colours = plt.get_cmap(COLOURS)(np.clip(values[:, 0] / highest, 0, 1))[..., :3]
    return (255 * colours).round().astype(np.uint8).transpose(0, 3, 1, 2)


def show_colours(figure, highest: float, label: str) -> None:
    """Add the scale of `coloured`, with a label for its unit, to a figure of `show_rows`."""
    colours = plt.cm.ScalarMappable(plt.Normalize(0, highest), COLOURS)
    figure.colorbar(colours, ax=figure.axes[0], label=label, fraction=0.02, pad=0.01, extend="max")


def show_curves(histories: dict[str, list[dict]], panels: dict[str, list[str]]):
    """Show training curves: one panel for each entry of `panels`, and one line for each quantity and run.

    A panel of several quantities has its own legend. The others share one, at the right of the figure.

    Args:
        histories: the results of `loop.fit`, by the name of the run.
        panels: for each axis label, the names of the quantities in the histories.
    """
    size = (4.5 * len(panels), 3.2)  # constrained: the layout follows axes that are changed afterwards
    figure, axes = plt.subplots(1, len(panels), figsize=size, squeeze=False, layout="constrained")
    for axis, (label, names) in zip(axes[0], panels.items()):
        for run, history in histories.items():
            for name in names:
                points = [(row["images"] / 1000, row[name]) for row in history if name in row]
                title = " ".join(filter(None, [run, name if len(names) > 1 else ""]))
                axis.plot(*zip(*points), marker=".", label=title)
        axis.set_xlabel("images seen (thousands)")
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
        if len(names) > 1:
            axis.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False)  # above the axes, so it hides nothing
    if len(histories) > 1 and (single := [a for a, names in zip(axes[0], panels.values()) if len(names) == 1]):
        figure.legend(*single[0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    return figure


def show_chains(chains: dict[str, list[str]]):
    """Draw what happens to the data: one row of boxes with arrows for each chain, with the name of the chain.

    Args:
        chains: the texts of the boxes from left to right, by the name of the chain. A text may have several lines.
    """
    longest = max(len(boxes) for boxes in chains.values())
    figure, axis = plt.subplots(figsize=(1.9 * longest + 1, 1.0 * len(chains)))
    for row, (name, boxes) in enumerate(chains.items()):
        axis.text(-0.75, -row, name, ha="right", va="center", weight="bold")
        frame = {"boxstyle": "round,pad=0.4", "facecolor": "whitesmoke", "edgecolor": "black"}
        shown = [axis.text(i, -row, text, ha="center", va="center", bbox=frame) for i, text in enumerate(boxes)]
        for place, (left, right) in enumerate(pairwise(shown)):
            arrow = {"arrowstyle": "->", "patchA": left.get_bbox_patch(), "patchB": right.get_bbox_patch()}
            axis.annotate("", (place + 1, -row), (place, -row), arrowprops=arrow)
    axis.set(xlim=(-1.5, longest - 0.4), ylim=(0.5 - len(chains), 0.5))
    axis.axis("off")
    figure.tight_layout()
    return figure


def show_source(*objects) -> None:
    """Show the code of imported functions or classes in the notebook's output."""
    for thing in objects:
        display(Code(inspect.getsource(thing), language="python"))
