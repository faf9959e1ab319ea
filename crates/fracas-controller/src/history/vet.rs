//! What a host may put into a history: sizes, order, kinds, and only about itself, on its own clock.
//!
//! Pure checks of hostile input; a breach of form refuses the report, a breach by one fact drops that fact.

use fracas_model::{
    event::{Body, Look, Origin},
    id::HostId,
    ledger::{MOST_FOUND, MOST_MARKERS},
    time::{ClockMap, Stamp},
};

use super::Fact;
use crate::chain;

/// Longest JSON text of a fact, bytes. The largest kind is a plan of some dozen steps, about 10 kB.
pub const MAX_BODY_BYTES: usize = 64 << 10;

/// Largest blob, bytes: a second of a probe every 1 ms is about 20 kB.
pub const MAX_BLOB_BYTES: usize = 1 << 20;

/// Most facts in one report; the message's own limit of 4 MiB usually comes first.
pub const MAX_REPORT_EVENTS: usize = 4096;

/// Longest name of an outbox, bytes; agents use a UUID.
const MAX_OUTBOX_BYTES: usize = 64;

/// One fact as a host sent it, not looked at yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reported {
    /// Number within the outbox, from 1.
    pub seq: u64,
    /// Stream it asks for.
    pub stream: String,
    /// [`Body`] as JSON.
    pub body: Vec<u8>,
    /// Bytes of a `ReadingsSealed`.
    pub blob: Option<Vec<u8>>,
}

/// The rules for a report as a whole.
pub(super) fn report(outbox: &str, reported: &[Reported]) -> Result<(), String> {
    let named = |c: u8| c.is_ascii_alphanumeric() || b"-_.".contains(&c);
    if outbox.is_empty() || outbox.len() > MAX_OUTBOX_BYTES || !outbox.bytes().all(named) {
        return Err(format!("outbox name must be 1 to {MAX_OUTBOX_BYTES} letters, digits, `-`, `_` or `.`"));
    }
    if reported.len() > MAX_REPORT_EVENTS {
        return Err(format!("{} facts in one report, at most {MAX_REPORT_EVENTS} may be", reported.len()));
    }
    let mut last = 0;
    for one in reported {
        if one.seq <= last || i64::try_from(one.seq).is_err() {
            return Err(format!("number {} follows {last}", one.seq));
        }
        last = one.seq;
    }
    Ok(())
}

/// The rules for one fact; `controller` is whose clock the host may compare its own with.
pub(super) fn fact(
    host: &HostId,
    controller: &HostId,
    outbox: &str,
    reported: Reported,
    takes_part: &(dyn Fn(&str) -> bool + Send + Sync),
) -> Result<Fact, String> {
    let Reported { seq, stream, body, blob } = reported;
    let run = stream.strip_prefix("run/");
    let allowed = match run {
        Some(_) => takes_part(&stream),
        None => stream.strip_prefix("host/") == Some(host.as_str()),
    };
    if !allowed {
        // The name is hostile text of any length.
        return Err(format!("the host may not write stream `{}`", stream.chars().take(64).collect::<String>()));
    }
    if body.len() > MAX_BODY_BYTES {
        return Err(format!("{} bytes long, at most {MAX_BODY_BYTES} may be", body.len()));
    }
    let body: Body = serde_json::from_slice(&body).map_err(|e| format!("not a fact this controller knows: {e}"))?;
    let stamps = stamps(&body).ok_or("only the controller may say this")?;
    if let Some(stamp) = stamps.into_iter().flatten().find(|stamp| stamp.clock.host != *host) {
        return Err(format!("stamped by the clock of another host, `{}`", stamp.clock.host));
    }
    let instants = stamps.into_iter().flatten().map(|stamp| stamp.boot_ns);
    if !instants.chain(looks(&body).into_iter().flatten().flat_map(|look| [look.s, look.c])).all(possible)
        || looks(&body).into_iter().flatten().any(|look| look.s > look.c)
    {
        return Err("instants that no clock can show".to_owned());
    }
    if let Body::MarkersWritten { markers, .. } = &body
        && !markers.unpack().iter().all(|marker| possible(marker.look.s) && possible(marker.look.c))
    {
        return Err("markers of instants that no clock can show".to_owned());
    }
    if let Body::LedgerRead { found, .. } = &body
        && (found.len() > MOST_FOUND
            || found.iter().fold(0_u64, |sum, one| sum.saturating_add(one.count)) > 4 * MOST_MARKERS)
    {
        return Err("more markers than a ledger takes".to_owned());
    }
    if let Body::ClockSeen { map } = &body
        && (map.from.host != *host || map.to.host != *controller || !sane(map))
    {
        return Err("a comparison of clocks that is not this host's with this controller's".to_owned());
    }
    if let Some(item) = body.item()
        && (item.host != *host || run.is_some_and(|run| run != item.run.as_str()))
    {
        return Err(format!("about item {item} of host {}, which this report cannot be about", item.host));
    }
    check_blob(&body, blob.as_deref())?;
    Ok(Fact { body, origin: Some(Origin { host: host.clone(), outbox: outbox.to_owned(), seq }), blob })
}

/// Boot times that a machine can reach, so that sums of a few of them are numbers too: up to 73 years.
fn possible(boot_ns: i64) -> bool {
    (0..=i64::MAX / 4).contains(&boot_ns)
}

fn sane(map: &ClockMap) -> bool {
    let offsets = -(i64::MAX / 4)..=i64::MAX / 4;
    map.lo_ns <= map.hi_ns && possible(map.at_ns) && offsets.contains(&map.lo_ns) && offsets.contains(&map.hi_ns)
}

/// The looks a fact tells of.
fn looks(body: &Body) -> [Option<Look>; 2] {
    match body {
        Body::Edge { before, after, .. } => [*before, Some(*after)],
        Body::StopConditionMet { look, .. } => [Some(*look), None],
        Body::Gap { between, .. } | Body::ReadingsSealed { between, .. } | Body::LedgerRead { between, .. } => {
            [Some(*between), None]
        }
        _ => [None, None],
    }
}

fn check_blob(body: &Body, blob: Option<&[u8]>) -> Result<(), String> {
    match (body, blob) {
        (Body::ReadingsSealed { digest, .. }, Some(blob)) => {
            if blob.len() > MAX_BLOB_BYTES {
                Err(format!("blob of {} bytes, at most {MAX_BLOB_BYTES} may be", blob.len()))
            } else if chain::hex(&chain::sha256(blob)) != *digest {
                Err("blob does not have the digest that was sealed".to_owned())
            } else {
                Ok(())
            }
        }
        (Body::ReadingsSealed { .. }, None) => Err("readings sealed without their blob".to_owned()),
        (_, Some(_)) => Err("a blob with a fact that has none".to_owned()),
        (_, None) => Ok(()),
    }
}

/// The stamps of a host's fact; `None` when the fact is not for hosts to state.
fn stamps(body: &Body) -> Option<[Option<&Stamp>; 2]> {
    match body {
        Body::Refused { at, .. }
        | Body::Applying { at, .. }
        | Body::Checked { at, .. }
        | Body::Undoing { at, .. }
        | Body::UndoFailed { at, .. }
        | Body::Failed { at, .. }
        | Body::ProbeStarted { at, .. }
        | Body::PaceChanged { at, .. }
        | Body::ProbeRefused { at, .. }
        | Body::Edge { at, .. }
        | Body::StopConditionMet { at, .. }
        | Body::Gap { at, .. }
        | Body::ReadingsSealed { at, .. }
        | Body::LedgerOpened { at, .. }
        | Body::LedgerRefused { at, .. }
        | Body::MarkersWritten { at, .. }
        | Body::LedgerRead { at, .. }
        | Body::LedgerTroubled { at, .. }
        | Body::LedgerDropped { at, .. } => Some([Some(at), None]),
        Body::Active { effective: between, .. }
        | Body::Spent { effective: between, .. }
        | Body::Undone { between, .. } => Some([Some(&between.from), Some(&between.to)]),
        // Its clocks are looked at by themselves.
        Body::ClockSeen { .. } => Some([None, None]),
        _ => None,
    }
}
