//! A whole Fracas in a lab: a controller on the host `ctl`, agents that joined by real tokens, and the command line.
//! Everything goes through the program's own arguments and output, as it does for its users.

mod going;
mod heard;

use std::{
    collections::BTreeMap,
    sync::Mutex,
    time::{Duration, Instant},
};

use fracas_sim::lab::{Host, Lab, Options, Program, Stream};
use rustix::process::Signal;
use serde_json::Value;

pub(crate) use self::{
    going::{Going, Said},
    heard::{Heard, LIMIT, until, wait_for},
};
use crate::{history::Run, stage::part};

/// The controller's data directory on its host.
pub(crate) const DATA: &str = "/run/data/fracas";
/// Every agent's state directory on its host.
pub(crate) const STATE: &str = "/run/data/agent";
/// How long a run of a test may take.
pub(crate) const RUN_LIMIT: Duration = Duration::from_mins(3);

/// Labels by name.
pub(crate) type Labels<'a> = &'a [(&'a str, &'a str)];

/// See the module.
pub(crate) struct Rig {
    /// The lab beneath.
    pub(crate) lab: Lab,
    controller: Mutex<Option<Going>>,
    agents: Mutex<BTreeMap<String, Going>>,
    /// What all controllers and agents of the rig logged, for a test that fails.
    logs: Mutex<Vec<(String, Heard)>>,
}

impl Rig {
    /// A lab with a controller and one agent on each of these hosts, all in contact.
    pub(crate) fn start(agents: &[(&str, Labels<'_>)]) -> Self {
        let names: Vec<&str> = agents.iter().map(|(name, _)| *name).collect();
        let rig = Self::bare(&names);
        rig.start_controller();
        for (name, labels) in agents {
            rig.join(name, labels);
        }
        rig.until_connected(&names);
        rig
    }

    /// A lab with the host `ctl` and these, on which nothing runs yet.
    pub(crate) fn bare(hosts: &[&str]) -> Self {
        Self::bare_with(Options::default(), hosts)
    }

    /// The same with a lab of the caller's wishes.
    pub(crate) fn bare_with(options: Options, hosts: &[&str]) -> Self {
        let lab = Lab::start(options).expect("lab");
        let names: Vec<&str> = ["ctl"].iter().chain(hosts).copied().collect();
        lab.add_hosts(&names).expect("hosts");
        Self { lab, controller: Mutex::default(), agents: Mutex::default(), logs: Mutex::default() }
    }

    /// A host by name.
    pub(crate) fn host(&self, name: &str) -> Host {
        self.lab.host(name).unwrap_or_else(|| panic!("no host {name}"))
    }

    /// The address of a host.
    pub(crate) fn address(&self, name: &str) -> String {
        self.host(name).v4().to_string()
    }

    // === the controller ===

    /// The controller's program, with its usual places and ports.
    pub(crate) fn controller_program(&self, data: &str) -> Program {
        let fleet = format!("{}:7767", self.address("ctl"));
        part(&["fracas", "controller", "--data-dir", data, "--fleet-listen", &fleet, "--name", "ctl"])
    }

    /// Starts the controller and waits until it answers and its observer looks.
    pub(crate) fn start_controller(&self) {
        self.start_controller_as(self.controller_program(DATA));
    }

    /// Starts the controller as this program.
    pub(crate) fn start_controller_as(&self, program: Program) {
        let going = self.go("ctl", "controller", program);
        *self.controller.lock().expect("lock") = Some(going);
        until("the observer is in contact", || {
            let hosts = self.fracas(&["hosts", "--output", "json"]);
            hosts.code == 0 && hosts.json()[0]["hosts"].as_array().is_some_and(|h| h.iter().any(observes))
        });
    }

    /// Sends the controller a signal.
    pub(crate) fn signal_controller(&self, signal: Signal) {
        self.controller.lock().expect("lock").as_ref().expect("a controller").signal(signal);
    }

    /// Process number of the controller, on its host.
    pub(crate) fn controller_pid(&self) -> i32 {
        self.controller.lock().expect("lock").as_ref().expect("a controller").pid()
    }

    /// Waits for the controller's end and forgets it.
    pub(crate) fn end_controller(&self, limit: Duration) -> Said {
        let going = self.controller.lock().expect("lock").take().expect("a controller");
        going.end(limit)
    }

    /// Kills the controller without warning.
    pub(crate) fn kill_controller(&self) {
        self.controller.lock().expect("lock").take().expect("a controller").kill();
    }

    /// What the controller logged so far, all its lives together.
    pub(crate) fn controller_log(&self) -> String {
        self.log_of("controller")
    }

    /// What the agent of a host logged so far, all its lives together.
    pub(crate) fn agent_log(&self, host: &str) -> String {
        self.log_of(host)
    }

    fn log_of(&self, who: &str) -> String {
        let logs = self.logs.lock().expect("lock");
        logs.iter().filter(|(name, _)| name == who).map(|(_, log)| log.text()).collect::<Vec<_>>().join("\n")
    }

    /// Ends the controller in good order and proves its history.
    pub(crate) fn verify_history(&self) {
        self.signal_controller(Signal::TERM);
        let ended = self.end_controller(Duration::from_mins(2));
        assert_eq!(ended.code, 0, "the controller ended badly: {}", ended.err);
        self.verify_data(DATA);
    }

    /// Proves the history in a data directory that no controller holds.
    pub(crate) fn verify_data(&self, data: &str) {
        let verify = ["fracas", "controller", "verify", "--data-dir", data, "--output", "json"];
        let said = self.say("ctl", part(&verify));
        assert_eq!(said.code, 0, "the history is not whole: {}", said.text());
        let found = said.json().remove(0);
        assert!(found["whole"] == true && found["broken"] == serde_json::json!([]), "{found}");
        assert!(found["records"].as_u64() > Some(0) && found["signedHeads"].as_u64() > Some(0), "{found}");
    }

    // === agents ===

    /// A new join token for a host with these labels.
    pub(crate) fn token(&self, labels: Labels<'_>) -> String {
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut words = vec!["hosts", "join-token", "--output", "json"];
        for label in &labels {
            words.extend(["--label", label]);
        }
        self.fracas(&words).good().json()[0]["token"].as_str().expect("token").to_owned()
    }

    /// An agent's program on a host, with its usual places.
    pub(crate) fn agent_program(&self, name: &str) -> Program {
        let controller = format!("{}:7767", self.address("ctl"));
        part(&["fracas", "agent", "--controller", &controller, "--state-dir", STATE, "--name", name])
    }

    /// Lets a host join and starts its agent.
    pub(crate) fn join(&self, name: &str, labels: Labels<'_>) {
        let token = self.token(labels);
        self.start_agent_as(name, self.agent_program(name).env("FRACAS_JOIN_TOKEN", token));
    }

    /// Starts an agent that joined before.
    pub(crate) fn start_agent(&self, name: &str) {
        self.start_agent_as(name, self.agent_program(name));
    }

    /// Starts an agent as this program.
    pub(crate) fn start_agent_as(&self, name: &str, program: Program) {
        let going = self.go(name, name, program);
        self.agents.lock().expect("lock").insert(name.to_owned(), going);
    }

    /// Process number of a host's agent, on that host.
    pub(crate) fn agent_pid(&self, name: &str) -> i32 {
        self.agents.lock().expect("lock")[name].pid()
    }

    /// Sends an agent a signal.
    pub(crate) fn signal_agent(&self, name: &str, signal: Signal) {
        self.agents.lock().expect("lock")[name].signal(signal);
    }

    /// Waits until the agent of a host, in its present life, is in contact with the controller; false if it ended before.
    pub(crate) fn agent_reports(&self, name: &str) -> bool {
        let log = self.agents.lock().expect("lock")[name].err.clone();
        wait_for(&format!("the agent of {name} is in contact"), || {
            let (reports, runs) = (log.text().contains("in contact with the controller"), self.agent_runs(name));
            (reports || !runs).then_some(runs)
        })
    }

    /// Whether the agent of a host has not ended.
    pub(crate) fn agent_runs(&self, name: &str) -> bool {
        self.agents.lock().expect("lock")[name].runs()
    }

    /// Waits for an agent's end.
    pub(crate) fn end_agent(&self, name: &str, limit: Duration) -> Said {
        let going = self.agents.lock().expect("lock").remove(name).expect("an agent");
        going.end(limit)
    }

    /// Waits until all these hosts are in contact.
    pub(crate) fn until_connected(&self, names: &[&str]) {
        until(&format!("{names:?} are in contact"), || {
            let hosts = self.hosts();
            names.iter().all(|name| hosts.get(*name).is_some_and(|host| host["connected"] == true))
        });
    }

    /// The fleet as the controller tells it, by name.
    pub(crate) fn hosts(&self) -> BTreeMap<String, Value> {
        let said = self.fracas(&["hosts", "--output", "json"]).good().json().remove(0);
        let hosts = said["hosts"].as_array().expect("hosts").iter();
        hosts.map(|host| (host["name"].as_str().expect("name").to_owned(), host.clone())).collect()
    }

    // === the command line ===

    /// A command for the controller's host.
    pub(crate) fn command(words: &[&str]) -> Program {
        part(&["fracas"])
            .args(words.iter().copied())
            .env("FRACAS_CONTEXT", format!("{DATA}/admin.yaml"))
            .env("TZ", "UTC")
    }

    /// A command on the controller's host, to its end.
    pub(crate) fn fracas(&self, words: &[&str]) -> Said {
        self.fracas_going(words).end(RUN_LIMIT)
    }

    /// A command on the controller's host, under way.
    pub(crate) fn fracas_going(&self, words: &[&str]) -> Going {
        Going::start(&self.host("ctl"), Self::command(words))
    }

    /// Writes a document to the controller's host and gives its path.
    pub(crate) fn document(&self, name: &str, text: &str) -> String {
        let path = format!("/run/{name}.yaml");
        self.keep("ctl", &path, text);
        path
    }

    /// Runs an experiment to its end.
    pub(crate) fn run(&self, document: &str) -> Run {
        self.run_with(document, &[])
    }

    /// Runs an experiment with further arguments.
    pub(crate) fn run_with(&self, document: &str, words: &[&str]) -> Run {
        self.finish(self.begin(document, words))
    }

    /// Starts an experiment.
    pub(crate) fn begin(&self, document: &str, words: &[&str]) -> Going {
        let path = self.document("experiment", document);
        let all: Vec<&str> = ["run", &path, "--yes", "--output", "json"].iter().chain(words).copied().collect();
        self.fracas_going(&all)
    }

    /// Waits for the end of an experiment under way and fetches its report.
    pub(crate) fn finish(&self, going: Going) -> Run {
        let said = going.end(RUN_LIMIT);
        Run::read(said, |run| {
            let words = ["report", run, "--format", "json"];
            serde_json::from_str(&self.fracas(&words).good().out).expect("report")
        })
    }

    /// Waits for the end of an experiment whose controller goes away with it, so that there is nobody to ask for a report.
    pub(crate) fn finish_without_report(going: Going) -> Run {
        Run::read(going.end(RUN_LIMIT), |_| Value::Null)
    }

    // === programs on hosts ===

    /// Starts a program on a host whose log is kept for a test that fails.
    pub(crate) fn go(&self, host: &str, name: &str, program: Program) -> Going {
        let going = Going::start(&self.host(host), program);
        self.logs.lock().expect("lock").push((name.to_owned(), going.err.clone()));
        going
    }

    /// Runs a program to its end.
    pub(crate) fn say(&self, host: &str, program: Program) -> Said {
        Going::start(&self.host(host), program).end(LIMIT)
    }

    /// Runs a program that must succeed; what it wrote.
    pub(crate) fn read(&self, host: &str, program: Program) -> String {
        self.say(host, program).good().out
    }

    /// Runs a line of shell that must succeed; what it wrote.
    pub(crate) fn shell(&self, host: &str, script: &str) -> String {
        self.read(host, Program::new("sh").args(["-c", script]))
    }

    /// A page of an HTTP server on a host, as that host gets it: code, and body.
    pub(crate) fn page(&self, host: &str, address: &str, path: &str) -> (u64, String) {
        let said = self.say(host, part(&["get", address, path])).good().json().remove(0);
        (said["code"].as_u64().unwrap_or(0), said["body"].as_str().expect("body").to_owned())
    }

    /// Writes a file on a host.
    pub(crate) fn keep(&self, host: &str, path: &str, text: &str) {
        use std::io::Write as _;
        let program = part(&["keep", path]).stdin(Stream::Pipe);
        let mut running = self.host(host).spawn(program).expect("started");
        running.stdin.take().expect("pipe").write_all(text.as_bytes()).expect("written");
        let end = running.wait_for(LIMIT).expect("lab").expect("it ends");
        assert!(end.success(), "{path} cannot be written on {host}");
    }

    /// Every process of a host.
    pub(crate) fn processes(&self, host: &str) -> Vec<Value> {
        self.say(host, part(&["processes"])).good().json()
    }

    /// One process of a host; `None` when it is gone.
    pub(crate) fn process(&self, host: &str, pid: i32) -> Option<Value> {
        self.processes(host).into_iter().find(|process| process["pid"] == pid)
    }

    /// Ends all in good order: every agent must be able to leave with nothing open.
    pub(crate) fn stop(self) {
        let names: Vec<String> = self.agents.lock().expect("lock").keys().cloned().collect();
        for name in names {
            self.signal_agent(&name, Signal::TERM);
            let ended = self.end_agent(&name, LIMIT);
            assert_eq!(ended.code, 0, "agent {name} left something: {}", ended.err);
        }
        self.verify_history();
    }
}

fn observes(host: &Value) -> bool {
    host["observer"] == true && host["connected"] == true
}

impl Drop for Rig {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for (name, log) in self.logs.get_mut().expect("lock").iter() {
                let lines = log.lines();
                let last = &lines[lines.len().saturating_sub(40)..];
                eprintln!("--- log of {name} (last {} of {} lines)\n{}", last.len(), lines.len(), last.join("\n"));
            }
        }
    }
}

/// How long something took, with its result.
pub(crate) fn timed<T>(what: impl FnOnce() -> T) -> (T, Duration) {
    let begun = Instant::now();
    (what(), begun.elapsed())
}
