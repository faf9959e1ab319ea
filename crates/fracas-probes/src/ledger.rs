//! The catalogue of ledgers: one file per kind. A ledger writes numbered markers through a service's own client path and
//! reads back which are there; it judges nothing and knows no run.
//!
//! To add one: copy the file that is nearest to it and add one line to [`ALL`]. The place is its own: what is there already
//! and does not bear the owner's token is never touched.

mod exec;
mod http;
mod postgres;
mod redis;
#[cfg(test)]
mod tests;

use std::{cell::Cell, future::Future, pin::Pin};

use fracas_model::{
    catalogue::{LedgerInfo, Params},
    plan::Refusal,
    policy::Policy,
};

/// Every kind of ledger there is.
pub const ALL: &[&dyn Ledger] = &[&postgres::PostgresLedger, &redis::RedisLedger, &http::HttpLedger, &exec::ExecLedger];

/// A kind of ledger.
pub trait Ledger: Sync {
    /// Name, parameters, help.
    fn info(&self) -> LedgerInfo;
    /// Parses checked parameters; opens and asks nothing. Refuses what the host's policy does not allow.
    fn ready(&self, params: &Params, policy: &Policy, place: Place) -> Result<Box<dyn Book>, Refusal>;
}

/// Where the markers stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Of small letters, digits and `_`; at most 63.
    pub name: String,
    /// What is written into the place when it is made, of letters and digits.
    pub token: String,
}

/// A future on the probe thread's own single-threaded runtime.
pub type Now<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// A ledger made ready. The caller bounds each call in time by dropping its future; dropping must release everything. Reasons
/// are at most 120 bytes, without secrets.
pub trait Book {
    /// Takes the place up, if it is there and bears our token; where it is not there, makes it if `make` says so, and else
    /// leaves it at that: what was lost is not made again. Sets `touched` from when on it may have been made.
    fn open<'a>(&'a self, make: bool, touched: &'a Cell<bool>) -> Now<'a, Result<(), NotOpen>>;
    /// Writes one marker, over a fresh connection as any client would, and waits for the service's word. Sets `sent` from when
    /// on the service may have it: one that is given up before that was surely not written.
    fn write<'a>(&'a self, life: u64, number: u64, sent: &'a Cell<bool>) -> Now<'a, Written>;
    /// Reads which markers are there, as life and number, each as often as it is there. A place that is gone holds none.
    ///
    /// # Errors
    /// It could not be read whole, or the place is not ours.
    fn read(&self) -> Now<'_, Result<Vec<(u64, u64)>, String>>;
    /// Removes the place with all that is in it; one that is gone is no error.
    ///
    /// # Errors
    /// It could not be removed, or is not ours.
    fn remove(&self) -> Now<'_, Result<(), String>>;
}

/// Why a place is not open.
#[derive(Clone, Debug, PartialEq)]
pub enum NotOpen {
    /// Trying again would not help: foreign content, a right that is missing. Nothing was changed.
    Refused(Refusal),
    /// Perhaps later.
    Unreachable(String),
}

/// What became of a marker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// The service said that it is written.
    Acknowledged,
    /// It surely was not written.
    Failed(String),
    /// It may have been written.
    Unknown(String),
}

/// A ledger made ready for documents: its parameters checked once more.
///
/// # Errors
/// Parameters that this version does not know or that do not fit, and what [`Ledger::ready`] refuses.
pub fn ready(ledger: &dyn Ledger, params: &Params, policy: &Policy, place: Place) -> Result<Box<dyn Book>, Refusal> {
    ledger.info().params_fit(params)?;
    // They become a part of statements and paths, on whosever word they come.
    let letters = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    let place_fits = place.name.starts_with("fracas_") && place.name.len() <= LONGEST_NAME && letters(&place.name);
    let token_fits = !place.token.is_empty() && place.token.len() <= LONGEST_NAME && letters(&place.token);
    if !place_fits || !token_fits {
        let why = "the controller names a place for the ledger that is none";
        return Err(Refusal::new(why, "find out what speaks for the controller: no honest one does so"));
    }
    ledger.ready(params, policy, place)
}

/// Longest name of a place or an owner, bytes.
const LONGEST_NAME: usize = 63;
/// Most records that are read back: far more than any ledger is given.
const MOST_RECORDS: usize = 1_000_000;

/// Whose the place is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    /// It is not there.
    Nobody,
    Us,
    Others,
}

/// What became of a marker: until it was `sent` nothing can have been written, and after that only what is `sure` was not.
fn written(asked: Result<(), String>, sent: &Cell<bool>, sure: &Cell<bool>) -> Written {
    match asked {
        Ok(()) => Written::Acknowledged,
        Err(why) if !sent.get() || sure.get() => Written::Failed(why),
        Err(why) => Written::Unknown(why),
    }
}

/// Why a place is not open: it is others', a right is missing that `instead` gives, or perhaps later. Reasons are those of a
/// session, hushed and short.
fn not_open(why: String, found: Owner, denied: bool, what: &str, place: &Place, instead: &str) -> NotOpen {
    match (found, denied) {
        (Owner::Others, _) => NotOpen::Refused(foreign(what, place)),
        (_, true) => {
            NotOpen::Refused(Refusal::new(format!("the {what} {} cannot be made: {why}", place.name), instead))
        }
        _ => NotOpen::Unreachable(why),
    }
}

/// A refusal to touch what others made.
fn foreign(what: &str, place: &Place) -> Refusal {
    Refusal::new(
        format!("the {what} {} is there already, and it is not this ledger's: it was left as it is", place.name),
        format!("find out who made it and remove it, or start the run anew: each run has a {what} of its own"),
    )
}

/// A marker's name where places hold texts: `LIFE-NUMBER`.
fn name(life: u64, number: u64) -> String {
    format!("{life}-{number}")
}

/// A marker by its name; `None` for what no ledger wrote.
fn marker(name: &str) -> Option<(u64, u64)> {
    let (life, number) = name.split_once('-')?;
    Some((life.parse().ok()?, number.parse().ok()?))
}
