//! Probe `file`: is a file there, how old and how large is it, and what stands in it? It follows no changes: see `log`.

use std::{
    io::{self, Read as _},
    rc::Rc,
    time::SystemTime,
};

use fracas_model::{
    catalogue::{Params, ProbeInfo},
    plan::Refusal,
    policy::Policy,
    shape::{Field, Shape},
    tolerance::{self, ReadingField, Values},
};

use crate::{LookFuture, Lookout, OneCall, Probe, Seen, brief, files};

/// How much of the file is read, in bytes.
const LONGEST_TEXT: u64 = 64 * 1024;

/// The `file` probe.
#[derive(Debug)]
pub struct FileProbe;

#[derive(Clone, Debug)]
struct Ready {
    path: String,
    exists: bool,
    contains: Option<String>,
    /// Whether the text itself is wanted.
    text: bool,
    policy: Policy,
}

#[derive(Debug)]
struct Looked {
    ready: Ready,
    one: OneCall,
}

impl Probe for FileProbe {
    fn info(&self) -> ProbeInfo {
        ProbeInfo {
            name: "file".into(),
            summary: "Sees whether a file is there, and what, how much and how old it is.".into(),
            help: HELP.into(),
            params: vec![
                Field::required("path", Shape::Path, "Regular file on the host that looks."),
                Field::with_default("exists", Shape::Bool, true, "Whether it must be there, or must not."),
                Field::optional("contains", Shape::Text { max: 1024 }, "Text that its first 64 KiB must hold."),
            ],
            reading: vec![
                ReadingField::number("size", "bytes", "Its size."),
                ReadingField::duration("age", "How long ago it was last written; not known when that lies ahead."),
                ReadingField::text("text", "Its first 64 KiB."),
            ],
            example: "{ path: /var/log/backup/last, tolerance: { age: { max: 1d } } }".into(),
        }
    }

    fn ready(&self, params: &Params, policy: &Policy) -> Result<Box<dyn Lookout>, Refusal> {
        let path = params.text("path").unwrap_or_default().to_owned();
        let exists = params.0.get("exists").and_then(serde_json::Value::as_bool).unwrap_or(true);
        let contains = params.text("contains").map(str::to_owned);
        if !exists && contains.is_some() {
            let why = "file: what must not be there can hold no text";
            return Err(Refusal::new(why, "drop contains, or exists: false"));
        }
        files::named("file", &path, policy)?;
        let text = tolerance::wants(params, "text");
        let ready = Ready { path, exists, contains, text, policy: policy.clone() };
        Ok(Box::new(Rc::new(Looked { ready, one: OneCall::default() })))
    }
}

impl Lookout for Rc<Looked> {
    fn look(&self) -> LookFuture {
        let looked = self.clone();
        Box::pin(async move {
            let ready = looked.ready.clone();
            looked.one.blocking(move || ready.look_now(SystemTime::now())).await?
        })
    }
}

impl Ready {
    fn look_now(&self, now: SystemTime) -> Seen {
        let file = match files::allowed(&self.path, &self.policy) {
            Ok(_) if !self.exists => return Err("the file is there".into()),
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound && !self.exists => return Ok(Values::new()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err("there is no such file".into()),
            Err(e) => return Err(brief(format_args!("the file cannot be read: {e}"))),
        };
        let unreadable = |e: io::Error| brief(format_args!("the file cannot be read: {e}"));
        let metadata = file.metadata().map_err(unreadable)?;
        let age = metadata.modified().ok().and_then(|then| now.duration_since(then).ok());
        let values = Values::new().with("size", metadata.len()).with_known("age", age);
        if self.contains.is_none() && !self.text {
            return Ok(values);
        }
        let mut bytes = Vec::new();
        file.take(LONGEST_TEXT).read_to_end(&mut bytes).map_err(unreadable)?;
        match self.contains.as_deref() {
            Some(text) if !bytes.windows(text.len().max(1)).any(|w| w == text.as_bytes()) => {
                Err("the file lacks the text".into())
            }
            _ => Ok(values.with("text", String::from_utf8_lossy(&bytes).into_owned())),
        }
    }
}

const HELP: &str = "\
Ok when the regular file is there and holds `contains` (if given) in its first 64 KiB; with `exists: false`, when there is \
none. Pipes, devices and folders are no files here and fail the look.

`tolerance: { age: { max: 1d } }` sees whether a backup or an export is still written, `{ size: { min: 1 } }` whether \
something came of it. The age is that of the last write by the host's own clock: a program that writes a new file and \
renames it shows the age of the writing. What a program appends line by line is better seen by the probe `log`.

The host's owner decides what may be looked into: the folders that its policy names as readIn, /var/log unless told \
otherwise. What lies elsewhere is refused; a symbolic link that leads elsewhere fails the look, and nothing of it is told.

Cost: opening one file, and reading up to 64 KiB of it when its text is wanted. While a disk still holds a look that was \
given up, the next ones fail at once.";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fracas_model::tolerance::Measured;
    use serde_json::json;

    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn presence_age_and_text_are_seen_where_the_owner_allows() {
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let policy = Policy {
            read_in: vec![dir.path().canonicalize().unwrap().to_str().unwrap().to_owned()],
            ..Policy::builtin()
        };
        let looked = async |params: serde_json::Value| {
            crate::ready(&FileProbe, &serde_json::from_value(params).unwrap(), &policy).unwrap().look().await
        };
        assert_eq!(looked(json!({ "path": place("last") })).await.unwrap_err(), "there is no such file");
        looked(json!({ "path": place("last"), "exists": false })).await.unwrap();
        let file = std::fs::File::create(place("last")).unwrap();
        std::fs::write(place("last"), "done").unwrap();
        file.set_modified(SystemTime::now() - Duration::from_hours(2)).unwrap();
        let values = looked(json!({ "path": place("last"), "contains": "one" })).await.unwrap();
        assert_eq!(values.get("size"), Some(&Measured::Number(4.0)));
        let old = looked(json!({ "path": place("last"), "tolerance": { "age": { "max": "1h" } } })).await;
        assert_eq!(old.unwrap_err(), "age was 2h, at most 1h wanted");
        looked(json!({ "path": place("last"), "tolerance": { "text": { "matches": "^d" } } })).await.unwrap();
        assert_eq!(
            looked(json!({ "path": place("last"), "contains": "x" })).await.unwrap_err(),
            "the file lacks the text"
        );
        assert_eq!(looked(json!({ "path": place("last"), "exists": false })).await.unwrap_err(), "the file is there");
        std::os::unix::fs::symlink("/etc/passwd", place("link")).unwrap();
        assert!(looked(json!({ "path": place("link") })).await.unwrap_err().contains("readIn"));
        std::fs::create_dir(place("folder")).unwrap();
        assert!(looked(json!({ "path": place("folder") })).await.unwrap_err().contains("not a regular file"));
        let elsewhere = serde_json::from_value(json!({ "path": "/etc/passwd" })).unwrap();
        assert!(crate::ready(&FileProbe, &elsewhere, &policy).err().unwrap().instead.contains("readIn"));
    }
}
