//! What was measured, as values.
//!
//! Owns: figures of one step, outcomes, rows of the table, medians and ratios. Does not own: measuring, printing.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The name of the contestant that is the limit of a row.
pub(crate) const LIMIT: &str = "limit";
/// The name of our own contestant.
pub(crate) const OBJFS: &str = "objfs";

/// What a row counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Unit {
    /// Bytes: shown as MiB/s.
    Bytes,
    /// Operations: shown per second.
    Operations,
    /// The mean time of one operation, in milliseconds: less is better.
    Milliseconds,
}

impl Unit {
    /// What follows the number.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Unit::Bytes => "MiB/s",
            Unit::Operations => "/s",
            Unit::Milliseconds => "ms",
        }
    }

    /// How many of what `amount` counts make one of what costs are given for: a GiB, or 1,000 operations.
    fn cost_unit(self) -> f64 {
        if self == Unit::Bytes { f64::from(1 << 30) } else { 1000.0 }
    }
}

/// What one measured step of one contestant gave.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Figures {
    /// Bytes or operations done.
    pub(crate) amount: f64,
    /// Seconds that it took.
    pub(crate) seconds: f64,
    /// From the open to the end of the first read, in milliseconds.
    pub(crate) first_byte_ms: Option<f64>,
    /// CPU seconds of the daemon meanwhile.
    pub(crate) cpu_seconds: Option<f64>,
    /// Largest resident memory of the daemon meanwhile, in MiB.
    pub(crate) rss_mib: Option<f64>,
    /// Requests that reached the server meanwhile.
    pub(crate) requests: Option<u64>,
    /// Bytes of bodies that went either way meanwhile.
    pub(crate) bytes: Option<u64>,
    /// It was stopped at the cap, before it had done everything.
    pub(crate) capped: bool,
    /// The bucket had everything when the step returned. `None`: the step wrote nothing.
    pub(crate) durable: Option<bool>,
    /// How the limit was reached, such as `http, 4 connections`.
    pub(crate) how: Option<String>,
}

impl Figures {
    /// The figure of the row, in the row's unit.
    pub(crate) fn value(&self, unit: Unit) -> f64 {
        match unit {
            Unit::Bytes => self.amount / self.seconds / f64::from(1 << 20),
            Unit::Operations => self.amount / self.seconds,
            Unit::Milliseconds => self.seconds * 1000.0 / self.amount,
        }
    }

    fn per_unit(&self, unit: Unit, cost: Option<f64>) -> Option<f64> {
        cost.filter(|_| self.amount > 0.0).map(|cost| cost / self.amount * unit.cost_unit())
    }
}

/// How a step ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Outcome {
    /// It was measured.
    Done(Figures),
    /// It could not be: a crash, a hang, a refusal, and what was said.
    Failed(String),
}

/// One line of the table: a measured step on one profile, by all contestants, in all rounds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Row {
    /// The server's profile.
    pub(crate) profile: String,
    /// The step, such as `reread-page`.
    pub(crate) name: String,
    /// What it does, for a reader.
    pub(crate) about: String,
    /// What it counts.
    pub(crate) unit: Unit,
    /// The outcomes of each contestant, one per round.
    pub(crate) outcomes: BTreeMap<String, Vec<Outcome>>,
}

/// What is shown of one contestant in one row.
#[derive(Debug, Clone, Default)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    /// (largest - smallest) / median.
    pub(crate) spread: f64,
    pub(crate) rounds: usize,
    pub(crate) first_byte_ms: Option<f64>,
    /// CPU seconds per GiB, or per 1,000 operations.
    pub(crate) cpu: Option<f64>,
    pub(crate) rss_mib: Option<f64>,
    /// Requests per GiB, or per 1,000 operations.
    pub(crate) requests: Option<f64>,
    /// MiB that went over the wire, per GiB or per 1,000 operations.
    pub(crate) wire_mib: Option<f64>,
    pub(crate) capped: bool,
    pub(crate) durable: Option<bool>,
    pub(crate) how: Option<String>,
}

impl Row {
    /// The figures of one contestant, or why there are none.
    pub(crate) fn summary(&self, contestant: &str) -> Result<Summary, String> {
        let outcomes = self.outcomes.get(contestant).map_or(&[][..], Vec::as_slice);
        let done: Vec<&Figures> =
            outcomes.iter().filter_map(|o| if let Outcome::Done(f) = o { Some(f) } else { None }).collect();
        let failures = outcomes.iter().filter_map(|o| if let Outcome::Failed(why) = o { Some(why) } else { None });
        // One failure in three rounds is no success.
        if let Some(why) = failures.into_iter().next() {
            return Err(why.clone());
        }
        if done.is_empty() {
            return Err("not run".to_owned());
        }
        let values: Vec<f64> = done.iter().map(|f| f.value(self.unit)).collect();
        let middle = median(&values);
        let of = |field: &dyn Fn(&Figures) -> Option<f64>| {
            let values: Vec<f64> = done.iter().filter_map(|f| field(f)).collect();
            (!values.is_empty()).then(|| median(&values))
        };
        let (least, most) = values.iter().fold((f64::MAX, f64::MIN), |(l, m), v| (l.min(*v), m.max(*v)));
        Ok(Summary {
            median: middle,
            spread: (most - least) / middle,
            rounds: done.len(),
            first_byte_ms: of(&|f| f.first_byte_ms),
            cpu: of(&|f| f.per_unit(self.unit, f.cpu_seconds)),
            rss_mib: of(&|f| f.rss_mib),
            requests: of(&|f| f.per_unit(self.unit, f.requests.map(|n| n as f64))),
            wire_mib: of(&|f| f.per_unit(self.unit, f.bytes.map(|n| n as f64 / f64::from(1 << 20)))),
            capped: done.iter().any(|f| f.capped),
            durable: done.iter().filter_map(|f| f.durable).reduce(|a, b| a && b),
            how: done.iter().find_map(|f| f.how.clone()),
        })
    }

    /// How many times as good `a` is as `b`.
    pub(crate) fn ratio(&self, a: f64, b: f64) -> f64 {
        if self.unit == Unit::Milliseconds { b / a } else { a / b }
    }

    /// The best median of the peers: all but us and the limit, and those that acknowledged what the bucket did not have.
    pub(crate) fn best_peer(&self) -> Option<f64> {
        let peers = self.outcomes.keys().filter(|name| *name != LIMIT && *name != OBJFS);
        let peers = peers.filter_map(|name| self.summary(name).ok());
        let medians = peers.filter(|s| s.durable != Some(false)).map(|s| s.median);
        medians.reduce(|best, median| if self.ratio(median, best) > 1.0 { median } else { best })
    }

    /// The median of the limit.
    pub(crate) fn limit(&self) -> Option<f64> {
        self.summary(LIMIT).ok().map(|s| s.median)
    }
}

/// The middle of the values, which are not empty.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) }
}

/// A number with three digits that count, and commas between thousands.
pub(crate) fn number(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let digits = match value.abs() {
        v if v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        _ => 2,
    };
    let text = format!("{value:.digits$}");
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i).is_multiple_of(3) && digit.is_ascii_digit() && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + rest
}
