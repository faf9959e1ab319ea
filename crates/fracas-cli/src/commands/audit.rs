//! `fracas audit`: the audit stream for people, and proofs of the whole history that rest on nobody's word.

mod export;
mod list;
mod prove;

use std::{
    fs::{self, File},
    io::Write as _,
    path::Path,
};

use fracas_model::{
    chain::hex,
    evidence::{self, SignedHead},
};

use crate::{
    Session,
    args::{AuditCommand, AuditHeadsArgs, AuditVerifyArgs},
    error::CliError,
    exit, verification, words,
};

pub(crate) async fn audit(session: &Session<'_>, command: AuditCommand) -> Result<u8, CliError> {
    match command {
        AuditCommand::Verify(given) => verify(session, &given).await,
        AuditCommand::List(given) => list::list(session, &given).await,
        AuditCommand::Heads(given) => heads(session, &given).await,
        AuditCommand::Export(given) => export::export(session, &given).await,
    }
}

async fn verify(session: &Session<'_>, given: &AuditVerifyArgs) -> Result<u8, CliError> {
    let mut outside = Vec::new();
    for path in &given.heads {
        outside.extend(read_heads(path)?);
    }
    let key = given.key.as_deref().map(read_key).transpose()?;
    let client = session.client()?;
    if key.is_none() {
        session.output.notice("without --key the key is the controller's own word; `fracas audit heads` keeps a copy");
    }
    let found = prove::prove(&client, outside, key, !given.chains_only).await?;
    if session.output.json {
        session.output.line(&verification::data(("controller", client.address()), &found).to_string())?;
    } else {
        session.output.text(&verification::text(&format!("of {}", client.address()), &found))?;
        if given.chains_only {
            session.output.notice("readings and reports were not looked at");
        }
    }
    Ok(verification::code(&found))
}

async fn heads(session: &Session<'_>, given: &AuditHeadsArgs) -> Result<u8, CliError> {
    let (heads, public) = session.client()?.heads(given.limit).await?;
    if let Some(head) = heads.iter().find(|head| !head.holds(&public)) {
        return Err(CliError::failure(format!(
            "head {} of {} is not signed by the controller's key",
            head.seq, head.stream
        )));
    }
    if let Some(path) = &given.key_to {
        keep_key(path, &public)?;
    }
    let line = |head: &SignedHead| serde_json::to_string(head).expect("a signed head is JSON") + "\n";
    let Some(path) = &given.to else {
        session.output.text(&heads.iter().map(line).collect::<String>())?;
        return Ok(exit::PASS);
    };
    let kept = if path.exists() { read_heads(path)? } else { Vec::new() };
    let new: Vec<&SignedHead> = heads.iter().filter(|head| !kept.contains(head)).collect();
    let text: String = new.iter().map(|head| line(head)).collect();
    let append = || {
        let mut file = File::options().create(true).append(true).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    append().map_err(|e| CliError::file("write", path, &e))?;
    session.output.notice(&format!("{} added to {}", words::count(new.len(), "head"), path.display()));
    Ok(exit::PASS)
}

/// Writes the key where there is none; another one there is an alarm.
fn keep_key(path: &Path, public: &[u8]) -> Result<(), CliError> {
    if path.exists() {
        if read_key(path)? == public {
            return Ok(());
        }
        let why = "the controller signs with another key now: find out why before you trust it";
        return Err(CliError::failure(format!("{} is not the key of this controller: {why}", path.display())));
    }
    fs::write(path, hex(public)).map_err(|e| CliError::file("write", path, &e))
}

fn read_heads(path: &Path) -> Result<Vec<SignedHead>, CliError> {
    let bytes = fs::read(path).map_err(|e| CliError::file("read", path, &e))?;
    evidence::read_heads(&bytes).map_err(|e| CliError::failure(format!("{}: {e}", path.display())))
}

fn read_key(path: &Path) -> Result<Vec<u8>, CliError> {
    let bytes = fs::read(path).map_err(|e| CliError::file("read", path, &e))?;
    let why = || format!("{} is not the public key of an audit (64 hexadecimal digits)", path.display());
    evidence::public_key(&bytes).ok_or_else(|| CliError::failure(why()))
}
