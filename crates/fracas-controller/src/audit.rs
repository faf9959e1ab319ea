//! Who called what: every call becomes a fact of the audit stream, refused ones too.
//!
//! Acts are recorded before they are done. Looks, and strangers who knock, come often: the first is recorded at once, those
//! of the following minute are counted and recorded together, so that nobody can fill the disk by asking.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use fracas_model::{access::DEFAULT_ENVIRONMENT, event::Body, time::Stamp};

use crate::history::{History, HistoryError};

/// How long looks are counted before they are told.
const COUNTED: Duration = Duration::from_mins(1);
/// How often it is looked whether some are to be told.
const PACE: Duration = Duration::from_secs(10);
/// Kinds of looks that are counted apart; those beyond are counted as one for each caller and method.
const KINDS: usize = 512;
/// Most of all of them together; those beyond are counted as one.
const MOST_KINDS: usize = 8 * KINDS;
/// Longest text kept of a call, characters.
const TEXT: usize = 200;

/// One call.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call {
    /// Pseudonym of the caller; empty: somebody without a good token.
    pub by: String,
    /// The method's name.
    pub method: String,
    /// Where; empty: the default one.
    pub environment: String,
    /// What it is about; from where, for a stranger.
    pub about: String,
    /// Why it was refused, if so.
    pub refused: Option<String>,
}

/// The audit stream of a controller. Clones are one and the same.
#[derive(Clone, Debug)]
pub struct Audit {
    history: History,
    stream: Arc<str>,
    looks: Arc<Mutex<BTreeMap<Call, Counted>>>,
}

/// Looks of one kind that were not told yet.
#[derive(Clone, Debug)]
struct Counted {
    /// The first that was not told; none: only a look that was told has begun the minute.
    first: Option<Stamp>,
    times: u64,
    /// When the minute began, boot time.
    since_ns: i64,
}

impl Audit {
    /// Over a history; `stream` is the name of the stream.
    pub fn new(history: History, stream: &str) -> Self {
        Self { history, stream: stream.into(), looks: Arc::default() }
    }

    /// Name of the stream.
    pub fn stream(&self) -> &str {
        &self.stream
    }

    /// Records an act, durably, before it is done.
    pub async fn acted(&self, call: Call) -> Result<(), HistoryError> {
        let at = self.history.now();
        self.history.append(&self.stream, vec![called(call, 1, at)]).await.map(drop)
    }

    /// Records a look. A history that cannot be written keeps nobody from looking.
    pub async fn looked(&self, call: Call) {
        let call = bounded(call);
        if self.count(&call, true) {
            let at = self.history.now();
            if let Err(error) = self.history.append(&self.stream, vec![called(call, 1, at)]).await {
                tracing::error!(%error, "a call could not be recorded");
            }
        }
    }

    /// Records that somebody without a good token knocked, a little later.
    pub fn stranger(&self, method: &str, from: &str, why: &str) {
        let call = Call {
            method: method.to_owned(),
            about: from.to_owned(),
            refused: Some(why.to_owned()),
            ..Call::default()
        };
        self.count(&bounded(call), false);
    }

    /// Whether the caller is to record it; else it was counted.
    fn count(&self, call: &Call, at_once: bool) -> bool {
        let now = self.history.now();
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        let full = looks.len() >= KINDS && !looks.contains_key(call);
        // Strangers are many and choose their words; of those who are known, who did what is kept.
        let known = !call.by.is_empty() && looks.len() < MOST_KINDS;
        let others = || Call {
            by: if known { call.by.clone() } else { String::new() },
            method: if known { call.method.clone() } else { "(others)".to_owned() },
            about: if known { "(others)".to_owned() } else { String::new() },
            refused: call.refused.clone().map(|_| String::new()),
            ..Call::default()
        };
        let key = if full { others() } else { call.clone() };
        match looks.get_mut(&key) {
            Some(counted) => {
                counted.times += 1;
                counted.first.get_or_insert(now);
                false
            }
            None if at_once && !full => {
                looks.insert(key, Counted { first: None, times: 0, since_ns: now.boot_ns });
                true
            }
            None => {
                looks.insert(key, Counted { since_ns: now.boot_ns, first: Some(now), times: 1 });
                false
            }
        }
    }

    /// Tells the looks whose minute is over; all of them at the end.
    pub async fn tell(&self, all: bool) -> Result<(), HistoryError> {
        let now_ns = self.history.now().boot_ns;
        let counted_ns = i64::try_from(COUNTED.as_nanos()).unwrap_or(i64::MAX);
        let due: Vec<(Call, Counted)> = {
            let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
            let over = |_: &Call, counted: &mut Counted| all || now_ns - counted.since_ns >= counted_ns;
            looks.extract_if(.., over).collect()
        };
        let told =
            due.iter().filter_map(|(call, counted)| Some(called(call.clone(), counted.times, counted.first.clone()?)));
        let told: Vec<Body> = told.collect();
        if told.is_empty() {
            return Ok(());
        }
        let result = self.history.append(&self.stream, told).await.map(drop);
        if result.is_err() {
            // They are told when the history can be written again.
            let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
            for (call, counted) in due {
                let again = looks.entry(call).or_insert_with(|| Counted { times: 0, ..counted.clone() });
                again.times += counted.times;
                again.first = counted.first.or_else(|| again.first.clone());
            }
        }
        result
    }

    /// Tells looks in time until `closed` resolves, and then the rest.
    pub async fn keep_telling(&self, closed: impl Future<Output = ()>) {
        let pace = async {
            loop {
                tokio::time::sleep(PACE).await;
                if let Err(error) = self.tell(false).await {
                    tracing::error!(%error, "calls could not be recorded; they are counted on");
                }
            }
        };
        tokio::select! {
            () = pace => {}
            () = closed => {}
        }
        if let Err(error) = self.tell(true).await {
            tracing::error!(%error, "the last calls could not be recorded");
        }
    }
}

fn called(call: Call, times: u64, at: Stamp) -> Body {
    let Call { by, method, environment, about, refused } = bounded(call);
    let environment = if environment.is_empty() { DEFAULT_ENVIRONMENT.to_owned() } else { environment };
    Body::Called { by, method, environment, about, refused, times, at }
}

/// What our secrets begin with: whoever pastes one where a name is asked for is not to find it on record.
const SECRETS: [&str; 4] = ["fjt1.", "fpt1.", "fat1.", "signature="];

/// The text without what follows the beginnings of secrets.
fn without_secrets(text: &str) -> String {
    let (mut kept, mut rest) = (String::new(), text);
    while let Some((at, begins)) = SECRETS.iter().filter_map(|begins| Some((rest.find(begins)?, *begins))).min() {
        let secret = &rest[at + begins.len()..];
        let end = secret.find(|c: char| !c.is_ascii_alphanumeric() && c != '.').unwrap_or(secret.len());
        kept.push_str(&rest[..at + begins.len()]);
        kept.push_str("(secret)");
        rest = &secret[end..];
    }
    kept + rest
}

/// Texts of callers are cut, hold nothing that a terminal would obey, and none of our secrets.
fn bounded(call: Call) -> Call {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let cut = |text: String| without_secrets(&text).chars().map(plain).take(TEXT).collect();
    Call {
        by: cut(call.by),
        method: cut(call.method),
        environment: cut(call.environment),
        about: cut(call.about),
        refused: call.refused.map(cut),
    }
}

#[cfg(test)]
mod tests {
    use fracas_model::{time::ClockId, units::Dur};

    use super::*;
    use crate::{clock::ManualClock, store::memory::MemoryStore};

    async fn audit() -> (Audit, MemoryStore, Arc<ManualClock>) {
        let stamp =
            Stamp { clock: ClockId { host: "c".into(), boot: "b".into() }, boot_ns: 0, wall_ns: 0, bound_ns: -1 };
        let (store, clock) = (MemoryStore::new(), Arc::new(ManualClock::new(stamp)));
        let history = History::open(Arc::new(store.clone()), clock.clone()).await.unwrap();
        (Audit::new(history, "audit/c"), store, clock)
    }

    async fn told(audit: &Audit) -> Vec<(String, u64)> {
        let events = audit.history.read("audit/c", 0).await.unwrap();
        let one = |event: fracas_model::event::Event| match event.body {
            Body::Called { by, about, times, .. } => (format!("{by}{about}"), times),
            other => panic!("{other:?}"),
        };
        events.into_iter().map(one).collect()
    }

    fn look(by: &str) -> Call {
        Call { by: by.into(), method: "ListRuns".into(), ..Call::default() }
    }

    #[tokio::test]
    async fn looks_are_told_once_and_then_together() {
        let (audit, _, clock) = audit().await;
        for _ in 0..5 {
            audit.looked(look("anna")).await;
        }
        audit.looked(look("bert")).await;
        audit.tell(false).await.unwrap();
        assert_eq!(told(&audit).await, [("anna".into(), 1), ("bert".into(), 1)]);
        clock.advance(Dur::from_secs(60));
        audit.tell(false).await.unwrap();
        assert_eq!(told(&audit).await[2..], [("anna".into(), 4)], "nothing is told of what did not repeat");
        audit.looked(look("anna")).await;
        assert_eq!(told(&audit).await.len(), 4, "a new minute begins");
    }

    #[tokio::test]
    async fn who_did_what_is_kept_when_there_are_too_many_kinds_of_looks() {
        let (audit, _, _) = audit().await;
        for i in 0..2 * KINDS {
            audit.stranger("Plan", &format!("10.0.0.{i}"), "unknown");
        }
        for about in ["r1", "r2", "r3"] {
            audit.looked(Call { about: about.into(), ..look("anna") }).await;
        }
        audit.looked(Call { refused: Some("no".into()), ..look("bert") }).await;
        audit.tell(true).await.unwrap();
        let events = audit.history.read("audit/c", 0).await.unwrap();
        let of = |who: &str| {
            let told = events.iter().filter_map(|event| match &event.body {
                Body::Called { by, method, about, refused, times, .. } if by == who => {
                    Some((method.as_str(), about.as_str(), refused.is_some(), *times))
                }
                _ => None,
            });
            told.collect::<Vec<_>>()
        };
        assert_eq!(of("anna"), [("ListRuns", "(others)", false, 3)]);
        assert_eq!(of("bert"), [("ListRuns", "(others)", true, 1)]);
        // Not without end.
        for i in 0..2 * MOST_KINDS {
            audit.looked(look(&format!("p-{i}"))).await;
        }
        assert!(audit.looks.lock().unwrap().len() <= MOST_KINDS + 2);
    }

    #[test]
    fn secrets_in_the_wrong_place_are_not_on_record() {
        let token = format!("fpt1.0a1b2c3d4e5f6071.{}", "5".repeat(64));
        let link = format!("https://c/schedules.ics?id=0a&signature={}", "5".repeat(64));
        let told =
            |text: &str| bounded(Call { about: text.to_owned(), refused: Some(text.to_owned()), ..Call::default() });
        for (text, kept) in [
            (token.clone(), "fpt1.(secret)".to_owned()),
            (format!("no run `{token}` here: or {token}"), "no run `fpt1.(secret)` here: or fpt1.(secret)".to_owned()),
            (
                format!("{} x {link}", token.replace("fpt1", "fjt1")),
                format!("fjt1.(secret) x {}(secret)", &link[..link.len() - 64]),
            ),
            ("fat1.".to_owned(), "fat1.(secret)".to_owned()),
            ("plain".to_owned(), "plain".to_owned()),
        ] {
            let call = told(&text);
            assert_eq!((call.about.as_str(), call.refused.as_deref()), (kept.as_str(), Some(kept.as_str())));
        }
        // Nor is half of one, where it would be cut.
        assert!(!told(&format!("{}{token}", "x".repeat(TEXT - 30))).about.contains('5'));
    }

    #[tokio::test]
    async fn strangers_cannot_fill_the_history_and_none_is_lost() {
        let (audit, store, _) = audit().await;
        for i in 0..2000 {
            audit.stranger("Plan", &format!("10.0.0.{i}\n\u{1b}[2J"), "unknown");
        }
        store.set_full(true);
        assert!(audit.tell(true).await.is_err());
        store.set_full(false);
        audit.tell(true).await.unwrap();
        let told = told(&audit).await;
        assert_eq!(told.len(), KINDS + 1);
        assert_eq!(told.iter().map(|(_, times)| times).sum::<u64>(), 2000);
        assert!(told.iter().all(|(text, _)| !text.contains(['\n', '\u{1b}'])));
        audit.tell(true).await.unwrap();
        assert_eq!(audit.history.read("audit/c", 0).await.unwrap().len(), KINDS + 1, "each is told once");
    }
}
