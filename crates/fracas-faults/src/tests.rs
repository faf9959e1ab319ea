//! Laws that every fault of the table keeps, and what the faults on processes and cores refuse.

use fracas_model::{
    catalogue::{Capability, Nature, Params},
    check::check,
    diagnostic::Findings,
    digest,
    facts::{Ability, Device, Facts, FileKind, FileMark, FileSeen, HostFacts, Space, UnitSeen, VolumeSeen},
    plan::{Check, Claim, Direction, Kind, Plan, Refusal, Step},
    policy::Policy,
    process::{Process, ProcessRef},
    shape::Shape,
    tree::parse,
    units::Size,
};

use crate::{ALL, Fault};

/// A host that can do everything: 4 cores, two devices, some servers.
fn facts() -> Facts {
    let ability = Ability { works: true, why: String::new(), fix: String::new() };
    let device = |name: &str, index, loopback| Device { name: name.into(), index, loopback, up: true, stacked: false };
    Facts {
        host: HostFacts {
            cpus: 4,
            cores: vec![0, 1, 2, 3],
            abilities: Capability::ALL.into_iter().map(|c| (c, ability.clone())).collect(),
            ..HostFacts::default()
        },
        policy: Policy::builtin(),
        processes: vec![
            process(1, 0, "systemd"),
            process(50, 1, "launcher"),
            process(60, 50, "fracas-agent"),
            process(100, 1, "postgres"),
            process(101, 100, "postgres"),
            process(200, 1, "redis-server"),
            process(300, 1, "nginx"),
            process(310, 1, "nginx"),
            process(400, 1, "sshd"),
        ],
        pid_in_file: Some(200),
        devices: vec![device("lo", 1, true), device("eth0", 2, false)],
        file: Some(file("/etc/nginx/nginx.conf")),
        volume: Some(VolumeSeen {
            directory: "/var/lib/postgresql".into(),
            device: "8:1".into(),
            space: Space { total_bytes: 100 << 30, free_bytes: 60 << 30, left_bytes: 55 << 30 },
            unnamed: None,
        }),
        unit: Some(Ok(UnitSeen {
            name: "nginx.service".into(),
            load: "loaded".into(),
            active: "active".into(),
            stoppable: true,
            dependents: vec![],
            ours: false,
        })),
        own_paths: vec!["/var/lib/fracas-agent".into()],
        own_pids: vec![60],
        controllers: vec!["192.0.2.1:7443".into()],
        near_ports: vec![],
        slot: 3,
    }
}

fn process(pid: i32, parent: i32, name: &str) -> Process {
    let id = ProcessRef { pid, start_ticks: 1, name: name.into() };
    let ports = if pid == 100 { vec![5432] } else { Vec::new() };
    let unit = (300..400).contains(&pid).then(|| "nginx.service".to_owned());
    Process { id, parent, exe: None, argv0: None, uid: 0, kernel: false, ports, unit }
}

fn file(path: &str) -> FileSeen {
    let mark = FileMark { size_bytes: 612, sha256: digest::of_text("ok"), ..FileMark::any() };
    let path = path.to_owned();
    FileSeen { path, leaves: false, kind: FileKind::Regular, mounted: false, uid: 33, mode: 0o644, mark }
}

/// The parameters of a fault out of a text, checked as a document's would be.
fn params(fault: &dyn Fault, text: &str) -> Params {
    let mut findings = Findings::new("example", text);
    let node = parse(text, &mut findings).expect("YAML");
    let value = check(&node, &Shape::Object(fault.info().params), &mut findings);
    findings.finish().unwrap_or_else(|wrong| panic!("{text}: {}", wrong[0].render()));
    let Some(serde_json::Value::Object(map)) = value else { panic!("{text} is not a mapping") };
    Params(map)
}

fn named(name: &str) -> &'static dyn Fault {
    *ALL.iter().find(|f| f.info().name == name).expect(name)
}

fn plan_on(name: &str, text: &str, facts: &Facts) -> Result<Plan, Refusal> {
    named(name).plan(&params(named(name), text), facts)
}

fn plan(name: &str, text: &str) -> Result<Plan, Refusal> {
    plan_on(name, text, &facts())
}

#[test]
fn every_fault_is_described_and_its_example_plans() {
    let mut names = Vec::new();
    for fault in ALL {
        let info = fault.info();
        assert!(!info.summary.is_empty() && info.help.len() > 200, "{}", info.name);
        assert!(info.params.iter().all(|p| !p.doc.is_empty()), "{}", info.name);
        assert!(!names.contains(&info.name), "{} twice", info.name);
        let inner = info.example.trim().strip_prefix('{').and_then(|e| e.strip_suffix('}')).expect(&info.name);
        let inner = inner.trim().strip_prefix(&format!("{}:", info.name)).expect(&info.name);
        let params = params(*fault, inner);
        let plan = fault.plan(&params, &facts()).expect(&info.name);
        assert!(!plan.steps.is_empty() && !plan.summary.is_empty(), "{}", info.name);
        let spent = plan.steps.iter().all(|s| s.kind() == Kind::Spent);
        assert_eq!(spent, info.nature == Nature::Spent, "{}", info.name);
        assert!(spent || !plan.claims.is_empty(), "{} claims nothing", info.name);
        // What volatile numbers would change is not what people approved.
        assert_eq!(plan, fault.plan(&params, &facts()).expect(&info.name), "{} is not pure", info.name);
        names.push(info.name);
    }
}

#[test]
fn processes_are_chosen_as_roots_and_never_trimmed() {
    let kill = |text: &str| plan("process-kill", text);
    let pids = |plan: &Plan| match &plan.check {
        Check::Gone { processes } | Check::Delivered { processes, .. } => {
            processes.iter().map(|p| p.pid).collect::<Vec<_>>()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(pids(&kill("{ name: postgres }").unwrap()), [100]);
    assert_eq!(pids(&kill("{ port: 5432 }").unwrap()), [100]);
    assert_eq!(pids(&kill("{ pidFile: /run/redis.pid, signal: HUP }").unwrap()), [200]);
    assert_eq!(pids(&kill("{ unit: nginx, count: 2 }").unwrap()), [300, 310]);
    let usr1 = kill("{ name: postgres, signal: USR1 }").unwrap();
    assert!(matches!(&usr1.steps[..], [Step::Signal { signal: 10, .. }]), "{usr1:?}");
    for (text, why) in [
        ("{ unit: nginx }", "pids 300, 310"),
        ("{ name: nginx }", "count allows 1"),
        ("{ name: mysqld }", "no process matches name mysqld"),
        ("{ port: 80 }", "listen on TCP port 80"),
        ("{ unit: mysql.service }", "no process belongs to unit mysql.service"),
        ("{ name: sshd }", "sshd keeps the host reachable"),
        ("{ name: systemd }", "it is the init process"),
        ("{ name: fracas-agent }", "it belongs to the agent"),
        ("{ name: launcher }", "it started the agent"),
        ("{ name: postgres, port: 5432 }", "two ways"),
        ("{ signal: TERM }", "no process is chosen"),
    ] {
        let refusal = kill(text).expect_err(text);
        assert!(refusal.why.contains(why) && !refusal.instead.is_empty(), "{text}: {refusal}");
    }
}

#[test]
fn a_pause_takes_the_plane_the_host_has() {
    let seized = plan("process-pause", "{ name: postgres }").unwrap();
    assert!(matches!(&seized.steps[..], [Step::Seize { .. }]), "{seized:?}");
    assert_eq!(seized.claims, [Claim::Process(100)]);
    let mut poor = facts();
    poor.host.abilities.remove(&Capability::Ptrace);
    let suspended = plan_on("process-pause", "{ name: postgres }", &poor).unwrap();
    assert!(matches!(&suspended.steps[..], [Step::Suspend { .. }]), "{suspended:?}");
    poor.host.uid = 1000;
    let ability = Ability { works: false, why: "signals stay at home".into(), fix: "run as root".into() };
    poor.host.abilities.insert(Capability::SignalAny, ability);
    for fault in ["process-pause", "process-kill"] {
        let refusal = plan_on(fault, "{ name: postgres }", &poor).expect_err(fault);
        assert!(refusal.why.contains("signals stay at home") && refusal.instead == "run as root", "{refusal}");
    }
}

#[test]
fn cores_are_those_the_agent_may_use() {
    let cores = |text: &str, facts: &Facts| {
        plan_on("cpu-load", text, facts).map(|plan| match plan.steps.into_iter().next() {
            Some(Step::Burn(burn)) => burn.cores,
            other => panic!("{other:?}"),
        })
    };
    let mut facts = facts();
    facts.host.cores = vec![2, 3];
    facts.host.cpus = 2;
    assert_eq!(cores("{ percent: 50% }", &facts), Ok(vec![2, 3]));
    assert_eq!(cores("{ percent: 50%, cores: 1 }", &facts), Ok(vec![2]));
    assert_eq!(cores("{ percent: 50%, cores: [3, 2, 3] }", &facts), Ok(vec![2, 3]));
    let refusal = cores("{ percent: 50%, cores: [0] }", &facts).expect_err("core 0");
    assert_eq!(refusal.to_string(), "core 0 is not one the agent may use; choose from 2, 3");
    assert!(cores("{ percent: 50%, cores: 3 }", &facts).expect_err("3").why.contains("may use 2"));
    let total = plan("cpu-load", "{ percent: 80%, mode: total, cores: 2 }").unwrap();
    assert_eq!(total.summary, "use 80% of 2 cores");
}

/// How a file or its host differs from those of the other tests.
type Change = &'static dyn Fn(&mut Facts, &mut FileSeen);

#[test]
fn only_files_that_can_be_put_back_and_are_nobodys_lifeline_are_replaced() {
    let on = |path: &str, change: &dyn Fn(&mut Facts, &mut FileSeen)| {
        let (mut facts, mut seen) = (facts(), file(path));
        change(&mut facts, &mut seen);
        facts.file = Some(seen);
        plan_on("file-replace", &format!("{{ path: {path}, content: new }}"), &facts)
    };
    let plan = on("/srv/index.html", &|_, _| {}).unwrap();
    assert_eq!(plan.claims, [Claim::File("/srv/index.html".into())]);
    assert_eq!(plan.summary, "replace /srv/index.html by a file of 3 bytes");
    let linked = on("/srv/index.html", &|_, seen| seen.path = "/srv/www/index.html".into()).unwrap();
    assert_eq!(linked.claims, [Claim::File("/srv/www/index.html".into())], "held under its real name");
    let (mut later, mut other) = (plan.clone(), plan.clone());
    let Step::Replace(replace) = &mut later.steps[0] else { panic!("{later:?}") };
    (replace.was.inode, replace.was.sha256) = (77, String::new());
    assert_eq!(digest::of_plan(&plan), digest::of_plan(&later), "what is put back is what was there");
    let Step::Replace(replace) = &mut other.steps[0] else { panic!("{other:?}") };
    replace.content = "other".into();
    assert_ne!(digest::of_plan(&plan), digest::of_plan(&other));
    let refused: &[(&str, Change, &str)] = &[
        ("/etc/passwd", &|_, _| {}, "/etc/passwd"),
        ("/etc/ssh/sshd_config", &|_, _| {}, "protected"),
        ("/usr/sbin/nginx", &|_, _| {}, "protected"),
        ("/var/lib/fracas-agent/journal", &|_, _| {}, "belongs to the agent"),
        ("/srv/x", &|_, seen| seen.path = "/etc/shadow".into(), "/etc/shadow"),
        ("/srv/x", &|facts, _| facts.policy.protect_paths.push("/srv".into()), "the host's policy protects /srv"),
        (
            "/srv/x",
            &|_, seen| (seen.leaves, seen.path) = (true, "/opt/x".into()),
            "leads out of its directory, to /opt/x",
        ),
        ("/srv/x", &|_, seen| seen.kind = FileKind::Directory, "is a directory"),
        ("/srv/x", &|_, seen| seen.kind = FileKind::Special, "pipe, socket or device"),
        ("/srv/x", &|_, seen| seen.mounted = true, "mount point"),
        ("/srv/x", &|_, seen| seen.mode = 0o4755, "set-user-id"),
        ("/srv/x", &|_, seen| seen.mark.size_bytes = 1 << 30, "larger (1GiB) than the 16MiB"),
        ("/srv/x", &|facts, _| facts.host.uid = 1000, "belongs to user 33"),
        ("/srv/x", &|_, seen| (seen.mark.sha256, seen.mark.size_bytes) = (digest::of_text("new"), 3), "already"),
    ];
    for (path, change, why) in refused {
        let refusal = on(path, change).expect_err(why);
        assert!(refusal.why.contains(why) && !refusal.instead.is_empty(), "{path}: {refusal}");
    }
    let none = plan_on("file-replace", "{ path: /srv/x, content: \"\" }", &Facts { file: None, ..facts() });
    assert!(none.expect_err("nothing there").why.contains("does not exist"));
}

#[test]
fn a_disk_is_filled_as_far_as_its_owner_lets_it() {
    let on = |text: &str, change: &dyn Fn(&mut Facts)| {
        let mut facts = facts();
        change(&mut facts);
        plan_on("disk-fill", text, &facts)
    };
    let full = on("{ path: /srv, left: 64MiB }", &|_| {}).unwrap();
    assert_eq!(full.summary, "fill the disk of /var/lib/postgresql until 64MiB is left");
    assert_eq!(full.claims, [Claim::Space("8:1".into())]);
    assert!(on("{ path: /srv, used: 100% }", &|facts| facts.policy.disk_reserve = Size(0)).is_ok());
    for (text, change, why) in [
        ("{ path: /srv }", &(|_: &mut Facts| {}) as &dyn Fn(&mut Facts), "no goal"),
        ("{ path: /srv, used: 90%, left: 1GiB }", &|_| {}, "two goals"),
        ("{ path: /srv, used: 100% }", &|_| {}, "at most 99.93%"),
        ("{ path: /srv, left: 1MiB }", &|_| {}, "at least 64MiB"),
        ("{ path: /srv, size: 1TB }", &|_| {}, "at most 56256MiB"),
        ("{ path: /srv, used: 20% }", &|_| {}, "is so full already"),
        ("{ path: /srv, left: 60GiB }", &|_| {}, "is so full already"),
        ("{ path: /srv, used: 90% }", &|facts| facts.volume = None, "no directory /srv"),
        ("{ path: /srv, used: 90% }", &|f| f.policy.protect_paths.push("/var/lib".into()), "policy protects /var/lib"),
        (
            "{ path: /srv, used: 90% }",
            &|facts| facts.volume.as_mut().unwrap().unnamed = Some("Operation not supported".into()),
            "not supported",
        ),
    ] {
        let refusal = on(text, change).expect_err(why);
        assert!(refusal.to_string().contains(why) && !refusal.instead.is_empty(), "{text}: {refusal}");
    }
}

/// How a unit or its host differs from those of the other tests.
type UnitChange<'c> = &'c dyn Fn(&mut Facts, &mut UnitSeen);

#[test]
fn only_units_that_undo_can_bring_back_are_stopped() {
    let on = |text: &str, change: &dyn Fn(&mut Facts, &mut UnitSeen)| {
        let mut facts = facts();
        let mut seen = facts.unit.clone().unwrap().unwrap();
        change(&mut facts, &mut seen);
        facts.unit = facts.unit.map(|unit| unit.map(|_| seen));
        plan_on("service-stop", text, &facts)
    };
    let plan = on("{ unit: www }", &|_, _| {}).unwrap();
    assert_eq!(plan.steps, [Step::StopUnit { unit: "nginx.service".into() }], "under its own name");
    assert_eq!(plan.claims, [Claim::Unit("nginx.service".into())]);
    let silent = |f: &mut Facts, _: &mut UnitSeen| f.unit = Some(Err("systemd does not run this host".into()));
    let cases: &[(&str, UnitChange<'_>, &str)] = &[
        ("{ unit: nginx }", &silent, "systemd does not run this host"),
        ("{ unit: nginx }", &|_, seen| seen.load = "not-found".into(), "no unit nginx.service"),
        ("{ unit: nginx }", &|_, seen| seen.active = "inactive".into(), "is inactive"),
        ("{ unit: nginx }", &|_, seen| seen.stoppable = false, "may not be stopped"),
        ("{ unit: nginx }", &|_, seen| seen.ours = true, "the agent runs in it"),
        ("{ unit: nginx }", &|_, seen| seen.name = "ssh.service".into(), "reachable"),
        ("{ unit: dbus.socket }", &|_, _| {}, "reachable"),
        ("{ unit: nginx }", &|_, seen| seen.dependents = vec!["app.service".into()], "app.service"),
        ("{ unit: nginx }", &|facts, _| facts.policy.protect_processes.push("nginx".into()), "policy protects nginx"),
        ("{ unit: nginx }", &|facts, _| facts.host.uid = 1000, "as root"),
        ("{ unit: multi-user.target }", &|_, _| {}, "service, socket, timer or path"),
        ("{ unit: \"a/b\" }", &|_, _| {}, "not the name of a unit"),
    ];
    for (text, change, why) in cases {
        let refusal = on(text, *change).expect_err(why);
        assert!(refusal.to_string().contains(why) && !refusal.instead.is_empty(), "{text}: {refusal}");
    }
}

#[test]
fn packets_are_chosen_and_what_must_pass_passes() {
    let plan =
        plan("net-delay", "{ delay: 200ms, jitter: 20ms, to: [10.1.0.0/16, fd00::/8], ports: [5432, 80-90] }").unwrap();
    let Check::Packets { direction: Direction::Ingress, filter, .. } = &plan.check else { panic!("{plan:?}") };
    assert_eq!(filter.remotes, ["10.1.0.0/16", "fd00::/8"]);
    assert_eq!(filter.ports, [(80, 90), (5432, 5432)]);
    assert_eq!(filter.pass_ports, [22]);
    assert!(filter.pass_remotes.contains(&("192.0.2.1/32".into(), 7443)), "{filter:?}");
    assert!(filter.pass_remotes.contains(&("169.254.169.254/32".into(), 0)), "{filter:?}");
    assert_eq!(
        plan.summary,
        "hold for 200ms ± 20ms packets that come in from 10.1.0.0/16, fd00::/8 with port 80-90, 5432"
    );
    let mut beside = facts();
    beside.controllers = vec!["127.0.0.1:7443".into()];
    beside.near_ports = vec![7443, 7767];
    for fault in ["net-delay", "net-loss"] {
        let text = if fault == "net-loss" { "{ percent: 100% }" } else { "{ delay: 60s }" };
        let plan = plan_on(fault, text, &beside).unwrap();
        let Check::Packets { filter, .. } = &plan.check else { panic!("{plan:?}") };
        assert_eq!(filter.pass_ports, [22, 7443, 7767], "a controller on this host is not cut off from the others");
    }
    for (fault, text, why) in [
        ("net-delay", "{ delay: 10ms, jitter: 20ms }", "longer than the delay"),
        ("net-loss", "{ percent: 10%, protocol: icmp, ports: [80] }", "ICMP has no ports"),
        ("net-loss", "{ percent: 10%, to: [127.0.0.1] }", "loopback is never touched"),
        ("net-loss", "{ percent: 10%, device: eth9 }", "no network device eth9"),
        ("net-loss", "{ percent: 10%, device: lo }", "lo is the loopback device"),
    ] {
        let refusal = self::plan(fault, text).expect_err(text);
        assert!(refusal.why.contains(why) && !refusal.instead.is_empty(), "{text}: {refusal}");
    }
}

#[test]
fn packets_suffer_by_netem_where_the_kernel_has_it() {
    let text = "{ delay: 2s }";
    let netem = plan("net-delay", text).unwrap();
    let [
        Step::MakeIfb { name },
        Step::MakeNetem { limit_packets, .. },
        Step::MakeClsact { device },
        Step::Redirect { to, .. },
    ] = &netem.steps[..]
    else {
        panic!("{netem:?}")
    };
    assert_eq!((name.as_str(), to.as_str(), device.as_str()), ("frc3", "frc3", "eth0"));
    assert_eq!(*limit_packets, 1_000_000);
    let loss = plan("net-loss", "{ percent: 10% }").unwrap();
    let [Step::MakeClsact { .. }, Step::Lose { priority: losing, .. }] = &loss.steps[..] else { panic!("{loss:?}") };
    let Some(Step::Redirect { priority: holding, .. }) = netem.steps.last() else { panic!("{netem:?}") };
    assert!(losing < holding, "what was held is not looked at again");
    let mut bridged = facts();
    bridged.devices.push(Device { name: "veth1".into(), index: 3, loopback: false, up: true, stacked: true });
    assert_eq!(
        plan_on("net-loss", "{ percent: 10% }", &bridged).unwrap().steps,
        loss.steps,
        "each packet suffers once"
    );
    let wide = "{ delay: 3s, jitter: 3s }";
    assert!(matches!(&plan("net-delay", wide).unwrap().steps[..], [Step::Impair(_)]), "netem would cut the jitter");
    let mut plain = facts();
    let ability = Ability { works: false, why: "sch_netem is missing".into(), fix: "load it".into() };
    plain.host.abilities.insert(Capability::Netem, ability);
    let owned = plan_on("net-delay", text, &plain).unwrap();
    assert!(matches!(&owned.steps[..], [Step::Impair(_)]), "{owned:?}");
    let refusal = plan_on("net-delay", "{ delay: 2s, mechanism: netem }", &plain).expect_err("no netem");
    assert!(refusal.why.contains("sch_netem is missing") && refusal.instead == "load it", "{refusal}");
    assert!(matches!(&plan("net-delay", "{ delay: 2s, mechanism: owned }").unwrap().steps[..], [Step::Impair(_)]));
}

#[test]
fn every_example_fits_and_what_no_document_could_say_does_not() {
    let fits = |fault: &str, value: serde_json::Value| {
        let info = ALL.iter().find(|f| f.info().name == fault).unwrap().info();
        info.params_fit(&serde_json::from_value(value).unwrap()).map_err(|r| r.to_string())
    };
    let good = serde_json::json!({ "delay": "200ms", "jitter": "20ms", "to": ["10.0.0.0/8"], "ports": ["5432"] });
    assert_eq!(fits("net-delay", good), Ok(()));
    for (value, why) in [
        (serde_json::json!({ "delay": "10000d" }), "delay"),
        (serde_json::json!({ "delay": "1s", "jitter": "9000000000s" }), "jitter"),
        (serde_json::json!({ "delay": "1s", "to": ["everywhere"] }), "everywhere"),
        (serde_json::json!({}), "delay"),
        (serde_json::json!({ "delay": null }), "delay"),
        (serde_json::json!({ "delay": "1s", "corrupt": "5%" }), "this agent is older than the document"),
    ] {
        let refusal = fits("net-delay", value).expect_err(why);
        assert!(refusal.contains(why), "{refusal}");
    }
}
