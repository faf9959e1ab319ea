//! Installations below a root of their own, where no systemd is asked.

use std::os::unix::fs::MetadataExt as _;

use super::*;

fn place(root: &Path) -> PlaceArgs {
    PlaceArgs { bin_dir: "/usr/local/bin".into(), root: Some(root.to_owned()) }
}

fn wish(root: &Path) -> InstallArgs {
    InstallArgs {
        controller: vec!["ctl:7767".into()],
        join_token_file: None,
        name: None,
        no_start: false,
        place: place(root),
    }
}

fn tree(root: &Path) -> Vec<String> {
    fn walk(folder: &Path, root: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let about = fs::symlink_metadata(entry.path()).unwrap();
            let path = entry.path();
            found.push(format!("/{} {:o}", path.strip_prefix(root).unwrap().display(), about.mode() & 0o777));
            if about.is_dir() {
                walk(&path, root, found);
            }
        }
    }
    let mut found = Vec::new();
    walk(root, root, &mut found);
    found.sort();
    found
}

#[test]
fn an_image_gets_everything_once_and_is_empty_again() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    assert_eq!(install(&wish(root), "fracas-agent").unwrap(), 0);
    let first = tree(root);
    for line in [
        "/etc/fracas 755",
        "/etc/fracas/agent.env 600",
        "/etc/fracas/policy.yaml 644",
        "/etc/systemd/system/fracas-agent.service 644",
        "/etc/systemd/system/multi-user.target.wants/fracas-agent.service 777",
        "/usr/local/bin/fracas-agent 755",
        "/var/lib/fracas-agent 700",
        "/var/lib/fracas-agent/installed 600",
    ] {
        assert!(first.contains(&line.to_owned()), "{line}: {first:#?}");
    }
    let unit = fs::read_to_string(root.join("etc/systemd/system/fracas-agent.service")).unwrap();
    assert_eq!(unit, UNIT_TEXT);
    let settings = fs::read_to_string(root.join("etc/fracas/agent.env")).unwrap();
    assert!(settings.lines().any(|line| line == "FRACAS_FLEET=ctl:7767"), "{settings}");
    let inode = |path: &str| fs::metadata(root.join(path)).unwrap().ino();
    let before = inode("usr/local/bin/fracas-agent");
    assert_eq!(install(&wish(root), "fracas-agent").unwrap(), 0);
    assert_eq!((tree(root), inode("usr/local/bin/fracas-agent")), (first, before), "the second time changes nothing");

    let gone = UninstallArgs { purge: true, place: place(root) };
    assert_eq!(uninstall(&gone, "fracas-agent").unwrap(), 0);
    let left = tree(root);
    assert!(!left.iter().any(|line| line.contains("fracas")), "{left:#?}");
}

#[test]
fn what_an_owner_changed_stays_through_all_of_it() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let policy = root.join("etc/fracas/policy.yaml");
    fs::create_dir_all(policy.parent().unwrap()).unwrap();
    fs::write(&policy, "mine").unwrap();
    install(&wish(root), "fracas-agent").unwrap();
    let (settings, unit) = (root.join("etc/fracas/agent.env"), root.join("etc/systemd/system/fracas-agent.service"));
    for path in [&settings, &unit] {
        fs::write(path, "mine").unwrap();
    }
    // An older version of ours is replaced, however.
    let program = root.join("usr/local/bin/fracas-agent");
    let mut files = Files::open(root, Path::new(LIST)).unwrap();
    let older = Wanted { path: "/usr/local/bin/fracas-agent".into(), content: b"older".to_vec(), mode: 0o755 };
    assert_eq!(files.write(&older).unwrap(), Became::Replaced);
    install(&InstallArgs { controller: vec!["other:7767".into()], ..wish(root) }, "fracas-agent").unwrap();
    assert_ne!(fs::read(&program).unwrap(), b"older");
    uninstall(&UninstallArgs { purge: false, place: place(root) }, "fracas-agent").unwrap();
    for path in [&policy, &settings, &unit] {
        assert_eq!(fs::read_to_string(path).unwrap(), "mine", "{}", path.display());
    }
    assert!(!program.exists());
    // A program of somebody else's under that name is not ours to overwrite.
    fs::write(&program, "theirs").unwrap();
    let error = install(&wish(root), "fracas-agent").unwrap_err().to_string();
    assert!(error.contains("was not installed by this program"), "{error}");
}

#[test]
fn the_unit_names_the_program_that_was_installed() {
    let text = unit_for("/opt/bin/fracas agent");
    assert!(text.contains("\nExecStart=/opt/bin/fracas agent\n") && !text.contains("/usr/local"), "{text}");
    assert!(text.contains("\nExecStopPost=/opt/bin/fracas agent undo-all\n"), "{text}");
    assert!(UNIT_TEXT.contains(&format!("\nStateDirectory={}\n", STATE.trim_start_matches("/var/lib/"))));
    assert!(UNIT_TEXT.contains(&format!("\nEnvironmentFile=-{SETTINGS}\n")));
}

#[test]
fn what_cannot_be_is_refused_with_a_word_of_advice() {
    let root = tempfile::tempdir().unwrap();
    for dir in ["bin", "/opt/my programs", "/opt/100%"] {
        let place = PlaceArgs { bin_dir: dir.into(), ..place(root.path()) };
        let error = install(&InstallArgs { place, ..wish(root.path()) }, "fracas-agent").unwrap_err().to_string();
        assert!(error.contains("--bin-dir"), "{error}");
    }
    let token = root.path().join("token");
    fs::write(&token, "no token").unwrap();
    let wish = InstallArgs { join_token_file: Some(token), ..wish(root.path()) };
    assert!(install(&wish, "fracas-agent").is_err());
    assert!(!root.path().join("etc").exists(), "nothing is written before all is known to be right");
}

#[test]
fn the_examples_in_the_help_parse() {
    #[derive(Debug, clap::Parser)]
    struct Cli {
        #[command(flatten)]
        agent: crate::command::AgentArgs,
    }
    for help in [INSTALL_HELP, UNINSTALL_HELP] {
        let examples: Vec<&str> = help.lines().filter(|line| line.starts_with("  fracas-agent ")).collect();
        assert_eq!(examples.len(), 2);
        for example in examples {
            let parsed = <Cli as clap::Parser>::try_parse_from(example.split_whitespace());
            assert!(parsed.is_ok_and(|cli| cli.agent.command.is_some()), "{example}");
        }
    }
}
