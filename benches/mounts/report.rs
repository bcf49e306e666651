//! The report: a Markdown page with the tables, one picture per profile, and the figures as JSON.
//!
//! Owns: files below the report's folder, what is said of machine, versions and settings. Does not own: tables, pictures.

use crate::contestant::Contestant;
use crate::figures::Row;
use crate::server::PROFILES;
use crate::{picture, table};
use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::fmt::Write;
use std::fs;
use std::path::Path;

/// Rows of the short table that the README shows.
const SHORT: [(&str, &str); 11] = [
    ("lan", "read-1"),
    ("lan", "read-4"),
    ("lan", "random-128k"),
    ("lan", "reread-page"),
    ("lan", "write"),
    ("lan", "tree-cp"),
    ("lan", "ls-cold"),
    ("lan", "ls-remount"),
    ("s3", "read-1"),
    ("s3", "append"),
    ("garage", "read-1"),
];

/// What the report says beside the figures.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct About {
    /// Name, version and options of each contestant.
    pub(crate) contestants: Vec<[String; 3]>,
    pub(crate) machine: String,
    pub(crate) rounds: usize,
    pub(crate) cap: f64,
    /// The command that makes this report again.
    pub(crate) command: String,
    pub(crate) seconds: f64,
    pub(crate) pages_dropped: bool,
}

/// All that a report is made of.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) about: About,
    pub(crate) rows: Vec<Row>,
}

impl Results {
    /// What an earlier run has measured.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Results> {
        let json = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        serde_json::from_str(&json).with_context(|| format!("{} is not one of this program's results", path.display()))
    }
}

/// Name, version and options, as the report lists them.
pub(crate) fn described(contestant: &Contestant) -> [String; 3] {
    [contestant.name.to_owned(), contestant.version.clone(), contestant.options.join(" ")]
}

/// Writes all of it.
pub(crate) fn write(folder: &Path, results: &Results) -> anyhow::Result<()> {
    let Results { about, rows } = results;
    fs::create_dir_all(folder)?;
    let mut page = format!("# Benchmarks\n\n{}\n", introduction(about));
    for (profile, what) in PROFILES {
        let of: Vec<Row> = rows.iter().filter(|row| row.profile == profile).cloned().collect();
        if of.is_empty() {
            continue;
        }
        let picture = format!("{profile}.svg");
        fs::write(folder.join(&picture), picture::draw(&format!("objfs beside its peers: profile {profile}"), &of))?;
        _ = writeln!(page, "## Profile `{profile}`\n\n{what}.\n\n![Bars per workload, profile {profile}]({picture})\n");
        _ = writeln!(page, "{}", table::markdown(&of));
        page.push_str("What the rows measure:\n\n");
        for row in &of {
            _ = writeln!(page, "- `{}`: {}", row.name, row.about);
        }
        page.push_str(&failures(&of));
        page.push('\n');
    }
    fs::write(folder.join("README.md"), page).with_context(|| folder.display().to_string())?;
    let short: Vec<&Row> = SHORT
        .iter()
        .filter_map(|(profile, name)| rows.iter().find(|r| r.profile == *profile && r.name == *name))
        .collect();
    fs::write(folder.join("short.md"), table::short(&short))?;
    fs::write(folder.join("results.json"), serde_json::to_string(results)? + "\n")?;
    Ok(())
}

fn introduction(about: &About) -> String {
    let mut text = format!(
        "Made by `{}` in {:.0} minutes: {} rounds, interleaved (every contestant once, then again), one step capped at {} s. \
         A step that reached the cap, or failed, was not run again in later rounds.\n\n",
        about.command,
        about.seconds / 60.0,
        about.rounds,
        about.cap
    );
    _ = writeln!(text, "- Machine: {}", about.machine);
    _ = writeln!(
        text,
        "- Server, daemon and program share its cores, so figures compare contestants with each other and with the limit; \
         they say nothing about other machines."
    );
    let dropped = if about.pages_dropped { "dropped before every cold step" } else { "NOT dropped (only root can)" };
    _ = writeln!(text, "- The kernel's pages, dentries and inodes were {dropped}. Each mount began with empty caches.");
    for [name, version, options] in &about.contestants {
        let options = if options.is_empty() { "no options".to_owned() } else { format!("`{options}`") };
        _ = writeln!(text, "- {name}: {version}; {options}");
    }
    _ = writeln!(
        text,
        "- limit: a bare client in the same round, with the same signatures and checksums: the best of aws-sdk-s3 and plain \
         HTTP over 1 to 16 connections; one connection where a step waits for each answer (random reads, first byte, \
         programs that look at one file after the other). For warm reads the native file system, for listings the bare \
         pages. Deletes are of keys that do not exist.\n"
    );
    _ = writeln!(text, "Columns: {}\n", table::LEGEND);
    text
}

/// The computer, in one line.
pub(crate) fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu
        .lines()
        .find_map(|l| l.strip_prefix("model name"))
        .map_or("unknown CPU", |l| l.trim_start_matches([':', ' ', '\t']));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kib: f64 = read("/proc/meminfo")
        .lines()
        .find_map(|l| l.strip_prefix("MemTotal:"))
        .and_then(|l| l.trim().strip_suffix(" kB")?.parse().ok())
        .unwrap_or(0.0);
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{cores} cores ({model}), {:.0} GiB, Linux {}", kib / f64::from(1 << 20), kernel.trim())
}

/// Why contestants failed, whole: the table has room for the beginning only.
fn failures(rows: &[Row]) -> String {
    let mut text = String::new();
    for row in rows {
        for name in table::order(row) {
            if let Err(why) = row.summary(name) {
                _ = writeln!(text, "- `{}`, {name}: {}", row.name, why.replace('\n', " "));
            }
        }
    }
    if text.is_empty() { text } else { format!("\nFailures:\n\n{text}") }
}
