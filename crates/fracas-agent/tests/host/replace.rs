//! A replaced file reads otherwise and comes back as the very same file, from whatever point a death left it at; what
//! others changed stays as they left it.

use std::{
    fs::{self, File, Metadata},
    os::unix::fs::{MetadataExt as _, PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use fracas_agent::host::{Handle, Host as _, Reverted, files, linux::LinuxHost};
use fracas_model::{
    event::Proof,
    facts::FileKind,
    id::BootId,
    plan::{Check, Replace, Step},
};
use libtest_mimic::Trial;
use rustix::fs::{CWD, RenameFlags, XattrFlags, getxattr, renameat_with, setxattr};
use tempfile::TempDir;

use crate::{
    stage::{host, key, run},
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_replaced_file_comes_back_as_the_very_same", comes_back),
        trial("a_replacement_cut_short_anywhere_is_undone", cut_short),
        trial("what_others_did_to_a_replaced_file_stays", others),
        trial("a_file_that_is_not_as_planned_is_not_replaced", not_as_planned),
        trial("a_directory_that_is_gone_is_told", without_directory),
    ]
}

const OLD: &str = "the original\n";
const NEW: &str = "something else\n";

/// A file with an unusual mode, old times, a second name and an extended attribute.
struct Ground {
    dir: TempDir,
    path: PathBuf,
    step: Step,
    before: Looks,
}

/// What somebody else does to the file.
type Deed = fn(&Path);
/// What a death left: the file and what is beside it.
type Way = fn(&Ground, &Path);

/// Everything of a file that must come back.
#[derive(Debug, PartialEq, Eq)]
struct Looks {
    content: String,
    inode: u64,
    owner: (u32, u32),
    mode: u32,
    modified: (i64, i64),
    accessed: (i64, i64),
    names: u64,
    attribute: Option<Vec<u8>>,
    /// Names in the directory.
    beside: Vec<String>,
}

impl Looks {
    fn of(path: &Path) -> Self {
        let about: Metadata = fs::symlink_metadata(path).expect("there");
        let names = fs::read_dir(path.parent().expect("parent")).expect("directory");
        let mut beside: Vec<String> =
            names.map(|n| n.expect("entry").file_name().into_string().expect("UTF-8")).collect();
        beside.sort();
        let (modified, accessed) = ((about.mtime(), about.mtime_nsec()), (about.atime(), about.atime_nsec()));
        let mut value = [0; 64];
        let attribute = getxattr(path, "user.note", &mut value[..]).ok().map(|n| value[..n].to_vec());
        Self {
            content: fs::read_to_string(path).expect("text"),
            inode: about.ino(),
            owner: (about.uid(), about.gid()),
            mode: about.mode(),
            modified,
            accessed,
            names: about.nlink(),
            attribute,
            beside,
        }
    }
}

impl Ground {
    fn new() -> Self {
        // Under the target directory rather than in memory: that is where files usually are.
        let dir = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("directory");
        let path = dir.path().canonicalize().expect("real").join("file");
        fs::write(&path, OLD).expect("written");
        let _ = setxattr(&path, "user.note", b"kept", XattrFlags::empty());
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(33), Some(34)).expect("given away");
        }
        fs::set_permissions(&path, PermissionsExt::from_mode(0o604)).expect("mode");
        fs::hard_link(&path, path.with_file_name("second")).expect("a second name");
        let old = SystemTime::UNIX_EPOCH + Duration::new(1_500_000_000, 123_456_789);
        let times = fs::FileTimes::new().set_modified(old).set_accessed(SystemTime::now() + Duration::from_hours(1));
        File::options().append(true).open(&path).expect("open").set_times(times).expect("times");
        let step = plan(&path, &boot());
        let before = Looks::of(&path);
        Self { dir, path, step, before }
    }

    fn same(&self) {
        assert_eq!(Looks::of(&self.path), self.before);
    }

    fn beside(&self, handle: &Handle) -> PathBuf {
        self.path.with_file_name(handle["beside"].as_str().expect("a name"))
    }

    fn put(&self, host: &LinuxHost) -> Handle {
        let (handle, between) = run(host.apply(&key("replace"), 0, &self.step)).expect("replaces");
        assert!(between.to.since(&between.from).expect("one clock").ns() < 1_000_000_000);
        handle
    }

    fn back(&self, host: &LinuxHost, handle: Option<&Handle>) -> Reverted {
        run(host.revert(&key("replace"), 0, &self.step, handle)).expect("no failure")
    }
}

fn boot() -> BootId {
    host().now().clock.boot
}

fn plan(path: &Path, boot: &BootId) -> Step {
    let seen = files::look(path.to_str().expect("UTF-8"), 1 << 20, boot).expect("looked").expect("there");
    assert_eq!(seen.kind, FileKind::Regular);
    Step::Replace(Replace { path: seen.path, content: NEW.into(), was: seen.mark })
}

fn comes_back() {
    let (ground, host) = (Ground::new(), host());
    let check = Check::Content { path: ground.path.to_str().expect("UTF-8").into(), content: NEW.into() };
    let open = File::open(&ground.path).expect("opened before");
    assert!(matches!(run(host.check(&key("replace"), &check)).0, Proof::Ineffective { .. }));
    let handle = ground.put(&host);
    let during = Looks::of(&ground.path);
    // A foreign program reads what was asked, and sees the same owner, mode and attribute.
    let cat = Command::new("cat").arg(&ground.path).output().expect("cat");
    assert_eq!(cat.stdout, NEW.as_bytes());
    let belongs = |looks: &Looks| (looks.owner, looks.mode, looks.attribute.clone());
    assert_eq!(belongs(&during), belongs(&ground.before));
    assert!(during.inode != ground.before.inode && during.modified > ground.before.modified && during.names == 1);
    assert_eq!(std::io::read_to_string(&open).expect("text"), OLD, "who had it open goes on with the old one");
    assert_eq!(run(host.check(&key("replace"), &check)).0, Proof::Verified);
    assert_eq!(ground.back(&host, Some(&handle)), Reverted::Undone);
    ground.same();
    assert_eq!(ground.back(&host, Some(&handle)), Reverted::NothingThere, "again");
    ground.same();
    assert_eq!(ground.back(&host, None), Reverted::NothingThere);
    eprintln!("attribute of the file system under test: {:?}", ground.before.attribute);
}

fn cut_short() {
    // After each of the things that an apply does, and each that an undo does; another life knows the handle or not.
    let ways: [(&str, Way); 5] = [
        ("an empty file beside", |_, beside| fs::write(beside, "").expect("written")),
        ("half a file beside", |_, beside| fs::write(beside, &NEW[..5]).expect("written")),
        ("a whole file beside", |_, beside| fs::write(beside, NEW).expect("written")),
        ("exchanged", |ground, beside| {
            let handle = ground.put(&host());
            assert_eq!(ground.beside(&handle), beside);
        }),
        ("exchanged back", |ground, beside| {
            ground.put(&host());
            renameat_with(CWD, beside, CWD, &ground.path, RenameFlags::EXCHANGE).expect("exchanged");
        }),
    ];
    for (way, leave) in ways {
        let ground = Ground::new();
        let handle = ground.put(&host());
        ground.back(&host(), Some(&handle));
        leave(&ground, &ground.beside(&handle));
        assert_ne!(Looks::of(&ground.path), ground.before, "{way} is to be seen");
        assert_eq!(ground.back(&host(), None), Reverted::Undone, "{way}");
        ground.same();
        assert_eq!(ground.back(&host(), None), Reverted::NothingThere, "{way}");
    }
}

fn others() {
    let whole = |ground: &Ground| fs::read_to_string(&ground.path).expect("text");
    // What somebody does; it must be there afterwards.
    let deeds: [(&str, Deed); 4] = [
        ("written into", |path| fs::write(path, "theirs").expect("written")),
        ("replaced", |path| {
            let fresh = path.with_file_name("fresh");
            fs::write(&fresh, NEW).expect("written");
            fs::rename(fresh, path).expect("renamed");
        }),
        ("mode", |path| fs::set_permissions(path, PermissionsExt::from_mode(0o600)).expect("mode")),
        ("removed", |path| fs::remove_file(path).expect("removed")),
    ];
    for (name, deed) in deeds {
        let (ground, host) = (Ground::new(), host());
        let handle = ground.put(&host);
        deed(&ground.path);
        let left = fs::read(&ground.path).ok();
        for again in 0..2 {
            let reverted = ground.back(&host, Some(&handle));
            let Reverted::Superseded(what) = &reverted else { panic!("{name} {again}: {reverted:?}") };
            let beside = ground.beside(&handle);
            assert!(what.contains(beside.file_name().and_then(|n| n.to_str()).expect("a name")), "{what}");
            assert_eq!(fs::read(&ground.path).ok(), left, "{name}");
            assert_eq!(fs::read_to_string(beside).expect("kept"), OLD, "{name}");
        }
    }
    // Who only has the original open is not in the way: what they write is in it when it is back.
    let (ground, host) = (Ground::new(), host());
    let mut open = File::options().append(true).open(&ground.path).expect("open");
    let handle = ground.put(&host);
    std::io::Write::write_all(&mut open, b"more\n").expect("written");
    assert_eq!(ground.back(&host, Some(&handle)), Reverted::Undone);
    assert_eq!(whole(&ground), format!("{OLD}more\n"));
    // The kept file is gone: that is told, and nothing is done.
    let ground = Ground::new();
    let handle = ground.put(&host);
    fs::remove_file(ground.beside(&handle)).expect("removed");
    let reverted = ground.back(&host, Some(&handle));
    assert!(matches!(&reverted, Reverted::Superseded(what) if what.contains("is gone")), "{reverted:?}");
    assert_eq!(whole(&ground), NEW);
}

fn not_as_planned() {
    let deeds: [fn(&Path); 3] = [
        |path| fs::write(path, "changed since").expect("written"),
        |path| {
            fs::remove_file(path).expect("removed");
            symlink("second", path).expect("linked");
        },
        |path| {
            fs::rename(path.with_file_name("second"), path.with_file_name("third")).expect("renamed");
            fs::remove_file(path).expect("removed");
        },
    ];
    for deed in deeds {
        let (ground, host) = (Ground::new(), host());
        deed(&ground.path);
        let names = || {
            let mut names: Vec<_> =
                fs::read_dir(ground.dir.path()).expect("directory").map(|n| n.expect("entry").file_name()).collect();
            names.sort();
            names
        };
        let before = names();
        assert!(run(host.apply(&key("replace"), 0, &ground.step)).is_err());
        assert_eq!(ground.back(&host, None), Reverted::NothingThere);
        assert_eq!(names(), before);
    }
    // A directory on the way that became a link is not followed.
    let (ground, host) = (Ground::new(), host());
    let moved = ground.dir.path().with_extension("moved");
    fs::rename(ground.dir.path(), &moved).expect("renamed");
    symlink(&moved, ground.dir.path()).expect("linked");
    let refused = run(host.apply(&key("replace"), 0, &ground.step)).expect_err("a link");
    assert!(refused.0.contains("cannot be opened"), "{refused}");
    fs::remove_file(ground.dir.path()).expect("removed");
    fs::rename(&moved, ground.dir.path()).expect("renamed");
}

fn without_directory() {
    let (mut ground, host) = (Ground::new(), host());
    let handle = ground.put(&host);
    let away = ground.dir.path().with_extension("away");
    fs::rename(ground.dir.path(), &away).expect("renamed");
    assert!(matches!(ground.back(&host, Some(&handle)), Reverted::Superseded(_)));
    // After a reboot a directory may only not be mounted yet: that is tried again until it is.
    let Step::Replace(replace) = &mut ground.step else { panic!("a replacement") };
    replace.was.boot = BootId::from("an earlier one");
    for _ in 0..2 {
        // After a cut of power the handle is often not known: it was written, but not synced.
        for known in [Some(&handle), None] {
            let failed = run(host.revert(&key("replace"), 0, &ground.step, known)).expect_err("not mounted");
            assert!(failed.0.contains("is its file system mounted?"), "{failed}");
        }
        fs::create_dir_all(ground.dir.path()).expect("an empty mount point");
    }
    let Step::Replace(replace) = &mut ground.step else { panic!("a replacement") };
    replace.was.in_memory = true;
    assert_eq!(ground.back(&host, Some(&handle)), Reverted::NothingThere, "gone with the memory");
    fs::remove_dir(ground.dir.path()).expect("removed");
    fs::rename(&away, ground.dir.path()).expect("mounted at last");
    assert_eq!(ground.back(&host, Some(&handle)), Reverted::Undone);
    ground.same();
}
