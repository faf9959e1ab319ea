//! Whether a controller lives, and whether it can be used: two questions with different answers. Pure.
//!
//! Who asks the first ends and restarts a process that is not well, so only what a restart mends counts there; a full disk
//! does not. Who asks the second sends no calls to a controller that is not ready.

/// Where a controller is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It does not serve yet.
    Starting,
    /// It serves.
    Up,
    /// It was asked to end.
    Draining,
}

/// How a controller stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) phase: Phase,
    /// Tasks that have ended and should not have.
    pub(super) ended: Vec<&'static str>,
    /// Why the history could not be written, the last time.
    pub(super) history: Option<&'static str>,
    /// Listeners that cannot accept.
    pub(super) stuck: Vec<&'static str>,
}

impl Standing {
    /// Why the process should be restarted.
    pub(super) fn ailments(&self) -> Vec<String> {
        // Whoever ends closes its tasks by itself.
        let ended = self.ended.iter().filter(|_| self.phase != Phase::Draining);
        ended.map(|task| format!("a main task has ended: {task}")).collect()
    }

    /// Why the controller cannot be used.
    pub(super) fn obstacles(&self) -> Vec<String> {
        let phase = match self.phase {
            Phase::Starting => Some("starting: runs and schedules are being taken up"),
            Phase::Draining => Some("draining: no new run starts"),
            Phase::Up => None,
        };
        let history = self.history.map(|class| {
            let way_out = match class {
                "full" => "free some space, it goes on by itself",
                "fenced" => "another controller has taken it over, stop this one",
                _ => "the log says more",
            };
            format!("the history cannot be written ({class}): {way_out}")
        });
        let stuck =
            self.stuck.iter().map(|name| format!("the {name} listener cannot accept connections, the log says why"));
        phase.map(str::to_owned).into_iter().chain(history).chain(self.ailments()).chain(stuck).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_restart_mends_makes_it_unwell() {
        let well = Standing { phase: Phase::Up, ended: vec![], history: None, stuck: vec![] };
        assert!(well.ailments().is_empty() && well.obstacles().is_empty());
        for (phase, says) in [(Phase::Starting, "starting"), (Phase::Draining, "draining")] {
            let standing = Standing { phase, ..well.clone() };
            assert!(standing.ailments().is_empty());
            assert!(standing.obstacles()[0].starts_with(says), "{standing:?}");
        }
        let troubled = Standing { history: Some("full"), stuck: vec!["front"], ..well.clone() };
        assert!(troubled.ailments().is_empty());
        let said = troubled.obstacles();
        assert!(
            said.len() == 2 && said[0].contains("free some space") && said[1].contains("front listener"),
            "{said:?}"
        );
        let dying = Standing { ended: vec!["fleet listener"], ..well };
        assert_eq!(dying.ailments(), ["a main task has ended: fleet listener"]);
        assert_eq!(dying.obstacles(), dying.ailments());
        let leaving = Standing { phase: Phase::Draining, ..dying };
        assert!(leaving.ailments().is_empty() && leaving.obstacles().len() == 1);
    }
}
