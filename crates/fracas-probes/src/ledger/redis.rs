//! Ledger `redis`: a list of its own, an element for each marker, a connection for each element. It writes to no other key.

use std::cell::Cell;

use fracas_model::{
    catalogue::{LedgerInfo, Params},
    plan::Refusal,
    policy::Policy,
};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    Book, Ledger, MOST_RECORDS, NotOpen, Now, Owner, Place, Written, foreign, marker, name, not_open, written,
};
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

impl Ready {
    fn key(&self) -> &[u8] {
        self.place.name.as_bytes()
    }

    async fn owner<S: AsyncRead + AsyncWrite + Unpin>(&self, client: &mut Client<S>) -> Result<Owner, String> {
        match client.command(&[b"LINDEX", self.key(), b"0"]).await {
            Ok(Value::Nil) => Ok(Owner::Nobody),
            Ok(Value::Text(first)) if first == self.place.token.as_bytes() => Ok(Owner::Us),
            Ok(_) => Ok(Owner::Others),
            // A key of another type.
            Err(why) if why.contains("WRONGTYPE") => Ok(Owner::Others),
            Err(why) => Err(why),
        }
    }
}

impl Book for Ready {
    fn open<'a>(&'a self, make: bool, touched: &'a Cell<bool>) -> Now<'a, Result<(), NotOpen>> {
        Box::pin(async move {
            // What the server says of it comes back hushed and short.
            let (found, denied) = (Cell::new(Owner::Nobody), Cell::new(false));
            let asked = self.access.session(async |client, _| {
                found.set(self.owner(client).await?);
                match found.get() {
                    Owner::Us => Ok(()),
                    Owner::Nobody if !make => Ok(()),
                    Owner::Others => Err("it is not ours".to_owned()),
                    Owner::Nobody => {
                        touched.set(true);
                        match client.command(&[b"RPUSH", self.key(), self.place.token.as_bytes()]).await {
                            Ok(Value::Integer(1)) => Ok(()),
                            Ok(_) => Err("somebody else wrote to the key at the same time".to_owned()),
                            Err(why) => {
                                denied.set(why.contains("NOPERM"));
                                Err(why)
                            }
                        }
                    }
                }
            });
            let instead = "give the user the commands lindex, rpush, rpushx, lrange and del on the keys fracas_*";
            asked.await.map_err(|why| not_open(why, found.get(), denied.get(), "key", &self.place, instead))
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
            written(asked.await, sent, &sure)
        })
    }

    fn read(&self) -> Now<'_, Result<Vec<(u64, u64)>, String>> {
        Box::pin(async {
            let read = self.access.session(async |client, _| {
                match self.owner(client).await? {
                    Owner::Nobody => return Ok(Vec::new()),
                    Owner::Others => return Err(foreign("key", &self.place).why),
                    Owner::Us => {}
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
            let removed = self.access.session(async |client, _| match self.owner(client).await? {
                Owner::Nobody => Ok(()),
                Owner::Others => Err(foreign("key", &self.place).why),
                Owner::Us => client.command(&[b"DEL", self.key()]).await.map(|_| ()),
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
