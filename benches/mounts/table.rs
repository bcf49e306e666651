//! The table: rows of figures as text, for the terminal and for Markdown.
//!
//! Owns: columns, how each figure is written, marks and what they mean. Does not own: figures (`figures`), the report
//! around it (`report`).

use crate::figures::{LIMIT, OBJFS, Row, Summary, Unit, number};

/// The columns.
pub(crate) const COLUMNS: [&str; 11] =
    ["workload", "", "median", "spread", "× best peer", "× limit", "first byte", "CPU", "RSS", "requests", "wire"];

/// What the columns and marks mean, for both forms.
pub(crate) const LEGEND: &str = "\
median of the rounds, spread = (largest - smallest) / median; ratios above 1 are better; first byte in ms; CPU = seconds of \
the daemon per GiB or per 1,000 operations; RSS = peak in MiB; requests and wire (MiB) per GiB or per 1,000 operations. \
⏱ stopped at the cap: the rate is that of what was done until then, measured once. \
☁ the bucket did not have everything when the step returned: what was acknowledged was not durable yet, so it does not \
count as the best peer.";

/// Contestants in the order of the table: ours, peers, the limit.
pub(crate) fn order(row: &Row) -> Vec<&str> {
    let mut names: Vec<&str> = row.outcomes.keys().map(String::as_str).collect();
    names.sort_by_key(|name| (*name == LIMIT, *name != OBJFS, name.to_string()));
    names
}

/// The cells of one row of the table, a line for each contestant.
pub(crate) fn lines(row: &Row) -> Vec<[String; 11]> {
    let mut lines = Vec::new();
    for (i, name) in order(row).into_iter().enumerate() {
        let title = if i == 0 { row.name.clone() } else { String::new() };
        lines.push(match row.summary(name) {
            Ok(summary) => line(row, title, name, &summary),
            Err(why) => {
                let mut cells: [String; 11] = Default::default();
                (cells[0], cells[1], cells[2]) = (title, name.to_owned(), format!("failed: {}", shorten(&why)));
                cells
            }
        });
    }
    lines
}

fn line(row: &Row, title: String, name: &str, summary: &Summary) -> [String; 11] {
    let or_dash = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), number);
    let marks = [(summary.capped, " ⏱"), (summary.durable == Some(false), " ☁")];
    let marks: String = marks.into_iter().filter(|(is, _)| *is).map(|(_, mark)| mark).collect();
    let against = |other: Option<f64>| or_dash(other.map(|other| row.ratio(summary.median, other)));
    let spread = if summary.rounds > 1 { format!("{:.0} %", summary.spread * 100.0) } else { "–".to_owned() };
    let first = if row.unit == Unit::Milliseconds { None } else { summary.first_byte_ms };
    [
        title,
        name.to_owned(),
        format!("{} {}{marks}", number(summary.median), row.unit.name()),
        spread,
        if name == OBJFS { against(row.best_peer()) } else { "–".to_owned() },
        if name == LIMIT { summary.how.clone().unwrap_or_else(|| "–".to_owned()) } else { against(row.limit()) },
        or_dash(first),
        or_dash(summary.cpu),
        or_dash(summary.rss_mib),
        or_dash(summary.requests),
        or_dash(summary.wire_mib),
    ]
}

/// The beginning of a reason: a table has no room for all of it.
fn shorten(why: &str) -> String {
    let line = why.lines().next().unwrap_or_default().replace('|', "/");
    if line.chars().count() <= 90 { line } else { line.chars().take(89).chain(['…']).collect() }
}

/// The table for a terminal.
pub(crate) fn text(rows: &[Row]) -> String {
    let mut table: Vec<[String; 11]> = vec![COLUMNS.map(str::to_owned)];
    table.extend(rows.iter().flat_map(lines));
    let width = |column: usize| {
        let cells = table.iter().filter(|cells| column != 2 || !cells[2].starts_with("failed"));
        cells.map(|cells| cells[column].chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..COLUMNS.len()).map(width).collect();
    let mut text = String::new();
    for cells in &table {
        for (i, (cell, width)) in cells.iter().zip(&widths).enumerate() {
            let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
            let (before, after) = if i < 2 { ("", padding.as_str()) } else { (padding.as_str(), "") };
            text.push_str(&format!("{before}{cell}{after}  "));
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

/// The table in Markdown.
pub(crate) fn markdown(rows: &[Row]) -> String {
    let line = |cells: &[String; 11]| format!("| {} |\n", cells.join(" | "));
    let mut text = line(&COLUMNS.map(str::to_owned));
    text.push_str("|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n");
    for cells in rows.iter().flat_map(lines) {
        text.push_str(&line(&cells));
    }
    text
}

/// A short table in Markdown: one line per row, one column per contestant.
pub(crate) fn short(rows: &[&Row]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in rows.iter().flat_map(|row| order(row)) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.sort_by_key(|name| (*name == LIMIT, *name != OBJFS, name.to_string()));
    let mut text = format!("| | {} |\n|---|{}\n", names.join(" | "), "--:|".repeat(names.len()));
    for row in rows {
        let cell = |name: &&str| match row.summary(name) {
            Ok(summary) => {
                let mark = if summary.durable == Some(false) { " ☁" } else { "" };
                format!("{} {}{mark}", number(summary.median), row.unit.name())
            }
            Err(_) => "failed".to_owned(),
        };
        let cells: Vec<String> = names.iter().map(cell).collect();
        text.push_str(&format!("| {} ({}) | {} |\n", row.about, row.profile, cells.join(" | ")));
    }
    text
}
