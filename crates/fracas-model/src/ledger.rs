//! The marker ledger: numbered records that a writer puts through a service's own client path, and the account of what became
//! of them. Pure; writing and reading back is the agent's.
//!
//! Outcomes are those of Jepsen's histories: a marker was acknowledged, surely failed, or nobody knows. Lost is what was
//! acknowledged and is not there afterwards. How much time of writes that is, is told as an interval:
//!
//! ```text
//!       survivor          lost             lost           next one
//!   ...[s = = c].......[s = = c].......[s = = c].......[s = = c]...   (s: sent, c: completed; written somewhere between)
//!       |                     |         |                     |
//!       |                     +--------> at least             |
//!       +---------------------------------------------------> at most
//! ```
//!
//! Where nothing is lost, a write between two markers may be, and the bound is the longest time from the sending of one
//! that survived to the completion of the next: never nothing.

mod account;

use serde::{Deserialize, Serialize};

pub use self::account::{Account, Life, Lost, account};
use crate::{
    chain,
    event::Look,
    id::{HostId, LedgerId, RunId},
};

/// Most markers that one ledger takes; its writer stops there and says so.
pub const MOST_MARKERS: u64 = 200_000;
/// Most stretches of found markers in one event, some 30 kB; a reading of more is told in several.
pub const MOST_FOUND: usize = 500;
/// Longest name of a place, bytes: PostgreSQL cuts names after 63.
const LONGEST_PLACE: usize = 63;

/// What became of a marker as far as its writer knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// The service said that it is written.
    Acknowledged,
    /// It surely was not written.
    Failed,
    /// It may have been written or not.
    Unknown,
}

/// One marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marker {
    /// Its number in the life of its writer, from 1.
    pub number: u64,
    /// When it was sent and completed; written, if it was, at some instant in between.
    pub look: Look,
    /// What became of it.
    pub outcome: Outcome,
}

/// Markers of about a second, in columns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Markers {
    /// Numbers: the first as it is, then differences.
    pub number: Vec<i64>,
    /// Instants of sending, nanoseconds of the writer's boot time: the first as it is, then differences.
    pub s: Vec<i64>,
    /// Completion minus sending.
    pub took: Vec<i64>,
    /// 0 acknowledged, 1 failed, 2 unknown.
    pub outcome: Vec<u8>,
}

impl Markers {
    /// Packs markers in the order in which they are given.
    pub fn pack(markers: &[Marker]) -> Self {
        let (mut packed, mut number, mut s) = (Self::default(), 0, 0);
        for marker in markers {
            let own = i64::try_from(marker.number).unwrap_or(i64::MAX);
            packed.number.push(own.saturating_sub(number));
            packed.s.push(marker.look.s.saturating_sub(s));
            packed.took.push(marker.look.c.saturating_sub(marker.look.s));
            packed.outcome.push(match marker.outcome {
                Outcome::Acknowledged => 0,
                Outcome::Failed => 1,
                Outcome::Unknown => 2,
            });
            (number, s) = (own, marker.look.s);
        }
        packed
    }

    /// The markers again; columns of unequal length end at the shortest. What a host says of itself may be anything.
    pub fn unpack(&self) -> Vec<Marker> {
        let (mut number, mut s) = (0_i64, 0_i64);
        let rows = self.number.iter().zip(&self.s).zip(self.took.iter().zip(&self.outcome));
        rows.filter_map(|((step, later), (took, outcome))| {
            number = number.saturating_add(*step);
            s = s.saturating_add(*later);
            Some(Marker {
                number: u64::try_from(number).ok()?,
                look: Look { s, c: s.saturating_add((*took).max(0)) },
                outcome: match outcome {
                    0 => Outcome::Acknowledged,
                    1 => Outcome::Failed,
                    _ => Outcome::Unknown,
                },
            })
        })
        .collect()
    }
}

/// Markers of one life that were found, without a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Found {
    /// The life of the writer.
    pub life: u64,
    /// The first number.
    pub first: u64,
    /// How many numbers follow each other.
    pub count: u64,
    /// How often each of them is there.
    pub times: u64,
}

/// Stretches of the markers that were read back, in any order and as often as they are there.
pub fn stretches(mut records: Vec<(u64, u64)>) -> Vec<Found> {
    records.sort_unstable();
    let mut found: Vec<Found> = Vec::new();
    for same in records.chunk_by(|a, b| a == b) {
        let (life, number, times) = (same[0].0, same[0].1, same.len() as u64);
        match found.last_mut() {
            Some(last) if last.life == life && last.first + last.count == number && last.times == times => {
                last.count += 1;
            }
            _ => found.push(Found { life, first: number, count: 1, times }),
        }
    }
    found
}

/// Where a ledger of a run keeps its markers: a name that is nobody else's, of small letters, digits and `_`, so that it can
/// be a table, a key or a part of a path. `fracas_RUN_LEDGER_` and six digits of a digest that tells its host.
pub fn place(run: &RunId, ledger: &LedgerId, host: &HostId) -> String {
    let clean = |text: &str| {
        text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect::<String>()
    };
    let digest = chain::hex(&chain::sha256(format!("{run}/{ledger}/{host}").as_bytes()));
    let tail = format!("_{}", &digest[..6]);
    let mut place = format!("fracas_{}_{}", clean(run.as_str()), clean(ledger.as_str()));
    place.truncate(LONGEST_PLACE - tail.len());
    place + &tail
}

/// What is written into the place when it is made: it tells whose it is. No secret.
pub fn token(run: &RunId, ledger: &LedgerId, host: &HostId) -> String {
    chain::hex(&chain::sha256(format!("fracas ledger {run}/{ledger}/{host}").as_bytes()))[..32].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_survive_packing_and_hostile_columns_do_no_harm() {
        let marker = |number, s, outcome| Marker { number, look: Look { s, c: s + 3 }, outcome };
        let markers = [
            marker(7, 1000, Outcome::Acknowledged),
            // Completed later, sent earlier.
            marker(5, 900, Outcome::Unknown),
            marker(8, 1100, Outcome::Failed),
        ];
        assert_eq!(Markers::pack(&markers).unpack(), markers);
        let strange = Markers {
            number: vec![i64::MIN, i64::MAX, i64::MAX],
            s: vec![i64::MAX, i64::MAX, 1],
            took: vec![i64::MIN, i64::MAX, 0],
            outcome: vec![9, 0, 0],
        };
        assert!(strange.unpack().len() <= 3);
    }

    #[test]
    fn what_was_found_is_told_in_stretches() {
        let records = vec![(2, 1), (1, 3), (1, 1), (1, 2), (1, 5), (1, 6), (1, 6)];
        let found = |life, first, count, times| Found { life, first, count, times };
        let told = stretches(records);
        assert_eq!(told, [found(1, 1, 3, 1), found(1, 5, 1, 1), found(1, 6, 1, 2), found(2, 1, 1, 1)]);
    }

    #[test]
    fn places_are_names_anywhere_and_nobody_elses() {
        let of = |ledger: &str, host: &str| place(&"0abcdefghjkm".into(), &ledger.into(), &host.into());
        let place = of("orders", "h-1");
        assert!(place.starts_with("fracas_0abcdefghjkm_orders_"), "{place}");
        assert_ne!(place, of("orders", "h-2"));
        let long = of(&"Order.s-".repeat(20), "h");
        assert_eq!(long.len(), LONGEST_PLACE);
        assert!(long.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{long}");
    }
}
