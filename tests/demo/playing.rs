//! A demo under way in a room of its own, and what is left of it afterwards. It knows nothing of what a demo shows.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use fracas_agent::host::trials::own_cgroup;
use rustix::process::{Pid, Signal, geteuid, kill_process, kill_process_group};
use serde_json::Value;

use crate::{
    rig::{Heard, LIMIT, RUN_LIMIT, until, wait_for},
    stage::{MARK, look},
};

/// A folder for everything that a demo may write: it works in `work`, its home is `home`, and the temporary directory is
/// `tmp`.
pub(super) struct Room {
    path: PathBuf,
    name: String,
}

impl Room {
    pub(super) fn new(name: &str) -> Self {
        let name = format!("fracas-tests-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(&name);
        for folder in ["work", "home", "tmp"] {
            fs::create_dir_all(path.join(folder)).expect("a room");
        }
        Self { path, name }
    }

    /// Something in the working directory.
    pub(super) fn at(&self, path: &str) -> PathBuf {
        self.path.join("work").join(path)
    }

    /// Names in the working directory, or in a folder of it.
    pub(super) fn names(&self, folder: &str) -> Vec<String> {
        names(&self.at(folder))
    }

    /// A file there, as text.
    pub(super) fn text(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    /// Writes a file there.
    pub(super) fn keep(&self, path: &str, text: &str) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("written");
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let names: BTreeSet<String> = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into()).collect();
    names.into_iter().collect()
}

/// Who reads what a demo prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reader {
    /// The test.
    Test,
    /// Nobody: as when the other side of a pipe has ended.
    Nobody,
}

/// What could be left of a demo, but for processes: the house counts those.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Traces {
    /// The machine's mounts.
    mounts: String,
    /// The machine's network devices.
    links: Vec<String>,
    /// What is in the temporary directory.
    pub(super) temporary: Vec<String>,
    /// What is in its home.
    home: Vec<String>,
    /// Cgroups below the one that the demo was started in.
    pub(super) groups: Vec<String>,
}

/// A cgroup for a demo, where one can be made.
struct Group(PathBuf);

impl Group {
    fn make(name: &str) -> Option<Self> {
        let path = own_cgroup().filter(|_| geteuid().is_root())?.join(name);
        fs::create_dir(&path).ok()?;
        Some(Self(path))
    }

    fn below(&self) -> Vec<String> {
        let directory = |name: &String| self.0.join(name).is_dir();
        names(&self.0).into_iter().filter(directory).collect()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let removed = fs::remove_dir(&self.0);
        assert!(removed.is_ok() || std::thread::panicking(), "{}: {removed:?}", self.0.display());
    }
}

/// See the module.
pub(super) struct Playing {
    house: Child,
    said: Heard,
    pid: Pid,
    place: PathBuf,
    before: Traces,
    group: Option<Group>,
}

/// How a demo ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) code: i64,
    pub(super) out: String,
    pub(super) err: String,
    /// From its end until the last process was gone.
    pub(super) lingered: Duration,
}

impl Playing {
    /// Starts `fracas demo` with these further words in a room, in which nobody else may be.
    pub(super) fn begin(room: &Room, words: &[&str], reader: Reader) -> Self {
        let group = Group::make(&room.name);
        let place = room.path.clone();
        let before = traces(&place, group.as_ref());
        let mut command = Command::new("/proc/self/exe");
        // Whoever runs the tests may have settings of their own.
        let foreign = |name: &str| ["FRACAS_", "XDG_"].iter().any(|start| name.starts_with(start));
        for (name, _) in std::env::vars_os().filter(|(name, _)| foreign(&name.to_string_lossy())) {
            command.env_remove(name);
        }
        command.env("HOME", place.join("home")).env("TMPDIR", place.join("tmp")).env("TZ", "UTC");
        let text = |path: &Path| path.to_str().expect("text").to_owned();
        let below = group.as_ref().map(|group| text(&group.0)).unwrap_or_default();
        let reader = if reader == Reader::Nobody { "none" } else { "file" };
        command.args([MARK, "house", &text(&place), &below, reader, "demo"]).args(words);
        command.current_dir(place.join("work")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut house = command.spawn().expect("a house");
        let said = Heard::listen(std::os::fd::OwnedFd::from(house.stdout.take().expect("pipe")).into());
        let pid = said.find("its process number", LIMIT, |line| line["pid"].as_i64()).expect("started");
        let pid = Pid::from_raw(i32::try_from(pid).expect("a number")).expect("a number");
        Self { house, said, pid, place, before, group }
    }

    /// Its process number.
    pub(super) fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// What it printed so far.
    pub(super) fn out(&self) -> String {
        fs::read_to_string(self.place.join("out")).unwrap_or_default()
    }

    /// What it said beside that.
    pub(super) fn err(&self) -> String {
        fs::read_to_string(self.place.join("err")).unwrap_or_default()
    }

    /// Waits until it says these words, on either stream.
    pub(super) fn says(&self, words: &str) {
        until(words, || {
            let said = [self.out(), self.err()].iter().any(|text| text.contains(words));
            assert!(said || self.plays(), "it ended without saying {words:?}:\n{}\n{}", self.out(), self.err());
            said
        });
    }

    fn plays(&self) -> bool {
        !self.said.lines().iter().any(|line| line.contains("\"code\""))
    }

    /// The first of its processes for which this holds, waited for.
    pub(super) fn process(&self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        wait_for(what, || self.processes().into_iter().find(|process| fits(process)))
    }

    /// Everybody in the house but the house itself.
    pub(super) fn processes(&self) -> Vec<Value> {
        let (mut all, mut mine) = (look::all(), Vec::new());
        let mut parents = BTreeSet::from([i64::from(self.house.id())]);
        loop {
            let (children, others) = all.into_iter().partition(|process: &Value| {
                process["parent"].as_i64().is_some_and(|parent| parents.contains(&parent))
            });
            all = others;
            let children: Vec<Value> = children;
            if children.is_empty() {
                return mine;
            }
            parents.extend(children.iter().filter_map(|child| child["pid"].as_i64()));
            mine.extend(children);
        }
    }

    /// What there is at the moment of what must not be left.
    pub(super) fn traces(&self) -> Traces {
        traces(&self.place, self.group.as_ref())
    }

    /// Whether cgroups of the demo would be seen.
    pub(super) fn sees_groups(&self) -> bool {
        self.group.is_some()
    }

    /// Ctrl-C: a terminal sends it to everybody in the foreground.
    pub(super) fn interrupt(&self) {
        kill_process_group(self.pid, Signal::INT).expect("interrupted");
    }

    /// Kills the demo, and only that process.
    pub(super) fn kill(&self) {
        kill_process(self.pid, Signal::KILL).expect("killed");
    }

    /// Waits for its end. Nothing of it may be left then but what it wrote to its working directory.
    pub(super) fn end(self) -> Ended {
        let end = |line: &Value| Some((line["code"].as_i64()?, line["at"].as_i64()?));
        let (code, at) = self.heard("its end", RUN_LIMIT, end);
        let empty = self.heard("the end of all its processes", LIMIT, |line| line["empty"].as_i64());
        assert_eq!(self.traces(), self.before, "something is left\n{}\n{}", self.out(), self.err());
        let lingered = Duration::from_nanos(u64::try_from(empty - at).expect("in order"));
        Ended { code, out: self.out(), err: self.err(), lingered }
    }

    fn heard<T>(&self, what: &str, limit: Duration, find: impl Fn(&Value) -> Option<T>) -> T {
        self.said
            .find(what, limit, find)
            .unwrap_or_else(|why| panic!("{why}; there are {:#?}\n{}\n{}", self.processes(), self.out(), self.err()))
    }
}

impl Drop for Playing {
    fn drop(&mut self) {
        // Whoever is still there is killed now.
        self.house.stdin = None;
        let _ = self.house.wait();
        if let Some(group) = self.group.as_ref().filter(|_| std::thread::panicking()) {
            group.below().iter().for_each(|name| drop(fs::remove_dir(group.0.join(name))));
        }
    }
}

impl Ended {
    /// It must have ended with this code, as the last of all its processes.
    pub(super) fn with(self, code: i64) -> Self {
        assert_eq!(self.code, code, "{}\n{}", self.out, self.err);
        assert!(self.lingered < Duration::from_secs(1), "some of it was left for {:?}", self.lingered);
        self
    }
}

fn traces(place: &Path, group: Option<&Group>) -> Traces {
    Traces {
        mounts: fs::read_to_string("/proc/self/mountinfo").expect("mounts"),
        links: names(Path::new("/sys/class/net")),
        temporary: names(&place.join("tmp")),
        home: names(&place.join("home")),
        groups: group.map(Group::below).unwrap_or_default(),
    }
}
