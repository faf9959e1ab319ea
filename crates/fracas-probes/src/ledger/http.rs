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
        if owners != [format!("{OWNER}{}", self.place.token)] {
            return Ok(Collection::Foreign);
        }
        let records: Option<Vec<_>> = records.into_iter().map(marker).collect();
        Ok(Collection::Ours(records.ok_or("the collection holds what no ledger wrote")?))
    }

    async fn put(&self, record: &str) -> Written {
        let sent = Cell::new(false);
        let asked = async {
            let web = self.web.at(Method::PUT, &format!("{}/{record}", self.path))?;
            web.ask_saying_so(&sent, async |answer| Ok(answer.status())).await
        };
        match asked.await.map(|told| told.answer) {
            Ok(status) if status.is_success() => Written::Acknowledged,
            // Whoever gives up waiting, 408, does not know either.
            Ok(status) if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT => {
                Written::Unknown(format!("status {}", status.as_u16()))
            }
            Ok(status) => Written::Failed(format!("status {}", status.as_u16())),
            Err(why) if sent.get() => Written::Unknown(why),
            Err(why) => Written::Failed(why),
        }
    }
}

impl Book for Ready {
    fn open(&self) -> Now<'_, Result<(), NotOpen>> {
        Box::pin(async {
            match self.collection().await.map_err(NotOpen::Unreachable)? {
                Collection::Ours(_) => Ok(()),
                Collection::Foreign => Err(NotOpen::Refused(foreign("collection", &self.place))),
                Collection::Absent => match self.put(&format!("{OWNER}{}", self.place.token)).await {
                    Written::Acknowledged => Ok(()),
                    Written::Failed(why) | Written::Unknown(why) => Err(NotOpen::Unreachable(why)),
                },
            }
        })
    }

    fn write(&self, life: u64, number: u64) -> Now<'_, Written> {
        Box::pin(async move { self.put(&name(life, number)).await })
    }

    fn read(&self) -> Now<'_, Result<Vec<(u64, u64)>, String>> {
        Box::pin(async {
            match self.collection().await? {
                Collection::Absent => Ok(Vec::new()),
                Collection::Ours(records) => Ok(records),
                Collection::Foreign => Err(foreign("collection", &self.place).why),
            }
        })
    }

    fn remove(&self) -> Now<'_, Result<(), String>> {
        Box::pin(async {
            match self.collection().await? {
                Collection::Absent => Ok(()),
                Collection::Foreign => Err(foreign("collection", &self.place).why),
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
stores anything. 4xx: it is not stored. 5xx, a broken connection, or nothing within `timeout`: nobody knows. `GET COLLECTION` \
lists the names of all its records, one on each line, each as often as it is there, up to 8 MiB; 404 when there is none. \
`DELETE COLLECTION` removes it with all its records.

The name of the collection is the run's own, of small letters, digits and `_`; names of records are made of letters, digits \
and `-`. A first record tells whose the collection is: one that has records without it is left alone, and the run ends \
before anything is broken. After all faults are undone it is read back, and when its account is in the history it is removed.

Each request has a connection of its own; `headers`, `caFile` and `insecure` are as with the probe `http`.

Cost: one request for each marker.";
