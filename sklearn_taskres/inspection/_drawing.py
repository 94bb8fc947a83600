"""What all displays draw with: axes, colours that the colour-blind can tell apart, and labels."""

import textwrap

#: Colours of Okabe and Ito that keep their contrast on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
BETTER, WORSE, NEUTRAL = COLORS[0], COLORS[1], "#767676"
#: Markers, as many as no number of colours divides, so that a pair repeats late.
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
#: Where the label of a point may go: offset in points, horizontal and vertical alignment.
_PLACES = (
    (7, 0, "left", "center"),
    (-7, 0, "right", "center"),
    (0, 7, "center", "bottom"),
    (0, -7, "center", "top"),
    (5, 5, "left", "bottom"),
    (-5, 5, "right", "bottom"),
    (5, -5, "left", "top"),
    (-5, -5, "right", "top"),
    (0, 18, "center", "bottom"),
    (0, -18, "center", "top"),
    (24, 14, "left", "bottom"),
    (-24, 14, "right", "bottom"),
    (24, -14, "left", "top"),
    (-24, -14, "right", "top"),
)


def axes_or_new(ax, figsize):
    """Return `ax`, or the axes of a new figure if it is None.

    Parameters
    ----------
    ax : matplotlib.axes.Axes or None
    figsize : tuple of float
        Inches of the new figure.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    if ax is not None:
        return ax
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            "Drawing needs matplotlib. Install it with pip install 'sklearn-taskres[plots]'."
        ) from error
    return plt.subplots(figsize=figsize, layout="constrained")[1]


def curve_styles(names, colors=COLORS):
    """Return the colour, marker and line of each name's curve, no two of them alike.

    Parameters
    ----------
    names : sequence of str
    colors : sequence of str
        Taken in turn.
    """
    return {
        name: {
            "color": colors[i % len(colors)],
            "marker": _MARKERS[i % len(_MARKERS)],
            "linestyle": ("-", "--", ":")[i // len(colors) % 3],
        }
        for i, name in enumerate(names)
    }


def shortened(label, length=24):
    """Return a label as text of at most `length` characters, cut in the middle."""
    text, half = str(label), length // 2
    return text if len(text) <= length else f"{text[: half - 1]}…{text[half - length :]}"


def first_labels(labels, most=3):
    """Return the first labels as a phrase that says how many more there are."""
    named = ", ".join(shortened(label) for label in labels[:most])
    return named if len(labels) <= most else f"{named} and {len(labels) - most} more"


def signed(number, digits=0):
    """Return a number as text with its sign, a true minus."""
    return f"{number:+.{digits}f}".replace("-", "−")


def difficulty_axis(ax, least, most):
    """Scale the x axis for difficulties, logarithmic if they span much, with plain numbers."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    if most < 5 * least:
        return
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if most < 200 * least else (1,)))
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())


def rows_of_classes(ax, labels):
    """Give the y axis a tick for each label, the first on top."""
    ax.set_yticks(range(len(labels)), [shortened(label) for label in labels], fontsize="small")
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.grid(axis="x", alpha=0.3)


def set_message(ax, message, width=62):
    """Set the title, broken to lines of `width` characters, but at no no-break space."""
    lines = [part for line in message.splitlines() for part in textwrap.wrap(line, width)]
    ax.set_title("\n".join(lines).replace("\u00a0", " "), fontsize="medium")


def legend_below(ax, n_columns=3):
    """Put the legend under the axes, below their labels."""
    ax.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, 0),
        borderaxespad=4.0,  # in font sizes, whatever the height of the axes
        ncols=n_columns,
        frameon=False,
        fontsize="small",
    )


def label_points(ax, x, y, names):
    """Write a name next to each point, at a place where it covers neither another name nor a point.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        Its limits are fixed from here on.
    x, y : sequence of float
        The points.
    names : sequence of str
    """
    from matplotlib.transforms import Bbox

    ax.figure.draw_without_rendering()  # the layout decides what is near to what
    centres = ax.transData.transform(list(zip(x, y, strict=True)))
    taken = [Bbox.from_extents(*(centre - 5), *(centre + 5)) for centre in centres]
    for name, *point in zip(names, x, y, strict=True):
        texts = [_text_beside(ax, name, point, place) for place in _PLACES]
        boxes = [text.get_window_extent() for text in texts]
        cost = [_covered(box, taken, ax.bbox) for box in boxes]
        best = cost.index(min(cost))
        taken.append(boxes[best])
        for i, text in enumerate(texts):
            if i != best:
                text.remove()


def _text_beside(ax, name, point, place):
    dx, dy, horizontal, vertical = place
    far = abs(dx) > 10 or abs(dy) > 10
    return ax.annotate(
        name,
        point,
        xytext=(dx, dy),
        textcoords="offset points",
        ha=horizontal,
        va=vertical,
        fontsize="small",
        arrowprops={"arrowstyle": "-", "color": NEUTRAL, "lw": 0.6} if far else None,
    )


def _covered(box, taken, frame):
    """Area in pixels that a box shares with those taken, or has outside the frame."""
    from matplotlib.transforms import Bbox

    shared = [Bbox.intersection(box, other) for other in taken]
    inside = Bbox.intersection(box, frame)
    outside = box.width * box.height - (0 if inside is None else inside.width * inside.height)
    return sum(part.width * part.height for part in shared if part is not None) + 4 * outside
