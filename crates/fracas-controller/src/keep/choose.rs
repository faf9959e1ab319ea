//! What may go: a pure decision over what is known of each run. Whatever is doubtful stays.

use fracas_model::{chain::Head, id::RunId, units::Dur};

/// Which runs go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Those that ended longer ago than this.
    pub older_than: Dur,
    /// But not so many, the newest.
    pub keep_last: u64,
}

/// What is known of a run, newest first in a list of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// The run.
    pub run: RunId,
    /// Its end, as the store has it.
    pub head: Head,
    /// It is in the hands of a driver, or the run index does not have it as finished.
    pub open: bool,
    /// Its last head and when that was taken (wall time), as the audit stream has it.
    pub closed: Option<(Head, i64)>,
    /// It was left unconfirmed on some host.
    pub quarantine: bool,
}

/// Why a run stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stays {
    /// It has not ended, or its report is not sealed.
    Open,
    /// It ended too lately.
    Young,
    /// It is among the newest.
    Last,
    /// A host is quarantined because of it.
    Quarantine,
    /// What is kept of it is not what it was when it was closed: it must not go before somebody has looked.
    Changed,
}

impl Stays {
    /// As people read it, after a number of runs.
    pub fn words(self) -> &'static str {
        match self {
            Self::Open => "not ended, or their report is not sealed",
            Self::Young => "not old enough",
            Self::Last => "among the newest",
            Self::Quarantine => "a host is quarantined because of them",
            Self::Changed => "not what they were when they were closed: run `fracas audit verify`",
        }
    }
}

/// For each run its last head if it goes, else why it stays; `now_ns` is the wall time.
pub(super) fn choose(known: &[Known], rules: Rules, now_ns: i64) -> Vec<Result<Head, Stays>> {
    let before = before(rules, now_ns);
    let newest = usize::try_from(rules.keep_last).unwrap_or(usize::MAX);
    let decide = |(place, run): (usize, &Known)| match run.closed {
        _ if run.open => Err(Stays::Open),
        None => Err(Stays::Open),
        Some((_, at_ns)) if at_ns > before => Err(Stays::Young),
        Some(_) if place < newest => Err(Stays::Last),
        Some(_) if run.quarantine => Err(Stays::Quarantine),
        Some((head, _)) if head != run.head => Err(Stays::Changed),
        Some((head, _)) => Ok(head),
    };
    known.iter().enumerate().map(decide).collect()
}

/// What ended up to this instant is old.
pub(super) fn before(rules: Rules, now_ns: i64) -> i64 {
    now_ns.saturating_sub(rules.older_than.ns().max(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400_000_000_000;

    fn head(seq: u64) -> Head {
        Head { seq, hash: [seq as u8; 32] }
    }

    fn known(days_ago: i64) -> Known {
        let closed = Some((head(9), 1000 * DAY - days_ago * DAY));
        Known { run: "r".into(), head: head(9), open: false, closed, quarantine: false }
    }

    fn of(known: &[Known], keep_last: u64) -> Vec<Result<Head, Stays>> {
        choose(known, Rules { older_than: Dur::from_secs(400 * 86_400), keep_last }, 1000 * DAY)
    }

    #[test]
    fn only_what_is_old_and_closed_and_as_it_was_goes() {
        let all = [
            known(1),
            known(400),
            known(399),
            Known { open: true, ..known(500) },
            Known { closed: None, ..known(500) },
            Known { quarantine: true, ..known(500) },
            Known { head: head(10), ..known(500) },
            known(999),
        ];
        let expected = [
            Err(Stays::Young),
            Ok(head(9)),
            Err(Stays::Young),
            Err(Stays::Open),
            Err(Stays::Open),
            Err(Stays::Quarantine),
            Err(Stays::Changed),
            Ok(head(9)),
        ];
        assert_eq!(of(&all, 0), expected);
    }

    #[test]
    fn the_newest_stay_however_old_they_are() {
        let all = [known(500), known(600), known(700)];
        assert_eq!(of(&all, 2), [Err(Stays::Last), Err(Stays::Last), Ok(head(9))]);
        assert!(of(&all, u64::MAX).iter().all(Result::is_err));
        // No length of time reaches further back than time does.
        let rules = Rules { older_than: Dur::from_ns(i64::MAX), keep_last: 0 };
        assert_eq!(choose(&all, rules, i64::MIN), [Err(Stays::Young); 3]);
    }
}
