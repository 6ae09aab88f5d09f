"""How frames are merged: by a threshold, or down to a rate."""

from dataclasses import dataclass, replace

from speechbrain_flowmac.lobes.frame_merging import (
    find_runs,
    neighbour_similarity,
    threshold_for_rate,
)


@dataclass(frozen=True)
class Merging:
    """Which neighbouring frames become one.

    Arguments
    ---------
    merging_threshold : float
        Frames merge whose cosine is above it, -1..1; 1 merges none. Speech
        then has more frames where more happens.
    frame_rate : float or None
        Merged frames in a second, Hz, that each signal is to have at most;
        each then gets a threshold of its own.
    max_run : int
        Longest run in frames, so the lowest rate.

    Example
    -------
    >>> merging = Merging(0.9).with_changes(frame_rate=8.3)
    >>> merging.frame_rate, merging.with_changes(merging_threshold=1.0)
    (8.3, Merging(merging_threshold=1.0, frame_rate=None, max_run=8))
    """

    merging_threshold: float = 0.9
    frame_rate: float | None = None
    max_run: int = 8

    def __post_init__(self):
        if not -1 <= self.merging_threshold <= 1:
            raise ValueError(
                "merging_threshold must be in -1..1, found "
                f"{self.merging_threshold}"
            )
        if self.frame_rate is not None and not self.frame_rate > 0:
            raise ValueError(
                f"frame_rate must be above 0 Hz, found {self.frame_rate}"
            )
        if self.max_run < 1:
            raise ValueError(
                f"max_run must be at least 1, found {self.max_run}"
            )

    def with_changes(self, merging_threshold=None, frame_rate=None):
        """Another threshold, or a rate instead; None changes nothing."""
        if merging_threshold is not None and frame_rate is not None:
            raise ValueError(
                "expected merging_threshold or frame_rate, found both"
            )
        if frame_rate is not None:
            return replace(self, frame_rate=frame_rate)
        if merging_threshold is not None:
            return replace(
                self, merging_threshold=merging_threshold, frame_rate=None
            )
        return self

    def runs(self, frames, lengths, frame_rate):
        """Lengths of the runs of frames to merge.

        Arguments
        ---------
        frames : torch.Tensor
            Whose likeness decides, shape [B, N, D].
        lengths : torch.Tensor
            Exact numbers of frames, int64 [B].
        frame_rate : float
            Frames in a second before merging, Hz.

        Returns
        -------
        torch.Tensor
            int64, shape [B, R], as `find_runs` gives them.
        """
        similarity = neighbour_similarity(frames)
        threshold = self.merging_threshold
        if self.frame_rate is not None:
            threshold = threshold_for_rate(
                similarity, lengths, self.frame_rate, frame_rate, self.max_run
            )
        return find_runs(similarity, lengths, threshold, self.max_run)
