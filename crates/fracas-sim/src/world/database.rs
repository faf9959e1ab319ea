//! A simulated database whose truth is known: what it acknowledged, and what of it a kill took.

use std::{
    cell::Cell,
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use fracas_model::{
    catalogue::{LedgerInfo, Params},
    plan::Refusal,
    policy::Policy,
};
use fracas_probes::ledger::{Book, Ledger, NotOpen, Now, Place, Written};

use super::elapsed_ns;

/// How long each answer is under way.
const TAKES: Duration = Duration::from_millis(3);

/// What there is to know of the data, instants in nanoseconds since the start of the world.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Data {
    /// Markers that are there, with when they were written; `None`: there is no place.
    pub kept: Option<BTreeSet<(i64, u64, u64)>>,
    /// How often a place was made.
    pub made: u32,
    /// Every kill: until when what was written is kept, and when it struck.
    pub kills: Vec<(i64, i64)>,
    /// Markers that were there and are lost, as life and number.
    pub lost: BTreeSet<(u64, u64)>,
}

/// The database; clones share it.
#[derive(Clone)]
pub(super) struct Database {
    data: Arc<Mutex<Data>>,
    up: Arc<AtomicBool>,
}

impl Database {
    pub(super) fn new(up: Arc<AtomicBool>) -> Self {
        Self { data: Arc::default(), up }
    }

    fn with<T>(&self, work: impl FnOnce(&mut Data) -> T) -> T {
        work(&mut self.data.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn data(&self) -> Data {
        self.with(|data| data.clone())
    }

    /// It is killed, and what it took in the last time before that is lost.
    pub(super) fn kill(&self, now_ns: i64, loses_ns: i64) {
        self.with(|data| {
            let until = now_ns - loses_ns;
            data.kills.push((until, now_ns));
            let Some(kept) = &mut data.kept else { return };
            let gone = kept.split_off(&(until, 0, 0));
            data.lost.extend(gone.into_iter().map(|(_, life, number)| (life, number)));
        });
    }

    /// An answer of the database: `down` while it does not run.
    fn asked<'a, T: 'a>(&self, down: T, up: impl FnOnce(&mut Data) -> T + 'a) -> Now<'a, T> {
        let this = self.clone();
        Box::pin(async move {
            tokio::time::sleep(TAKES).await;
            let answer = if this.up.load(Ordering::Relaxed) { this.with(up) } else { down };
            tokio::time::sleep(TAKES).await;
            answer
        })
    }
}

impl Ledger for Database {
    fn info(&self) -> LedgerInfo {
        LedgerInfo {
            name: "simulated".into(),
            summary: "Writes into the simulated database.".into(),
            help: String::new(),
            params: Vec::new(),
            place: "place".into(),
            example: "{}".into(),
        }
    }

    fn ready(&self, _: &Params, _: &Policy, _: Place) -> Result<Box<dyn Book>, Refusal> {
        Ok(Box::new(self.clone()))
    }
}

impl Book for Database {
    fn open<'a>(&'a self, make: bool, touched: &'a Cell<bool>) -> Now<'a, Result<(), NotOpen>> {
        touched.set(true);
        self.asked(Err(NotOpen::Unreachable("down".into())), move |data| {
            if data.kept.is_none() && make {
                data.made += 1;
                data.kept = Some(BTreeSet::new());
            }
            Ok(())
        })
    }

    fn write<'a>(&'a self, life: u64, number: u64, sent: &'a Cell<bool>) -> Now<'a, Written> {
        sent.set(true);
        self.asked(Written::Failed("down".into()), move |data| match &mut data.kept {
            Some(kept) => {
                kept.insert((elapsed_ns(), life, number));
                Written::Acknowledged
            }
            None => Written::Failed("there is no place".into()),
        })
    }

    fn read(&self) -> Now<'_, Result<Vec<(u64, u64)>, String>> {
        self.asked(Err("down".into()), |data| {
            Ok(data.kept.iter().flatten().map(|(_, life, number)| (*life, *number)).collect())
        })
    }

    fn remove(&self) -> Now<'_, Result<(), String>> {
        self.asked(Err("down".into()), |data| {
            data.kept = None;
            Ok(())
        })
    }
}
