"""Where things stand on a map: projection, nodes moved apart, labels that do not cover each other.

Positions are pixels of the drawing, x to the right and y down. Everything is settled once for a network and
deterministic.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

GAP_PX = 3.0
RING_PX = 9.0
"""Free space between symbols, and between the one in the middle of a place and those around it."""
SPREAD_STEPS = 120
CHARACTER = 0.6
"""Width of a letter as a share of the font size, on the generous side."""


class Label(NamedTuple):
    """A text beside its node."""

    node: int
    x: float
    y: float
    anchor: str  # start, middle or end, as in SVG


class Frame(NamedTuple):
    """The room for the network: x from left to left + width, y from top to top + height."""

    left: float
    top: float
    width: float
    height: float


def project(lat: np.ndarray, lon: np.ndarray, around: tuple[np.ndarray, np.ndarray], frame: Frame) -> np.ndarray:
    """Project degrees to pixels: equirectangular, a degree of longitude shortened by the cosine of the latitude.

    Args:
        lat, lon: float [n], what to project.
        around: latitudes and longitudes that must fit into the frame.
        frame: where to; the projection is centred in it and keeps its proportions.

    Returns:
        float64 [n, 2], pixels.
    """
    all_lat, all_lon = around
    shrink = math.cos(math.radians(float(np.mean([all_lat.min(), all_lat.max()]))))
    middle_lat, middle_lon = (all_lat.min() + all_lat.max()) / 2, (all_lon.min() + all_lon.max()) / 2
    extent = max((np.ptp(all_lon) * shrink) / frame.width, np.ptp(all_lat) / frame.height, 1e-12)
    x = frame.left + frame.width / 2 + (np.asarray(lon) - middle_lon) * shrink / extent
    y = frame.top + frame.height / 2 - (np.asarray(lat) - middle_lat) / extent
    return np.column_stack([x, y])


def height_for(lat: np.ndarray, lon: np.ndarray, width: float, least: float = 0.4, most: float = 0.9) -> float:
    """Return the height of a frame of some width that fits these places, within shares of the width."""
    shrink = math.cos(math.radians(float((lat.min() + lat.max()) / 2)))
    across = max(float(np.ptp(lon)) * shrink, 1e-12)
    return width * min(most, max(least, float(np.ptp(lat)) / across))


def circle(n: int, frame: Frame) -> np.ndarray:
    """Return n places on an ellipse, for a network without coordinates, float64 [n, 2]."""
    angle = np.arange(n) * 2 * np.pi / max(n, 1) - np.pi / 2
    centre = np.array([frame.left + frame.width / 2, frame.top + frame.height / 2])
    return centre + np.column_stack([np.cos(angle) * frame.width / 2, np.sin(angle) * frame.height / 2])


def spread(place: np.ndarray, radius: np.ndarray, degree: np.ndarray, frame: Frame) -> np.ndarray:
    """Move nodes apart that would cover each other, as little as needed.

    Of several at one place the best connected stays and the others stand around it; then all push each other
    away until symbols no longer touch, held back towards where they belong.

    Args:
        place: float64 [N, 2], pixels.
        radius: float64 [N], of each symbol.
        degree: int [N], number of links.
        frame: nobody leaves it.

    Returns:
        float64 [N, 2], pixels.
    """
    home = place.copy()
    for group in _coincident(place):
        centre = max(group, key=lambda v: (degree[v], -v))
        others = [v for v in group if v != centre]
        for k, v in enumerate(others):
            angle = 2 * np.pi * k / len(others) - np.pi / 4
            away = radius[centre] + radius[v] + RING_PX
            home[v] = place[centre] + away * np.array([np.cos(angle), np.sin(angle)])
    at = home.copy()
    least = radius[:, None] + radius[None, :] + GAP_PX
    np.fill_diagonal(least, 0.0)
    low = np.array([frame.left, frame.top]) + radius[:, None]
    high = np.array([frame.left + frame.width, frame.top + frame.height]) - radius[:, None]
    for _ in range(SPREAD_STEPS):
        delta = at[:, None] - at[None, :]  # [N, N, 2]
        distance = np.maximum(np.hypot(delta[..., 0], delta[..., 1]), 1e-6)
        push = np.maximum(least - distance, 0.0) / distance
        at = at + 0.4 * (push[..., None] * delta).sum(axis=1) + 0.02 * (home - at)
        at = np.clip(at, low, np.maximum(low, high))
    return at


def _coincident(place: np.ndarray) -> list[list[int]]:
    """Return the groups of two or more nodes that stand within a pixel of each other."""
    groups: dict[tuple[int, int], list[int]] = {}
    for v, (x, y) in enumerate(place):
        groups.setdefault((round(float(x)), round(float(y))), []).append(v)
    return [group for group in groups.values() if len(group) > 1]


def place_labels(
    texts: dict[int, str],
    at: np.ndarray,
    radius: np.ndarray,
    frame: Frame,
    sizes: Sequence[float],
    crowded: int = 16,
) -> list[Label]:
    """Set labels beside their nodes where they cover least.

    Args:
        texts: the labels by node, the most important first.
        at: float64 [N, 2], where the nodes stand.
        radius: float64 [N].
        frame: labels stay inside it.
        sizes: font sizes at which the labels will be shown; they must not cover each other at any.
        crowded: with more labels than this, one that would cover another is left out.

    Returns:
        The labels that are shown.
    """
    chosen: dict[int, tuple[Label, list[tuple[float, float, float, float]]]] = {}
    for _ in range(2):  # the second round knows where all others stand
        for v, text in texts.items():
            taken = [box for u, (_, boxes) in chosen.items() if u != v for box in boxes]
            options = []
            for label in _options(v, at[v], float(radius[v]), max(sizes)):
                boxes = [_box(label, text, size) for size in sizes]
                options.append((_cost(boxes, taken, at, radius, frame), len(options), label, boxes))
            cost, _, label, boxes = min(options, key=lambda option: option[:2])
            chosen[v] = (label, boxes)
    if len(texts) <= crowded:
        return [label for label, _ in chosen.values()]
    kept: list[tuple[Label, list[tuple[float, float, float, float]]]] = []
    for label, boxes in chosen.values():
        if not any(_overlap(a, b) for a in boxes for _, others in kept for b in others):
            kept.append((label, boxes))
    return [label for label, _ in kept]


def _options(v: int, at: np.ndarray, radius: float, size: float) -> list[Label]:
    x, y = float(at[0]), float(at[1])
    labels = []
    for away in (radius + 3, radius + 12, radius + 24):
        labels += [Label(v, x + away, y, "start"), Label(v, x - away, y, "end")]
        labels += [Label(v, x, y - away - size * 0.3, "middle"), Label(v, x, y + away + size * 0.45, "middle")]
        slant = away * 0.75
        for dy in (-slant - size * 0.25, slant + size * 0.35):
            labels += [Label(v, x + slant, y + dy, "start"), Label(v, x - slant, y + dy, "end")]
    return labels


def _box(label: Label, text: str, size: float) -> tuple[float, float, float, float]:
    width = len(text) * size * CHARACTER
    left = label.x - width * {"start": 0.0, "middle": 0.5, "end": 1.0}[label.anchor]
    return left, label.y - size * 0.55, left + width, label.y + size * 0.55


def _overlap(a: Sequence[float], b: Sequence[float]) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _cost(
    boxes: Sequence[Sequence[float]],
    taken: Sequence[Sequence[float]],
    at: np.ndarray,
    radius: np.ndarray,
    frame: Frame,
) -> float:
    """Return how much a label would cover: other labels count most, then nodes; leaving the frame is out."""
    cost = 0.0
    room = (frame.left, frame.top, frame.left + frame.width, frame.top + frame.height)
    for box in boxes:
        cost += 4 * sum(_overlap(box, other) for other in taken)
        area = (box[2] - box[0]) * (box[3] - box[1])
        cost += 100 * (area - _overlap(box, room))
    box = boxes[0]
    near = np.maximum(0.0, np.minimum(box[2], at[:, 0] + radius) - np.maximum(box[0], at[:, 0] - radius))
    cost += float(
        (near * np.maximum(0.0, np.minimum(box[3], at[:, 1] + radius) - np.maximum(box[1], at[:, 1] - radius))).sum()
    )
    return cost
