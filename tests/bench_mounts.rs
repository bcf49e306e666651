//! The pure parts of `scripts/bench`, and its steps on an ordinary directory.
//!
//! Owns: medians, ratios, marks, the picture's form, what a step counts and when it stops.
//! Does not own: mounts, servers and peers, which only a run of `scripts/bench` measures.

#![allow(clippy::unwrap_used, clippy::expect_used, dead_code, reason = "a test fails by panicking; parts of a program")]

#[path = "../benches/mounts/figures.rs"]
mod figures;
#[path = "../benches/mounts/picture.rs"]
mod picture;
#[path = "../benches/mounts/step.rs"]
mod step;
#[path = "../benches/mounts/table.rs"]
mod table;
#[path = "../benches/mounts/workload.rs"]
mod workload;

use figures::{Figures, Outcome, Row, Unit, number};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use step::{Order, Report, Step};

fn done(amount: f64, seconds: f64) -> Outcome {
    Outcome::Done(Figures { amount, seconds, ..Figures::default() })
}

fn row(unit: Unit, outcomes: &[(&str, Vec<Outcome>)]) -> Row {
    let outcomes = outcomes.iter().map(|(name, o)| ((*name).to_owned(), o.clone())).collect::<BTreeMap<_, _>>();
    Row { profile: "lan".into(), name: "row".into(), about: "a <row>".into(), unit, outcomes }
}

#[test]
fn medians_spreads_and_ratios() {
    let row = row(
        Unit::Operations,
        &[
            ("objfs", vec![done(100.0, 1.0), done(100.0, 2.0), done(100.0, 0.5)]),
            ("slow", vec![done(10.0, 1.0)]),
            ("fast", vec![done(50.0, 1.0)]),
            ("limit", vec![done(400.0, 1.0)]),
        ],
    );
    let ours = row.summary("objfs").unwrap();
    assert_eq!((ours.median, ours.spread, ours.rounds), (100.0, 1.5, 3));
    assert_eq!(row.best_peer(), Some(50.0), "neither we nor the limit are peers");
    assert_eq!(row.limit(), Some(400.0));
    assert_eq!(row.ratio(ours.median, 50.0), 2.0);
}

#[test]
fn of_latencies_the_smaller_is_better() {
    let row = row(Unit::Milliseconds, &[("a", vec![done(2.0, 0.010)]), ("b", vec![done(2.0, 0.004)])]);
    assert_eq!(row.best_peer(), Some(2.0));
    assert_eq!(row.ratio(5.0, 2.0), 0.4);
}

#[test]
fn one_failure_is_no_success() {
    let row = row(Unit::Bytes, &[("peer", vec![done(1.0, 1.0), Outcome::Failed("crashed: a|b".into())])]);
    assert_eq!(row.summary("peer").unwrap_err(), "crashed: a|b");
    assert!(table::text(std::slice::from_ref(&row)).contains("failed: crashed: a/b"));
    assert_eq!(row.best_peer(), None);
    assert_eq!(row.summary("nobody").unwrap_err(), "not run");
}

#[test]
fn what_was_capped_or_not_durable_is_marked() {
    let figures = Figures { amount: 1.0, seconds: 1.0, capped: true, durable: Some(false), ..Figures::default() };
    let row = row(Unit::Operations, &[("peer", vec![Outcome::Done(figures)])]);
    assert_eq!(row.best_peer(), None, "what is not durable is no better");
    let markdown = table::markdown(std::slice::from_ref(&row));
    assert!(markdown.contains("1.00 /s ⏱ ☁"), "{markdown}");
    assert!(table::short(&[&row]).contains("| a <row> (lan) | 1.00 /s ☁ |"));
    assert!(picture::draw("t", &[row]).contains("opacity=\"0.4\""));
}

#[test]
fn costs_are_per_gib_or_per_thousand() {
    let figures = Figures {
        amount: 2.0 * f64::from(1 << 30),
        seconds: 1.0,
        cpu_seconds: Some(3.0),
        requests: Some(10),
        bytes: Some(4 << 20),
        ..Figures::default()
    };
    let summary = row(Unit::Bytes, &[("a", vec![Outcome::Done(figures.clone())])]).summary("a").unwrap();
    assert_eq!((summary.cpu, summary.requests, summary.wire_mib), (Some(1.5), Some(5.0), Some(2.0)));
    let figures = Figures { amount: 500.0, ..figures };
    let summary = row(Unit::Operations, &[("a", vec![Outcome::Done(figures)])]).summary("a").unwrap();
    assert_eq!((summary.cpu, summary.requests), (Some(6.0), Some(20.0)));
}

#[test]
fn numbers_have_three_digits_that_count() {
    let cases =
        [(0.0, "0.00"), (0.128, "0.13"), (9.999, "10.0"), (12.34, "12.3"), (123.4, "123"), (1_234_567.0, "1,234,567")];
    for (value, text) in cases {
        assert_eq!(number(value), text);
    }
    assert_eq!(number(f64::NAN), "–");
    assert_eq!(number(-1234.0), "-1,234");
}

#[test]
fn the_picture_is_scaled_and_escaped() {
    let row = row(Unit::Operations, &[("objfs", vec![done(4.0, 1.0)]), ("peer", vec![done(1.0, 1.0)])]);
    let svg = picture::draw("a & b", &[row]);
    assert!(svg.contains("a &amp; b") && svg.contains("a &lt;row&gt;") && svg.ends_with("</svg>\n"));
    assert!(svg.contains("width=\"380.0\"") && svg.contains("width=\"95.0\""), "{svg}");
}

#[test]
fn rows_have_names_of_their_own() {
    let mut names = BTreeSet::new();
    for workload in workload::WORKLOADS.iter() {
        assert!(workload.profiles.contains(&"lan"), "{} is not part of lan", workload.name);
        for action in &workload.actions {
            if let workload::Action::Measure(measure) = action {
                assert!(names.insert(measure.row), "{} is there twice", measure.row);
            }
        }
    }
    assert!(names.len() > 25, "{names:?}");
}

fn run(step: Step, root: &Path, cap: f64) -> Report {
    let order = Order { step, root: root.to_owned(), source: root.to_owned(), cap };
    step::run(&serde_json::to_string(&order).unwrap())
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

#[test]
fn steps_do_and_count_what_they_say() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let count = |step: Step| {
        let report = run(step, root, 60.0);
        assert_eq!((report.error, report.capped), (None, false));
        assert!(report.seconds > 0.0);
        report.amount
    };
    let size = 2 << 20;
    assert_eq!(count(Step::Write { name: "big".into(), size }), 2_097_152.0);
    assert_eq!(std::fs::metadata(root.join("big")).unwrap().len(), size);
    assert_eq!(count(Step::Read { files: vec!["big".into()], size }), 2_097_152.0);
    assert!(count(Step::Random { file: "big".into(), size, block: 4096, seconds: 0.01 }) > 0.0);
    assert_eq!(count(Step::Append { file: "big".into() }), 1.0);
    assert_eq!(std::fs::metadata(root.join("big")).unwrap().len(), size + 1);
    std::fs::create_dir(root.join("tree")).unwrap();
    assert_eq!(count(Step::Create { count: 3, size: 10 }), 3.0);
    std::fs::rename(root.join("f000001"), root.join("tree/f")).unwrap();
    assert_eq!(count(Step::ReadTree { directory: "tree".into() }), 1.0);
    assert_eq!(count(Step::Rename { from: "tree".into(), to: "other".into(), count: 1 }), 1.0);
    assert_eq!(count(Step::Command { line: words("find {root}"), total: 7 }), 7.0);
    assert_eq!(count(Step::Each { line: words("cat {}") }), 4.0);
}

#[test]
fn a_step_stops_at_its_cap_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let line = vec!["sh".to_owned(), "-c".to_owned(), "echo one; echo two; exec sleep 30".to_owned()];
    let report = run(Step::Command { line, total: 1000 }, dir.path(), 0.3);
    assert_eq!((report.amount, report.capped, report.error), (2.0, true, None));
    assert!(report.seconds < 20.0);
    let report = run(Step::Create { count: 10, size: 1 }, dir.path(), 0.0);
    assert_eq!((report.amount, report.capped), (0.0, true));
}

#[test]
fn a_refusal_is_reported_as_it_was_told() {
    let dir = tempfile::tempdir().unwrap();
    let error = |step| run(step, dir.path(), 60.0).error.unwrap();
    assert!(error(Step::Append { file: "none".into() }).contains("No such file"));
    assert!(error(Step::Command { line: words("ls {root}/none"), total: 1 }).contains("none"));
    // Less than there should be, without an error, is no success.
    std::fs::write(dir.path().join("short"), "x").unwrap();
    assert!(error(Step::Read { files: vec!["short".into()], size: 2 }).contains("ended after 1 of 2"));
    assert!(step::run("no order").error.unwrap().contains("not an order"));
}
