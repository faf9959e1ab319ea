//! The fault `file-replace`: a file reads otherwise for a while, then is itself again.

use fracas_model::{
    catalogue::{FaultInfo, Nature, Params},
    digest,
    facts::{Facts, FileKind, FileSeen, Question},
    plan::{Check, Claim, Plan, Refusal, Replace, Step},
    shape::{Field, Shape},
    units::Size,
};

use crate::Fault;

/// The fault.
pub struct FileReplace;

/// Longest content, bytes: it is in the document, the plan and the journal.
const LONGEST: usize = 64 << 10;
/// Set-user-id, set-group-id.
const PRIVILEGED: u32 = 0o6000;

const HELP: &str = "Whoever opens the file reads `content` instead: a broken configuration, an expired certificate, an \
    empty page. The new file is written beside the old one, with its owner, mode, access lists and other extended \
    attributes, and both change places in one call: a whole file stands at the path at every instant.\n\n\
    Who has the file open already goes on with the old one; most programs must be told to read again, or read again by \
    themselves. The new file has its own times, so that whoever watches times sees a change.\n\n\
    Undo is the same call again. The old file itself comes back, it was never copied: content, owner, mode, times of \
    access and change of content, extended attributes, hard links and its inode number are what they were; only its \
    ctime, which nobody can set, and the times of its directory say that something happened. What programs wrote to the \
    old file in the meantime, because they had it open, is in it. Meanwhile it is kept beside the path under a hidden \
    name, .fracas- and 16 digits; where it was and what it held (SHA-256) is in the journal before anything is done. The \
    undo survives kill -9 and a cut of power.\n\n\
    If somebody else changes the file meanwhile (its content, owner or mode, or puts another in its place), undo touches \
    nothing, reports it as superseded and says under which name the old file is kept.\n\n\
    Refused are directories, pipes, sockets, devices and mount points, files with set-user-id or set-group-id, symbolic \
    links that lead out of their directory, files larger than the policy's maxFileSize (16 MiB by default), and what is \
    protected: programs and libraries of the system, accounts, /etc/ssh and the like, keys, everything of the agent, and \
    the policy's protectPaths. The file system must be able to exchange two files (ext4, xfs, btrfs, tmpfs and overlay \
    can, NFS cannot).";

impl Fault for FileReplace {
    fn info(&self) -> FaultInfo {
        FaultInfo {
            name: "file-replace".into(),
            summary: "Let a file read otherwise, then put the very same file back.".into(),
            help: HELP.into(),
            params: vec![
                Field::required("path", Shape::Path, "The file; it must exist."),
                Field::required(
                    "content",
                    Shape::Text { max: LONGEST },
                    "All that the file reads meanwhile; \"\" for an empty file.",
                ),
            ],
            nature: Nature::Lasting,
            needs: Vec::new(),
            example: "{ file-replace: { path: /etc/nginx/nginx.conf, content: \"broken {\" } }".into(),
        }
    }

    fn asks(&self, params: &Params) -> Vec<Question> {
        params.text("path").map(|path| Question::File(path.to_owned())).into_iter().collect()
    }

    fn plan(&self, params: &Params, facts: &Facts) -> Result<Plan, Refusal> {
        let missing = |what: &str| Refusal::new(format!("{what} is missing"), "give path and content");
        let path = params.text("path").ok_or_else(|| missing("path"))?;
        let content = params.text("content").ok_or_else(|| missing("content"))?;
        let seen = facts.file.as_ref().ok_or_else(|| {
            Refusal::new(format!("{path} does not exist"), "name a file that is there; a link must lead to one")
        })?;
        replaceable(path, seen, facts)?;
        if seen.mark.size_bytes == content.len() as u64 && seen.mark.sha256 == digest::of_text(content) {
            return Err(Refusal::new(format!("{path} reads like that already"), "give another content"));
        }
        let real = seen.path.clone();
        let named = if real == path { real.clone() } else { format!("{real} (named {path})") };
        Ok(Plan {
            steps: vec![Step::Replace(Replace {
                path: real.clone(),
                content: content.to_owned(),
                was: seen.mark.clone(),
            })],
            claims: vec![Claim::File(real.clone())],
            check: Check::Content { path: real, content: content.to_owned() },
            summary: format!("replace {named} by a file of {} bytes", content.len()),
        })
    }
}

/// Refuses what must not, or cannot, be replaced.
fn replaceable(path: &str, seen: &FileSeen, facts: &Facts) -> Result<(), Refusal> {
    let no = |why: &str, instead: &str| Err(Refusal::new(format!("{path} {why}"), instead));
    let real = &seen.path;
    let owned_by_the_host = "choose another file; protection is up to the owner of the host";
    for name in [real.as_str(), path] {
        if let Some(why) = facts.policy.protects_path(name, &facts.own_paths) {
            return no(&format!("is protected: {why}"), owned_by_the_host);
        }
    }
    if seen.leaves {
        return no(
            &format!("is a symbolic link that leads out of its directory, to {real}"),
            &format!("if that file is meant, name it: {real}"),
        );
    }
    match seen.kind {
        FileKind::Regular => {}
        FileKind::Directory => return no("is a directory", "name a file in it"),
        FileKind::Special => return no("is a pipe, socket or device", "name a regular file"),
    }
    if seen.mounted {
        return no("is a mount point of its own", "replace the file that is mounted there, on the host it comes from");
    }
    if seen.mode & PRIVILEGED != 0 {
        return no("has set-user-id or set-group-id", "choose a file that gives no privilege");
    }
    let most = facts.policy.max_file_size;
    if seen.mark.size_bytes > most.0 {
        return no(
            &format!("is larger ({}) than the {most} this host's policy allows", Size(seen.mark.size_bytes)),
            "choose a smaller file, or ask the owner of the host to raise maxFileSize",
        );
    }
    if facts.host.uid != 0 && facts.host.uid != seen.uid {
        return no(
            &format!("belongs to user {}, and this agent runs as user {}", seen.uid, facts.host.uid),
            "run the agent as root, or as that user",
        );
    }
    Ok(())
}
