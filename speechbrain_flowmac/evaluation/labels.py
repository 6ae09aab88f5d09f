"""Labels of a plot, each where it hides least.

Greedy: a label tries places around the points that it may stand at, and takes
the one that overlaps least with what is drawn and with the labels before it.
"""

import numpy as np

# In points from the anchor: horizontal and vertical shift and the side of the
# text that stands there. The earlier is preferred.
SIDES = (
    (7, 0, "left", "center"),
    (0, 7, "center", "bottom"),
    (0, -7, "center", "top"),
    (-7, 0, "right", "center"),
    (6, 6, "left", "bottom"),
    (6, -6, "left", "top"),
    (-6, 6, "right", "bottom"),
    (-6, -6, "right", "top"),
    (0, 18, "center", "bottom"),
    (0, -18, "center", "top"),
    (12, 14, "left", "bottom"),
    (12, -14, "left", "top"),
    (-12, 14, "right", "bottom"),
    (-12, -14, "right", "top"),
)


class Labels:
    """Labels of the points and lines of an `Axes`, with linear or logarithmic
    scales; made when all else is drawn and the limits are final."""

    def __init__(self, axes):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.patheffects import withStroke

        self.axes = axes
        axes.figure.draw_without_rendering()  # the layout is known then
        self.renderer = FigureCanvasAgg(axes.figure).get_renderer()
        self.frame = axes.get_window_extent(self.renderer).extents
        self.halo = [withStroke(linewidth=2, foreground="white")]
        self.taken = np.empty((0, 4))  # left, bottom, right, top in pixels

    def avoid(self, x, y, size=4.0):
        """Keeps labels off a line through data points, so many points wide."""
        corners = self.axes.transData.transform(np.stack([x, y], axis=1))
        share = np.linspace(0, 1, 24)[:, None]
        path = [corners]
        for start, end in zip(corners[:-1], corners[1:], strict=True):
            path.append(start + share * (end - start))
        path = np.concatenate(path)
        half = self._pixels(size)
        self.taken = np.concatenate(
            [self.taken, np.hstack([path - half, path + half])]
        )

    def put(self, text, points, **style):
        """Writes a label beside one of its points, x and y each."""
        choices = [(point, side) for side in SIDES for point in points]
        self._put_best(text, choices, style)

    def put_on_line(self, text, y, **style):
        """Writes a label above or below a horizontal line across the plot."""
        left, right = self.axes.get_xlim()
        ends = self.axes.transData.transform([(left, y), (right, y)])
        shares = np.linspace(1, 0, 9)[:, None]
        pixels = ends[0] + shares * (ends[1] - ends[0])
        places = self.axes.transData.inverted().transform(pixels)
        choices = [
            (place, (0, shift, across, up))
            for share, place in zip(shares[:, 0], places, strict=True)
            for across in [("left", "center", "right")[round(2 * share)]]
            for shift, up in ((2, "bottom"), (-2, "top"))
        ]
        self._put_best(text, choices, style)

    def _put_best(self, text, choices, style):
        label = self.axes.annotate(
            text,
            choices[0][0],
            (0, 0),
            textcoords="offset points",
            ha="left",
            va="bottom",
            zorder=5,
            path_effects=self.halo,
            **style,
        )
        label.set_in_layout(False)  # it moves nothing
        left, bottom, right, top = label.get_window_extent(
            self.renderer
        ).extents
        size = np.array([right - left, top - bottom])
        boxes = [self._box(place, side, size) for place, side in choices]
        # of two that cost the same, the one before
        costs = [rank + self._cost(box) for rank, box in enumerate(boxes)]
        best = int(np.argmin(costs))
        label.xy, (*shift, across, up) = choices[best]
        label.set(position=shift, ha=across, va=up)
        self.taken = np.vstack([self.taken, boxes[best]])

    def _box(self, place, side, size):
        """Left, bottom, right and top of a text."""
        *shift, across, up = side
        before = np.array(
            [
                {"left": 0, "center": 0.5, "right": 1}[across],
                {"bottom": 0, "center": 0.5, "top": 1}[up],
            ]
        )
        pixel = self.axes.transData.transform(place) + self._pixels(shift)
        corner = pixel - before * size
        return np.concatenate([corner, corner + size])

    def _cost(self, box):
        """Overlap in square pixels, and much for leaving the frame."""
        low = np.maximum(self.taken[:, :2], box[:2])
        high = np.minimum(self.taken[:, 2:], box[2:])
        overlap = np.prod(np.maximum(high - low, 0), axis=1).sum()
        outside = np.maximum(self.frame[:2] - box[:2], 0).sum()
        outside += np.maximum(box[2:] - self.frame[2:], 0).sum()
        return overlap + 1000 * outside

    def _pixels(self, points):
        return np.multiply(points, self.axes.figure.dpi / 72)
