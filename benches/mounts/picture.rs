//! The picture: bars per workload, as SVG.
//!
//! Owns: sizes, colours, text of the drawing. Does not own: figures.

use crate::figures::{LIMIT, OBJFS, Row, number};
use crate::table;
use std::fmt::Write;

const WIDTH: f64 = 900.0;
const TITLE_WIDTH: f64 = 330.0;
const BAR_WIDTH: f64 = 380.0;
const BAR: f64 = 13.0;
const GAP: f64 = 12.0;
const TOP: f64 = 70.0;

/// Draws the rows: each bar is as long as its value is good, compared with the best of its row.
pub(crate) fn draw(title: &str, rows: &[Row]) -> String {
    let height = TOP + rows.iter().map(|row| BAR * row.outcomes.len() as f64 + GAP).sum::<f64>();
    let mut svg = String::new();
    _ = writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"16\" y=\"26\" font-size=\"16\" font-weight=\"bold\">{}</text>\n\
         <text x=\"16\" y=\"44\" fill=\"#555555\">Longer is better; within a workload, bars are to scale. Faded: not durable \
         yet when the step returned.</text>",
        escape(title)
    );
    legend(&mut svg, rows);
    let mut y = TOP;
    for row in rows {
        draw_row(&mut svg, row, y);
        y += BAR * row.outcomes.len() as f64 + GAP;
    }
    svg.push_str("</svg>\n");
    svg
}

fn legend(svg: &mut String, rows: &[Row]) {
    let mut names: Vec<&str> = Vec::new();
    for name in rows.iter().flat_map(table::order) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.sort_by_key(|name| (*name == LIMIT, *name != OBJFS, name.to_string()));
    let mut x = 16.0;
    for name in names {
        let text = if name == LIMIT { "limit (bare client)" } else { name };
        _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"52\" width=\"10\" height=\"10\" fill=\"{}\"/><text x=\"{}\" y=\"61\">{}</text>",
            colour(name),
            x + 14.0,
            escape(text)
        );
        x += 30.0 + 6.5 * text.len() as f64;
    }
}

fn draw_row(svg: &mut String, row: &Row, top: f64) {
    let names = table::order(row);
    let middle = top + BAR * names.len() as f64 / 2.0 + 4.0;
    _ = writeln!(svg, "<text x=\"16\" y=\"{middle}\">{}</text>", escape(&row.about));
    let goodness = |name: &str| row.summary(name).ok().map(|s| row.ratio(s.median, 1.0));
    let best = names.iter().filter_map(|name| goodness(name)).fold(f64::MIN_POSITIVE, f64::max);
    for (i, name) in names.iter().enumerate() {
        let y = top + BAR * i as f64;
        let (len, text, opacity) = match row.summary(name) {
            Ok(summary) => {
                let mark = if summary.capped { ", capped" } else { "" };
                let opacity = if summary.durable == Some(false) { 0.4 } else { 1.0 };
                let len = row.ratio(summary.median, 1.0) / best * BAR_WIDTH;
                (len.max(1.0), format!("{} {}{mark}", number(summary.median), row.unit.name()), opacity)
            }
            Err(_) => (0.0, format!("{name}: failed"), 1.0),
        };
        _ = writeln!(
            svg,
            "<rect x=\"{TITLE_WIDTH}\" y=\"{y}\" width=\"{len:.1}\" height=\"{}\" fill=\"{}\" opacity=\"{opacity}\"/>\
             <text x=\"{:.1}\" y=\"{}\" font-size=\"10\" fill=\"#333333\">{}</text>",
            BAR - 2.0,
            colour(name),
            TITLE_WIDTH + len + 5.0,
            y + 9.5,
            escape(&text)
        );
    }
}

fn colour(name: &str) -> &'static str {
    match name {
        OBJFS => "#1b6ca8",
        LIMIT => "#c8c8c8",
        "s3fs" => "#d98e04",
        "rclone" => "#7a9e3a",
        "mount-s3" => "#b04a5a",
        "geesefs" => "#7d5ba6",
        _ => "#8a6d4b",
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
