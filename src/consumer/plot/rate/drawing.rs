use std::fmt::Write as _;
use std::time::Duration;

use super::{Panel, RateColumn, RatePlot, common_top};
use crate::consumer::plot::axis::{Axis, Quantity};
use crate::consumer::plot::svg::{
    Anchor, Area, Drawing, TEXT_PX, TITLE_PX, Theme, direction_class, fitted, fitted_name, number, text_width,
};
use crate::consumer::plot::time_axis::TimeAxis;
use crate::consumer::report::breaches::BreachSpan;
use crate::units::lasting;

const MARGIN: f64 = 24.0;
const GUTTER: f64 = 62.0;
const GUTTER_WITH_UNITS: f64 = 86.0;
const PANEL_WIDTH_MIN: f64 = 270.0;
/// Number of columns beyond which texts under the pointer are left out: each is as long as its column's path.
const TIPS_MAX: usize = 400;
const LABELLED_MIN: f64 = 120.0;
const EDGED_MIN: f64 = 3.0;

impl RatePlot<'_> {
    pub fn svg(&self, theme: Option<Theme>, width: u32) -> String {
        let width = f64::from(width);
        let side_by_side = match self.series.len() {
            ..=3 => 1,
            4..=8 => 2,
            _ => 3,
        };
        let across = side_by_side.min((width / PANEL_WIDTH_MIN) as usize).max(1);
        let gutter = if self.log { GUTTER_WITH_UNITS } else { GUTTER };
        let panel_width = ((width - MARGIN) / across as f64 - gutter).max(60.0);
        let panels = self.panels(panel_width as usize);

        let mut drawing = Drawing::new(width, self.name());
        drawing.description = self.description(&panels);
        let room = width - 2.0 * MARGIN;
        drawing.text((MARGIN, 34.0), "title", Anchor::Start, &fitted_name(&self.name(), TITLE_PX, room));
        let scales = match common_top(&panels) {
            _ if panels.len() < 2 => "",
            Some(_) => "; all panels have one scale",
            None => "; each panel has its own scale",
        };
        drawing.text((MARGIN, 54.0), "muted", Anchor::Start, &fitted(&(self.subtitle() + scales), TEXT_PX, room));
        let top = self.legend(&mut drawing, &panels, 80.0);

        let height = match self.series.len() {
            0 | 1 => 300.0,
            2 | 3 => 150.0,
            _ => 92.0,
        };
        let rows = panels.len().max(1).div_ceil(across);
        let pitch = height + if rows == 1 { 64.0 } else { 52.0 };
        let area = |at: usize| Area {
            left: gutter + (at % across) as f64 * (panel_width + gutter),
            top: top + 34.0 + (at / across) as f64 * pitch,
            width: panel_width,
            height,
        };
        let axis = self.axis();
        if panels.is_empty() {
            self.draw_empty(&mut drawing, area(0), &axis);
        }
        for (at, panel) in panels.iter().enumerate() {
            let labels = at + across >= panels.len();
            self.draw_panel(&mut drawing, panel, area(at), &axis, (labels, common_top(&panels)));
        }
        let bottom = area((rows - 1) * across).bottom() + 40.0;
        let merged = panels.iter().any(|panel| panel.columns.iter().any(|column| column.windows > 1));
        let caption = if panels.iter().all(|panel| panel.max.is_none()) { String::new() } else { self.caption(merged) };
        drawing.text((MARGIN, bottom + 16.0), "tick", Anchor::Start, &fitted(&caption, 11.0, room - 130.0));
        let zone = format!("time in {}", axis.zone_name());
        drawing.text((width - MARGIN, bottom + 16.0), "tick", Anchor::End, &zone);
        drawing.height = bottom + 34.0;
        drawing.finish(theme)
    }

    fn legend(&self, drawing: &mut Drawing, panels: &[Panel<'_>], top: f64) -> f64 {
        let series = |panel: &Panel<'_>| direction_class(&panel.series.direction);
        let mut colours: Vec<&str> = panels.iter().filter(|panel| panel.max.is_some()).map(series).collect();
        colours.sort_unstable();
        colours.dedup();
        let mut items: Vec<(String, Vec<String>)> = Vec::new();
        for (band, text) in [("p50", "p50 (median second)"), ("p95", "p95"), ("max", "max (highest second)")] {
            if !colours.is_empty() {
                items.push((text.to_owned(), colours.iter().map(|colour| format!("{colour} {band}")).collect()));
            }
        }
        if panels.iter().any(|panel| !panel.series.limits.is_empty()) {
            items.push(("limit".to_owned(), vec!["limit".to_owned()]));
        }
        for severity in ["warning", "critical"] {
            if panels.iter().any(|panel| panel.series.breaches.iter().any(|breach| breach.severity == severity)) {
                items.push((format!("{severity} breach"), vec![format!("{severity} over"), severity.to_owned()]));
            }
        }
        if panels.iter().any(|panel| !panel.holes.is_empty() || panel.columns.iter().any(RateColumn::is_partial)) {
            items.push(("not measured".to_owned(), vec!["hatched".to_owned()]));
        }
        if items.is_empty() {
            return 58.0;
        }
        let (mut x, mut y) = (MARGIN, top);
        for (text, swatches) in items {
            let is_breach = text.ends_with("breach");
            let swatch_count = if is_breach { 1 } else { swatches.len() };
            let length = 18.0 * swatch_count as f64 + 6.0 + text_width(&text, TEXT_PX) + 18.0;
            if x + length > drawing.width - MARGIN && x > MARGIN {
                (x, y) = (MARGIN, y + 20.0);
            }
            for (at, swatch) in swatches.iter().enumerate() {
                let left = x + if is_breach { 0.0 } else { 18.0 * at as f64 };
                let box_top = Area { left, top: y - 10.0, width: 16.0, height: 12.0 };
                match swatch.as_str() {
                    "limit" => drawing.line((left, y - 4.0), (left + 16.0, y - 4.0), "limit"),
                    bar if is_breach && at == 1 => drawing.rectangle(Area { height: 4.0, ..box_top }, bar, ""),
                    swatch => drawing.rectangle(box_top, swatch, ""),
                }
            }
            drawing.text((x + 18.0 * swatch_count as f64 + 4.0, y), "", Anchor::Start, &text);
            x += length;
        }
        y
    }

    fn draw_empty(&self, drawing: &mut Drawing, area: Area, axis: &TimeAxis) {
        drawing.time_grid(area, axis, true);
        let middle = (area.x(0.5), area.y(0.5));
        drawing.text((middle.0, middle.1 - 4.0), "title muted halo", Anchor::Middle, "No rates in this span");
        let hint = "Is the agent's [rates] on, and does the consumer store highwater.rates?";
        drawing.text((middle.0, middle.1 + 18.0), "muted halo", Anchor::Middle, hint);
    }

    fn draw_panel(
        &self,
        drawing: &mut Drawing,
        panel: &Panel<'_>,
        area: Area,
        axis: &TimeAxis,
        (labels, top): (bool, Option<u64>),
    ) {
        drawing.begin_group(&format!("{}: {}", panel.series.names().join(" "), panel.in_words()));
        let values = panel.value_axis(self.log, top.unwrap_or_else(|| panel.top()), (area.height / 40.0) as usize + 1);
        if self.series.len() > 1 {
            let max = panel.max.map_or("no data".to_owned(), |max| format!("max {}", Quantity::BitRate.show(max)));
            // A small panel has no room for a limit's name beside its line.
            let limits = panel.series.limits.iter().filter(|_| area.height < LABELLED_MIN);
            let limits: Vec<String> = limits.map(|limit| Quantity::BitRate.show_round(limit.bps as f64)).collect();
            let limits = if limits.is_empty() { String::new() } else { format!("limit {} · ", limits.join(", ")) };
            let taken = text_width(&panel.name, TEXT_PX) + text_width(&max, 11.0) + 12.0;
            let max = if text_width(&limits, 11.0) <= area.width - taken { limits + &max } else { max };
            let room = area.width - text_width(&max, 11.0) - 12.0;
            drawing.text((area.left, area.top - 12.0), "head", Anchor::Start, &fitted_name(&panel.name, TEXT_PX, room));
            drawing.text((area.right(), area.top - 12.0), "tick", Anchor::End, &max);
        }
        let place = |from, to| {
            let (left, right) = (area.x(axis.place(from)), area.x(axis.place(to)));
            Area { left, width: right - left, ..area }
        };
        for (from, to) in &panel.holes {
            let tip = format!("{} to {}: not measured", axis.moment(*from), axis.moment(*to));
            drawing.rectangle(place(*from, *to), "hatched", &tip);
        }
        drawing.value_grid(area, &values);
        drawing.time_grid(area, axis, labels);
        for breach in &panel.series.breaches {
            self.draw_breach(drawing, breach, place(breach.from, breach.to.unwrap_or(axis.to)), axis);
        }
        draw_bands(drawing, panel, &values, area, axis);
        for column in panel.columns.iter().filter(|column| column.is_partial()) {
            let place = place(column.from, column.to);
            drawing.rectangle(Area { top: area.bottom() - 6.0, height: 6.0, ..place }, "ground", "");
            drawing.rectangle(Area { top: area.bottom() - 6.0, height: 6.0, ..place }, "hatched", "");
        }
        draw_limits(drawing, panel, &values, area);
        if panel.columns.len() * self.series.len() <= TIPS_MAX {
            for column in panel.columns.iter().filter(|column| column.max.is_some()) {
                drawing.rectangle(place(column.from, column.to), "tip", &tip(column, axis));
            }
        }
        if panel.max.is_none() {
            drawing.text((area.x(0.5), area.y(0.5) + 4.0), "muted halo", Anchor::Middle, "No rates in this span");
        }
        drawing.end_group();
    }

    fn draw_breach(&self, drawing: &mut Drawing, breach: &BreachSpan, area: Area, axis: &TimeAxis) {
        let severity = if breach.severity == "critical" { "critical" } else { "warning" };
        let area = Area { width: area.width.max(2.0), ..area };
        let end = breach.to.map_or("still open".to_owned(), |to| format!("to {}", axis.moment(to)));
        let (limit, peak) =
            (Quantity::BitRate.show_round(breach.limit_bps as f64), Quantity::BitRate.show(breach.peak_bps));
        let tip = format!(
            "{} breach of {} ({limit}), {} {end}, peak {peak}",
            breach.severity,
            breach.limit_name,
            axis.moment(breach.from)
        );
        drawing.rectangle(area, &format!("{severity} over"), &tip);
        drawing.rectangle(Area { top: area.top - 6.0, height: 6.0, ..area }, severity, &tip);
    }
}

fn tip(column: &RateColumn, axis: &TimeAxis) -> String {
    let rate = |value: Option<u64>| value.map_or("-".to_owned(), |value| Quantity::BitRate.show(value));
    let mut tip = format!(
        "{} to {}: p50 {}, p95 {}, max {}",
        axis.moment(column.from),
        axis.moment(column.to),
        rate(column.p50),
        rate(column.p95),
        rate(column.max)
    );
    if column.is_partial() {
        let unmeasured = Duration::from_secs(column.unmeasured_s().unsigned_abs());
        let _ = write!(tip, ", {} not measured", lasting(unmeasured));
    }
    tip
}

fn draw_bands(drawing: &mut Drawing, panel: &Panel<'_>, values: &Axis, area: Area, axis: &TimeAxis) {
    type Rate = fn(&RateColumn) -> Option<u64>;
    let class = direction_class(&panel.series.direction);
    let x = |at| area.x(axis.place(at));
    let y = |rate: Option<u64>| area.y(values.place(rate.unwrap_or(0)));
    let measured: Vec<&RateColumn> = panel.columns.iter().filter(|column| column.max.is_some()).collect();
    let runs = || measured.chunk_by(|a, b| (b.from - a.to).num_milliseconds() < 1_000);
    let bands: [(&str, Rate, Rate); 3] = [
        ("max", |column| column.p95, |column| column.max),
        ("p95", |column| column.p50, |column| column.p95),
        ("p50", |_| None, |column| column.p50),
    ];
    // Lines behind the traffic do not show through its bands.
    let bands = std::iter::once(("ground", (|_| None) as Rate, (|column| column.max) as Rate)).chain(bands);
    for (band, low, high) in bands {
        let class = if band == "ground" { "" } else { class };
        let mut path = String::new();
        for run in runs() {
            let _ = write!(path, "M{} {}", number(x(run[0].from)), number(y(high(run[0]))));
            steps(&mut path, run.iter().map(|column| (x(column.to), y(high(column)))), true);
            let _ = write!(path, "V{}", number(y(low(run[run.len() - 1]))));
            let back = run.iter().rev().map(|column| (x(column.from), y(low(column))));
            steps(&mut path, back, true);
            path.push('Z');
        }
        drawing.path(&path, format!("{class} {band}").trim_start());
    }
    let mut edge = String::new();
    for run in runs() {
        let _ = write!(edge, "M{} {}", number(x(run[0].from)), number(y(run[0].max)));
        steps(&mut edge, run.iter().map(|column| (x(column.to), y(column.max))), true);
    }
    let is_dense = area.width / (measured.len().max(1) as f64) < EDGED_MIN;
    drawing.path(&edge, &format!("edge {}{class}-edge", if is_dense { "thin " } else { "" }));
}

/// Adds steps `(x, y)` to a path: a vertical line where the height changes, and one horizontal line for all steps of the same height.
fn steps(path: &mut String, steps: impl Iterator<Item = (f64, f64)>, first: bool) {
    let mut height = if first { None } else { Some(String::new()) };
    let mut end: Option<String> = None;
    for (x, y) in steps {
        let y = number(y);
        if height.as_ref() != Some(&y) {
            if let Some(end) = end.take() {
                let _ = write!(path, "H{end}");
            }
            let _ = write!(path, "V{y}");
            height = Some(y);
        }
        end = Some(number(x));
    }
    if let Some(end) = end {
        let _ = write!(path, "H{end}");
    }
}

fn draw_limits(drawing: &mut Drawing, panel: &Panel<'_>, values: &Axis, area: Area) {
    let mut taken: Vec<f64> = Vec::new();
    let end = values.scale.end();
    for limit in &panel.series.limits {
        let text = format!("{} {}", limit.name, Quantity::BitRate.show_round(limit.bps as f64));
        let text = fitted(&text, 11.0, area.width - 20.0);
        if limit.bps as f64 > end && area.height < LABELLED_MIN {
            continue;
        }
        if limit.bps as f64 > end {
            let y = area.top + 13.0 + 14.0 * taken.iter().filter(|y| **y < area.top + 40.0).count() as f64;
            drawing.text((area.right() - 6.0, y), "tick halo", Anchor::End, &format!("↑ {text}"));
            taken.push(y);
            continue;
        }
        let y = area.y(values.place(limit.bps));
        drawing.line((area.left, y), (area.right(), y), "limit");
        if area.height < LABELLED_MIN {
            continue;
        }
        // Labels go below the line where another one or the edge is above it.
        let is_free = |label: f64| label > area.top + 8.0 && taken.iter().all(|other| (other - label).abs() >= 13.0);
        let label = [y - 5.0, y + 14.0].into_iter().find(|label| is_free(*label)).unwrap_or(y - 5.0);
        drawing.text((area.right() - 6.0, label), "tick strong halo", Anchor::End, &text);
        taken.push(label);
    }
}
