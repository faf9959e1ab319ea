//! nginx serves a file that is replaced for a while: under a run, and under an agent that is killed.

use std::time::Duration;

use fracas_sim::{lab::Program, need::Need};
use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::{
    residue::Dump,
    rig::{Going, Rig, timed, until},
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    const NEEDS: &[Need] = &[Need::Lab, Need::Program("nginx"), Need::Program("curl")];
    vec![
        trial("nginx_serves_a_replaced_file_and_then_its_own", NEEDS, replaced),
        trial("a_replaced_file_is_put_back_when_the_agent_is_killed", NEEDS, killed),
        trial("what_must_not_be_replaced_is_refused_beforehand", &[Need::Lab], refused),
    ]
}

const PAGE: &str = "/tmp/site/index.html";

const DOCUMENT: &str = r#"
apiVersion: fracas/v1
kind: Experiment
name: page-is-broken
parameters:
  length: { type: duration, default: 2s }
services:
  web: { rto: 1s }
targets:
  web: { select: "role=web" }
  edge: { select: "role=edge" }
probes:
  page:
    service: web
    http: { url: "http://web/", status: 200, body: welcome }
    from: edge
    every: 20ms
    timeout: 2s
steadyState: { probes: [page], holdFor: 7s, giveUpAfter: 2m }
timeline:
  - id: break
    at: 0s
    fault: { file-replace: { path: /tmp/site/index.html, content: "out of order" } }
    target: web
    for: "${length}"
recovery: { stableFor: 1s, giveUpAfter: 30s }
"#;

/// A host whose nginx serves [`PAGE`], and another to look from.
struct Site {
    rig: Rig,
    nginx: Going,
    about: String,
    before: Dump,
}

impl Site {
    fn open() -> Self {
        let rig = Rig::start(&[("web", &[("role", "web")]), ("edge", &[("role", "edge")])]);
        rig.shell(
            "web",
            &format!("mkdir /tmp/site && umask 027 && echo welcome > {PAGE} && touch -d 2001-02-03 {PAGE}"),
        );
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|what| format!("{what}_temp_path /run/nginx-{what};"));
        let config = format!(
            "daemon off;\nuser root root;\npid /run/nginx.pid;\nerror_log stderr;\nevents {{}}\n\
             http {{ access_log off; {} server {{ listen 80; root /tmp/site; }} }}\n",
            temporary.join(" ")
        );
        rig.keep("web", "/run/nginx.conf", &config);
        let words = ["-c", "/run/nginx.conf", "-e", "stderr"];
        let nginx = rig.go("web", "nginx", Program::new("/usr/sbin/nginx").args(words));
        let address = rig.address("web");
        until("nginx serves its page", || served(&rig, &address) == "welcome");
        let about = about(&rig);
        let before = Dump::of(&rig, "web");
        Self { rig, nginx, about, before }
    }

    fn served(&self) -> String {
        served(&self.rig, &self.rig.address("web"))
    }

    /// Everything is as it was: the page, the file that it is in, and the host.
    fn same(&self) {
        assert_eq!(self.served(), "welcome");
        assert_eq!(about(&self.rig), self.about);
        Dump::of(&self.rig, "web").expect_same(&self.before);
        assert!(self.nginx.runs());
    }
}

/// What somebody else's program gets to read, from another host.
fn served(rig: &Rig, address: &str) -> String {
    rig.say("edge", Program::new("curl").args(["-s", "-m", "5", &format!("http://{address}/")])).out.trim().to_owned()
}

/// Everything of the file that must come back: its number, mode, links, owner, size, times.
fn about(rig: &Rig) -> String {
    rig.shell("web", &format!("stat -c '%i %a %h %u %g %s %y' {PAGE}; ls -A /tmp/site"))
}

fn replaced() {
    let site = Site::open();
    let going = site.rig.begin(DOCUMENT, &[]);
    going.event("active");
    assert_eq!(site.served(), "out of order");
    let during = Dump::of(&site.rig, "web");
    site.before.expect_change(&during, "files");
    let run = site.rig.finish(going);
    run.ended("fail", 1);
    assert!(run.reasons().contains("while the fault was held, beyond 1s"), "{}", run.reasons());
    assert_eq!(run.item("break")["proof"]["state"], "verified", "{}", run.story());
    assert_eq!(run.undo_causes(), ["expired"]);
    site.same();
    site.rig.stop();
}

fn killed() {
    let site = Site::open();
    let going = site.rig.begin(DOCUMENT, &["--set", "length=5m"]);
    going.event("active");
    assert_eq!(site.served(), "out of order");
    site.rig.signal_agent("web", Signal::KILL);
    let ((), took) = timed(|| until("the page is itself again", || site.served() == "welcome"));
    eprintln!("page back {took:?} after SIGKILL of the agent");
    assert!(took < Duration::from_secs(10), "nobody waited for the lease: {took:?}");
    site.rig.start_agent("web");
    site.rig.until_connected(&["web"]);
    let run = site.rig.finish(going);
    assert_eq!(run.undo_causes(), ["agentRestart"], "{}", run.story());
    site.same();
    site.rig.stop();
}

fn refused() {
    let rig = Rig::start(&[("web", &[("role", "web")])]);
    rig.shell("web", "ln -s /etc/passwd /tmp/way; mkfifo /tmp/pipe");
    for (path, why) in [
        ("/etc/passwd", "is protected: the system needs what is in /etc/passwd"),
        ("/tmp/way", "is protected: the system needs what is in /etc/passwd"),
        ("/tmp/pipe", "is a pipe, socket or device"),
        ("/tmp", "is a directory"),
        ("/tmp/none", "does not exist"),
    ] {
        let text = format!(
            "apiVersion: fracas/v1\nkind: Experiment\nname: no\ntargets: {{ web: {{ select: \"role=web\" }} }}\n\
             timeline:\n  - {{ id: it, at: 0s, fault: {{ file-replace: {{ path: {path}, content: x }} }}, target: web, for: 5s }}\n\
             recovery: {{ stableFor: 1s, giveUpAfter: 1s }}\n"
        );
        let document = rig.document("no", &text);
        let said = rig.fracas(&["plan", &document]);
        assert_eq!(said.code, 7, "{path}: {}", said.text());
        assert!(said.text().split_whitespace().collect::<Vec<_>>().join(" ").contains(why), "{path}: {}", said.text());
    }
    rig.stop();
}
