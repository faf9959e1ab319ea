//! Ledger `postgres`: a table of its own, a row for each marker, a session for each row. It never writes to another table.

use std::cell::Cell;

use fracas_model::{
    catalogue::{LedgerInfo, Params},
    plan::Refusal,
    policy::Policy,
};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Book, Ledger, MOST_RECORDS, NotOpen, Now, Owner, Place, Written, foreign, not_open, written};
use crate::{
    pgwire::Client,
    postgres::access::{self, Access},
};

/// Rows that are read at once: a page of them is far within what the client takes as one answer.
const PAGE: usize = 2000;

/// The `postgres` ledger.
#[derive(Debug)]
pub(super) struct PostgresLedger;

#[derive(Debug)]
struct Ready {
    access: Access,
    place: Place,
}

impl Ledger for PostgresLedger {
    fn info(&self) -> LedgerInfo {
        LedgerInfo {
            name: "postgres".into(),
            summary: "Keeps markers in a table of its own in PostgreSQL.".into(),
            help: HELP.into(),
            params: access::fields().into_iter().collect(),
            place: "table".into(),
            example: r#"{ address: "db.internal:5432", user: app, database: shop }"#.into(),
        }
    }

    fn ready(&self, params: &Params, policy: &Policy, place: Place) -> Result<Box<dyn Book>, Refusal> {
        Ok(Box::new(Ready { access: Access::new(params, policy)?, place }))
    }
}

impl Ready {
    /// The comment that the table bears.
    fn comment(&self) -> String {
        format!("fracas ledger {}", self.place.token)
    }

    async fn owner<S: AsyncRead + AsyncWrite + Unpin>(&self, client: &mut Client<S>) -> Result<Owner, String> {
        let sql = format!(
            "select to_regclass('{0}') is not null, obj_description(to_regclass('{0}'), 'pg_class')",
            self.place.name
        );
        let row = client.query(&sql, 1).await?.rows.into_iter().next().unwrap_or_default();
        match &row[..] {
            [Some(there), _] if there == "f" => Ok(Owner::Nobody),
            [Some(_), Some(comment)] if *comment == self.comment() => Ok(Owner::Us),
            [Some(_), _] => Ok(Owner::Others),
            _ => Err("the server does not say whether the table is there".into()),
        }
    }

    /// Several statements in one message are one transaction.
    fn making(&self) -> String {
        format!(
            "create table \"{0}\" (life bigint not null, number bigint not null); comment on table \"{0}\" is '{1}'",
            self.place.name,
            self.comment()
        )
    }
}

impl Book for Ready {
    fn open<'a>(&'a self, make: bool, touched: &'a Cell<bool>) -> Now<'a, Result<(), NotOpen>> {
        Box::pin(async move {
            // What the server says of it comes back hushed and short.
            let (found, denied) = (Cell::new(Owner::Nobody), Cell::new(false));
            let asked = self.access.session(async |client| {
                found.set(self.owner(client).await?);
                match found.get() {
                    Owner::Us => Ok(()),
                    Owner::Nobody if !make => Ok(()),
                    Owner::Others => Err("it is not ours".to_owned()),
                    Owner::Nobody => {
                        touched.set(true);
                        let made = client.query(&self.making(), 0).await;
                        // No such right or schema: SQLSTATE 42501, 3F000 and the like (PostgreSQL, appendix A). 25006 is a
                        // standby, which may be promoted.
                        denied
                            .set(client.refused().is_some_and(|code| code.starts_with("42") || code.starts_with("3F")));
                        made.map(|_| ())
                    }
                }
            });
            let instead = "give the role the right to create tables in its first schema, or use a role that has it";
            asked.await.map_err(|why| not_open(why, found.get(), denied.get(), "table", &self.place, instead))
        })
    }

    fn write<'a>(&'a self, life: u64, number: u64, sent: &'a Cell<bool>) -> Now<'a, Written> {
        Box::pin(async move {
            // After it is sent only an error of the statement itself says that nothing was written.
            let sure = Cell::new(false);
            let sql = format!("insert into \"{}\" values ({life}, {number})", self.place.name);
            let asked = self.access.session(async |client| {
                sent.set(true);
                let told = client.query(&sql, 0).await;
                sure.set(client.refused().is_some_and(rolled_back));
                let rows = told?;
                match client.warned() {
                    // "The transaction has already committed locally, but might not have been replicated."
                    Some(warning) => Err(warning.to_owned()),
                    None if rows.tag == "INSERT 0 1" => Ok(()),
                    None => Err(format!("answered \"{}\" to an insert", rows.tag)),
                }
            });
            written(asked.await, sent, &sure)
        })
    }

    fn read(&self) -> Now<'_, Result<Vec<(u64, u64)>, String>> {
        Box::pin(async {
            let read = self.access.session(async |client| {
                match self.owner(client).await? {
                    Owner::Nobody => return Ok(Vec::new()),
                    Owner::Others => return Err(foreign("table", &self.place).why),
                    Owner::Us => {}
                }
                let (mut records, mut last) = (Vec::new(), (0, 0));
                loop {
                    let sql = format!(
                        "select life, number, count(*) from \"{}\" where (life, number) > ({}, {}) group by 1, 2 order by 1, 2 \
                         limit {PAGE}",
                        self.place.name, last.0, last.1
                    );
                    let page = client.query(&sql, PAGE).await?.rows;
                    let rows = page.iter().map(|row| numbers(row).ok_or("the table holds what no ledger wrote"));
                    for row in rows {
                        let (marker, times) = row?;
                        if marker <= last {
                            return Err("the rows come in no order".to_owned());
                        }
                        last = marker;
                        // More would only say the same.
                        records.extend(std::iter::repeat_n(marker, times.min(9)));
                    }
                    if page.len() < PAGE {
                        return Ok(records);
                    }
                    if records.len() > MOST_RECORDS {
                        return Err("there are more rows than a ledger has".to_owned());
                    }
                }
            });
            read.await
        })
    }

    fn remove(&self) -> Now<'_, Result<(), String>> {
        Box::pin(async {
            let removed = self.access.session(async |client| match self.owner(client).await? {
                Owner::Nobody => Ok(()),
                Owner::Others => Err(foreign("table", &self.place).why),
                Owner::Us => client.query(&format!("drop table \"{}\"", self.place.name), 0).await.map(|_| ()),
            });
            removed.await
        })
    }
}

/// Whether an error with this SQLSTATE means that the statement was not carried out. Not so when the connection or the server
/// ended (classes 08, 57P, 58, XX), or where the standard itself says that it is not known (40003).
fn rolled_back(code: &str) -> bool {
    !["08", "57P", "58", "XX", "40003"].iter().any(|class| code.starts_with(class))
}

/// Life, number, and how often.
fn numbers(row: &[Option<String>]) -> Option<((u64, u64), usize)> {
    let [Some(life), Some(number), Some(times)] = row else { return None };
    Some(((life.parse().ok()?, number.parse().ok()?), times.parse().ok()?))
}

const HELP: &str = "\
Each marker is a row, inserted in a session of its own with whatever the role's defaults are (`synchronous_commit`, the \
transaction's level): it is acknowledged when the server says INSERT 0 1. A statement that the server refuses failed; when \
the connection breaks, the server is ended or nothing comes within `timeout`, nobody knows. An insert that was committed \
while the wait for a synchronous standby was cancelled comes with a warning, and counts as unknown too.

The table is made before the timeline begins, in the first schema of the role's search path, with a comment that tells whose \
it is; a table of that name without it is left alone, and the run ends before anything is broken. Two columns: `life`, which \
tells writers apart that were started anew, and `number`. No key, so that a row that somebody writes twice is seen. After \
all faults are undone the rows are read back, and when their account is in the history the table is dropped. The role needs \
the right to create a table there, and no other.

Let `address` lead where clients are led: a name or a proxy that follows a failover. What is read back is read there too. \
Passwords and TLS are as with the probe `postgres`.

Cost: one session for each marker.";
