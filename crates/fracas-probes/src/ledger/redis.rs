//! Ledger `redis`: a list of its own, an element for each marker, a connection for each element. It writes to no other key.

use std::cell::Cell;

use fracas_model::{
    catalogue::{LedgerInfo, Params},
    plan::Refusal,
    policy::Policy,
};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Book, Ledger, NotOpen, Now, Place, Written, foreign, marker, name};
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

    async fn make<S: AsyncRead + AsyncWrite + Unpin>(&self, client: &mut Client<S>) -> Result<(), NotOpen> {
        match client.command(&[b"RPUSH", self.key(), self.place.token.as_bytes()]).await {
            Ok(Value::Integer(1)) => Ok(()),
            Ok(_) => Err(NotOpen::Unreachable("somebody else wrote to the key at the same time".into())),
            Err(why) if why.contains("NOPERM") => Err(NotOpen::Refused(Refusal::new(
                format!("the key {} cannot be made: {why}", self.place.name),
                "give the user the commands lindex, rpush, rpushx, lrange and del on the keys fracas_*",
            ))),
            Err(why) => Err(NotOpen::Unreachable(why)),
        }
    }
}

impl Book for Ready {
    fn open(&self) -> Now<'_, Result<(), NotOpen>> {
        Box::pin(async {
            let asked = self.access.session(async |client, _| {
                Ok(match self.list(client).await? {
                    List::Ours => Ok(()),
                    List::Foreign => Err(NotOpen::Refused(foreign("key", &self.place))),
                    List::Absent => self.make(client).await,
                })
            });
            asked.await.map_err(NotOpen::Unreachable)?
        })
    }

    fn write(&self, life: u64, number: u64) -> Now<'_, Written> {
        Box::pin(async move {
            let (sent, sure) = (Cell::new(false), Cell::new(false));
            let asked = self.access.session(async |client, _| {
                sent.set(true);
                // Only to a list that is there: one that was lost must not come back without its owner.
                match client.command(&[b"RPUSHX", self.key(), name(life, number).as_bytes()]).await {
                    Ok(Value::Integer(length)) if length > 0 => Ok(()),
                    Ok(Value::Integer(_)) => {
                        sure.set(true);
                        Err("the key is gone".to_owned())
                    }
                    Ok(other) => Err(format!("answered {:?} to RPUSHX", other.to_string())),
                    Err(why) => {
                        // An error in the server's own words is told before it does anything.
                        sure.set(why.starts_with("Redis says: "));
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

const HELP: &str = "\
Each marker is an element, pushed to the end of one list over a connection of its own: it is acknowledged when Redis tells \
the new length. What Redis refuses in its own words (it loads, is a replica, is full) failed; when the connection breaks or \
nothing comes within `timeout`, nobody knows.

The list is made before the timeline begins; its first element tells whose it is. A key of that name without it is left \
alone, and the run ends before anything is broken. A list that is gone with the server's data is not made anew: all its \
markers are lost, and later ones fail. After all faults are undone the list is read back, and when its account is in the \
history the key is removed. A user of Redis 6 needs `+lindex +rpush +rpushx +lrange +del` on `~fracas_*`, for `database` \
`+select`.

Let `address` lead where clients are led. Passwords are as with the probe `redis`.

Cost: one connection and one command for each marker, about 40 bytes of the server's memory.";
