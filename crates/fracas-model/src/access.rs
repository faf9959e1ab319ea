//! Who may do what: people, their roles in environments and their tokens, as a fold over recorded facts.
//!
//! Pure: the time and digests of secrets are arguments. Names and addresses of people are kept elsewhere, where they can be
//! erased; here a person is a pseudonym.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{Deserialize, Serialize};

use crate::id::PersonId;

/// The environment of whoever names none.
pub const DEFAULT_ENVIRONMENT: &str = "default";
/// In a grant: every environment, those too that come later.
pub const EVERYWHERE: &str = "*";
/// Longest name of an environment, bytes.
pub const MAX_ENVIRONMENT: usize = 63;
/// Who holds the administrator's token that the first start of a controller makes.
pub const ADMIN: &str = "admin";

/// What a call needs. Ending harm needs none: whoever is signed in may stop and halt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Right {
    /// To see runs, reports, hosts and schedules.
    View,
    /// To say what would be done: plans of new documents, schedules.
    Design,
    /// To start runs.
    Run,
    /// To approve what others have designed.
    Approve,
    /// To let hosts in and out, to label, cordon and drain them.
    Hosts,
    /// To decide about people, guard-rails, the history and the end of a halt.
    Govern,
    /// To tell of alerts.
    Signal,
}

impl Right {
    /// As messages name it.
    pub fn word(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Design => "design",
            Self::Run => "run",
            Self::Approve => "approve",
            Self::Hosts => "manage hosts",
            Self::Govern => "govern",
            Self::Signal => "tell of alerts",
        }
    }

    /// The roles that have it, for a message that says whom to ask for what.
    pub fn roles(self) -> Vec<Role> {
        Role::ALL.into_iter().filter(|role| role.rights().contains(&self)).collect()
    }
}

/// What people are in an environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    /// Sees.
    Viewer,
    /// Sees and designs, but starts nothing.
    Designer,
    /// Sees, and starts what others have designed and approved.
    Runner,
    /// Sees, designs and starts.
    Operator,
    /// Sees and approves.
    Approver,
    /// Tells of alerts, and sees nothing: for alerting tools.
    Signaller,
    /// Everything.
    Admin,
}

impl Role {
    /// Each of them.
    pub const ALL: [Self; 7] =
        [Self::Viewer, Self::Designer, Self::Runner, Self::Operator, Self::Approver, Self::Signaller, Self::Admin];

    /// What it may.
    pub fn rights(self) -> &'static [Right] {
        match self {
            Self::Viewer => &[Right::View],
            Self::Designer => &[Right::View, Right::Design],
            Self::Runner => &[Right::View, Right::Run],
            Self::Operator => &[Right::View, Right::Design, Right::Run],
            Self::Approver => &[Right::View, Right::Approve],
            Self::Signaller => &[Right::Signal],
            Self::Admin => {
                &[Right::View, Right::Design, Right::Run, Right::Approve, Right::Hosts, Right::Govern, Right::Signal]
            }
        }
    }

    /// As people write it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Designer => "designer",
            Self::Runner => "runner",
            Self::Operator => "operator",
            Self::Approver => "approver",
            Self::Signaller => "signaller",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl std::str::FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words = Self::ALL.map(Self::word).join(", ");
        Self::ALL.into_iter().find(|role| role.word() == text).ok_or_else(|| format!("{text:?} is no role: {words}"))
    }
}

/// A role in an environment, or in [`EVERYWHERE`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Grant {
    /// Which environment.
    pub environment: String,
    /// Which role.
    pub role: Role,
}

/// All a person was granted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Grants(pub BTreeSet<Grant>);

impl Grants {
    /// Everything everywhere.
    pub fn all() -> Self {
        Self([Grant { environment: EVERYWHERE.to_owned(), role: Role::Admin }].into())
    }

    /// Whether they give this right in this environment.
    pub fn allow(&self, right: Right, environment: &str) -> bool {
        let there = |grant: &&Grant| grant.environment == EVERYWHERE || grant.environment == environment;
        self.0.iter().filter(there).any(|grant| grant.role.rights().contains(&right))
    }

    /// Whether they give it in every environment, as is needed for what concerns the whole controller.
    pub fn allow_everywhere(&self, right: Right) -> bool {
        self.allow(right, EVERYWHERE)
    }

    /// Where they give it: names of environments, among them perhaps [`EVERYWHERE`].
    pub fn environments(&self, right: Right) -> BTreeSet<&str> {
        let gives = self.0.iter().filter(|grant| grant.role.rights().contains(&right));
        gives.map(|grant| grant.environment.as_str()).collect()
    }

    /// Whether they give it in any environment.
    pub fn allow_somewhere(&self, right: Right) -> bool {
        self.0.iter().any(|grant| grant.role.rights().contains(&right))
    }
}

/// What became of people and their tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "what")]
pub enum Fact {
    /// A person is known from now on.
    PersonAdded {
        /// The pseudonym.
        person: PersonId,
    },
    /// A person may do nothing any more; all tokens end with this.
    PersonRemoved {
        /// The pseudonym.
        person: PersonId,
        /// Why.
        reason: String,
    },
    /// A role was given.
    Granted {
        /// To whom.
        person: PersonId,
        /// Which.
        grant: Grant,
    },
    /// A role was taken away.
    GrantTaken {
        /// From whom.
        person: PersonId,
        /// Which.
        grant: Grant,
    },
    /// All roles are from now on these, as an identity provider says at a sign-in.
    GrantsSet {
        /// Whose.
        person: PersonId,
        /// Which.
        grants: Grants,
        /// Who says so.
        source: String,
    },
    /// An access token was made; the secret is stored only as a digest.
    TokenMade {
        /// Public part.
        token: String,
        /// Whose.
        person: PersonId,
        /// SHA-256 of the secret, hex.
        secret_digest: String,
        /// Wall time of expiry, nanoseconds since the epoch.
        expires_ns: i64,
        /// What it is for, in a few words.
        note: String,
    },
    /// A token is not accepted any more.
    TokenRevoked {
        /// Public part.
        token: String,
        /// Why.
        reason: String,
    },
}

/// A person, as far as the history knows one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Person {
    /// What they were granted.
    pub grants: Grants,
    /// They may do nothing any more.
    pub removed: bool,
}

/// An access token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Whose.
    pub person: PersonId,
    /// SHA-256 of its secret, hex.
    pub secret_digest: String,
    /// Wall time of expiry, nanoseconds since the epoch.
    pub expires_ns: i64,
    /// What it is for.
    pub note: String,
    /// Why it was revoked, if so.
    pub revoked: Option<String>,
}

/// Everybody, and every token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct People {
    /// By pseudonym; those who were removed too.
    pub people: BTreeMap<PersonId, Person>,
    /// By public part.
    pub tokens: BTreeMap<String, Token>,
}

/// Why a token opens nothing. What is said to its bearer does not tell these apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotGood {
    /// Never made here.
    #[error("the token is unknown here")]
    Unknown,
    /// The public part is right, the secret is not.
    #[error("the token has a wrong secret")]
    Wrong,
    /// Too late.
    #[error("the token has expired")]
    Expired,
    /// It was taken back.
    #[error("the token was revoked")]
    Revoked,
    /// Its owner was removed.
    #[error("the token's owner was removed")]
    Removed,
}

impl People {
    /// Takes one fact. The first token of an id counts: an id is never made twice.
    pub fn apply(&mut self, fact: &Fact) {
        match fact {
            Fact::PersonAdded { person } => drop(self.people.entry(person.clone()).or_default()),
            Fact::PersonRemoved { person, .. } => self.of(person).removed = true,
            Fact::Granted { person, grant } => drop(self.of(person).grants.0.insert(grant.clone())),
            Fact::GrantTaken { person, grant } => drop(self.of(person).grants.0.remove(grant)),
            Fact::GrantsSet { person, grants, .. } => self.of(person).grants = grants.clone(),
            Fact::TokenMade { token, person, secret_digest, expires_ns, note } => {
                let made = Token {
                    person: person.clone(),
                    secret_digest: secret_digest.clone(),
                    expires_ns: *expires_ns,
                    note: note.clone(),
                    revoked: None,
                };
                self.tokens.entry(token.clone()).or_insert(made);
            }
            Fact::TokenRevoked { token, reason } => {
                if let Some(token) = self.tokens.get_mut(token) {
                    token.revoked.get_or_insert_with(|| reason.clone());
                }
            }
        }
    }

    fn of(&mut self, person: &PersonId) -> &mut Person {
        self.people.entry(person.clone()).or_default()
    }

    /// Whose a token is at wall time `now_ns`. `same` compares two digests in a time that does not tell where they differ.
    pub fn whose(
        &self,
        token: &str,
        secret_digest: &str,
        now_ns: i64,
        same: impl Fn(&str, &str) -> bool,
    ) -> Result<(&PersonId, &Person), NotGood> {
        let token = self.tokens.get(token).ok_or(NotGood::Unknown)?;
        if !same(secret_digest, &token.secret_digest) {
            return Err(NotGood::Wrong);
        }
        if token.revoked.is_some() {
            return Err(NotGood::Revoked);
        }
        if now_ns >= token.expires_ns {
            return Err(NotGood::Expired);
        }
        let person = self.people.get(&token.person).filter(|person| !person.removed).ok_or(NotGood::Removed)?;
        Ok((&token.person, person))
    }

    /// People who can decide about people everywhere.
    pub fn governors(&self) -> impl Iterator<Item = &PersonId> {
        let governs =
            |(_, person): &(&PersonId, &Person)| !person.removed && person.grants.allow_everywhere(Right::Govern);
        self.people.iter().filter(governs).map(|(id, _)| id)
    }
}

/// A name of an environment: letters, digits, `.`, `_` and `-`, beginning with a letter or digit.
///
/// # Errors
/// What is wrong with it.
pub fn environment(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Ok(DEFAULT_ENVIRONMENT.to_owned());
    }
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let good = text.len() <= MAX_ENVIRONMENT
        && text.chars().all(fits)
        && text.starts_with(|c: char| c.is_ascii_alphanumeric());
    if good {
        return Ok(text.to_owned());
    }
    Err(format!(
        "environment {:?}: write 1 to {MAX_ENVIRONMENT} letters, digits, `.`, `_` or `-`, a letter or digit first",
        text.chars().take(80).collect::<String>()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(role: Role, environment: &str) -> Grant {
        Grant { environment: environment.to_owned(), role }
    }

    fn grants(list: &[Grant]) -> Grants {
        Grants(list.iter().cloned().collect())
    }

    #[test]
    fn a_role_counts_in_its_environment_only() {
        let held = grants(&[grant(Role::Operator, "staging"), grant(Role::Viewer, "prod")]);
        assert!(held.allow(Right::Run, "staging") && held.allow(Right::View, "prod"));
        assert!(!held.allow(Right::Run, "prod") && !held.allow(Right::View, "other"));
        assert!(!held.allow_everywhere(Right::View) && held.allow_somewhere(Right::Design));
        assert!(!held.allow(Right::Approve, "staging"), "an operator does not approve");
        assert!(Grants::all().allow_everywhere(Right::Govern) && Grants::all().allow(Right::Run, "prod"));
        // Nobody can be made owner of all environments by one of that name.
        assert!(environment("*").is_err());
    }

    #[test]
    fn rights_to_design_run_and_approve_are_apart() {
        for (role, rights) in [
            (Role::Designer, [true, false, false]),
            (Role::Runner, [false, true, false]),
            (Role::Approver, [false, false, true]),
            (Role::Operator, [true, true, false]),
            (Role::Viewer, [false, false, false]),
            (Role::Admin, [true, true, true]),
        ] {
            let has = [Right::Design, Right::Run, Right::Approve].map(|right| role.rights().contains(&right));
            assert_eq!(has, rights, "{role}");
            assert_eq!(role.word().parse::<Role>(), Ok(role));
        }
        assert_eq!(Right::Approve.roles(), [Role::Approver, Role::Admin]);
    }

    #[test]
    fn a_token_is_good_until_it_expires_is_revoked_or_its_owner_is_removed() {
        let (anna, mut people) = (PersonId::from("p-1"), People::default());
        let same = |a: &str, b: &str| a == b;
        people.apply(&Fact::PersonAdded { person: anna.clone() });
        let made = |token: &str, digest: &str| Fact::TokenMade {
            token: token.into(),
            person: anna.clone(),
            secret_digest: digest.into(),
            expires_ns: 100,
            note: String::new(),
        };
        people.apply(&made("t", "d"));
        people.apply(&made("t", "other"));
        people.apply(&made("u", "d"));
        assert_eq!(people.whose("t", "d", 99, same).unwrap().0, &anna);
        assert_eq!(people.whose("t", "other", 99, same).unwrap_err(), NotGood::Wrong, "the first one counts");
        assert_eq!(people.whose("x", "d", 99, same).unwrap_err(), NotGood::Unknown);
        assert_eq!(people.whose("t", "d", 100, same).unwrap_err(), NotGood::Expired);
        people.apply(&Fact::TokenRevoked { token: "t".into(), reason: "lost".into() });
        assert_eq!(people.whose("t", "d", 1, same).unwrap_err(), NotGood::Revoked);
        assert!(people.whose("u", "d", 1, same).is_ok());
        people.apply(&Fact::PersonRemoved { person: anna, reason: "left".into() });
        assert_eq!(people.whose("u", "d", 1, same).unwrap_err(), NotGood::Removed);
    }

    #[test]
    fn roles_come_and_go() {
        let (anna, mut people) = (PersonId::from("p-1"), People::default());
        people.apply(&Fact::PersonAdded { person: anna.clone() });
        let admin = grant(Role::Admin, EVERYWHERE);
        people.apply(&Fact::Granted { person: anna.clone(), grant: admin.clone() });
        assert_eq!(people.governors().collect::<Vec<_>>(), [&anna]);
        people.apply(&Fact::GrantTaken { person: anna.clone(), grant: admin });
        assert_eq!(people.governors().count(), 0);
        let set =
            Fact::GrantsSet { person: anna.clone(), grants: grants(&[grant(Role::Viewer, "a")]), source: "idp".into() };
        people.apply(&set);
        assert!(people.people[&anna].grants.allow(Right::View, "a"));
    }

    #[test]
    fn names_of_environments_are_plain() {
        assert_eq!(environment("").unwrap(), "default");
        assert_eq!(environment("prod-eu.1").unwrap(), "prod-eu.1");
        for bad in ["*", "../x", "a b", "-a", "ä", &"x".repeat(64)] {
            assert!(environment(bad).is_err(), "{bad}");
        }
    }
}
