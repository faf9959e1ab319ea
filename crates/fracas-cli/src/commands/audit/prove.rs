//! Walking the whole history of a running controller from here: it hands out bytes, and nothing it says is believed.
//!
//! The history grows, and is pruned, while it is walked. So heads are fetched before what they vouch for, and again at the
//! end, when everything that may have gone meanwhile was said and signed.

use std::collections::BTreeSet;

use fracas_model::evidence::{Ends, SignedHead, Verification, Verifier, Walk};
use futures_util::StreamExt as _;

use crate::client::{Client, ClientError, KeptStream};

/// Heads that are fetched: each vouches for all that came before.
const HEADS: u32 = 1000;

/// Proves it. `key` is the key that signed the heads from outside, the controller's own when absent; `beside`: what is kept
/// beside records is fetched too.
pub(super) async fn prove(
    client: &Client,
    outside: Vec<SignedHead>,
    key: Option<Vec<u8>>,
    beside: bool,
) -> Result<Verification, ClientError> {
    let (own, public) = client.heads(HEADS).await?;
    let public = key.unwrap_or(public);
    let mut verifier = Verifier::new(outside, &public);
    verifier.hold_against(own, &public);
    let streams = client.streams("").await?;
    let mut names: BTreeSet<String> = streams.iter().map(|one| one.stream.clone()).collect();
    let (audits, others): (Vec<_>, Vec<_>) = streams.into_iter().partition(|one| one.stream.starts_with("audit/"));
    for one in audits {
        let mut walk = Walk::new(&one.stream, one.base);
        walk_on(client, &mut walk, beside).await?;
        verifier.audit(walk, ends(&one));
    }
    for one in others {
        match walked(client, one.clone(), beside).await? {
            Some((walk, kept)) => verifier.other(walk, ends(&kept)),
            None => drop(names.remove(&one.stream)),
        }
    }
    let (own, _) = client.heads(HEADS).await?;
    for walk in verifier.audits() {
        walk_on(client, walk, beside).await?;
    }
    verifier.hold_against(own, &public);
    Ok(verifier.finish(&names))
}

fn ends(one: &KeptStream) -> Option<Ends> {
    Some(Ends { head: one.head, growing: true })
}

/// Walks a stream as it is listed; where it was pruned meanwhile, as it is then, or not at all.
async fn walked(client: &Client, mut one: KeptStream, beside: bool) -> Result<Option<(Walk, KeptStream)>, ClientError> {
    loop {
        let mut walk = Walk::new(&one.stream, one.base);
        walk_on(client, &mut walk, beside).await?;
        if walk.last().seq >= one.head.seq && walk.broken().is_none() {
            return Ok(Some((walk, one)));
        }
        let now = client.streams(&one.stream).await?.into_iter().find(|now| now.stream == one.stream);
        match now {
            None => return Ok(None),
            Some(now) if now.base == one.base => return Ok(Some((walk, one))),
            Some(now) => one = now,
        }
    }
}

async fn walk_on(client: &Client, walk: &mut Walk, beside: bool) -> Result<(), ClientError> {
    let mut records = client.records(walk.stream(), walk.last().seq, beside).await?;
    while let Some(record) = records.next().await {
        let (record, bytes) = record?;
        if let Some(named) = walk.take(&record).filter(|_| beside) {
            walk.beside(&named, bytes.as_deref());
        }
        if walk.broken().is_some() {
            break;
        }
    }
    Ok(())
}
