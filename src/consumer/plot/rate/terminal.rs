//! Rates in a terminal: for up to three links, a chart of blocks each; for more, a line each.

use anstyle::Style;

use super::columns::slices;
use super::{Panel, RateColumn, RatePlot, common_top};
use crate::consumer::plot::axis::{Axis, Quantity};
use crate::consumer::plot::screen::{
    BOLD, CHARTS_MAX, DIM, EIGHTHS, HOLE, PLAIN, Page, Screen, colour, cut_name, severity_colour, width,
};
use crate::consumer::plot::time_axis::TimeAxis;

impl RatePlot<'_> {
    pub fn text(&self, page: Page) -> String {
        let mut screen = Screen::new(page.columns);
        screen.wrap(&self.name(), BOLD);
        screen.wrap(&self.subtitle(), DIM);
        if self.series.iter().all(|series| series.points.is_empty()) {
            let row = screen.add_row();
            screen.text(row, 0, "No rates in this span", PLAIN);
            screen.wrap("Is the agent's [rates] on, and does the consumer store highwater.rates?", DIM);
        } else if self.series.len() <= CHARTS_MAX {
            self.charts(&mut screen, page);
        } else {
            self.lines(&mut screen);
        }
        screen.print()
    }

    fn charts(&self, screen: &mut Screen, page: Page) {
        let panels = self.panels(usize::MAX);
        let top = common_top(&panels);
        let height = (page.rows.saturating_sub(8) / panels.len().max(1)).saturating_sub(4).clamp(5, 16);
        let axes: Vec<Axis> = panels
            .iter()
            .map(|panel| panel.value_axis(self.log, top.unwrap_or_else(|| panel.top()), height / 3 + 1))
            .collect();
        let gutter = axes.iter().map(gutter).max().unwrap_or(0);
        for (panel, values) in panels.iter().zip(&axes) {
            self.chart(screen, panel, values, (gutter, height));
        }
        self.key(screen, &panels);
    }

    fn chart(&self, screen: &mut Screen, panel: &Panel<'_>, values: &Axis, (gutter, height): (usize, usize)) {
        let axis = self.axis();
        // A wide unit on a narrow terminal leaves no room.
        let columns = screen_columns(screen, gutter).max(1);
        let slices = slices(&panel.series.points, axis.from, axis.to, columns);
        let is_named = self.series.len() > 1;
        let is_beside = gutter + 2 + width(&panel.name) <= screen.width();
        if is_named && !is_beside {
            screen.wrap(&panel.name, BOLD);
        }
        let row = screen.add_row();
        let end = screen.text(row, 0, &format!("{:>gutter$} ", values.unit), DIM);
        if is_named {
            let end = if is_beside { screen.text(row, end + 1, &panel.name, BOLD) } else { end };
            let room = screen_columns(screen, end + 2);
            screen.text(row, end + 2, &panel.in_short(room), DIM);
        }
        draw_breaches(screen, row, panel, &axis, (gutter + 2, columns), self.series.len() > 1);
        let rows: Vec<usize> = (0..height).map(|_| screen.add_row()).collect();
        let row_of = |place: f64| rows[((1.0 - place) * (height - 1) as f64).round() as usize];
        for row in &rows {
            screen.put(*row, gutter + 1, '│', DIM);
        }
        for tick in &values.ticks {
            let row = row_of(values.scale.place(tick.value));
            screen.text_to(row, gutter, &tick.label, DIM);
            screen.put(row, gutter + 1, '┤', DIM);
        }
        let style = colour(&panel.series.direction);
        for (at, slice) in slices.iter().enumerate() {
            draw_column(screen, &rows, gutter + 2 + at, (slice.as_ref(), values), style);
        }
        draw_limits(screen, panel, values, (gutter, columns), row_of);
        draw_times(screen, &axis, (gutter + 2, columns), &slices);
    }

    fn lines(&self, screen: &mut Screen) {
        let panels = self.panels(usize::MAX);
        let axis = self.axis();
        let total = screen.width();
        let is_narrow = total < NARROW;
        let numbers = match total {
            ..NARROW => 0,
            NARROW..70 => NUMBER,
            _ => 2 * NUMBER + 10,
        };
        let longest = panels.iter().map(|panel| width(&panel.name)).max().unwrap_or(0);
        let names = if is_narrow { 0 } else { longest.min((total - numbers) / 2) + 1 };
        let columns = total - names - numbers;
        if !is_narrow {
            let row = screen.add_row();
            screen.text(row, names, "max over time", DIM);
            let heads: &[&str] = if numbers > NUMBER { &["p95", "max", "breaches"] } else { &["max"] };
            for (at, head) in heads.iter().enumerate() {
                screen.text_to(row, number_end(names + columns, at), head, DIM);
            }
        }
        let mut has_hole = false;
        for panel in &panels {
            let max = panel.max.map_or("-".to_owned(), |max| Quantity::BitRate.show(max));
            let mut row = screen.add_row();
            if is_narrow {
                screen.text(row, 0, &cut_name(&panel.name, total.saturating_sub(width(&max) + 1)), PLAIN);
                screen.text_to(row, total, &max, PLAIN);
                row = screen.add_row();
            } else {
                screen.text(row, 0, &cut_name(&panel.name, names - 1), PLAIN);
                let p95 = panel.columns.iter().filter_map(|column| column.p95).max();
                let p95 = p95.map_or("-".to_owned(), |p95| Quantity::BitRate.show(p95));
                let breaches = panel.series.breaches.len();
                let breaches = if breaches == 0 { String::new() } else { breaches.to_string() };
                let cells = if numbers > NUMBER { vec![p95, max, breaches] } else { vec![max] };
                for (at, cell) in cells.iter().enumerate() {
                    screen.text_to(row, number_end(names + columns, at), cell, PLAIN);
                }
            }
            has_hole |= draw_line(screen, row, panel, &axis, (names, columns));
        }
        draw_times(screen, &axis, (names, columns), &[]);
        let mut legend = vec![dim("each its own scale")];
        for severity in ["warning", "critical"] {
            if panels.iter().any(|panel| panel.series.breaches.iter().any(|breach| breach.severity == severity)) {
                legend.push(vec![(format!("{severity} breach"), severity_colour(severity))]);
            }
        }
        if has_hole {
            legend.push(dim(&format!("{HOLE} not measured")));
        }
        screen.flow(0, &legend);
    }

    fn key(&self, screen: &mut Screen, panels: &[Panel<'_>]) {
        let mut items: Vec<Vec<(String, Style)>> = Vec::new();
        let style = |direction: &str| colour(direction);
        let mut directions: Vec<&str> = panels.iter().map(|panel| panel.series.direction.as_str()).collect();
        directions.sort_unstable();
        directions.dedup();
        for (band, text) in [("█", " p50"), ("▒", " p95"), ("░", " max")] {
            let mut item: Vec<(String, Style)> =
                directions.iter().map(|direction| (band.to_owned(), style(direction))).collect();
            item.push((text.to_owned(), DIM));
            items.push(item);
        }
        for limit in panels.iter().flat_map(|panel| &panel.series.limits) {
            let text = format!("╌ {} {}", limit.name, Quantity::BitRate.show_round(limit.bps as f64));
            if !items.iter().any(|item| item[0].0 == text) {
                items.push(vec![(text, PLAIN)]);
            }
        }
        for (severity, mark) in SEVERITIES {
            if panels.iter().any(|panel| panel.series.breaches.iter().any(|breach| breach.severity == severity)) {
                items.push(vec![(mark.to_string(), severity_colour(severity)), (format!(" {severity} breach"), DIM)]);
            }
        }
        if panels.iter().any(|panel| !panel.holes.is_empty()) {
            items.push(dim(&format!("{HOLE} not measured")));
        }
        if panels.iter().any(|panel| panel.columns.iter().any(RateColumn::is_partial)) {
            items.push(dim("┈ in part"));
        }
        screen.flow(0, &items);
    }
}

const NARROW: usize = 44;
const NUMBER: usize = 13;

fn number_end(left: usize, at: usize) -> usize {
    left + [NUMBER, 2 * NUMBER, 2 * NUMBER + 10][at]
}

/// Draws the highest seconds in one row, on a scale of its own, lest most links are flat. Returns true if there is a hole.
fn draw_line(
    screen: &mut Screen,
    row: usize,
    panel: &Panel<'_>,
    axis: &TimeAxis,
    (left, columns): (usize, usize),
) -> bool {
    let top = panel.max.unwrap_or(0).max(1) as f64;
    let mut has_hole = false;
    for (at, slice) in slices(&panel.series.points, axis.from, axis.to, columns).iter().enumerate() {
        let (shown, style) = match slice.as_ref().and_then(|column| Some((column, column.max?))) {
            None => {
                has_hole = true;
                (HOLE, DIM)
            }
            Some((column, max)) => {
                let eighths = (max as f64 / top * 7.0).round() as usize + 1;
                let severity = panel.series.severity_at(column.from, column.to);
                (EIGHTHS[eighths.min(8)], severity.map_or(colour(&panel.series.direction), severity_colour))
            }
        };
        screen.put(row, left + at, shown, style);
    }
    has_hole
}

const SEVERITIES: [(&str, char); 2] = [("warning", '─'), ("critical", '━')];

fn dim(text: &str) -> Vec<(String, Style)> {
    vec![(text.to_owned(), DIM)]
}

fn screen_columns(screen: &Screen, gutter: usize) -> usize {
    let used = if gutter == 0 { 0 } else { gutter + 2 };
    screen.width().saturating_sub(used)
}

fn gutter(values: &Axis) -> usize {
    values.ticks.iter().map(|tick| width(&tick.label)).chain([width(values.unit)]).max().unwrap_or(0)
}

/// Fills a column: solid up to p50, lighter up to p95, lightest up to the highest second.
fn draw_column(
    screen: &mut Screen,
    rows: &[usize],
    at: usize,
    (column, values): (Option<&RateColumn>, &Axis),
    style: Style,
) {
    let Some((column, max)) = column.and_then(|column| Some((column, column.max?))) else {
        rows.iter().for_each(|row| screen.put(*row, at, HOLE, DIM));
        return;
    };
    let height = rows.len();
    // In half rows, since a tick is in the middle of its row.
    let level = |rate: Option<u64>| rate.map_or(0.0, |rate| values.place(rate) * (height - 1) as f64 + 0.5);
    let p50 = level(column.p50);
    let levels = [(p50, '█'), (level(column.p95), '▒'), (level(Some(max)), '░')];
    for (from_below, row) in rows.iter().rev().enumerate() {
        let middle = from_below as f64 + 0.5;
        if let Some((_, shown)) = levels.iter().find(|(level, _)| *level >= middle) {
            // The lowest row shows that something was measured, however little.
            let shown = if from_below == 0 && p50 < 0.75 { '▁' } else { *shown };
            screen.put(*row, at, shown, style);
        }
    }
}

fn draw_limits(
    screen: &mut Screen,
    panel: &Panel<'_>,
    values: &Axis,
    (gutter, columns): (usize, usize),
    row_of: impl Fn(f64) -> usize,
) {
    for limit in panel.series.limits.iter().filter(|limit| limit.bps as f64 <= values.scale.end()) {
        let row = row_of(values.place(limit.bps));
        for column in gutter + 2..gutter + 2 + columns {
            if screen.is_free(row, column) {
                screen.put(row, column, '╌', PLAIN);
            }
        }
    }
}

fn draw_breaches(
    screen: &mut Screen,
    row: usize,
    panel: &Panel<'_>,
    axis: &TimeAxis,
    (left, columns): (usize, usize),
    crowded: bool,
) {
    let place = |at| ((axis.place(at) * columns as f64) as usize).min(columns - 1);
    if panel.series.breaches.is_empty() {
        return;
    }
    let row = if crowded { screen.add_row() } else { row };
    for (severity, mark) in SEVERITIES {
        for breach in panel.series.breaches.iter().filter(|breach| breach.severity == severity) {
            for column in place(breach.from)..=place(breach.to.unwrap_or(axis.to)) {
                screen.put(row, left + column, mark, severity_colour(severity));
            }
        }
    }
}

fn draw_times(screen: &mut Screen, axis: &TimeAxis, (left, columns): (usize, usize), slices: &[Option<RateColumn>]) {
    let (line, labels) = (screen.add_row(), screen.add_row());
    for at in 0..columns {
        let partial = slices.get(at).is_some_and(|slice| slice.as_ref().is_some_and(RateColumn::is_partial));
        screen.put(line, left + at, if partial { '┈' } else { '─' }, DIM);
    }
    if !slices.is_empty() {
        screen.put(line, left - 1, '└', DIM);
    }
    let ticks = axis.ticks((columns / 11).max(2));
    let mut below = None;
    let mut free = 0;
    for tick in ticks {
        let at = left + ((axis.place(tick.at) * columns as f64) as usize).min(columns - 1);
        screen.put(line, at, '┬', DIM);
        let label = |text: &str| {
            let begin = at.saturating_sub(width(text) / 2);
            begin.min((left + columns).saturating_sub(width(text)))
        };
        let begin = label(&tick.label);
        if begin < free {
            continue;
        }
        free = screen.text(labels, begin, &tick.label, DIM) + 1;
        if let Some(day) = tick.below {
            let row = *below.get_or_insert_with(|| screen.add_row());
            screen.text(row, label(&day), &day, DIM);
        }
    }
    let zone = axis.zone_name();
    let begin = (left + columns).saturating_sub(width(&zone));
    let fits = |row: &usize| (begin.saturating_sub(1)..left + columns).all(|column| screen.is_free(*row, column));
    let row = below.filter(fits).unwrap_or_else(|| screen.add_row());
    screen.text(row, begin, &zone, DIM);
}
