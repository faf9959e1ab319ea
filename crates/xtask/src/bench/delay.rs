//! Added delay against what was asked, by a datagram ping-pong between two namespaces of our own.

use super::say;

pub(super) fn run(_quick: bool) -> anyhow::Result<()> {
    say("delay: see the conformance suite of both planes, cargo test -p fracas-agent --test net -- added_delay")
}
