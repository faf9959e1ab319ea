//! Approvals: somebody asks, others agree to exactly that, and it holds until it expires, is used, or anything of it changes.
//!
//! Pure: a request is a fold of the facts of its stream; the time and the digests of what is about to run are arguments.
//!
//! ```text
//! asked -> approved by enough others -> used by one run       (bound to a plan: hosts, steps, seed)
//!                                    -> used by many runs     (bound to an intent, at most so many hosts each)
//!       -> rejected, withdrawn, expired
//! ```

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    id::{HostId, RunId},
    plan::Refusal,
};

/// What an approval is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "bound")]
pub enum Subject {
    /// One run: these hosts, this seed, these steps. For whoever starts a run by hand.
    Plan {
        /// Digest of the plan, hex.
        plan: String,
        /// Seed by which the hosts were drawn.
        seed: u64,
    },
    /// Every run of this document until the approval expires, on whatever hosts are drawn, up to a number. For schedules.
    Intent {
        /// At most so many hosts under fault in a run.
        max_hosts: u32,
    },
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Asked {
    /// Name of the experiment.
    pub name: String,
    /// Source text of the document, and its file name.
    pub source: String,
    /// See [`source`](Self::source).
    pub source_name: String,
    /// Texts of the files that the document names, by the names it gives them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, String>,
    /// Values given for parameters.
    pub parameters: BTreeMap<String, String>,
    /// Where it is to run.
    pub environment: String,
    /// Digest of intent, hex.
    pub intent: String,
    /// What the approval is bound to.
    pub subject: Subject,
    /// Names of the hosts that would suffer, by id, as drawn when it was asked.
    pub hosts: BTreeMap<HostId, String>,
    /// What would be done to them, a line for each entry and host, as they said.
    #[serde(default)]
    pub steps: Vec<String>,
    /// So many others must approve.
    pub count: u32,
    /// Names of the guard-rails that ask for it.
    pub rules: Vec<String>,
    /// Wall time at which it expires, nanoseconds since the epoch.
    pub expires_ns: i64,
}

/// What became of a request (stream `approval/ID`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "what")]
pub enum Fact {
    /// Somebody asks.
    Asked {
        /// For what.
        asked: Box<Asked>,
        /// Who.
        by: String,
    },
    /// Somebody else agrees to exactly this.
    Approved {
        /// Who.
        by: String,
        /// Digest of what was shown, as [`Request::digest`] gives it.
        digest: String,
        /// In a few words.
        note: String,
    },
    /// Somebody does not agree: that is the end of it.
    Rejected {
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// Whoever asked does not want it any more.
    Withdrawn {
        /// Who.
        by: String,
    },
    /// A run was started by it.
    Used {
        /// Which.
        run: RunId,
    },
}

/// A request as its facts tell it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// What was asked for.
    pub asked: Option<Arc<Asked>>,
    /// Who asked.
    pub by: String,
    /// When, wall time, nanoseconds since the epoch.
    pub at_ns: i64,
    /// Who approved, with their notes.
    pub approved: BTreeMap<String, String>,
    /// Who rejected it, and why.
    pub rejected: Option<(String, String)>,
    /// It was withdrawn.
    pub withdrawn: bool,
    /// Runs that were started by it.
    pub runs: Vec<RunId>,
}

/// How a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Standing {
    /// Not enough have approved.
    Waiting,
    /// It holds.
    Approved,
    /// It was for one run, which has been.
    Used,
    /// Somebody did not agree.
    Rejected,
    /// Whoever asked took it back.
    Withdrawn,
    /// Too late.
    Expired,
}

impl Standing {
    /// As people read it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Approved => "approved",
            Self::Used => "used",
            Self::Rejected => "rejected",
            Self::Withdrawn => "withdrawn",
            Self::Expired => "expired",
        }
    }
}

impl Asked {
    /// About how many bytes it takes to keep it.
    pub fn size(&self) -> usize {
        let pairs = self.files.iter().chain(&self.parameters).map(|(name, text)| name.len() + text.len());
        let hosts = self.hosts.iter().map(|(id, name)| id.as_str().len() + name.len());
        self.source.len() + pairs.chain(hosts).chain(self.steps.iter().map(String::len)).sum::<usize>()
    }
}

impl Request {
    /// Whether it may still let a run start at wall time `now_ns`, now or once others have approved.
    pub fn is_open(&self, now_ns: i64) -> bool {
        matches!(self.standing(now_ns), Standing::Waiting | Standing::Approved)
    }

    /// Takes one fact, recorded at wall time `at_ns`. What came after the end of a request changes nothing, nor does the
    /// approval of whoever asked, or of something else than was asked.
    pub fn apply(&mut self, fact: &Fact, at_ns: i64) {
        match fact {
            Fact::Asked { asked, by } if self.asked.is_none() => {
                (self.asked, self.by, self.at_ns) = (Some(Arc::new((**asked).clone())), by.clone(), at_ns);
            }
            Fact::Approved { by, digest, note } => {
                if self.may_approve(by).is_ok() && self.digest().as_ref() == Some(digest) {
                    self.approved.insert(by.clone(), note.clone());
                }
            }
            Fact::Rejected { by, reason } => {
                self.rejected.get_or_insert_with(|| (by.clone(), reason.clone()));
            }
            Fact::Withdrawn { .. } => self.withdrawn = true,
            Fact::Used { run } => self.runs.push(run.clone()),
            Fact::Asked { .. } => {}
        }
    }

    /// What an approver agrees to: SHA-256 over the canonical JSON of what was asked, hex.
    pub fn digest(&self) -> Option<String> {
        let asked = serde_json::to_value(self.asked.as_deref()?).ok()?;
        Some(crate::digest::intent(&asked))
    }

    /// How it stands at wall time `now_ns`.
    pub fn standing(&self, now_ns: i64) -> Standing {
        let Some(asked) = &self.asked else { return Standing::Withdrawn };
        let once = matches!(asked.subject, Subject::Plan { .. });
        if self.rejected.is_some() {
            Standing::Rejected
        } else if self.withdrawn {
            Standing::Withdrawn
        } else if once && !self.runs.is_empty() {
            Standing::Used
        } else if now_ns >= asked.expires_ns {
            Standing::Expired
        } else if self.approved.len() >= asked.count as usize {
            Standing::Approved
        } else {
            Standing::Waiting
        }
    }

    /// Whether somebody's approval would count.
    ///
    /// # Errors
    /// Why not.
    pub fn may_approve(&self, by: &str) -> Result<(), String> {
        if by == self.by {
            return Err("whoever asked for it does not approve it: somebody else must".to_owned());
        }
        if self.approved.contains_key(by) {
            return Err("you have approved it already".to_owned());
        }
        Ok(())
    }

    /// Whether it lets a run start now: the same document in the same place, and the same plan or few enough hosts.
    pub fn covers(&self, about: &About<'_>, now_ns: i64) -> bool {
        let Some(asked) = &self.asked else { return false };
        let same = asked.intent == about.intent && asked.environment == about.environment;
        let bound = match &asked.subject {
            Subject::Plan { plan, .. } => plan == about.plan,
            Subject::Intent { max_hosts } => about.hosts <= *max_hosts as usize,
        };
        let fresh = now_ns < self.at_ns.saturating_add(about.valid_ns);
        same && bound && fresh && asked.count >= about.count && self.standing(now_ns) == Standing::Approved
    }
}

/// What is about to run.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// Digest of intent, hex.
    pub intent: &'a str,
    /// Digest of the plan, hex.
    pub plan: &'a str,
    /// Where.
    pub environment: &'a str,
    /// Hosts that would suffer.
    pub hosts: usize,
    /// So many people must have approved.
    pub count: u32,
    /// An approval that was asked for longer ago than this, nanoseconds, does not hold for it. What was drawn when it was
    /// asked may have met a more patient rule.
    pub valid_ns: i64,
}

/// Why a run may not start for want of approval, from the requests there are about its document; `None`: one covers it.
pub fn wanting<'a>(
    requests: impl Iterator<Item = (&'a str, &'a Request)> + Clone,
    about: &About<'_>,
    rules: &[&str],
    now_ns: i64,
) -> Option<Refusal> {
    if requests.clone().any(|(_, request)| request.covers(about, now_ns)) {
        return None;
    }
    let whose = if rules.is_empty() { "your role".to_owned() } else { format!("guard-rail {}", rules.join(", ")) };
    let near = requests.filter(|(_, request)| {
        request.asked.as_ref().is_some_and(|a| a.intent == about.intent && a.environment == about.environment)
    });
    let told: Vec<String> = near
        .map(|(id, request)| match (request.standing(now_ns), request.asked.as_ref().map(|asked| &asked.subject)) {
            (Standing::Approved, _) if now_ns >= request.at_ns.saturating_add(about.valid_ns) => {
                format!("{id} was asked for longer ago than it may hold for these hosts")
            }
            (Standing::Approved, Some(Subject::Plan { .. })) => {
                format!("{id} was approved for another plan: hosts or what they would do have changed since")
            }
            (Standing::Approved, Some(Subject::Intent { max_hosts })) => {
                format!("{id} was approved for at most {max_hosts} hosts or by fewer people")
            }
            (Standing::Waiting, _) => {
                let count = request.asked.as_ref().map_or(0, |asked| asked.count);
                format!("{id} has {} of {count} approvals", request.approved.len())
            }
            (standing, _) => format!("{id} is {}", standing.word()),
        })
        .collect();
    let told = if told.is_empty() { String::new() } else { format!(" ({})", told.join("; ")) };
    Some(Refusal::new(
        format!("{whose} asks for approval by {} other people{told}", about.count),
        "ask with `fracas approval ask FILE`, have it approved with `fracas approval approve ID`, then start the run",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(subject: Subject, count: u32) -> Asked {
        Asked {
            name: "x".into(),
            source: "kind: Experiment".into(),
            source_name: "x.yaml".into(),
            files: BTreeMap::new(),
            parameters: BTreeMap::new(),
            environment: "prod".into(),
            intent: "i".into(),
            subject,
            hosts: BTreeMap::new(),
            steps: vec![],
            count,
            rules: vec!["production".into()],
            expires_ns: 100,
        }
    }

    fn plan() -> Subject {
        Subject::Plan { plan: "p".into(), seed: 7 }
    }

    fn request(subject: Subject, count: u32) -> Request {
        let mut request = Request::default();
        request.apply(&Fact::Asked { asked: Box::new(asked(subject, count)), by: "anna".into() }, 1);
        request
    }

    fn approve(request: &mut Request, by: &str) {
        let digest = request.digest().unwrap();
        request.apply(&Fact::Approved { by: by.into(), digest, note: String::new() }, 2);
    }

    const ABOUT: About<'static> =
        About { intent: "i", plan: "p", environment: "prod", hosts: 1, count: 1, valid_ns: i64::MAX };

    #[test]
    fn others_approve_exactly_what_was_asked_and_any_change_voids_it() {
        let mut request = request(plan(), 2);
        approve(&mut request, "anna");
        assert_eq!((request.standing(5), request.approved.len()), (Standing::Waiting, 0), "nobody approves their own");
        approve(&mut request, "bert");
        approve(&mut request, "bert");
        assert_eq!(request.standing(5), Standing::Waiting, "one person is one person");
        request
            .apply(&Fact::Approved { by: "carl".into(), digest: "of something else".into(), note: String::new() }, 3);
        assert_eq!(request.standing(5), Standing::Waiting);
        approve(&mut request, "carl");
        assert!(request.covers(&ABOUT, 99));
        for other in [
            About { intent: "j", ..ABOUT },
            About { plan: "q", ..ABOUT },
            About { environment: "staging", ..ABOUT },
            About { count: 3, ..ABOUT },
        ] {
            assert!(!request.covers(&other, 99), "{other:?}");
        }
        assert!(!request.covers(&ABOUT, 100), "it has expired");
    }

    #[test]
    fn a_plan_is_for_one_run_and_an_intent_for_many_of_few_hosts() {
        let mut once = request(plan(), 1);
        approve(&mut once, "bert");
        once.apply(&Fact::Used { run: "r1".into() }, 3);
        assert_eq!((once.standing(5), once.covers(&ABOUT, 5)), (Standing::Used, false));
        let mut often = request(Subject::Intent { max_hosts: 2 }, 1);
        approve(&mut often, "bert");
        often.apply(&Fact::Used { run: "r1".into() }, 3);
        assert!(often.covers(&About { plan: "any", hosts: 2, ..ABOUT }, 5));
        assert!(!often.covers(&About { hosts: 3, ..ABOUT }, 5));
        // Other hosts may be drawn later, of which a stricter rule says how long it holds.
        let strict = About { plan: "any", valid_ns: 10, ..ABOUT };
        assert_eq!([10, 11].map(|now_ns| often.covers(&strict, now_ns)), [true, false]);
        let why = wanting([("a-1", &often)].into_iter(), &strict, &["databases"], 11).unwrap().to_string();
        assert!(why.contains("a-1 was asked for longer ago than it may hold"), "{why}");
    }

    #[test]
    fn a_rejection_or_withdrawal_is_the_end() {
        for end in [Fact::Rejected { by: "bert".into(), reason: "no".into() }, Fact::Withdrawn { by: "anna".into() }] {
            let mut request = request(plan(), 1);
            approve(&mut request, "carl");
            request.apply(&end, 3);
            approve(&mut request, "dora");
            assert!(!request.covers(&ABOUT, 5), "{end:?}");
        }
    }

    #[test]
    fn a_refusal_says_what_there_is_and_what_to_do() {
        let mut request = request(plan(), 2);
        approve(&mut request, "bert");
        let all = [("a-1", &request)];
        let why = wanting(all.into_iter(), &ABOUT, &["production"], 5).unwrap().to_string();
        assert!(why.contains("guard-rail production asks for approval by 1 other people"), "{why}");
        assert!(why.contains("a-1 has 1 of 2 approvals") && why.contains("fracas approval ask"), "{why}");
        let mut full = request.clone();
        approve(&mut full, "carl");
        assert_eq!(wanting([("a-1", &full)].into_iter(), &ABOUT, &[], 5), None);
        let drifted = About { plan: "q", ..ABOUT };
        let why = wanting([("a-1", &full)].into_iter(), &drifted, &[], 5).unwrap().to_string();
        assert!(why.contains("approved for another plan"), "{why}");
    }
}
