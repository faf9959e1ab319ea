//! `fracas controller backup` and `restore` where no controller runs. What a backup is, and what may be restored, is the
//! controller library's business.

use std::{
    fs::File,
    io::{BufReader, Write as _},
    path::PathBuf,
    sync::Arc,
};

use clap::Args;
use fracas_agent::host::clock;
use fracas_cli::{
    args::{BackupArgs, Global, OutputForm},
    draft::{Draft, told},
    error::CliError,
    exit, times, verification,
};
use fracas_controller::{
    clock::{Clock, SystemClock},
    keep::{
        offline,
        restore::{Restored, restore},
    },
};
use serde_json::json;

use super::verify::Outside;
use crate::inside;

/// The end of the help of `backup`.
pub(super) const BACKUP_HELP: &str = "Example:
  fracas controller backup --to /vault/fracas-2027-03-01.tar
  fracas controller backup --to look.tar --without-keys
  fracas controller backup --to /vault/fracas.tar --data-dir /var/lib/fracas

Without --data-dir it is fetched from the controller that the context names, which goes on working; with it, it is made \
from the directory of a controller that does not run. It is a tar file; manifest.json in it says what the rest must be. \
Unless --without-keys is given it HOLDS EVERY KEY of the controller: whoever has it can be this controller to all hosts.";

/// The end of the help of `restore`.
pub(super) const RESTORE_HELP: &str = "Example:
  fracas controller restore --from /vault/fracas-2027-03-01.tar --data-dir /var/lib/fracas
  fracas controller restore --from fracas.tar --data-dir new --heads vault/heads.jsonl --audit-key vault/audit.pub

Every digest and the whole history are checked before the directory is made, and it is made whole or not at all. Stop the \
old controller for good first: two that have the same keys would fight over the hosts. The next start ends the runs that \
were open when the backup was made, and waits for their hosts to be clean. Heads that were signed after the backup are \
told as such by `fracas audit verify`, since that the history was restored is recorded in it.

Exit codes: 0 restored, 1 the backup is damaged or its history broken, 5 it could not be restored.";

/// Exit code for an archive that is not what it was.
const BROKEN: u8 = 1;

/// Arguments of `controller backup`.
#[derive(Clone, Debug, Args)]
pub(super) struct Backup {
    /// What is made.
    #[command(flatten)]
    pub(super) what: BackupArgs,
    /// Of the controller whose data are here, and which does not run
    #[arg(long, value_name = "DIR")]
    pub(super) data_dir: Option<PathBuf>,
}

/// Arguments of `controller restore`.
#[derive(Clone, Debug, Args)]
pub(super) struct RestoreArgs {
    /// The backup
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
    /// The data directory to make; one that is there must be empty
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// What it is held against.
    #[command(flatten)]
    outside: Outside,
}

/// Makes a backup of a directory.
pub(super) fn backup(what: &BackupArgs, data_dir: PathBuf, global: &Global) -> u8 {
    let draft = match Draft::new(&what.to) {
        Ok(draft) => draft,
        Err(error) => {
            inside::fatal(&error);
            return error.exit;
        }
    };
    let written = written(what, data_dir, &draft);
    let settled = draft.settle(written);
    match settled {
        Ok(()) if global.output == OutputForm::Json => {
            let to = what.to.display().to_string();
            let done = json!({ "schema": "fracas.backup/v1", "to": to, "withKeys": !what.without_keys });
            let _ = writeln!(std::io::stdout(), "{done}");
            exit::PASS
        }
        Ok(()) => {
            let _ = writeln!(std::io::stderr(), "{}", told(&what.to, what.without_keys));
            exit::PASS
        }
        Err(error) => {
            inside::fatal(&error);
            error.exit
        }
    }
}

fn written(what: &BackupArgs, data_dir: PathBuf, draft: &Draft) -> Result<(), CliError> {
    let mut spool = what.to.clone().into_os_string();
    spool.push(".history");
    let failed = |e: &dyn std::fmt::Display| CliError { exit: exit::ERROR, text: e.to_string() };
    let runtime = inside::runtime().map_err(|e| failed(&e))?;
    let making = offline(&data_dir, spool.as_ref(), !what.without_keys, times::now());
    let ready = runtime.block_on(making).map_err(|e| failed(&e))?;
    ready.write(&draft.file).map_err(|e| draft.failed(&e))
}

/// Puts a backup back.
pub(super) fn main(args: &RestoreArgs, global: &Global) -> u8 {
    match restored(args) {
        Ok(restored) => {
            // Whoever reads may have left.
            let _ = std::io::stdout().write_all(said(args, &restored, global).as_bytes());
            exit::PASS
        }
        Err((code, error)) => {
            inside::fatal(&error);
            code
        }
    }
}

fn restored(args: &RestoreArgs) -> Result<Restored, (u8, String)> {
    let failed = |e: String| (exit::ERROR, e);
    let (heads, key) = args.outside.read().map_err(failed)?;
    let from = File::open(&args.from).map_err(|e| failed(format!("cannot read {}: {e}", args.from.display())))?;
    let clock = |id| Ok(Arc::new(SystemClock::new(id, clock::wall_bound_ns)?) as Arc<dyn Clock>);
    let runtime = inside::runtime().map_err(|e| failed(e.to_string()))?;
    let restoring = restore(&args.from, BufReader::new(from), &args.data_dir, heads, key, &clock);
    runtime
        .block_on(restoring)
        .map_err(|error| (if error.is_damage() { BROKEN } else { exit::ERROR }, error.to_string()))
}

fn said(args: &RestoreArgs, restored: &Restored, global: &Global) -> String {
    let Restored { manifest, found, open } = restored;
    let dir = args.data_dir.display().to_string();
    if global.output == OutputForm::Json {
        let found = verification::data(("dataDir", &dir), found);
        let done = json!({
            "schema": "fracas.restore/v1", "dataDir": dir, "madeWallNs": manifest.made_wall_ns,
            "withKeys": manifest.with_keys, "openRuns": open, "verification": found,
        });
        return format!("{done}\n");
    }
    let made = times::utc_second(manifest.made_wall_ns);
    let mut text =
        format!("{}restored into {dir} from a backup of {made}\n", verification::text(&format!("in {dir}"), found));
    if *open > 0 {
        text += &format!("{open} runs were open then: the next start ends them\n");
    }
    text += if manifest.with_keys {
        "start it: fracas controller --data-dir DIR; the old one must never run again\n"
    } else {
        "it holds no keys: put audit.key, ca.key, server.key, server.pem and admin.digest into it before you start it\n"
    };
    text
}
