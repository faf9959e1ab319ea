//! Ledgers with real timers and a scripted service: opened when it is there, read back, removed, and left alone.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
};

use fracas_model::{
    catalogue::{LedgerInfo, Params},
    policy::Policy,
};
use fracas_probes::ledger::{Ledger, Now, Place};
use tokio::task::LocalSet;

use super::*;
use crate::{
    host::clock::Clock,
    watch::{Watcher as _, pace::BootPace, roster::Roster},
};

thread_local! {
    /// Whether the service answers.
    static UP: Cell<bool> = const { Cell::new(true) };
    /// What it keeps; `None` while there is no such place.
    static KEPT: RefCell<Option<BTreeSet<(u64, u64)>>> = const { RefCell::new(None) };
    /// Whether what is asked for may have been done though no answer comes.
    static ANSWERLESS: Cell<bool> = const { Cell::new(false) };
    /// How often a place was made.
    static MADE: Cell<u32> = const { Cell::new(0) };
}

struct Scripted;

struct Script;

impl Ledger for Scripted {
    fn info(&self) -> LedgerInfo {
        LedgerInfo {
            name: "scripted".into(),
            summary: String::new(),
            help: String::new(),
            params: Vec::new(),
            place: "place".into(),
            example: String::new(),
        }
    }

    fn ready(&self, _: &Params, _: &Policy, place: Place) -> Result<Box<dyn Book>, Refusal> {
        if place.token == "foreign" { Err(Refusal::new("not ours", "elsewhere")) } else { Ok(Box::new(Script)) }
    }
}

fn answers<'a, T: 'a>(down: T, up: impl FnOnce() -> T + 'a) -> Now<'a, T> {
    Box::pin(async move { if UP.get() { up() } else { down } })
}

impl Book for Script {
    fn open<'a>(&'a self, make: bool, touched: &'a Cell<bool>) -> Now<'a, Result<(), NotOpen>> {
        touched.set(touched.get() || ANSWERLESS.get());
        answers(Err(NotOpen::Unreachable("down".into())), move || {
            if make {
                MADE.set(MADE.get() + 1);
                KEPT.with_borrow_mut(|kept| {
                    kept.get_or_insert_default();
                });
            }
            Ok(())
        })
    }

    fn write<'a>(&'a self, life: u64, number: u64, _: &'a Cell<bool>) -> Now<'a, Written> {
        answers(Written::Failed("down".into()), move || {
            KEPT.with_borrow_mut(|kept| match kept {
                Some(kept) => {
                    kept.insert((life, number));
                    Written::Acknowledged
                }
                None => Written::Failed("gone".into()),
            })
        })
    }

    fn read(&self) -> Now<'_, Result<Vec<(u64, u64)>, String>> {
        answers(Err("down".into()), || Ok(KEPT.with_borrow(|kept| kept.iter().flatten().copied().collect())))
    }

    fn remove(&self) -> Now<'_, Result<(), String>> {
        answers(Err("down".into()), || {
            KEPT.set(None);
            Ok(())
        })
    }
}

fn item(work: LedgerWork) -> LedgerItem {
    LedgerItem {
        run: "r".into(),
        ledger: "data".into(),
        kind: "scripted".into(),
        params: Params::default(),
        every: Dur::from_ms(10),
        timeout: Dur::from_ms(100),
        place: "fracas_r_data_1".into(),
        token: "0".into(),
        made: false,
        work,
        until: Dur::from_secs(60),
    }
}

fn roster() -> Roster<BootPace> {
    const KINDS: &[&dyn Ledger] = &[&Scripted];
    Roster::new(&[], Policy::builtin(), BootPace::new(Clock::of("h".into()))).with_ledgers(KINDS)
}

/// The first fact that fits, and those before it.
async fn until(roster: &mut Roster<BootPace>, fits: impl Fn(&Body) -> bool) -> Vec<Body> {
    let mut told = Vec::new();
    let limit = Duration::from_secs(20);
    loop {
        let sight = timeout(limit, roster.next()).await.unwrap_or_else(|_| panic!("it never came: {told:?}"));
        assert_eq!(sight.stream, "run/r");
        told.push(sight.body);
        if told.last().is_some_and(&fits) {
            return told;
        }
    }
}

fn markers(told: &[Body]) -> Vec<Marker> {
    let of = |body: &Body| match body {
        Body::MarkersWritten { markers, .. } => markers.unpack(),
        _ => Vec::new(),
    };
    told.iter().flat_map(of).collect()
}

#[tokio::test(flavor = "current_thread")]
async fn a_ledger_is_opened_once_the_service_is_there_written_read_back_and_removed() {
    let work = async {
        let mut roster = roster();
        UP.set(false);
        roster.keep(&[item(LedgerWork::Write)]);
        let told = until(&mut roster, |body| matches!(body, Body::LedgerTroubled { .. })).await;
        assert!(matches!(&told[..], [Body::LedgerTroubled { why, .. }] if why == "down"), "{told:?}");
        UP.set(true);
        let told = until(&mut roster, |body| matches!(body, Body::MarkersWritten { .. })).await;
        assert!(matches!(&told[0], Body::LedgerOpened { place, .. } if place == "fracas_r_data_1"), "{told:?}");
        let mut written = markers(&told);
        assert!(written.iter().all(|marker| marker.outcome == Outcome::Acknowledged), "{written:?}");
        // The history has heard of it: nothing begins anew.
        roster.keep(&[LedgerItem { made: true, ..item(LedgerWork::Write) }]);
        roster.keep(&[LedgerItem { made: true, ..item(LedgerWork::Read) }]);
        let told = until(&mut roster, |body| matches!(body, Body::LedgerRead { .. })).await;
        written.extend(markers(&told));
        let Some(Body::LedgerRead { found, last: true, .. }) = told.last() else { panic!("{told:?}") };
        let numbers: Vec<u64> = written.iter().map(|marker| marker.number).collect();
        assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>(), "every one is told, in order");
        assert_eq!((found.len(), found[0].first, found[0].count), (1, 1, numbers.len() as u64));
        assert!(KEPT.with_borrow(Option::is_some), "kept until it is said to be removed");
        roster.keep(&[LedgerItem { made: true, ..item(LedgerWork::Drop) }]);
        until(&mut roster, |body| matches!(body, Body::LedgerDropped { .. })).await;
        assert!(KEPT.with_borrow(Option::is_none) && MADE.get() == 1);
    };
    LocalSet::new().run_until(work).await;
}

#[tokio::test(flavor = "current_thread")]
async fn what_is_not_desired_any_more_is_left_as_it_is_and_a_later_life_does_not_make_it_again() {
    let work = async {
        let mut first = roster();
        first.keep(&[item(LedgerWork::Write)]);
        until(&mut first, |body| matches!(body, Body::MarkersWritten { .. })).await;
        first.keep(&[]);
        first.settle().await;
        let kept = KEPT.with_borrow(|kept| kept.as_ref().map(BTreeSet::len));
        assert!(kept > Some(0));
        // Meanwhile all is lost.
        KEPT.set(None);
        let mut second = roster();
        second.keep(&[LedgerItem { made: true, ..item(LedgerWork::Write) }]);
        let told = until(&mut second, |body| matches!(body, Body::MarkersWritten { .. })).await;
        assert!(markers(&told).iter().all(|marker| marker.outcome == Outcome::Failed), "{told:?}");
        second.keep(&[LedgerItem { made: true, ..item(LedgerWork::Read) }]);
        let told = until(&mut second, |body| matches!(body, Body::LedgerRead { .. })).await;
        assert!(
            matches!(told.last(), Some(Body::LedgerRead { found, last: true, .. }) if found.is_empty()),
            "{told:?}"
        );
        assert_eq!(MADE.get(), 1);
    };
    LocalSet::new().run_until(work).await;
}

#[tokio::test(flavor = "current_thread")]
async fn what_was_never_made_needs_no_service_to_be_gone_and_what_is_forbidden_ends() {
    let work = async {
        UP.set(false);
        let mut roster = roster();
        roster.keep(&[item(LedgerWork::Write)]);
        until(&mut roster, |body| matches!(body, Body::LedgerTroubled { .. })).await;
        // Nothing was ever asked of it: there is nothing to be seen to.
        roster.keep(&[item(LedgerWork::Drop)]);
        until(&mut roster, |body| matches!(body, Body::LedgerDropped { .. })).await;
        roster.keep(&[]);
        ANSWERLESS.set(true);
        roster.keep(&[item(LedgerWork::Write)]);
        until(&mut roster, |body| matches!(body, Body::LedgerTroubled { .. })).await;
        // It may have been made before the answer was lost: that must be seen.
        roster.keep(&[item(LedgerWork::Drop)]);
        let told = until(&mut roster, |body| matches!(body, Body::LedgerTroubled { .. })).await;
        assert!(!told.iter().any(|body| matches!(body, Body::LedgerDropped { .. })), "{told:?}");
        UP.set(true);
        until(&mut roster, |body| matches!(body, Body::LedgerDropped { .. })).await;
        roster.keep(&[]);
        roster.keep(&[LedgerItem { token: "foreign".into(), ..item(LedgerWork::Write) }]);
        let told = until(&mut roster, |body| matches!(body, Body::LedgerRefused { .. })).await;
        assert!(matches!(&told[..], [Body::LedgerRefused { refusal, .. }] if refusal.why == "not ours"), "{told:?}");
        roster.keep(&[]);
        roster.keep(&[item(LedgerWork::Write)]);
        until(&mut roster, |body| matches!(body, Body::LedgerOpened { .. })).await;
        roster.allow(&Policy { allow_ledgers: vec![], ..Policy::builtin() });
        let told = until(&mut roster, |body| matches!(body, Body::LedgerRefused { .. })).await;
        let Some(Body::LedgerRefused { refusal, .. }) = told.last() else { panic!("{told:?}") };
        assert!(refusal.why.contains("policy does not allow ledgers"), "{refusal:?}");
        // Its task has ended, and what it made is left as it is.
        roster.settle().await;
        assert!(KEPT.with_borrow(Option::is_some));
    };
    LocalSet::new().run_until(work).await;
}
