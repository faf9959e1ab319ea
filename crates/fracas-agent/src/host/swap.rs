//! A file that takes the place of another, and the way back. The two change places in one call, so that a whole file
//! stands at the path at every instant, and the original itself is never written, copied or linked: what comes back is the
//! same file with all that belongs to it.
//!
//! Undo works from what the disk shows, not from what was noted: a death at any point leaves one of few pictures, and each
//! says by itself which of the two names holds the original. No symbolic link is followed anywhere: the path was resolved
//! when it was planned.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::fd::{AsFd as _, OwnedFd},
};

use fracas_model::{id::BootId, plan::Replace};
use rustix::{
    fs::{
        AtFlags, CWD, FileType, Gid, Mode, OFlags, RenameFlags, ResolveFlags, Stat, Uid, XattrFlags, fchmod, fchown,
        fgetxattr, flistxattr, fsetxattr, fsync, openat, openat2, renameat_with, statat, unlinkat,
    },
    io::Errno,
};

use super::{
    Failure, Reverted,
    files::{digest, quietly_at},
};
use crate::{
    crash::{self, Boundary},
    forget::{self, Sync},
};

/// Attributes that say something of the content, which is another here.
const OF_THE_CONTENT: [&[u8]; 2] = [b"security.ima", b"security.evm"];
/// Most bytes of all names of attributes, and of the value of one: `XATTR_LIST_MAX` and `XATTR_SIZE_MAX`.
const ATTRIBUTES_BYTES: usize = 65_536;

/// A file's place: its directory, held open, its name, and the name beside it that is ours.
pub struct Place<'r> {
    replace: &'r Replace,
    directory: OwnedFd,
    name: &'r str,
    beside: String,
}

impl<'r> Place<'r> {
    /// Opens the directory. `beside` is a name that nobody else uses.
    pub fn open(replace: &'r Replace, beside: String) -> Result<Self, Errno> {
        let (directory, name) = replace.path.rsplit_once('/').ok_or(Errno::INVAL)?;
        let directory = if directory.is_empty() { "/" } else { directory };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let straight = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let directory = openat2(CWD, directory, flags, Mode::empty(), straight)?;
        Ok(Self { replace, directory, name, beside })
    }

    /// Writes the replacement beside the file and lets both change places; `effective` is run around that one call. A
    /// failure may leave the replacement beside it, which [`Place::restore`] removes. Gives the replacement's number.
    pub fn exchange(
        &self,
        effective: impl FnOnce(&mut dyn FnMut() -> Result<(), Failure>) -> Result<(), Failure>,
    ) -> Result<u64, Failure> {
        let path = &self.replace.path;
        let no = |what: &'static str| move |e: Errno| Failure(format!("{path} {what}: {e}"));
        let mut original = quietly_at(&self.directory, self.name).map_err(no("cannot be read"))?;
        let about = rustix::fs::fstat(&original).map_err(no("cannot be looked at"))?;
        let as_planned = FileType::from_raw_mode(about.st_mode) == FileType::RegularFile
            && about.st_ino == self.replace.was.inode
            && size(&about) == self.replace.was.size_bytes
            && has_digest(&mut original, &self.replace.was.sha256, self.replace.was.size_bytes);
        if !as_planned {
            return Err(Failure(format!("{path} was changed since it was planned to replace it; nothing was done")));
        }
        let inode = self.write(&original, &about)?;
        crash::at(Boundary::AmidStep);
        effective(&mut || self.swap().map_err(|e| Failure(unswappable(path, e))))?;
        crash::at(Boundary::AmidStep);
        self.settle()?;
        if self.stat(&self.beside).ok().flatten().is_some_and(|kept| kept.st_ino == about.st_ino) {
            return Ok(inode);
        }
        // Somebody put another file there between the look and the exchange; the undo of this step puts that one back.
        Err(Failure(format!("{path} was changed at the very moment of replacing it")))
    }

    /// The replacement, with all that belongs to the original but its times; whole and safe on the disk.
    fn write(&self, original: &File, about: &Stat) -> Result<u64, Failure> {
        let failed = |what: &str, e: Errno| Failure(format!("the replacement of {} {what}: {e}", self.replace.path));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.directory, self.beside.as_str(), flags, Mode::RUSR | Mode::WUSR)
            .map_err(|e| failed("cannot be made beside it", e))?;
        let mut file = File::from(file);
        file.write_all(self.replace.content.as_bytes())
            .map_err(|e| Failure(format!("the replacement of {} cannot be written: {e}", self.replace.path)))?;
        let (user, group) = (Uid::from_raw(about.st_uid), Gid::from_raw(about.st_gid));
        fchown(&file, Some(user), Some(group)).map_err(|e| failed("cannot be given to the file's owner", e))?;
        attributes(original, &file).map_err(|e| failed("cannot be given the file's extended attributes", e))?;
        fchmod(&file, Mode::from_raw_mode(about.st_mode)).map_err(|e| failed("cannot be given the file's mode", e))?;
        fsync(&file).map_err(|e| failed("cannot be synced", e))?;
        self.settle()?;
        rustix::fs::fstat(&file).map(|s| s.st_ino).map_err(|e| failed("cannot be looked at", e))
    }

    fn swap(&self) -> Result<(), Errno> {
        renameat_with(&self.directory, self.beside.as_str(), &self.directory, self.name, RenameFlags::EXCHANGE)
    }

    /// What was done to the directory is safe on the disk.
    fn settle(&self) -> Result<(), Failure> {
        if !forget::keeps(Sync::Directory) {
            return Ok(());
        }
        fsync(&self.directory)
            .map_err(|e| Failure(format!("the directory of {} cannot be synced: {e}", self.replace.path)))
    }

    /// Puts the kept file back, if what stands in its place is still ours (`inode`, where it is known), and reads back.
    pub fn restore(&self, inode: Option<u64>, boot: &BootId) -> Result<Reverted, Failure> {
        let path = &self.replace.path;
        let look = |name: &str| self.stat(name).map_err(|e| Failure(format!("{path} cannot be looked at: {e}")));
        let was = self.replace.was.inode;
        let (there, kept) = (look(self.name)?, look(&self.beside)?);
        let Some(kept) = kept else { return self.without_kept(there.as_ref(), inode, boot) };
        let back = there.as_ref().is_some_and(|there| there.st_ino == was);
        if !back && there.as_ref().is_some_and(|there| self.is_ours(self.name, there, inode, &kept)) {
            return self.swap_back(&kept);
        }
        if kept.st_ino == was {
            return Ok(Reverted::Superseded(match there {
                Some(_) => format!("{path} was changed by somebody else; the original is beside it as {}", self.beside),
                None => format!("{path} was removed by somebody else; the original is beside it as {}", self.beside),
            }));
        }
        if !self.begins_ours(&kept) {
            let what = format!("{path} was changed by somebody else, and so was {} beside it", self.beside);
            return Ok(Reverted::Superseded(what));
        }
        // Never exchanged, or exchanged back already: only our own file is left.
        self.clear()?;
        Ok(Reverted::Undone)
    }

    fn swap_back(&self, kept: &Stat) -> Result<Reverted, Failure> {
        let path = &self.replace.path;
        self.swap().map_err(|e| Failure(format!("{path} cannot be put back: {e}")))?;
        crash::at(Boundary::BeforeReadBack);
        self.settle()?;
        let beside = self.stat(&self.beside).ok().flatten();
        if !beside.is_some_and(|ours| self.begins_ours(&ours)) {
            // Somebody was faster: what they put there goes back to where they put it.
            self.swap().map_err(|e| Failure(format!("{path} cannot be left to who changed it: {e}")))?;
            self.settle()?;
            let what = format!("{path} was changed by somebody else; the original is beside it as {}", self.beside);
            return Ok(Reverted::Superseded(what));
        }
        self.clear()?;
        match self.stat(self.name) {
            Ok(Some(now)) if now.st_ino == kept.st_ino => Ok(Reverted::Undone),
            _ => Err(Failure(format!("{path} is another file right after it was put back"))),
        }
    }

    fn clear(&self) -> Result<(), Failure> {
        match unlinkat(&self.directory, self.beside.as_str(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {
                crash::at(Boundary::BeforeReadBack);
                self.settle()
            }
            Err(e) => Err(Failure(format!("{} beside {} cannot be removed: {e}", self.beside, self.replace.path))),
        }
    }

    /// Nothing of ours is beside the file.
    fn without_kept(&self, there: Option<&Stat>, inode: Option<u64>, boot: &BootId) -> Result<Reverted, Failure> {
        let (path, was) = (&self.replace.path, &self.replace.was);
        // An agent may have died right after it had cleared up, before that was safe on the disk; once this item is said
        // to have ended, nobody would look again for what a cut of power brings back.
        self.settle()?;
        let original = |there: &Stat| there.st_ino == was.inode || self.reads(&was.sha256, was.size_bytes);
        let rebooted = *boot != was.boot;
        if there.is_some_and(original) || was.in_memory && rebooted {
            return Ok(Reverted::NothingThere);
        }
        let here = rustix::fs::fstat(&self.directory).is_ok_and(|about| about.st_ino == was.directory_inode);
        if !here && rebooted {
            // What was noted last may not have reached the disk: this is no proof that nothing was done.
            return Err(another_directory(path));
        }
        let ours = there.is_some_and(|there| self.begins_ours_at(self.name, there));
        if inode.is_none() && !ours {
            return Ok(Reverted::NothingThere);
        }
        Ok(Reverted::Superseded(format!("{path} was changed by somebody else, and the original beside it is gone")))
    }

    /// Whether what stands at the path is our replacement and nobody touched it: what it reads, its owner and its mode.
    fn is_ours(&self, name: &str, there: &Stat, inode: Option<u64>, kept: &Stat) -> bool {
        let content = &self.replace.content;
        let belongs = |a: &Stat| (a.st_uid, a.st_gid, a.st_mode);
        inode.is_none_or(|inode| inode == there.st_ino)
            && belongs(there) == belongs(kept)
            && size(there) == content.len() as u64
            && self.begins_ours_at(name, there)
            // Two files alike: the one beside is ours unless it is the original.
            && (kept.st_ino == self.replace.was.inode || !self.begins_ours(kept))
    }

    /// Whether the file beside is our replacement, or the beginning of it: a death may have kept it from being whole.
    fn begins_ours(&self, beside: &Stat) -> bool {
        self.begins_ours_at(&self.beside, beside)
    }

    fn begins_ours_at(&self, name: &str, about: &Stat) -> bool {
        let content = self.replace.content.as_bytes();
        if FileType::from_raw_mode(about.st_mode) != FileType::RegularFile || size(about) > content.len() as u64 {
            return false;
        }
        let mut read = Vec::new();
        let Ok(file) = quietly_at(&self.directory, name) else { return false };
        file.take(content.len() as u64 + 1).read_to_end(&mut read).is_ok() && content.starts_with(&read)
    }

    /// Whether what stands at the path has this content.
    fn reads(&self, sha256: &str, bytes: u64) -> bool {
        quietly_at(&self.directory, self.name).is_ok_and(|mut file| has_digest(&mut file, sha256, bytes))
    }

    fn stat(&self, name: &str) -> Result<Option<Stat>, Errno> {
        match statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(about) => Ok(Some(about)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The undo where the directory itself cannot be opened.
pub fn restore_without_directory(replace: &Replace, error: Errno, boot: &BootId) -> Result<Reverted, Failure> {
    let (path, was) = (&replace.path, &replace.was);
    match error {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP if *boot == was.boot => {
            Ok(Reverted::Superseded(format!("the directory of {path} was removed by somebody else")))
        }
        Errno::NOENT if was.in_memory => Ok(Reverted::NothingThere),
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP => Err(another_directory(path)),
        error => Err(Failure(format!("the directory of {path} cannot be opened: {error}"))),
    }
}

fn another_directory(path: &str) -> Failure {
    Failure(format!("the directory of {path} is not the one it was before the boot: is its file system mounted?"))
}

fn unswappable(path: &str, error: Errno) -> String {
    match error {
        Errno::INVAL | Errno::NOSYS => format!("the file system of {path} cannot let two files change places"),
        Errno::BUSY => format!("{path} cannot be replaced: something is mounted there"),
        Errno::PERM => format!("{path} cannot be replaced: {error}; is it immutable (lsattr)?"),
        error => format!("{path} cannot be replaced: {error}"),
    }
}

fn has_digest(file: &mut File, sha256: &str, bytes: u64) -> bool {
    digest(file, bytes).is_ok_and(|digest| digest.as_deref() == Some(sha256))
}

fn size(about: &Stat) -> u64 {
    about.st_size.cast_unsigned()
}

/// Gives a file the extended attributes of another, access lists and security labels among them.
fn attributes(from: &File, to: &File) -> Result<(), Errno> {
    let mut names = vec![0_u8; ATTRIBUTES_BYTES];
    let length = match flistxattr(from.as_fd(), &mut names[..]) {
        Err(Errno::OPNOTSUPP) => return Ok(()),
        other => other?,
    };
    let mut value = vec![0_u8; ATTRIBUTES_BYTES];
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if OF_THE_CONTENT.contains(&name) {
            continue;
        }
        let length = fgetxattr(from.as_fd(), name, &mut value[..])?;
        fsetxattr(to.as_fd(), name, &value[..length], XattrFlags::empty())?;
    }
    Ok(())
}
