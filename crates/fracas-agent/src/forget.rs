//! A test switch: a sync is left out, so that whoever tries cuts of power can show that they would see what it costs.
//! Programs built without debug assertions do not have it, and sync always.
//!
//! The variable [`VARIABLE`] names what is not synced, by the names in [`SYNCS`].

/// The variable of the environment.
pub const VARIABLE: &str = "FRACAS_FORGET_SYNC";

/// What can be forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// The journal before a step: that the item is planned, and that the step is about to be applied.
    Intent,
    /// The directory of a replaced file, after each change in it.
    Directory,
}

/// All of them, with their names.
pub const SYNCS: &[(Sync, &str)] = &[(Sync::Intent, "intent"), (Sync::Directory, "directory")];

/// Whether this is synced, as it must be.
#[inline]
pub fn keeps(sync: Sync) -> bool {
    #[cfg(debug_assertions)]
    return armed::forgotten() != Some(sync);
    #[cfg(not(debug_assertions))]
    {
        let _ = sync;
        true
    }
}

#[cfg(debug_assertions)]
mod armed {
    use std::sync::LazyLock;

    use super::{SYNCS, Sync, VARIABLE};

    /// What the environment said when the program started.
    static TOLD: LazyLock<Option<Sync>> = LazyLock::new(|| {
        let told = std::env::var(VARIABLE).ok()?;
        SYNCS.iter().find(|(_, name)| *name == told).map(|(sync, _)| *sync)
    });

    pub(super) fn forgotten() -> Option<Sync> {
        *TOLD
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_forgotten_unless_it_is_asked_for() {
        assert!(std::env::var_os(VARIABLE).is_none());
        assert!(SYNCS.iter().all(|(sync, _)| keeps(*sync)));
    }
}
