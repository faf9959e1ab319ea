//! Ledger `redis`: a list of its own, an element for each marker, a connection for each element. It writes to no other key.

use std::cell::Cell;

use fracas_model::{
    catalogue::{LedgerInfo, Params},
    plan::Refusal,
    policy::Policy,
};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Book, Ledger, MOST_RECORDS, NotOpen, Now, Place, Written, foreign, marker, name};
use crate::{
    redis::access::{self, Access},
    resp::{Client, Value},
};

/// Elements that are read at once; the client takes 10,000 and 256 KiB as one answer.
const PAGE: usize = 4000;

/// The `redis` ledger.
#[derive(Debug)]
pub(super) struct RedisLedger;

#[derive(Debug)]
struct Ready {
    access: Access,
    place: Place,
}

impl Ledger for RedisLedger {
    fn info(&self) -> LedgerInfo {
        LedgerInfo {
            name: "redis".into(),
            summary: "Keeps markers in a list of its own in Redis.".into(),
            help: HELP.into(),
            params: access::fields().into_iter().collect(),
            place: "key".into(),
            example: r#"{ address: "cache.internal:6379" }"#.into(),
        }
    }

    fn ready(&self, params: &Params, policy: &Policy, place: Place) -> Result<Box<dyn Book>, Refusal> {
        Ok(Box::new(Ready { access: Access::new(params, policy)?, place }))
    }
}

/// How the list stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum List {
    Absent,
    Ours,
    Foreign,
}

impl Ready {
    fn key(&self) -> &[u8] {
        self.place.name.as_bytes()
    }

    async fn list<S: AsyncRead + AsyncWrite + Unpin>(&self, client: &mut Client<S>) -> Result<List, String> {
        match client.command(&[b"LINDEX", self.key(), b"0"]).await {
            Ok(Value::Nil) => Ok(List::Absent),
            Ok(Value::Text(first)) if first == self.place.token.as_bytes() => Ok(List::Ours),
            Ok(_) => Ok(List::Foreign),
            // A key of another type.
            Err(why) if why.contains("WRONGTYPE") => Ok(List::Foreign),
            Err(why) => Err(why),
        }
    }
}

impl Book for Ready {
    fn open(&self, make: bool) -> Now<'_, Result<(), NotOpen>> {
        Box::pin(async move {
            // What the server says of it comes back hushed and short.
            let (foreign_there, refused) = (Cell::new(false), Cell::new(false));
            let asked = self.access.session(async |client, _| match self.list(client).await? {
                List::Ours => Ok(()),
                List::Absent if !make => Ok(()),
                List::Foreign => {
                    foreign_there.set(true);
                    Err("it is not ours".to_owned())
                }
                List::Absent => match client.command(&[b"RPUSH", self.key(), self.place.token.as_bytes()]).await {
                    Ok(Value::Integer(1)) => Ok(()),
                    Ok(_) => Err("somebody else wrote to the key at the same time".to_owned()),
                    Err(why) => {
                        refused.set(why.contains("NOPERM"));
                        Err(why)
                    }
                },
            });
            match asked.await {
                Ok(()) => Ok(()),
                Err(_) if foreign_there.get() => Err(NotOpen::Refused(foreign("key", &self.place))),
                Err(why) if refused.get() => Err(NotOpen::Refused(Refusal::new(
                    format!("the key {} cannot be made: {why}", self.place.name),
                    "give the user the commands lindex, rpush, rpushx, lrange and del on the keys fracas_*",
                ))),
                Err(why) => Err(NotOpen::Unreachable(why)),
            }
        })
    }

    fn write<'a>(&'a self, life: u64, number: u64, sent: &'a Cell<bool>) -> Now<'a, Written> {
        Box::pin(async move {
            let sure = Cell::new(false);
            let asked = self.access.session(async |client, _| {
                sent.set(true);
                // Only to a list that is there: one that was lost must not come back without its owner.
                match client.command(&[b"RPUSHX", self.key(), name(life, number).as_bytes()]).await {
                    Ok(Value::Integer(length)) if length > 0 => Ok(()),
                    Ok(Value::Integer(_)) => {
                        sure.set(true);
                        Err("the key is gone".to_owned())
                    }
                    Ok(other) => Err(format!("answered \"{other}\" to RPUSHX")),
                    Err(why) => {
                        sure.set(not_done(&why));
                        Err(why)
                    }
                }
            });
            match asked.await {
                Ok(()) => Written::Acknowledged,
                Err(why) if !sent.get() || sure.get() => Written::Failed(why),
                Err(why) => Written::Unknown(why),
            }
        })
    }

    fn read(&self) -> Now<'_, Result<Vec<(u64, u64)>, String>> {
        Box::pin(async {
            let read = self.access.session(async |client, _| {
                match self.list(client).await? {
                    List::Absent => return Ok(Vec::new()),
                    List::Foreign => return Err(foreign("key", &self.place).why),
                    List::Ours => {}
                }
                let (mut records, mut from) = (Vec::new(), 1);
                loop {
                    let (first, last) = (from.to_string(), (from + PAGE - 1).to_string());
                    let page = client.command(&[b"LRANGE", self.key(), first.as_bytes(), last.as_bytes()]).await?;
                    let Value::List(page) = page else { return Err("the answer to LRANGE is no list".into()) };
                    for element in &page {
                        records.push(marker(&element.to_string()).ok_or("the list holds what no ledger wrote")?);
                    }
                    if page.len() < PAGE {
                        return Ok(records);
                    }
                    if records.len() > MOST_RECORDS {
                        return Err("there are more elements than a ledger has".to_owned());
                    }
                    from += PAGE;
                }
            });
            read.await
        })
    }

    fn remove(&self) -> Now<'_, Result<(), String>> {
        Box::pin(async {
            let removed = self.access.session(async |client, _| match self.list(client).await? {
                List::Absent => Ok(()),
                List::Foreign => Err(foreign("key", &self.place).why),
                List::Ours => client.command(&[b"DEL", self.key()]).await.map(|_| ()),
            });
            removed.await
        })
    }
}

/// What Redis refuses before it does anything, by the first word of the error (redis.io, "Redis serialization protocol"). Any
/// other error may be a proxy's, which had passed the command on.
fn not_done(why: &str) -> bool {
    const WORDS: [&str; 16] = [
        "LOADING",
        "READONLY",
        "MISCONF",
        "NOREPLICAS",
        "OOM",
        "MASTERDOWN",
        "CLUSTERDOWN",
        "CROSSSLOT",
        "MOVED",
        "ASK",
        "TRYAGAIN",
        "BUSY",
        "NOPERM",
        "NOAUTH",
        "WRONGTYPE",
        "NOSCRIPT",
    ];
    let said = why.strip_prefix("Redis says: ").and_then(|said| said.split(' ').next());
    said.is_some_and(|word| WORDS.contains(&word))
}

const HELP: &str = "\
Each marker is an element, pushed to the end of one list over a connection of its own: it is acknowledged when Redis tells \
the new length. What Redis refuses before it does anything (LOADING, READONLY, OOM and the like) failed; at any other error, \
when the connection breaks or nothing comes within `timeout`, nobody knows.

The list is made before the timeline begins; its first element tells whose it is. A key of that name without it is left \
alone, and the run ends before anything is broken. A list that is gone with the server's data is not made anew: all its \
markers are lost, and later ones fail. After all faults are undone the list is read back, and when its account is in the \
history the key is removed. A user of Redis 6 needs `+lindex +rpush +rpushx +lrange +del` on `~fracas_*`, for `database` \
`+select`.

Let `address` lead where clients are led. Passwords are as with the probe `redis`.

Cost: one connection and one command for each marker, about 40 bytes of the server's memory.";
