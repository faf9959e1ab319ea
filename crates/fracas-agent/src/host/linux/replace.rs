//! The step that replaces a file, its inverse, and whether the file reads as it should. How files change places is in
//! [`crate::host::swap`].

use fracas_model::{
    event::{Between, Measured, Proof},
    id::ItemKey,
    plan::Replace,
};
use fracas_probes::files::start;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::{LinuxHost, aside};
use crate::host::{
    Failure, Handle, Host as _, Reverted,
    files::hex,
    swap::{Place, restore_without_directory},
};

/// Name of the kept file: hidden, so that programs which read all files of a directory pass it by; the same in every life
/// of the agent, and of no other item.
fn beside(key: &ItemKey, index: usize) -> String {
    let digest = Sha256::digest(format!("{key} step {index}"));
    format!(".fracas-{}", &hex(&digest)[..16])
}

impl LinuxHost {
    pub(super) async fn replace(
        &self,
        key: &ItemKey,
        index: usize,
        replace: &Replace,
    ) -> Result<(Handle, Between), Failure> {
        let (replace, beside, clock) = (replace.clone(), beside(key, index), self.clock.clone());
        self.act(key, move |go| {
            let place = Place::open(&replace, beside.clone())
                .map_err(|e| Failure(format!("the directory of {} cannot be opened: {e}", replace.path)))?;
            go.on()?;
            let mut between = None;
            let inode = place.exchange(|exchange| {
                // Whoever undoes waits for this thread; it must not begin once it was called off.
                go.on()?;
                let from = clock.now();
                exchange()?;
                between = Some(clock.since(from));
                Ok(())
            })?;
            let between = between.ok_or_else(|| Failure("the files did not change places".into()))?;
            Ok((json!({ "beside": beside, "inode": inode }), between))
        })
        .await
    }

    pub(super) async fn put_back(
        &self,
        key: &ItemKey,
        index: usize,
        replace: &Replace,
        handle: Option<&Handle>,
    ) -> Result<Reverted, Failure> {
        let inode = handle.and_then(|handle| handle.get("inode")?.as_u64());
        let (replace, beside, boot) = (replace.clone(), beside(key, index), self.now().clock.boot);
        self.act(key, move |_| match Place::open(&replace, beside) {
            Ok(place) => place.restore(inode, &boot),
            Err(error) => restore_without_directory(&replace, error, &boot),
        })
        .await
    }
}

/// Whether whoever opens the path now reads what was asked.
pub(super) async fn check(path: &str, content: &str) -> (Proof, Vec<Measured>) {
    let (wanted, path) = (content.to_owned(), path.to_owned());
    let read =
        aside(move || start(&path, wanted.len()).map(|(read, whole)| (read == wanted.as_bytes() && whole, read.len())))
            .await;
    let (same, length) = match read {
        Ok(Ok(read)) => read,
        Ok(Err(error)) => return (Proof::Ineffective { why: format!("the file cannot be read: {error}") }, vec![]),
        Err(failure) => return (Proof::Unverified { why: failure.0 }, vec![]),
    };
    let measured = Measured {
        what: "bytes in place".into(),
        unit: "bytes".into(),
        asked: Some(content.len() as f64),
        got: if same { length as f64 } else { 0.0 },
        p99: None,
        n: 1,
        by: "reading the file by its path".into(),
    };
    let proof = if same {
        Proof::Verified
    } else {
        Proof::Ineffective { why: "the file reads otherwise: somebody else changed it".into() }
    };
    (proof, vec![measured])
}
