//! The first and the last trials: a host without Fracas, a controller and an agent on it, and a host without Fracas again.

use crate::{
    guest::{Case, say, until},
    look::{Dump, active},
};

/// In this order, before all others.
pub(crate) const TRIALS: &[Case] = &[("controller_starts_as_a_service", controller_starts)];
/// After all others.
pub(crate) const LAST: &[Case] = &[];

/// The guest as it was before anything was installed.
const BEFORE: &str = "/root/before.json";

fn controller_starts() {
    say("/bin/systemctl", &["start", "fracas-controller.service"]).good();
    assert!(active("fracas-controller.service"));
    until("the controller answers", || say("/usr/local/bin/fracas", &["hosts"]).code == 0);
    say("/bin/systemctl", &["start", "victim@8080.service", "victim@8081.service"]).good();
    let dump = Dump::take();
    dump.keep(BEFORE);
    assert!(Dump::kept(BEFORE).differences(&dump).is_empty());
}
