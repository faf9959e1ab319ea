//! A series: one experiment run several times, one after another. Its seeds, when it goes on, and what it amounts to.
//!
//! It starts nothing and knows no clock; each run has its own gate, history and report.

use crate::event::VerdictWord;

/// Most runs of a series.
pub const LONGEST: u32 = 1000;

/// Seed of the run of that number, from 0, when the first has the seed `first`: the first keeps it, the others are spread by
/// `SplitMix64` (Steele, Lea and Flood 2014), so that neighbours have nothing in common. Never 0, which means "draw one".
pub fn seed(first: u64, number: u32) -> u64 {
    if number == 0 {
        return first;
    }
    let mut z = first.wrapping_add(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(u64::from(number)));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)).max(1)
}

/// Whether the next run may start after one that ended so. A host that may not be clean ends every series, and so does
/// what would refuse the next run as well.
pub fn goes_on(after: &VerdictWord, keep_going: bool) -> bool {
    match after {
        VerdictWord::Pass => true,
        VerdictWord::UndoUnconfirmed | VerdictWord::Refused => false,
        VerdictWord::Fail | VerdictWord::Inconclusive | VerdictWord::Aborted | VerdictWord::Error => keep_going,
    }
}

/// The worst of the exit codes of verdicts, in the order in which verdicts beat each other; 0 of none. Codes that are no
/// verdict's beat all but an undo that nobody confirmed.
pub fn worst(codes: impl IntoIterator<Item = u8>) -> u8 {
    const ORDER: [u8; 7] = [0, 3, 1, 4, 5, 7, 6];
    let rank = |code: &u8| match ORDER.iter().position(|known| known == code) {
        Some(place) => 2 * place,
        // Between refused and undo unconfirmed.
        None => 2 * ORDER.len() - 3,
    };
    codes.into_iter().max_by_key(rank).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn seeds_follow_from_the_first_and_differ() {
        assert_eq!((seed(7, 0), seed(7, 1)), (7, seed(7, 1)));
        let all: BTreeSet<u64> = (0..LONGEST).flat_map(|number| [seed(7, number), seed(8, number)]).collect();
        assert_eq!(all.len(), 2 * LONGEST as usize);
        assert!(!all.contains(&0));
        // The generator's published first value for seed 0.
        assert_eq!(seed(0, 1), 0xe220_a839_7b1d_cdaf);
    }

    #[test]
    fn what_may_be_left_behind_ends_the_series() {
        assert!(goes_on(&VerdictWord::Pass, false) && goes_on(&VerdictWord::Fail, true));
        assert!(!goes_on(&VerdictWord::Fail, false) && !goes_on(&VerdictWord::Inconclusive, false));
        assert!(!goes_on(&VerdictWord::UndoUnconfirmed, true) && !goes_on(&VerdictWord::Refused, true));
    }

    #[test]
    fn the_worst_code_is_the_series_code() {
        assert_eq!(worst([0, 3, 1, 0]), 1);
        assert_eq!((worst([0, 6, 7]), worst([1, 4]), worst([0, 0]), worst([])), (6, 4, 0, 0));
        assert_eq!((worst([0, 130, 1]), worst([130, 6])), (130, 6));
    }
}
