//! Ledger `http`: a collection of records on a server of the user's own, behind whatever it stores them in.

use std::cell::Cell;

use fracas_model::{
    catalogue::{LedgerInfo, Params},
    plan::Refusal,
    policy::Policy,
    shape::{Field, Shape},
};
use hyper::{Method, StatusCode};

use super::{Book, Ledger, NotOpen, Now, Place, Written, foreign, marker, name};
use crate::{
    brief,
    web::{self, Web},
};

/// Longest list that is read, in bytes: as many markers as a ledger takes at most.
const LONGEST_LIST: usize = 8 << 20;
/// What the record that tells the owner begins with.
const OWNER: &str = "owner-";

/// The `http` ledger.
#[derive(Debug)]
pub(super) struct HttpLedger;

struct Ready {
    web: Web,
    /// Path of the collection.
    path: String,
    place: Place,
}

impl Ledger for HttpLedger {
    fn info(&self) -> LedgerInfo {
        LedgerInfo {
            name: "http".into(),
            summary: "Keeps markers through an HTTP interface of your own.".into(),
            help: HELP.into(),
            params: [Field::required("url", Shape::Url, "Below which collections stand, http or https.")]
                .into_iter()
                .chain(web::fields())
                .collect(),
            place: "collection".into(),
            example: r#"{ url: "https://shop.internal/ledgers" }"#.into(),
        }
    }

    fn ready(&self, params: &Params, policy: &Policy, place: Place) -> Result<Box<dyn Book>, Refusal> {
        let uri = web::url("http", params)?;
        if uri.query().is_some() {
            return Err(Refusal::new(
                "http: the URL of a ledger has a query",
                "leave it out: records stand below the path",
            ));
        }
        let path = format!("{}/{}", uri.path().trim_end_matches('/'), place.name);
        let web = Web::new("http", &uri, Method::GET, &path, params, policy)?;
        Ok(Box::new(Ready { web, path, place }))
    }
}

/// What is there.
enum Collection {
    Absent,
    Ours(Vec<(u64, u64)>),
    /// Markers without their owner: what was written after all was lost, the owner included. Or somebody else's.
    Ownerless(Vec<(u64, u64)>),
    Foreign,
}

impl Ready {
    async fn collection(&self) -> Result<Collection, String> {
        self.web.prepare().await.map_err(|refusal| brief(refusal.why))?;
        let asked = self.web.ask(async |answer| match answer.status() {
            StatusCode::NOT_FOUND => Ok(None),
            status if !status.is_success() => Err(format!("status {}", status.as_u16())),
            _ => Ok(Some(web::body(answer, LONGEST_LIST).await?)),
        });
        let Some((body, whole)) = asked.await?.answer else { return Ok(Collection::Absent) };
        if !whole {
            return Err("the list is longer than 8 MiB".into());
        }
        let text = String::from_utf8_lossy(&body);
        let mut names = text.lines().filter(|line| !line.is_empty()).peekable();
        if names.peek().is_none() {
            return Ok(Collection::Absent);
        }
        let (owners, records): (Vec<&str>, Vec<&str>) = names.partition(|name| name.starts_with(OWNER));
        let records: Option<Vec<_>> = records.into_iter().map(marker).collect();
        match (owners.is_empty(), records) {
            (true, Some(records)) => Ok(Collection::Ownerless(records)),
            (false, records) if owners == [format!("{OWNER}{}", self.place.token)] => {
                Ok(Collection::Ours(records.ok_or("the collection holds what no ledger wrote")?))
            }
            _ => Ok(Collection::Foreign),
        }
    }

    async fn put(&self, record: &str, sent: &Cell<bool>) -> Written {
        let asked = async {
            let web = self.web.at(Method::PUT, &format!("{}/{record}", self.path))?;
            web.ask_saying_so(sent, async |answer| Ok(answer.status())).await
        };
        match asked.await.map(|told| told.answer) {
            Ok(status) if status.is_success() => Written::Acknowledged,
            Ok(status) if turned_down(status) => Written::Failed(format!("status {}", status.as_u16())),
            Ok(status) => Written::Unknown(format!("status {}", status.as_u16())),
            Err(why) if sent.get() => Written::Unknown(why),
            Err(why) => Written::Failed(why),
        }
    }
}

/// Whether this status says that nothing was stored. Not so where a proxy may have tried before: it is there already (409, 412),
/// or somebody waited no longer (408, 425).
fn turned_down(status: StatusCode) -> bool {
    status.is_client_error() && ![408, 409, 412, 425].contains(&status.as_u16())
}

impl Book for Ready {
    fn open<'a>(&'a self, make: bool, touched: &'a Cell<bool>) -> Now<'a, Result<(), NotOpen>> {
        Box::pin(async move {
            match self.collection().await.map_err(NotOpen::Unreachable)? {
                Collection::Ours(_) => Ok(()),
                Collection::Absent | Collection::Ownerless(_) if !make => Ok(()),
                Collection::Foreign | Collection::Ownerless(_) => {
                    Err(NotOpen::Refused(foreign("collection", &self.place)))
                }
                Collection::Absent => {
                    touched.set(true);
                    match self.put(&format!("{OWNER}{}", self.place.token), &Cell::new(false)).await {
                        Written::Acknowledged => Ok(()),
                        Written::Failed(why) | Written::Unknown(why) => Err(NotOpen::Unreachable(why)),
                    }
                }
            }
        })
    }

    fn write<'a>(&'a self, life: u64, number: u64, sent: &'a Cell<bool>) -> Now<'a, Written> {
        Box::pin(async move { self.put(&name(life, number), sent).await })
    }

    fn read(&self) -> Now<'_, Result<Vec<(u64, u64)>, String>> {
        Box::pin(async {
            match self.collection().await? {
                Collection::Absent => Ok(Vec::new()),
                Collection::Ours(records) | Collection::Ownerless(records) => Ok(records),
                Collection::Foreign => Err(foreign("collection", &self.place).why),
            }
        })
    }

    fn remove(&self) -> Now<'_, Result<(), String>> {
        Box::pin(async {
            match self.collection().await? {
                Collection::Absent => Ok(()),
                // Whose it is nobody can say any more.
                Collection::Foreign | Collection::Ownerless(_) => Err(foreign("collection", &self.place).why),
                Collection::Ours(_) => {
                    let web = self.web.at(Method::DELETE, &self.path)?;
                    match web.ask(async |answer| Ok(answer.status())).await?.answer {
                        status if status.is_success() || status == StatusCode::NOT_FOUND => Ok(()),
                        status => Err(format!("status {}", status.as_u16())),
                    }
                }
            }
        })
    }
}

const HELP: &str = "\
For a service whose data no client of ours speaks to. It offers, below `url`, collections of records that it stores as it \
stores everything else:

`PUT COLLECTION/NAME` without a body stores a record of that name; any 2xx says that it is stored as durably as the service \
stores anything. 4xx, but for 408, 409, 412 and 425: it is not stored. Anything else, a broken connection, or nothing within \
`timeout`: nobody knows. `GET COLLECTION` \
lists the names of all its records, one on each line, each as often as it is there, up to 8 MiB; 404 when there is none. \
`DELETE COLLECTION` removes it with all its records.

The name of the collection is the run's own, of small letters, digits and `_`; names of records are made of letters, digits \
and `-`. A first record tells whose the collection is: one that has records without it is left alone, and the run ends \
before anything is broken. After all faults are undone it is read back, and when its account is in the history it is removed.

Each request has a connection of its own; `headers`, `caFile` and `insecure` are as with the probe `http`.

Cost: one request for each marker.";
