"""The progress bar and the plots of a training, in a notebook or a terminal."""

from __future__ import annotations

import sys

from livelossplot import PlotLosses
from livelossplot.outputs import MatplotlibPlot
from tqdm import tqdm

from utils.training.run import Run

NOT_PLOTTED = ("step", "images", "seconds")


class Progress:
    """`with Progress(...) as progress:` shows how far a run is. If `plot` is False, nothing is shown.

    Args:
        said: a line about the run. It is written again below each plot, because a new plot deletes the output of the
            cell.
    """

    def __init__(self, run: Run, said: str, plot: bool) -> None:
        self.run, self.said, visible = run, said, plot and run.is_main
        self.bar = tqdm(
            total=run.steps, initial=run.step, disable=not visible, file=sys.stdout, mininterval=2, leave=False
        )
        outputs = [MatplotlibPlot(max_cols=3, cell_size=(5, 3))]
        self.plots = PlotLosses(outputs=outputs, step_names="step") if visible else None
        for row in run.history:
            self._add(row)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        self.bar.close()
        if kind is KeyboardInterrupt:
            tqdm.write(f"Stopped by hand at step {self.run.step} of {self.run.steps}. Run it again to go on.")
        if kind is None:
            self._draw()

    def advance(self) -> None:
        """Count one more step."""
        self.bar.update()

    def show(self, row: dict) -> None:
        """Add a row to the plots and draw them."""
        self._add(row)
        if self.run.step < self.run.steps:  # the last one is drawn at the end
            self._draw()

    def _add(self, row: dict) -> None:
        if self.plots:
            values = {name: value for name, value in row.items() if name not in NOT_PLOTTED}
            self.plots.update(values, current_step=row["step"])

    def _draw(self) -> None:
        if self.plots:
            self.plots.send()
            tqdm.write(self.said)
