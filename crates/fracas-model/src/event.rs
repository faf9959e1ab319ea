//! What happened: the facts a history is made of. State, verdict and report are folds over these.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    id::{EntryId, HostId, ItemKey, LedgerId, ProbeId, RunId, ServiceId, TargetId},
    ledger::{Found, Markers},
    mark::Mark,
    plan::{Plan, Refusal},
    signal::Signal,
    time::{ClockMap, Stamp},
    units::Dur,
};

/// One stored fact of a stream; `hash` chains it to its predecessor over the stored bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// `run/ID`, `host/ID`, `schedule/NAME`, `notify/CHANNEL`, `audit/CONTROLLER`.
    pub stream: String,
    /// From 1, without gaps.
    pub seq: u64,
    /// When the controller took it, on the controller's clock.
    pub received: Stamp,
    /// Where a host's fact came from, for deduplication.
    pub origin: Option<Origin>,
    /// The fact.
    pub body: Body,
}

/// A host's own numbering of what it reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Origin {
    /// The host.
    pub host: HostId,
    /// One life of the host's outbox file.
    pub outbox: String,
    /// From 1 within the outbox.
    pub seq: u64,
}

/// Just before and just after a system call, on one clock: the change became effective in between.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Between {
    /// Before.
    pub from: Stamp,
    /// After.
    pub to: Stamp,
}

/// When a look began and ended; what it saw was true at some instant in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    /// Send, nanoseconds of the vantage's boot time.
    pub s: i64,
    /// Completion.
    pub c: i64,
}

/// Why a fault is no longer active on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum UndoCause {
    /// Its duration ended.
    Expired,
    /// The controller no longer asks for it.
    NotDesired,
    /// The lease ran out: contact with the controller was lost.
    LeaseLost,
    /// The agent died and was started again, or its guard stepped in.
    AgentRestart,
    /// The host was booted.
    Reboot,
    /// A person on the host said undo-all.
    Local,
    /// Applying failed half-way.
    ApplyFailed,
    /// The host's owner changed the rules, and they no longer allow it.
    Policy,
}

/// Whether the effect was seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "state")]
pub enum Proof {
    /// Seen from outside the mechanism, or by counters of real traffic.
    Verified,
    /// Looked, and it was not there.
    Ineffective {
        /// What was seen instead.
        why: String,
    },
    /// There was nothing to look at.
    Unverified {
        /// Why not.
        why: String,
    },
}

/// Asked next to measured, in one unit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Measured {
    /// What was measured: `added delay`, `loss`, `core load`, `time to exit`.
    pub what: String,
    /// Unit of the numbers: `ms`, `%`.
    pub unit: String,
    /// What was asked, when it is a number.
    pub asked: Option<f64>,
    /// Median or mean of what was seen.
    pub got: f64,
    /// 99th percentile, if n supports it.
    pub p99: Option<f64>,
    /// How many observations.
    pub n: u64,
    /// How it was seen, in a few words.
    pub by: String,
}

/// How a service did in the end, as the run machine saw it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum VerdictWord {
    /// Every judgement held.
    Pass,
    /// A service missed its objective, or a check failed.
    Fail,
    /// Nothing failed, but something could not be settled or shown.
    Inconclusive,
    /// A stop condition, a guard-rail, a stop, or a steady state that was never met.
    Aborted,
    /// A fault or the tool itself failed.
    Error,
    /// Some host has not confirmed that it is clean.
    UndoUnconfirmed,
    /// Refused before anything started.
    Refused,
}

impl VerdictWord {
    /// As people read it: `pass`, `undo unconfirmed`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Inconclusive => "inconclusive",
            Self::Aborted => "aborted",
            Self::Error => "error",
            Self::UndoUnconfirmed => "undo unconfirmed",
            Self::Refused => "refused",
        }
    }
}

/// The fact.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind", rename_all_fields = "camelCase")]
pub enum Body {
    // === the controller's: decisions and requests ===
    /// A run was accepted. Everything needed to fold the run without any other source.
    Planned {
        /// The run.
        run: RunId,
        /// Canonical document: parameters applied, defaults filled in.
        document: serde_json::Value,
        /// The source text as it was sent.
        source: String,
        /// Texts of the files that it names, by the names it gives them.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        files: BTreeMap<String, String>,
        /// Name of the source file, for people.
        source_name: String,
        /// Digest of intent, hex.
        intent: String,
        /// Digest of the plan, hex.
        plan: String,
        /// Seed of every random choice.
        seed: u64,
        /// Hosts drawn for each target.
        targets: BTreeMap<TargetId, Vec<HostId>>,
        /// Names of those hosts.
        hosts: BTreeMap<HostId, String>,
        /// Hosts on which the fault of an entry begins, where that is not on all at once.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        canaries: BTreeMap<EntryId, Vec<HostId>>,
        /// Plans that were rehearsed, by entry and host name, for the record.
        rehearsed: Vec<Rehearsal>,
        /// Who asked (a pseudonymous id).
        by: String,
        /// Which environment it runs in.
        environment: String,
        /// When, on the controller's clock.
        at: Stamp,
    },
    /// The steady-state gate opened its eyes.
    GateStarted {
        /// When.
        at: Stamp,
    },
    /// Steady state held long enough: this instant is `at: 0s`.
    GatePassed {
        /// When.
        at: Stamp,
    },
    /// An entry's trigger fired.
    EntryStarted {
        /// The entry.
        entry: EntryId,
        /// Repeat number, from 0.
        occurrence: u32,
        /// Attempt, from 1.
        generation: u32,
        /// When.
        at: Stamp,
    },
    /// The canary of an entry held: its fault goes to the other hosts.
    RolloutWidened {
        /// The entry.
        entry: EntryId,
        /// When.
        at: Stamp,
    },
    /// An entry will not start.
    EntrySkipped {
        /// The entry.
        entry: EntryId,
        /// Why.
        why: String,
        /// When.
        at: Stamp,
    },
    /// All of an entry's items are closed, or its wait is over.
    EntryEnded {
        /// The entry.
        entry: EntryId,
        /// When.
        at: Stamp,
    },
    /// Somebody answered the question of an entry.
    Decided {
        /// The entry.
        entry: EntryId,
        /// Go, or not.
        go: bool,
        /// Who.
        by: String,
        /// In a few words.
        note: String,
        /// When.
        at: Stamp,
    },
    /// Somebody told when something happened: between two instants of the controller's clock.
    Marked {
        /// What.
        mark: Mark,
        /// Of which service; of the whole run when absent.
        service: Option<ServiceId>,
        /// When it happened, as told.
        when: Between,
        /// Who tells it.
        by: String,
        /// Who did it, if somebody else.
        did: Option<String>,
        /// In a few words.
        note: String,
        /// When it was told.
        at: Stamp,
    },
    /// An alerting tool told of alerts: those that this run had not heard of.
    Signalled {
        /// What it is: `alertmanager`.
        source: String,
        /// Whose token came with it.
        by: String,
        /// What it told.
        signals: Vec<Signal>,
        /// Alerts that it left out, that could not be read, or for which the run has no room.
        left_out: u64,
        /// When it came.
        at: Stamp,
    },
    /// Such marks as were told before this do not count.
    MarkRetracted {
        /// What.
        mark: Mark,
        /// Of which service; those of the whole run when absent.
        service: Option<ServiceId>,
        /// Who says so.
        by: String,
        /// Why.
        note: String,
        /// When.
        at: Stamp,
    },
    /// An entry's check was not met, or its question not answered with go: what was to come after it is skipped.
    EntryFailed {
        /// The entry.
        entry: EntryId,
        /// Why.
        why: String,
        /// When.
        at: Stamp,
    },
    /// A service was seen up for the whole stable window.
    ServiceRecovered {
        /// The service.
        service: ServiceId,
        /// Start of its first success of that window, on the vantage's clock.
        since: Stamp,
        /// When the controller knew.
        at: Stamp,
    },
    /// Somebody asked for the end.
    StopRequested {
        /// Who.
        by: String,
        /// Why.
        reason: String,
        /// When.
        at: Stamp,
    },
    /// The run turns to undoing before its timeline was through.
    Aborted {
        /// Why, for people.
        cause: String,
        /// Which kind of reason.
        why: AbortKind,
        /// When.
        at: Stamp,
    },
    /// Too few hosts of some group are left in health, because others were lost meanwhile.
    GuardRailBroken {
        /// Which guard-rail, and how.
        why: String,
        /// When.
        at: Stamp,
    },
    /// The timeline is through: waiting for services to be stable.
    RecoveryStarted {
        /// When.
        at: Stamp,
    },
    /// Services were not stable in time.
    GaveUp {
        /// Which.
        services: Vec<ServiceId>,
        /// When.
        at: Stamp,
    },
    /// Nothing is desired any more: waiting for every host to confirm.
    UndoStarted {
        /// When.
        at: Stamp,
    },
    /// All is undone: ledgers are written no more, and read back.
    LedgersClosed {
        /// When.
        at: Stamp,
    },
    /// What was read back is kept, or waited for no longer: the places of ledgers are removed.
    LedgersReleased {
        /// When.
        at: Stamp,
    },
    /// The controller lost, or found again, a host of this run.
    HostContact {
        /// The host.
        host: HostId,
        /// Whether it is connected now.
        connected: bool,
        /// When.
        at: Stamp,
    },
    /// How a host's clock reads against the controller's.
    ClockSeen {
        /// From the host's to the controller's clock.
        map: ClockMap,
    },
    /// An item was asked for and taken back before its host began with it: the host confirmed that it took this, or was
    /// out of contact all along.
    Withdrawn {
        /// The item.
        item: ItemKey,
        /// When.
        at: Stamp,
    },
    /// An item was asked for, and its host never said what became of it: something may be there.
    Unanswered {
        /// The item.
        item: ItemKey,
        /// When waiting for it ended.
        at: Stamp,
    },
    /// The host says that nothing of ours is on it any more. How the item ended was told to a history that is gone.
    FoundClean {
        /// The item.
        item: ItemKey,
        /// When.
        at: Stamp,
    },
    /// A controller took the run over after a restart.
    Resumed {
        /// When, on its clock.
        at: Stamp,
    },
    /// The end, with the verdict.
    Finished {
        /// The verdict.
        verdict: VerdictWord,
        /// Process exit code of `fracas run`.
        exit_code: u8,
        /// Reasons, most important first.
        reasons: Vec<String>,
        /// When.
        at: Stamp,
    },
    /// The final report was rendered and kept.
    ReportSealed {
        /// Version of the model that made it.
        model: String,
        /// SHA-256 of the report's JSON as it is kept beside the chain, hex.
        digest: String,
    },

    // === hosts': what was done to them ===
    /// A fault will not be applied; nothing was changed.
    Refused {
        /// The item.
        item: ItemKey,
        /// Why, and what instead.
        refusal: Refusal,
        /// When.
        at: Stamp,
    },
    /// The plan is journalled; steps begin.
    Applying {
        /// The item.
        item: ItemKey,
        /// What will be done.
        plan: Plan,
        /// When.
        at: Stamp,
    },
    /// All steps are done.
    Active {
        /// The item.
        item: ItemKey,
        /// When it became effective.
        effective: Between,
    },
    /// Whether the effect was seen; the last word before the undo counts.
    Checked {
        /// The item.
        item: ItemKey,
        /// Seen or not.
        proof: Proof,
        /// Asked and measured.
        measured: Vec<Measured>,
        /// When.
        at: Stamp,
    },
    /// A one-shot fault fired. `certain` is false when the agent found `about to fire` without `fired`.
    Spent {
        /// The item.
        item: ItemKey,
        /// Whether it surely fired.
        certain: bool,
        /// When.
        effective: Between,
    },
    /// Undo begins.
    Undoing {
        /// The item.
        item: ItemKey,
        /// Why.
        cause: UndoCause,
        /// When.
        at: Stamp,
    },
    /// The kernel's state was read back: nothing of the item is left.
    Undone {
        /// The item.
        item: ItemKey,
        /// Why it ended.
        cause: UndoCause,
        /// When the first inverse step began and the read-back ended.
        between: Between,
        /// Things found already changed by others and left alone.
        superseded: Vec<String>,
    },
    /// Some steps could not be undone yet; the agent goes on trying.
    UndoFailed {
        /// The item.
        item: ItemKey,
        /// What failed, per step.
        failures: Vec<String>,
        /// When.
        at: Stamp,
    },
    /// Applying failed; what was applied has been or is being undone.
    Failed {
        /// The item.
        item: ItemKey,
        /// What the world said.
        failure: String,
        /// When.
        at: Stamp,
    },

    // === hosts': what was seen ===
    /// A probe began to tick.
    ProbeStarted {
        /// The probe.
        probe: ProbeId,
        /// When.
        at: Stamp,
    },
    /// A probe ticks at another rate from now on: at rest, or as fast as its document says. It begins with the latter.
    PaceChanged {
        /// The probe.
        probe: ProbeId,
        /// From start to start.
        every: Dur,
        /// When.
        at: Stamp,
    },
    /// A probe cannot run here.
    ProbeRefused {
        /// The probe.
        probe: ProbeId,
        /// Why.
        refusal: Refusal,
        /// When.
        at: Stamp,
    },
    /// The first reading, or a change between ok and failing. Where looks overlap, the same change may be told again
    /// with another look before it that bounds it as well.
    Edge {
        /// The probe.
        probe: ProbeId,
        /// What it is now.
        ok: bool,
        /// The last look that said otherwise (absent at the first reading).
        before: Option<Look>,
        /// The first look that said so.
        after: Look,
        /// Why it fails, when it does.
        why: String,
        /// The clock of the looks, read when `after` completed.
        at: Stamp,
    },
    /// A stop condition is met by a look: told at once, and only once until it has not been met in between.
    StopConditionMet {
        /// The probe.
        probe: ProbeId,
        /// How, to follow the probe's name.
        why: String,
        /// The look by which.
        look: Look,
        /// When that look was completed, on the vantage's clock.
        at: Stamp,
    },
    /// Ticks that were due and did not happen, or whose readings were lost.
    Gap {
        /// The probe.
        probe: ProbeId,
        /// How many.
        missed: u64,
        /// First and last instant, nanoseconds of the vantage's boot time.
        between: Look,
        /// Why.
        why: String,
        /// When it was noticed.
        at: Stamp,
    },
    /// Raw readings of up to a second; the blob itself is stored beside the chain under its digest.
    ReadingsSealed {
        /// The probe.
        probe: ProbeId,
        /// SHA-256 of the blob, hex.
        digest: String,
        /// First send and last completion in the blob.
        between: Look,
        /// Looks that said ok.
        ok: u32,
        /// Looks that failed.
        failed: u32,
        /// When it was sealed, on the vantage's clock.
        at: Stamp,
    },

    // === hosts': what was written and read back ===
    /// A ledger's place was made or, by a writer that was started anew, found.
    LedgerOpened {
        /// The ledger.
        ledger: LedgerId,
        /// Its place: a table, a key.
        place: String,
        /// The life of its writer.
        life: u64,
        /// When.
        at: Stamp,
    },
    /// A ledger cannot be kept here; nothing was changed.
    LedgerRefused {
        /// The ledger.
        ledger: LedgerId,
        /// Why, and what instead.
        refusal: Refusal,
        /// When.
        at: Stamp,
    },
    /// Markers of about a second, and what became of them as far as their writer knows.
    MarkersWritten {
        /// The ledger.
        ledger: LedgerId,
        /// The life of its writer.
        life: u64,
        /// They.
        markers: Markers,
        /// Why those that were not acknowledged were not: the last reason, in a few words.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        why: String,
        /// When.
        at: Stamp,
    },
    /// What a ledger holds, read back; one of several parts when it is much.
    LedgerRead {
        /// The ledger.
        ledger: LedgerId,
        /// Its markers.
        found: Vec<Found>,
        /// Whether this is the last part.
        last: bool,
        /// When reading began and ended, nanoseconds of the host's boot time.
        between: Look,
        /// When.
        at: Stamp,
    },
    /// A ledger could not be opened, read back or removed yet; the host goes on trying.
    LedgerTroubled {
        /// The ledger.
        ledger: LedgerId,
        /// Its place: a table, a key.
        place: String,
        /// What failed, in a few words.
        why: String,
        /// When.
        at: Stamp,
    },
    /// The place of a ledger is gone with all that was in it.
    LedgerDropped {
        /// The ledger.
        ledger: LedgerId,
        /// What was its place.
        place: String,
        /// When.
        at: Stamp,
    },

    // === other streams ===
    /// A host was enrolled (stream `host/ID`).
    HostEnrolled {
        /// The host.
        host: HostId,
        /// Its name.
        name: String,
        /// Labels given by the join token.
        labels: BTreeMap<String, String>,
        /// Serial of its certificate, hex.
        serial: String,
        /// When.
        at: Stamp,
    },
    /// A host that had not heard the answer to its enrolment got another certificate (stream `host/ID`).
    HostCertified {
        /// Serial of the certificate, hex.
        serial: String,
        /// When.
        at: Stamp,
    },
    /// A host got its next certificate, asked for with a former one (stream `host/ID`).
    HostRenewed {
        /// Serial of the certificate, hex.
        serial: String,
        /// When it ends, seconds of Unix time.
        until_s: i64,
        /// When.
        at: Stamp,
    },
    /// A host showed a later certificate than ever: from now on those before are not accepted any more (stream `host/ID`).
    HostCertificateUsed {
        /// Serial of the certificate, hex.
        serial: String,
        /// Serial of the one before.
        superseded: String,
        /// When.
        at: Stamp,
    },
    /// Less than a quarter of the life of a host's certificate is left, and its agent, which is in contact, did not renew it
    /// (stream `host/ID`).
    HostCertificateLow {
        /// Serial of the certificate, hex.
        serial: String,
        /// When it ends, seconds of Unix time.
        until_s: i64,
        /// When.
        at: Stamp,
    },
    /// None of a host's certificates is accepted any more (stream `host/ID`).
    HostRevoked {
        /// Who.
        by: String,
        /// Why.
        reason: String,
        /// When.
        at: Stamp,
    },
    /// Two agents use the identity of one host: it gets no fault until a person has seen to it (stream `host/ID`).
    HostDuplicated {
        /// What was seen, with the address of each.
        why: String,
        /// When.
        at: Stamp,
    },
    /// A host is one again, on the word of a person (stream `host/ID`).
    HostTrusted {
        /// Who.
        by: String,
        /// Why.
        reason: String,
        /// When.
        at: Stamp,
    },
    /// Labels of a host were set (stream `host/ID`).
    HostLabelled {
        /// All labels that are not facts.
        labels: BTreeMap<String, String>,
        /// Who.
        by: String,
        /// When.
        at: Stamp,
    },
    /// No new fault is drawn onto a host from now on (stream `host/ID`).
    HostCordoned {
        /// Who.
        by: String,
        /// Why.
        reason: String,
        /// When.
        at: Stamp,
    },
    /// A host may be drawn again (stream `host/ID`).
    HostUncordoned {
        /// Who.
        by: String,
        /// When.
        at: Stamp,
    },
    /// A host did not confirm its undo; it gets no new fault until it reports clean or is written off.
    HostQuarantined {
        /// The run that was left open.
        run: RunId,
        /// When.
        at: Stamp,
    },
    /// A host was taken out of the fleet for good; its certificate is not accepted any more (stream `host/ID`).
    HostForgotten {
        /// Who.
        by: String,
        /// Why.
        reason: String,
        /// When.
        at: Stamp,
    },
    /// A host had taken orders of a later life of this history than the present one, which therefore is a restored copy:
    /// the controller raised its epoch above that (stream `host/ID`).
    EpochRaised {
        /// Epoch and revision that the host had taken.
        taken: (u64, u64),
        /// The controller's epoch from then on.
        epoch: u64,
        /// When.
        at: Stamp,
    },
    /// A quarantined host is trusted again.
    HostReleased {
        /// Reported clean, or who wrote it off and why.
        why: String,
        /// When.
        at: Stamp,
    },
    /// The controller started (audit stream).
    ControllerStarted {
        /// Its version.
        version: String,
        /// Its epoch.
        epoch: u64,
        /// When.
        at: Stamp,
    },
    /// A join token was made (audit stream); the secret is stored only as a digest.
    TokenMade {
        /// Public part.
        token: String,
        /// SHA-256 of the secret, hex.
        secret_digest: String,
        /// Labels that hosts get.
        labels: BTreeMap<String, String>,
        /// Wall time of expiry, nanoseconds since the epoch.
        expires_ns: i64,
        /// Who.
        by: String,
        /// When.
        at: Stamp,
    },
    /// A join token was used up (audit stream).
    TokenUsed {
        /// Public part.
        token: String,
        /// By which host.
        host: HostId,
        /// SHA-256 of the host's public key, hex: whoever asks again with that key did not hear the answer.
        #[serde(default)]
        key: String,
        /// When.
        at: Stamp,
    },
    /// A link was made by which calendar programs read what is due (audit stream); its signature is stored nowhere.
    FeedMade {
        /// Its id.
        feed: String,
        /// Whose schedules it shows.
        environment: String,
        /// Only this one; empty: all of the environment.
        schedule: String,
        /// Wall time of expiry, nanoseconds since the epoch.
        expires_ns: i64,
        /// Who.
        by: String,
        /// When.
        at: Stamp,
    },
    /// Such a link opens nothing any more (audit stream).
    FeedRevoked {
        /// Its id.
        feed: String,
        /// Why.
        reason: String,
        /// Who.
        by: String,
        /// When.
        at: Stamp,
    },
    /// Everything stops and nothing starts until cleared (audit stream).
    Halted {
        /// Who.
        by: String,
        /// Why.
        reason: String,
        /// When.
        at: Stamp,
    },
    /// Runs may start again (audit stream).
    HaltCleared {
        /// Who.
        by: String,
        /// Why.
        reason: String,
        /// When.
        at: Stamp,
    },
    /// A call (audit stream), refused ones too.
    Called {
        /// Who; empty: somebody without a good token.
        by: String,
        /// Which method.
        method: String,
        /// Which environment.
        environment: String,
        /// What it was about: a run, a host, a schedule, a person; from where, for a stranger.
        #[serde(default)]
        about: String,
        /// Whether it was let through; if not, why.
        refused: Option<String>,
        /// How many such calls: looks that repeat are counted for a minute and told together.
        #[serde(default = "once")]
        times: u64,
        /// When; of several, the first.
        at: Stamp,
    },
    /// What became of people, their roles and their tokens (audit stream).
    Access {
        /// The fact.
        fact: crate::access::Fact,
        /// Who.
        by: String,
        /// When.
        at: Stamp,
    },
    /// The guard-rails are from now on these (audit stream).
    GuardRailsSet {
        /// They.
        rails: crate::guard::GuardRails,
        /// The text they were read from.
        source: String,
        /// Who.
        by: String,
        /// When.
        at: Stamp,
    },
    /// What became of a request for approval (stream `approval/ID`).
    Approval {
        /// The fact.
        fact: crate::approval::Fact,
        /// When.
        at: Stamp,
    },
    /// What became of a schedule (its own stream).
    Schedule {
        /// The fact.
        fact: crate::schedule::Fact,
        /// When.
        at: Stamp,
    },
    /// What became of a notice (stream `notify/CHANNEL`).
    Notice {
        /// The fact.
        fact: crate::notice::Fact,
        /// When.
        at: Stamp,
    },
    /// The head of a stream that ended (audit stream).
    StreamClosed {
        /// The stream.
        stream: String,
        /// Its last number.
        seq: u64,
        /// Its last hash, hex.
        hash: String,
        /// When.
        at: Stamp,
    },
    /// Records are removed for good, once a signed head covers this fact (audit stream).
    Pruned {
        /// What of which streams.
        gone: Vec<Gone>,
        /// What ended before this was to go: wall time, nanoseconds since the Unix epoch.
        before_wall_ns: i64,
        /// Who.
        by: String,
        /// Why.
        reason: String,
        /// When.
        at: Stamp,
    },
    /// A copy of everything was handed out (audit stream).
    BackedUp {
        /// To whom.
        by: String,
        /// Whether the controller's keys are in it.
        with_keys: bool,
        /// When.
        at: Stamp,
    },
    /// The history was put back from a backup: what followed is not in it (audit stream, and streams of runs that were
    /// open).
    Restored {
        /// When the backup was made, wall time, nanoseconds since the Unix epoch.
        made_wall_ns: i64,
        /// When.
        at: Stamp,
    },
}

/// The beginning of a stream, or all of it, that is removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gone {
    /// The stream.
    pub stream: String,
    /// Number of the last record that goes.
    pub seq: u64,
    /// Its hash, hex, from which the next record follows.
    pub hash: String,
    /// SHA-256 of the run's report, hex, so that a copy kept elsewhere can still be told from another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<String>,
}

fn once() -> u64 {
    1
}

/// Which kind of reason ended a run early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AbortKind {
    /// Steady state was never met.
    Gate,
    /// A guard-rail of the fleet does not hold any more. Histories of older versions say so of stop conditions too.
    GuardRail,
    /// A stop condition of the document is met, or cannot be evaluated any more; a canary did not hold.
    StopCondition,
    /// A person.
    Stop,
    /// The latched halt.
    Halt,
    /// A fault failed, was refused at the last moment, or was interrupted.
    Fault,
    /// A question was answered with no, or not in time.
    NoGo,
    /// The controller could not go on (store full, host rebooted).
    Controller,
}

/// What a host answered to a rehearsal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rehearsal {
    /// The item.
    pub item: ItemKey,
    /// The plan, when it can be done.
    pub plan: Option<Plan>,
    /// Refusals, when it cannot.
    pub refusals: Vec<Refusal>,
    /// Digest of the plan with volatile numbers replaced, hex.
    pub digest: String,
}

/// What a probe saw in one look; many make a blob.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// When.
    pub look: Look,
    /// Whether it met the probe's conditions.
    pub ok: bool,
    /// Why not, in a few words; empty when ok.
    pub why: String,
}

/// One blob of readings as it travels and is stored: columns, so that a second of a fast probe stays small.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Readings {
    /// Send instants: the first absolute, then differences.
    pub s: Vec<i64>,
    /// Completion minus send.
    pub took: Vec<i64>,
    /// Index into `whys` for a failed look, -1 for ok.
    pub failed: Vec<i32>,
    /// Distinct reasons.
    pub whys: Vec<String>,
}

impl Readings {
    /// Packs readings, in order of sending.
    pub fn pack(readings: &[Reading]) -> Self {
        let mut packed = Self::default();
        let mut last = 0;
        for reading in readings {
            packed.s.push(reading.look.s - last);
            last = reading.look.s;
            packed.took.push(reading.look.c - reading.look.s);
            packed.failed.push(if reading.ok {
                -1
            } else {
                let known = packed.whys.iter().position(|w| *w == reading.why);
                known.unwrap_or_else(|| {
                    packed.whys.push(reading.why.clone());
                    packed.whys.len() - 1
                }) as i32
            });
        }
        packed
    }

    /// The readings again; columns of unequal length end at the shortest.
    pub fn unpack(&self) -> Vec<Reading> {
        let mut at = 0_i64;
        self.s
            .iter()
            .zip(&self.took)
            .zip(&self.failed)
            .map(|((step, took), failed)| {
                // A host may have packed any numbers.
                at = at.saturating_add(*step);
                let why = usize::try_from(*failed).ok().and_then(|i| self.whys.get(i)).cloned().unwrap_or_default();
                Reading { look: Look { s: at, c: at.saturating_add(*took) }, ok: *failed < 0, why }
            })
            .collect()
    }
}

impl Body {
    /// The item a fact is about.
    pub fn item(&self) -> Option<&ItemKey> {
        match self {
            Self::Withdrawn { item, .. }
            | Self::Unanswered { item, .. }
            | Self::FoundClean { item, .. }
            | Self::Refused { item, .. }
            | Self::Applying { item, .. }
            | Self::Active { item, .. }
            | Self::Checked { item, .. }
            | Self::Spent { item, .. }
            | Self::Undoing { item, .. }
            | Self::Undone { item, .. }
            | Self::UndoFailed { item, .. }
            | Self::Failed { item, .. } => Some(item),
            _ => None,
        }
    }
}

impl Body {
    /// The ledger a fact of a host is about.
    pub fn ledger(&self) -> Option<&LedgerId> {
        match self {
            Self::LedgerOpened { ledger, .. }
            | Self::LedgerRefused { ledger, .. }
            | Self::MarkersWritten { ledger, .. }
            | Self::LedgerRead { ledger, .. }
            | Self::LedgerTroubled { ledger, .. }
            | Self::LedgerDropped { ledger, .. } => Some(ledger),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_survive_packing() {
        let readings: Vec<Reading> = (0..50)
            .map(|i| Reading {
                look: Look { s: 1_000_000 * i + 7, c: 1_000_000 * i + 900 },
                ok: i % 3 != 0,
                why: if i % 3 == 0 { format!("status {}", 500 + i % 2) } else { String::new() },
            })
            .collect();
        assert_eq!(Readings::pack(&readings).unpack(), readings);
    }
}
