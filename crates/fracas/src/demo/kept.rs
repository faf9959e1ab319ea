//! `fracas demo --keep`: the lab stays up until Ctrl-C, and other terminals get what they need to use it. It starts
//! nothing.

use std::{
    fs::File,
    io::{self, Write as _},
    os::fd::AsRawFd as _,
};

use fracas_cli::context::Access;
use rustix::fs::{MemfdFlags, memfd_create};

use super::{
    Demo, Stage,
    cast::Cast,
    door::Door,
    folder::Written,
    ground::{Addresses, Ground},
    interrupts::Interrupts,
};

/// A context file for other terminals of the same user. It exists only as long as this process, whatever ends it: three
/// files in memory, which others reach by way of `/proc`.
struct Context {
    path: String,
    _files: [File; 3],
}

impl Context {
    fn make(access: &Access) -> io::Result<Self> {
        let (ca, ca_path) = in_memory(&access.ca_pem)?;
        let (token, token_path) = in_memory(access.token.as_bytes())?;
        let text = format!(
            "apiVersion: fracas/v1\nkind: Context\ncontroller: \"{}\"\nca: {ca_path}\ntokenFile: {token_path}\n",
            access.address
        );
        let (file, path) = in_memory(text.as_bytes())?;
        Ok(Self { path, _files: [file, ca, token] })
    }
}

fn in_memory(bytes: &[u8]) -> io::Result<(File, String)> {
    let mut file = File::from(memfd_create(c"context", MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    Ok((file, path))
}

impl Demo<'_> {
    /// Says how to use the lab, and holds it until Ctrl-C or until somebody ends who should not.
    pub(super) async fn keep(
        &self,
        stage: &Stage,
        ground: &Ground,
        cast: &Cast<'_>,
        at: Addresses,
        documents: &[Written],
        interrupts: &mut Interrupts,
    ) -> anyhow::Result<()> {
        let told = self.told;
        let context = Context::make(&stage.access)?;
        let door = match ground {
            Ground::Lab(lab, _) => Some(Door::open(lab.outside(), at.shop).await?),
            Ground::Bare(_) => None,
        };
        let shop = door.as_ref().map_or(at.shop, |door| door.at);
        told.heading("The lab stays up until Ctrl-C");
        told.line("In another terminal, in this directory:");
        told.line(&format!("  export FRACAS_CONTEXT={}", context.path));
        let program = &self.program;
        told.line(&format!("  {program} hosts"));
        told.line(&format!("  {program} faults"));
        for written in documents {
            told.line(&format!("  {}", self.typed(stage, written)));
        }
        told.line(&format!("  {program} report last"));
        told.line(&format!("The shop: http://{shop}/order and http://{shop}/browse"));
        tokio::select! {
            () = interrupts.next() => Ok(()),
            why = cast.ended() => anyhow::bail!("{why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use fracas_cli::{
        args::Global,
        context::{Surroundings, find},
    };

    use super::*;

    #[test]
    fn the_context_is_found_by_its_path_and_is_gone_with_its_maker() {
        let access = Access {
            address: "127.0.0.1:7".into(),
            ca_pem: b"the ca".to_vec(),
            token: "secret".into(),
            ca_source: String::new(),
            token_source: String::new(),
        };
        let context = Context::make(&access).unwrap();
        let global = Global { context: Some(context.path.clone().into()), ..Global::default() };
        let found = find(&global, &Surroundings::default()).unwrap();
        assert_eq!((found.address, found.ca_pem, found.token), (access.address, access.ca_pem, access.token));
        drop(context);
        assert!(find(&global, &Surroundings::default()).is_err());
    }
}
