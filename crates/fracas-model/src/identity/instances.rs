//! Whether two agents share one identity: a copied disk, a stolen key. Each agent process has a random name of its own, its
//! instance, and an instance whose place another took is dead, unless there are two.
//!
//! ```text
//! A lives            A
//! A ends, B starts   A B          honest: a restart, a reboot, a connection that is only half open
//! A lives again      A B A        two agents
//! ```
//!
//! *Lives* is said of an agent that answered what it was told in its present session: words of a dead process that are late
//! on the network are no answer.

use std::fmt;

/// So many instances of a host are remembered; each is a start of an agent.
const MOST: usize = 64;

/// Instances of a host in the order in which each was first seen to live, the newest last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Instances(Vec<Seen>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    instance: String,
    address: String,
}

/// Two agents that live at the same time: where each calls from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Twins {
    /// Of the one that was there first.
    pub first: String,
    /// Of the other one.
    pub second: String,
}

impl fmt::Display for Twins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "two agents use its certificate, one at {} and one at {}", self.first, self.second)
    }
}

impl Instances {
    /// Whether this instance was seen to live before.
    pub fn knows(&self, instance: &str) -> bool {
        self.0.iter().any(|seen| seen.instance == instance)
    }

    /// An instance, calling from `address`, lives now; the other one, if that cannot be. An empty name is an older agent's:
    /// it says that somebody else has lived since, and of itself nothing.
    pub fn lives(&mut self, instance: &str, address: &str) -> Option<Twins> {
        let place = self.0.iter().position(|seen| seen.instance == instance);
        let newest = self.0.len().checked_sub(1);
        match place {
            Some(at) if Some(at) == newest => {
                address.clone_into(&mut self.0[at].address);
                None
            }
            Some(at) if !instance.is_empty() => {
                let second = self.0.last().map(|seen| seen.address.clone()).unwrap_or_default();
                address.clone_into(&mut self.0[at].address);
                Some(Twins { first: address.to_owned(), second })
            }
            place => {
                if let Some(at) = place {
                    self.0.remove(at);
                }
                self.0.push(Seen { instance: instance.to_owned(), address: address.to_owned() });
                let over = self.0.len().saturating_sub(MOST);
                self.0.drain(..over);
                None
            }
        }
    }
}
