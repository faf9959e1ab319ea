//! What one probe saw lately, as cells of equal length. Answers from changes alone, so a silent second costs nothing.

use std::collections::VecDeque;

/// Changes kept; a probe that flaps faster than this within a window is shown as mixed anyway.
const KEPT: usize = 4096;

/// What a cell of a strip shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cell {
    /// Before the first reading.
    Before,
    /// Every reading was ok.
    Ok,
    /// Every reading failed.
    Failing,
    /// Both within the cell.
    Mixed,
    /// Looks were missed.
    Gap,
}

/// Changes of one probe on one vantage, by wall time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Strip {
    changes: VecDeque<(i64, bool)>,
    gaps: VecDeque<(i64, i64)>,
}

impl Strip {
    /// The first reading, or a change.
    pub(crate) fn change(&mut self, wall_ns: i64, ok: bool) {
        self.changes.push_back((wall_ns, ok));
        if self.changes.len() > KEPT {
            self.changes.pop_front();
        }
    }

    /// Looks were missed in between.
    pub(crate) fn gap(&mut self, from_ns: i64, to_ns: i64) {
        self.gaps.push_back((from_ns, to_ns));
        if self.gaps.len() > KEPT {
            self.gaps.pop_front();
        }
    }

    /// What it says now, and since when.
    pub(crate) fn last(&self) -> Option<(i64, bool)> {
        self.changes.back().copied()
    }

    /// What was seen in `from..to`.
    pub(crate) fn cell(&self, from: i64, to: i64) -> Cell {
        if self.gaps.iter().any(|(a, b)| *a < to && from <= *b) {
            return Cell::Gap;
        }
        let entering = self.changes.iter().rev().find(|(at, _)| *at < from).map(|(_, ok)| *ok);
        let within = self.changes.iter().filter(|(at, _)| (from..to).contains(at)).map(|(_, ok)| *ok);
        let mut seen = entering.into_iter().chain(within);
        let Some(first) = seen.next() else { return Cell::Before };
        match (first, seen.any(|ok| ok != first)) {
            (_, true) => Cell::Mixed,
            (true, false) => Cell::Ok,
            (false, false) => Cell::Failing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_say_what_was_seen_in_them() {
        use Cell::{Before, Gap, Mixed, Ok};
        let mut strip = Strip::default();
        strip.change(15, true);
        strip.change(32, false);
        strip.change(45, true);
        strip.gap(61, 63);
        let cells: Vec<Cell> = (0..8).map(|i| strip.cell(i * 10, i * 10 + 10)).collect();
        assert_eq!(cells, [Before, Ok, Ok, Mixed, Mixed, Ok, Gap, Ok]);
        assert_eq!(strip.cell(33, 40), Cell::Failing);
    }
}
