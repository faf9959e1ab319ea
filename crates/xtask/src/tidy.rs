//! The laws of the house, checked over `cargo metadata` and file text. It never mends anything.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};
use cargo_metadata::{DependencyKind, MetadataCommand};

use crate::codegen::root;

/// Which crates of the workspace each crate may use in its product code.
const MAY_USE: &[(&str, &[&str])] = &[
    ("fracas-model", &[]),
    ("fracas-proto", &["fracas-model"]),
    ("fracas-faults", &["fracas-model"]),
    ("fracas-probes", &["fracas-model"]),
    ("fracas-agent", &["fracas-model", "fracas-proto", "fracas-faults", "fracas-probes"]),
    ("fracas-controller", &["fracas-model", "fracas-proto"]),
    ("fracas-cli", &["fracas-model", "fracas-proto"]),
    ("fracas-sim", &["fracas-agent", "fracas-controller", "fracas-model", "fracas-probes", "fracas-proto"]),
    (
        "fracas",
        &[
            "fracas-model",
            "fracas-proto",
            "fracas-faults",
            "fracas-probes",
            "fracas-agent",
            "fracas-controller",
            "fracas-cli",
            "fracas-sim",
        ],
    ),
];

/// Crates from outside that a crate must not use directly, because its decisions are pure.
const MUST_NOT_USE: &[(&str, &[&str])] = &[
    ("fracas-model", &["tokio", "tonic", "prost", "rustix", "libc", "hyper"]),
    ("fracas-faults", &["tokio", "tonic", "prost", "rustix", "libc", "hyper"]),
    ("fracas-probes", &["tonic", "prost"]),
];

/// Prints every breach and fails if there is one.
pub(crate) fn run() -> Result<()> {
    let breaches = [dependencies()?, openings(), fault_names()].concat();
    for breach in &breaches {
        eprintln!("{breach}");
    }
    if breaches.is_empty() { Ok(()) } else { bail!("{} breaches of the house's laws", breaches.len()) }
}

fn dependencies() -> Result<Vec<String>> {
    let metadata = MetadataCommand::new().manifest_path(root().join("Cargo.toml")).no_deps().exec()?;
    let may: BTreeMap<_, _> = MAY_USE.iter().copied().collect();
    let must_not: BTreeMap<_, _> = MUST_NOT_USE.iter().copied().collect();
    let mut breaches = Vec::new();
    for package in &metadata.packages {
        let name = package.name.as_str();
        for used in package.dependencies.iter().filter(|d| d.kind == DependencyKind::Normal).map(|d| d.name.as_str()) {
            let internal = used.starts_with("fracas");
            if internal && may.get(name).is_some_and(|allowed| !allowed.contains(&used)) {
                breaches.push(format!("{name} must not depend on {used}"));
            }
            if must_not.get(name).is_some_and(|banned| banned.contains(&used)) {
                breaches.push(format!("{name} must stay pure and not use {used}"));
            }
        }
    }
    Ok(breaches)
}

fn openings() -> Vec<String> {
    sources(&root())
        .into_iter()
        .filter(|path| !path.components().any(|c| c.as_os_str() == "generated"))
        .filter(|path| !fs::read_to_string(path).unwrap_or_default().starts_with("//!"))
        .map(|path| format!("{} does not open with a //! sentence", path.display()))
        .collect()
}

/// Product code outside the catalogue must not know any fault by name, so that a new fault is one file and one line.
fn fault_names() -> Vec<String> {
    let faults = root().join("crates/fracas-faults/src");
    let names: BTreeSet<String> = sources(&faults)
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .filter_map(|text| text.split("name: \"").nth(1).and_then(|t| t.split('"').next()).map(str::to_owned))
        .filter(|name| name.contains('-'))
        .collect();
    let product = ["fracas-proto", "fracas-agent", "fracas-controller", "fracas-cli", "fracas"];
    let mut breaches = Vec::new();
    for path in product.iter().flat_map(|p| sources(&root().join("crates").join(p).join("src"))) {
        let text = fs::read_to_string(&path).unwrap_or_default();
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let spoken = |name: &String| {
            code.lines().any(|l| !l.trim_start().starts_with("//") && l.contains(&format!("\"{name}\"")))
        };
        for name in names.iter().filter(|n| spoken(n)) {
            breaches.push(format!("{} names the fault {name}; only the catalogue may", path.display()));
        }
    }
    breaches
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else { return found };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() && !path.ends_with("target") && !path.ends_with(".git") {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_house_is_tidy() {
        super::run().unwrap();
    }
}
