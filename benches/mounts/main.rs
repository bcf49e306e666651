//! objfs beside its peers and beside the limit: the program behind `scripts/bench`.
//!
//! Owns: arguments, which cells run in which order, progress. Does not own: a cell (`cell`), the report (`report`).

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal")]

mod cell;
mod client;
mod contestant;
mod data;
mod figures;
#[path = "../../tests/servers/garage.rs"]
mod garage;
mod limit;
mod mounted;
mod picture;
mod process;
mod report;
#[path = "../../tests/servers/sdk.rs"]
mod sdk;
mod server;
mod step;
mod table;
mod workload;

use anyhow::{Context, bail};
use cell::{Bench, Outcomes};
use clap::Parser;
use contestant::Contestant;
use data::Bucket;
use figures::{LIMIT, Outcome, Row};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use report::{About, Results};
use server::{PROFILES, Server};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;
use workload::{Action, WORKLOADS, Workload};

/// Mounts objfs and every peer on the PATH, runs the same workloads on each, and prints one table.
#[derive(Debug, Parser)]
#[command(name = "scripts/bench")]
struct Arguments {
    /// Workloads, or rows of one; none means the default set
    #[arg(value_name = "WORKLOAD")]
    workloads: Vec<String>,
    /// Peers, separated by commas; `none` for objfs and the limit only (default: all that are installed)
    #[arg(long, value_delimiter = ',')]
    against: Vec<String>,
    /// lan, s3, garage (default: lan whole, and what is named for the others)
    #[arg(long, value_delimiter = ',')]
    profile: Vec<String>,
    /// How often each cell runs
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds that a step may take
    #[arg(long, default_value_t = 60.0)]
    cap: f64,
    /// Where the report goes (default: docs/benchmarks for the default set, else docs/benchmarks/partial)
    #[arg(long)]
    out: Option<PathBuf>,
    /// Another build of objfs to measure
    #[arg(long, value_name = "PROGRAM")]
    objfs: Option<PathBuf>,
    /// Lists workloads and profiles
    #[arg(long)]
    list: bool,
    /// Writes the report of an earlier run's results.json again, and measures nothing
    #[arg(long, value_name = "FILE")]
    render: Option<PathBuf>,
    /// For the program itself: one step, in a process of its own
    #[arg(long, hide = true)]
    step: Option<String>,
    /// cargo gives it to benchmarks
    #[arg(long, hide = true)]
    bench: bool,
}

/// One workload on one profile.
struct Planned {
    profile: &'static str,
    workload: &'static Workload,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let Some(order) = &arguments.step {
        println!("{}", serde_json::to_string(&step::run(order))?);
        return Ok(());
    }
    if arguments.list {
        return list();
    }
    if let Some(earlier) = &arguments.render {
        let (results, folder) = (Results::read(earlier)?, folder(&arguments));
        report::write(&folder, &results)?;
        show(&results, &folder);
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(&arguments))
}

fn list() -> anyhow::Result<()> {
    for (name, what) in PROFILES {
        println!("profile {name}: {what}");
    }
    for workload in WORKLOADS.iter() {
        println!("{} ({})", workload.name, workload.profiles.join(", "));
        for measure in measures(workload) {
            println!("    {}: {}", measure.row, measure.about);
        }
    }
    Ok(())
}

fn measures(workload: &Workload) -> impl Iterator<Item = &workload::Measure> {
    workload.actions.iter().filter_map(|action| if let Action::Measure(m) = action { Some(m) } else { None })
}

fn plan(arguments: &Arguments) -> anyhow::Result<Vec<Planned>> {
    let chosen = |workload: &Workload| {
        let is_named = |name: &String| name == workload.name || measures(workload).any(|m| m.row == name);
        arguments.workloads.is_empty() || arguments.workloads.iter().any(is_named)
    };
    if let Some(unknown) = arguments.profile.iter().find(|p| !PROFILES.iter().any(|(name, _)| name == p)) {
        bail!("there is no profile {unknown:?}, but {}", PROFILES.map(|(name, _)| name).join(", "));
    }
    let mut planned = Vec::new();
    for (profile, _) in PROFILES {
        // A workload that is asked for by name runs on lan, unless profiles are named, too.
        let wanted = if arguments.profile.is_empty() {
            arguments.workloads.is_empty() || profile == "lan"
        } else {
            arguments.profile.iter().any(|p| p == profile)
        };
        let by_name = !arguments.workloads.is_empty();
        let of = WORKLOADS.iter().filter(|w| wanted && chosen(w) && (by_name || w.profiles.contains(&profile)));
        planned.extend(of.map(|workload| Planned { profile, workload }));
    }
    for name in &arguments.workloads {
        if !WORKLOADS.iter().any(|w| w.name == name || measures(w).any(|m| m.row == name)) {
            bail!("there is no workload {name:?}; --list names them");
        }
    }
    Ok(planned)
}

async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let program = arguments.objfs.clone().unwrap_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_objfs")));
    let ours = contestant::ours(&program);
    let mut contestants = vec![ours.clone()];
    if arguments.against != ["none"] {
        contestants.extend(contestant::peers(&arguments.against, &ours)?);
    }
    let planned = plan(arguments)?;
    let work = tempfile::Builder::new().prefix("objfs-bench.").tempdir()?;
    data::make_local(&work.path().join("local")).context("the local files")?;
    let pages_dropped = process::drop_pages();
    let bar = progress(planned.iter().map(|p| cells(p, &contestants)).sum::<usize>() * arguments.rounds);
    tokio::spawn(process::watch_for_interrupt());
    let start = Instant::now();
    let folder = folder(arguments);
    let mut results = Results { about: about(arguments, &contestants, pages_dropped), rows: Vec::new() };
    for (profile, _) in PROFILES {
        let of: Vec<&Planned> = planned.iter().filter(|p| p.profile == profile).collect();
        if of.is_empty() {
            continue;
        }
        let server = Server::start(profile, &program)?;
        let bucket = Bucket::new(&server.place, profile != "garage");
        bucket.wait().await?;
        let bench = Bench { server, bucket, work: work.path().to_owned(), cap: arguments.cap };
        for planned in of {
            let rows = one(&bench, planned, &contestants, arguments.rounds, &bar).await;
            if process::is_interrupted() {
                bail!("interrupted; what was measured before is in {}", folder.display());
            }
            results.rows.extend(rows);
            results.about.seconds = start.elapsed().as_secs_f64();
            // After each workload, so that a run that is ended leaves what it has measured.
            report::write(&folder, &results)?;
        }
    }
    bar.finish_and_clear();
    show(&results, &folder);
    Ok(())
}

/// Where the report goes.
fn folder(arguments: &Arguments) -> PathBuf {
    let is_whole = arguments.workloads.is_empty() && arguments.profile.is_empty();
    let usual = if is_whole { "docs/benchmarks" } else { "docs/benchmarks/partial" };
    arguments.out.clone().unwrap_or_else(|| PathBuf::from(usual))
}

fn about(arguments: &Arguments, contestants: &[Contestant], pages_dropped: bool) -> About {
    let words: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    About {
        contestants: contestants.iter().map(report::described).collect(),
        machine: report::machine(),
        rounds: arguments.rounds,
        cap: arguments.cap,
        command: ["scripts/bench".to_owned()].into_iter().chain(words).collect::<Vec<_>>().join(" "),
        seconds: 0.0,
        pages_dropped,
    }
}

fn show(results: &Results, folder: &Path) {
    println!("{}", table::text(&results.rows));
    println!("{}\n", table::LEGEND);
    println!("{} rows in {:.0} s; the report is in {}", results.rows.len(), results.about.seconds, folder.display());
}

fn cells(planned: &Planned, contestants: &[Contestant]) -> usize {
    // The limit is a contestant, too.
    1 + if planned.workload.without_peers { 1 } else { contestants.len() }
}

fn progress(cells: usize) -> ProgressBar {
    // Hidden where there is no terminal; there, lines say how far it is.
    let bar = ProgressBar::with_draw_target(Some(cells as u64), ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} (about {eta} left)  {wide_msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(std::time::Duration::from_millis(250));
    bar
}

/// All rounds of one workload, interleaved.
async fn one(
    bench: &Bench,
    planned: &Planned,
    contestants: &[Contestant],
    rounds: usize,
    bar: &ProgressBar,
) -> Vec<Row> {
    let workload = planned.workload;
    let mut outcomes: BTreeMap<(&'static str, String), Vec<Outcome>> = BTreeMap::new();
    let mut given_up: Vec<&str> = Vec::new();
    for round in 0..rounds {
        let mut note = |name: &str, results: Outcomes| {
            for (row, outcome) in results {
                outcomes.entry((row, name.to_owned())).or_default().push(outcome);
            }
        };
        say(bar, planned, LIMIT, round);
        note(LIMIT, bench.run_limits(workload, round).await);
        bar.inc(1);
        let count = if workload.without_peers { 1 } else { contestants.len() };
        for contestant in &contestants[..count] {
            if !given_up.contains(&contestant.name) && !process::is_interrupted() {
                say(bar, planned, contestant.name, round);
                let results = bench.run(workload, contestant, round).await;
                let is_enough = |(_, o): &(&str, Outcome)| {
                    matches!(o, Outcome::Failed(_)) || matches!(o, Outcome::Done(f) if f.capped)
                };
                if results.iter().any(is_enough) {
                    given_up.push(contestant.name);
                }
                note(contestant.name, results);
            }
            bar.inc(1);
        }
    }
    let row = |measure: &workload::Measure| Row {
        profile: planned.profile.to_owned(),
        name: measure.row.to_owned(),
        about: measure.about.to_owned(),
        unit: measure.unit,
        outcomes: outcomes
            .iter()
            .filter(|((row, _), _)| *row == measure.row)
            .map(|((_, n), o)| (n.clone(), o.clone()))
            .collect(),
    };
    let rows: Vec<Row> = measures(workload).map(row).collect();
    bar.suspend(|| eprint!("{}", table::text(&rows)));
    rows
}

fn say(bar: &ProgressBar, planned: &Planned, name: &str, round: usize) {
    let text = format!("{} {}, {name}, round {}", planned.profile, planned.workload.name, round + 1);
    if bar.is_hidden() { eprintln!("{text}") } else { bar.set_message(text) }
}
