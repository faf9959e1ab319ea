//! Debian's cloud kernel and its modules, taken out of the package without installing it. Configures nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

/// The package whose only dependency is the newest cloud kernel.
const PACKAGE: &str = "linux-image-cloud-amd64";

/// A kernel on disk.
pub(crate) struct Kernel {
    /// What a boot loader loads.
    pub(crate) image: PathBuf,
    modules: PathBuf,
}

/// The kernel in `folder`, downloaded and unpacked there when it is not yet.
pub(crate) fn find(folder: &Path) -> Result<Kernel> {
    if let Some(kernel) = unpacked(folder) {
        return Ok(kernel);
    }
    fs::create_dir_all(folder)?;
    let depends = output(Command::new("apt-cache").args(["depends", PACKAGE]))?;
    let package = depends.lines().find_map(|l| l.trim().strip_prefix("Depends: linux-image-").map(str::to_owned));
    let package = package.with_context(|| format!("apt knows no {PACKAGE}: apt-get update"))?;
    let package = format!("linux-image-{package}");
    output(Command::new("apt-get").args(["download", "-qq", &package]).current_dir(folder))?;
    let archive = fs::read_dir(folder)?.flatten().map(|e| e.path()).find(|p| p.extension().is_some_and(|e| e == "deb"));
    let archive = archive.with_context(|| format!("apt-get download {package} left no archive"))?;
    output(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(folder))?;
    fs::remove_file(&archive)?;
    unpacked(folder).with_context(|| format!("{package} has no kernel in it"))
}

fn unpacked(folder: &Path) -> Option<Kernel> {
    let mut images: Vec<PathBuf> = fs::read_dir(folder.join("boot")).ok()?.flatten().map(|e| e.path()).collect();
    images.sort();
    let of = |image: &Path| image.file_name()?.to_str()?.strip_prefix("vmlinuz-").map(str::to_owned);
    let (image, release) = images.into_iter().filter_map(|i| of(&i).map(|r| (i, r))).next_back()?;
    // Newer Debian releases keep modules under /usr.
    let modules = ["lib", "usr/lib"].map(|lib| folder.join(lib).join("modules").join(&release));
    modules.into_iter().find(|m| m.is_dir()).map(|modules| Kernel { image, modules })
}

fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let done = command.output().with_context(|| format!("cannot start {name}, which Debian and Ubuntu have"))?;
    if !done.status.success() {
        bail!("{command:?} failed: {}", String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

impl Kernel {
    /// These modules and all they depend on, unpacked, in an order in which they can be loaded.
    ///
    /// What each depends on is read from the module itself: `modules.dep` is made only when a kernel is installed.
    pub(crate) fn modules(&self, wanted: &[&str]) -> Result<Vec<(String, Vec<u8>)>> {
        let mut files = BTreeMap::new();
        list(&self.modules.join("kernel"), &mut files);
        let builtin = fs::read_to_string(self.modules.join("modules.builtin"))?;
        let builtin: BTreeSet<String> = builtin.lines().map(|l| name_of(Path::new(l))).collect();
        let (mut ordered, mut seen) = (Vec::new(), BTreeSet::new());
        for name in wanted {
            collect(&plain(name), &files, &builtin, &mut seen, &mut ordered)?;
        }
        Ok(ordered)
    }
}

fn collect(
    name: &str,
    files: &BTreeMap<String, PathBuf>,
    builtin: &BTreeSet<String>,
    seen: &mut BTreeSet<String>,
    ordered: &mut Vec<(String, Vec<u8>)>,
) -> Result<()> {
    if builtin.contains(name) || !seen.insert(name.to_owned()) {
        return Ok(());
    }
    let path = files.get(name).with_context(|| format!("this kernel has no module {name}"))?;
    let bytes = unpack(path)?;
    for other in depends(&bytes) {
        collect(&plain(&other), files, builtin, seen, ordered)?;
    }
    ordered.push((format!("{name}.ko"), bytes));
    Ok(())
}

/// Module names are written with `-` and `_` alike.
fn plain(name: &str) -> String {
    name.replace('-', "_")
}

fn name_of(path: &Path) -> String {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    plain(file.split(".ko").next().unwrap_or_default())
}

fn list(folder: &Path, files: &mut BTreeMap<String, PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            list(&path, files);
        } else {
            files.insert(name_of(&path), path);
        }
    }
}

fn unpack(path: &Path) -> Result<Vec<u8>> {
    let program = match path.extension().and_then(|e| e.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => return Ok(fs::read(path)?),
    };
    let done = Command::new(program).arg("-dc").arg(path).output();
    let done =
        done.with_context(|| format!("{program} is missing, which unpacks modules: apt-get install {program}"))?;
    Ok(done.stdout)
}

/// What a module says under `depends=` in its section `.modinfo`.
fn depends(module: &[u8]) -> Vec<String> {
    let key = b"\0depends=";
    let found = module.windows(key.len()).position(|w| w == key).map(|at| &module[at + key.len()..]);
    let value = found.and_then(|rest| rest.split(|b| *b == 0).next()).unwrap_or_default();
    let value = String::from_utf8_lossy(value);
    value.split(',').filter(|n| !n.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_says_what_it_depends_on() {
        let module = b"\x7fELF..\0license=GPL\0depends=x_tables,nf-tables\0name=nft_compat\0";
        assert_eq!(depends(module), ["x_tables", "nf-tables"]);
        assert!(depends(b"\0depends=\0name=a\0").is_empty());
        assert_eq!(name_of(Path::new("kernel/net/sched/sch-netem.ko.xz")), "sch_netem");
    }
}
