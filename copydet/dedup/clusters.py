"""From pairs to clusters, and which of their images are kept.

Components of the accepted pairs alone would chain: A is a crop of B, B a collage with C, C a frame of C', and a handful
of such steps joins what nobody would call the same (papers on web-scale de-duplication report single components of
millions). So a component is only where clusters are looked for. In it, the image that the keep rule likes best
represents all that are a pair with it, and what two pairs of the higher bar of `strong` link to it: each step shares
most of both images. What is further away is split off, and is represented by the best of its own. A collage that is the
largest image of all must not represent what is pasted into it, so images that share most of themselves with another
come before those that do not.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components, shortest_path

from copydet.dedup.collection import Numbers
from copydet.dedup.exact import Contents

_STRONG_OVERLAP = 0.75  # of both: two images that share as much with a third share half of it with each other
_EQUAL_OVERLAP = 0.6
_MOST_MEASURED = 256  # contents of a cluster whose diameter is computed, not bounded


@dataclass(frozen=True)
class Edges:
    """Accepted pairs of contents: image numbers, score, and the share of each that the other covers (NaN: not known);
    all arrays [n].
    """

    one: Numbers
    other: Numbers
    score: NDArray[np.float64]
    one_overlap: NDArray[np.float64]
    other_overlap: NDArray[np.float64]

    @property
    def least_overlap(self) -> NDArray[np.float64]:
        """The smaller of both, NaN where they are not known."""
        return np.fmin(self.one_overlap, self.other_overlap)

    def strong(self, bar: float) -> NDArray[np.bool_]:
        """Which pairs may be a step of a chain: bool [n]."""
        return (self.score >= bar) & ~(self.least_overlap < _STRONG_OVERLAP)


@dataclass(frozen=True)
class Clusters:
    """Images of clusters of two images and more, by cluster, the representative first, then by rank; arrays [images].

    `cluster` counts from 0 in the order of the representatives' ids. `score` is that of the pair with the
    representative, or of the weaker of the two pairs that link it; 1 for exact duplicates. `linked`: 0 exact, 1 a pair,
    2 by way of another. `extra`: whether it is kept because the representative shows less than half of it.
    """

    cluster: Numbers
    image: Numbers
    representative: Numbers
    score: NDArray[np.float64]
    linked: NDArray[np.int8]
    keep: NDArray[np.bool_]
    size: Numbers
    weakest: NDArray[np.float64]
    diameter: Numbers


def find_clusters(
    contents: Contents,
    edges: Edges,
    preference: Numbers,
    rank: Numbers,
    is_reference: NDArray[np.bool_],
    bar: float,
    whole: float,
) -> Clusters:
    """Cluster the images. `preference` as in keep.preferences; `is_reference` bool [images]: never dropped; `bar`: the
    score from which on a pair may be a step of a chain; `whole`: share of itself that an image must see in its
    representative to be dropped for it.
    """
    best = _best_images(contents, preference)
    led = _lead(edges, preference[best], bar)
    leader, score, linked, overlap = led.spread(len(contents.first))
    alive = np.flatnonzero(contents.first >= 0)
    content = contents.first[alive]
    representative = best[leader[content]]
    sizes = np.bincount(leader[content], minlength=len(leader))
    inside = sizes[leader[content]] > 1
    alive, content, representative = alive[inside], content[inside], representative[inside]
    order = np.lexsort((rank[alive], alive != representative, rank[representative]))
    alive, content, representative = alive[order], content[order], representative[order]
    starts = np.flatnonzero(np.r_[True, representative[1:] != representative[:-1]]) if len(alive) else np.zeros(0, int)
    cluster = np.cumsum(np.r_[0, representative[1:] != representative[:-1]]) if len(alive) else np.zeros(0, np.int64)
    shows_more = overlap[content] < whole
    keep = (alive == representative) | is_reference[alive]
    keep |= shows_more & (alive == best[content]) & ~is_reference[representative]
    size = np.diff(np.r_[starts, len(alive)])
    weakest = np.minimum.reduceat(score[content], starts) if len(alive) else np.zeros(0)
    diameter = _diameters(edges, leader, linked, content, starts, size)
    return Clusters(
        cluster.astype(np.int64),
        alive,
        representative,
        score[content],
        linked[content],
        keep,
        size[cluster] if len(alive) else np.zeros(0, np.int64),
        weakest[cluster] if len(alive) else np.zeros(0),
        diameter[cluster] if len(alive) else np.zeros(0, np.int64),
    )


def _best_images(contents: Contents, preference: Numbers) -> Numbers:
    """For each content (by the number of its first) the image of it that is kept, if one is: int64 [images]."""
    best = np.arange(len(contents.first))
    alive = np.flatnonzero(contents.first >= 0)
    order = alive[np.argsort(-preference[alive], kind="stable")]
    best[contents.first[order]] = order  # the last one written is the best
    return best


@dataclass(frozen=True)
class _Led:
    """Contents that are in some pair, and who leads each; arrays [nodes]. See `spread`."""

    node: Numbers
    leader: Numbers
    score: NDArray[np.float64]
    linked: NDArray[np.int8]
    overlap: NDArray[np.float64]

    def spread(self, images: int) -> tuple[Numbers, NDArray[np.float64], NDArray[np.int8], NDArray[np.float64]]:
        """For every image number: the content that leads its content (itself, where it is in no pair), the score of the
        link, how many pairs it takes, and how much of itself it sees in its leader (NaN: not known).
        """
        leader, score = np.arange(images), np.ones(images)
        linked, overlap = np.zeros(images, np.int8), np.full(images, np.nan)
        leader[self.node] = self.node[self.leader]
        score[self.node], linked[self.node], overlap[self.node] = self.score, self.linked, self.overlap
        return leader, score, linked, overlap


def _lead(edges: Edges, preference: Numbers, bar: float) -> _Led:
    """Choose leaders in each component, the most preferred first."""
    node, ends = np.unique(np.concatenate([edges.one, edges.other]), return_inverse=True)
    graph = _Graph.of(edges, ends.reshape(2, -1), len(node), edges.strong(bar))
    leader = np.full(len(node), -1, np.int64)
    score, linked = np.ones(len(node)), np.zeros(len(node), np.int8)
    overlap = np.full(len(node), np.nan)
    _, component = connected_components(graph.matrix(), directed=False)
    has_equal = np.zeros(len(node), bool)
    has_equal[ends[np.tile(edges.least_overlap >= _EQUAL_OVERLAP, 2)]] = True
    for chosen in np.lexsort((preference[node], ~has_equal, component)).tolist():
        if leader[chosen] >= 0:
            continue
        leader[chosen] = chosen
        around = graph.around(chosen)
        around = around[leader[graph.to[around]] < 0]
        direct = graph.to[around]
        leader[direct], score[direct], linked[direct] = chosen, graph.score[around], 1
        overlap[direct] = graph.to_overlap[around]
        steps = around[graph.strong[around]]
        for step, bound in zip(graph.to[steps].tolist(), graph.score[steps].tolist(), strict=True):
            further = graph.around(step)
            further = further[graph.strong[further] & (leader[graph.to[further]] < 0)]
            beyond = graph.to[further]
            leader[beyond], linked[beyond] = chosen, 2
            score[beyond] = np.minimum(graph.score[further], bound)
    return _Led(node, leader, score, linked, overlap)


@dataclass(frozen=True)
class _Graph:
    """Both directions of each edge, by where it begins: those of node n are from starts[n] to starts[n + 1]."""

    starts: Numbers
    to: Numbers
    score: NDArray[np.float64]
    to_overlap: NDArray[np.float64]
    strong: NDArray[np.bool_]

    @staticmethod
    def of(edges: Edges, ends: Numbers, nodes: int, strong: NDArray[np.bool_]) -> "_Graph":
        begin, end = np.concatenate([ends[0], ends[1]]), np.concatenate([ends[1], ends[0]])
        score, both = np.tile(edges.score, 2), np.tile(strong, 2)
        overlap = np.concatenate([edges.other_overlap, edges.one_overlap])
        order = np.lexsort((-score, begin))
        starts = np.searchsorted(begin[order], np.arange(nodes + 1))
        return _Graph(starts, end[order], score[order], overlap[order], both[order])

    def around(self, node: int) -> Numbers:
        """Places of the edges that begin at a node, the best first."""
        return np.arange(self.starts[node], self.starts[node + 1])

    def matrix(self) -> csr_matrix:
        return csr_matrix((np.ones(len(self.to), np.int8), self.to, self.starts), shape=(len(self.starts) - 1,) * 2)


def _diameters(
    edges: Edges, leader: Numbers, linked: NDArray[np.int8], content: Numbers, starts: Numbers, size: Numbers
) -> Numbers:
    """For each cluster the most pairs that it takes from one of its images to another: int64 [clusters].

    Of more than _MOST_MEASURED contents a bound: twice the way to the representative.
    """
    inside = leader[edges.one] == leader[edges.other]
    one, other = edges.one[inside], edges.other[inside]
    order = np.argsort(leader[one], kind="stable")
    one, other, of = one[order], other[order], leader[one][order]
    diameters = np.zeros(len(starts), np.int64)
    for number, (start, count) in enumerate(zip(starts.tolist(), size.tolist(), strict=True)):
        members = np.unique(content[start : start + count])
        if len(members) <= 2:
            diameters[number] = len(members) - 1
        elif len(members) > _MOST_MEASURED:
            diameters[number] = 2 * int(linked[members].max())
        else:
            low, high = np.searchsorted(of, [leader[members[0]], leader[members[0]] + 1])
            ends = np.searchsorted(members, [one[low:high], other[low:high]])
            graph = csr_matrix((np.ones(high - low), (ends[0], ends[1])), shape=(len(members),) * 2)
            diameters[number] = int(shortest_path(graph, directed=False, unweighted=True).max())
    return diameters
