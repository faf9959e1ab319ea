//! Channels as people write them: what is taken, what is filled in, and what is wrong.

use super::*;
use crate::config::{Given, read_file};

fn read_all(list: &str) -> Result<Vec<Channel>, String> {
    let text = format!("apiVersion: fracas/v1\nkind: ControllerConfig\nnotifications:\n{list}");
    read_file("c.yaml", &text).map(|given| given.notifications)
}

const ALL: &str = r#"
- name: audit
  webhook:
    url: "https://audit.internal/fracas"
    secret: { file: /etc/fracas/audit.key }
    headers: { authorization: { env: AUDIT_TOKEN }, x-team: sre }
    ca: /etc/fracas/internal.pem
  on: [run.started, run.finished]
- name: chat
  slack: { url: { env: SLACK_URL } }
  environments: [production]
  template: { subject: "[${environment}] ${summary}", text: "${reason} costs $${5}" }
- name: mail
  email:
    server: "mail.internal:587"
    from: fracas@example.com
    to: [sre@example.com, lead@example.com]
    username: fracas
    password: { env: MAIL_PASSWORD }
- name: oncall
  pagerduty: { routingKey: { env: PD_KEY } }
  giveUpAfter: 2h
"#;

#[test]
fn what_is_shown_is_a_file_that_gives_the_same() {
    let channels = read_all(ALL).unwrap();
    assert_eq!(
        channels.iter().map(|channel| channel.to.word()).collect::<Vec<_>>(),
        ["webhook", "slack", "email", "pagerduty"]
    );
    assert_eq!(read_all(&written(&channels)).unwrap(), channels);
    let config = Given { notifications: channels.clone(), ..Given::default() }.settle("/d".into());
    let shown = config.text();
    assert_eq!(read_file("again", &shown).unwrap().notifications, channels, "{shown}");
    // What is filled in is shown.
    assert!(
        shown.contains("url: {\"env\":\"SLACK_URL\"}") || shown.contains(r#"{"url":{"env":"SLACK_URL"}}"#),
        "{shown}"
    );
    assert!(shown.contains("https://events.pagerduty.com") && shown.contains("schedule.skipped"), "{shown}");
}

#[test]
fn each_kind_of_channel_is_told_what_suits_it_unless_the_file_says_so() {
    let channels = read_all(ALL).unwrap();
    assert_eq!(channels[0].on, [Kind::RunStarted, Kind::RunFinished]);
    assert!(channels[1].on.contains(&Kind::RunFinished) && !channels[1].on.contains(&Kind::RunStarted));
    assert_eq!(channels[3].on, [Kind::RunAborted, Kind::UndoFailed, Kind::HostQuarantined, Kind::HaltSet]);
    assert!(channels[3].interest().incidents && !channels[1].interest().incidents);
    let hours: Vec<i64> = channels.iter().map(|channel| channel.give_up_after.ns() / 3_600_000_000_000).collect();
    assert_eq!(hours, [24, 24, 24, 2]);
    assert!(read_all("  []\n").unwrap().is_empty());
}

#[test]
fn mistakes_are_told_with_their_place_and_the_way_out() {
    let slack = "  slack: { url: { env: U } }\n";
    let mail = |more: &str| format!("- name: m\n  email: {{ server: \"h:25\", from: a@b, to: [c@d]{more} }}\n");
    let hook = |more: &str| format!("- name: h\n  webhook: {{ url: \"http://h/\", secret: {{ env: S }}{more} }}\n");
    for (list, wanted) in [
        (format!("- name: a\n{slack}  template: {{ subject: \"${{verdct}}\" }}\n"), "did you mean `${verdict}`?"),
        (format!("- name: a\n{slack}  on: [run.finishd]\n"), "did you mean `run.finished`?"),
        (format!("- name: a\n{slack}- name: a\n{slack}"), "two channels called a"),
        ("- name: a\n  slak: { url: { env: U } }\n".into(), "did you mean `slack`?"),
        (format!("- name: a\n{slack}  pagerduty: {{ routingKey: {{ env: K }} }}\n"), "cannot stand together"),
        ("- name: a\n  slack: { url: \"https://hooks.slack.com/T/B/x\" }\n".into(), "must be a mapping"),
        ("- name: a\n  pagerduty: { routingKey: { env: K } }\n  on: [host.released]\n".into(), "opens no incident"),
        (hook(", headers: { \"a b\": x }"), "no name of a header"),
        (hook(", headers: { Content-Type: x }"), "set by the controller"),
        (hook(", headers: { fracas-signature: x }"), "set by the controller"),
        (hook(", headers: { x: \"a\\nb\" }"), "cannot be in a header"),
        (mail(", username: u"), "needs a name and a password"),
        (mail(", tls: none, username: u, password: { env: P }"), "travel in the open"),
        (mail("").replace("c@d", "\"x <c@d>\""), "is not a mail address"),
    ] {
        let told = read_all(&list).unwrap_err();
        assert!(told.contains(wanted) && told.contains("c.yaml:"), "{list}\n{told}");
    }
    // At their place, all at once.
    let told =
        read_all(&format!("- name: a\n{slack}  template:\n    text: \"${{x}}\"\n- name: a\n{slack}")).unwrap_err();
    assert!(told.contains("c.yaml:7:11: error: `text`: there is nothing called `x`"), "{told}");
    assert!(told.contains("c.yaml:8:9: error: there are two channels"), "{told}");
}

#[test]
fn the_example_in_the_readme_is_taken() {
    let readme = include_str!("../../../../../README.md");
    let blocks = readme.split("```yaml\n").skip(1).filter_map(|rest| rest.split_once("```"));
    let example = blocks.map(|(block, _)| block).find(|block| block.contains("notifications:")).expect("an example");
    assert_eq!(read_file("README.md", example).unwrap().notifications.len(), 4);
    for kind in Kind::ALL {
        assert!(readme.contains(kind.name()), "{kind} is not in the README");
    }
}
