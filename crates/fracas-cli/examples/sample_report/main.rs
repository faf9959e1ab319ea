//! Writes sample reports in every form into a folder, to look at: `cargo run -p fracas-cli --example sample_report -- DIR`.
//!
//! It talks to nobody; the runs are scripted.

mod day;
mod histories;
mod world;

use std::{env, fs, io, path::PathBuf};

use fracas_cli::{
    render::{Style, html, json, markdown, summary, text},
    times::Zone,
};

fn main() -> io::Result<()> {
    let folder = env::args_os().nth(1).map_or_else(|| PathBuf::from("target/sample-reports"), PathBuf::from);
    fs::create_dir_all(&folder)?;
    let style = Style { colour: false, width: 100, zone: Zone::East(3600) };
    for (name, report) in histories::samples() {
        let write = |ending: &str, content: String| fs::write(folder.join(format!("{name}.{ending}")), content);
        write("html", html(&report))?;
        write("md", markdown(&report))?;
        write("txt", text(&report, style))?;
        write("ansi", text(&report, Style { colour: true, ..style }))?;
        write("summary.txt", summary(&report, style))?;
        write("json", json(&report))?;
    }
    Ok(())
}
