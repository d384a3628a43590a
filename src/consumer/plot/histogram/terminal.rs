//! Distributions in a terminal: for up to three links, a chart of blocks each; for more, a line each.

use super::{Chart, HistogramPlot};
use crate::consumer::plot::axis::{Axis, Quantity};
use crate::consumer::plot::screen::{
    BOLD, CHARTS_MAX, DIM, EIGHTHS, PLAIN, Page, Screen, colour, cut, cut_name, width,
};

/// Width in columns below which a link's name is in a row of its own, above its line.
const NARROW: usize = 44;
const NUMBER: usize = 13;

impl HistogramPlot<'_> {
    pub fn text(&self, page: Page) -> String {
        let mut screen = Screen::new(page.columns);
        screen.wrap(&self.name(), BOLD);
        screen.wrap(&self.subtitle(), DIM);
        if self.series.iter().all(|series| series.max().is_none()) {
            let row = screen.add_row();
            screen.text(row, 0, "No rates in this span", PLAIN);
            screen.wrap("Is the agent's [rates] on, and does the consumer store highwater.rates?", DIM);
        } else if self.series.len() <= CHARTS_MAX {
            self.draw_charts(&mut screen, page);
        } else {
            self.draw_lines(&mut screen, page);
        }
        screen.print()
    }

    fn draw_charts(&self, screen: &mut Screen, page: Page) {
        let count = self.series.len().max(1);
        let height = (page.rows.saturating_sub(3) / count).saturating_sub(6).clamp(3, 14);
        let room = page.columns.saturating_sub(9);
        let ticks = (room / 11).max(2);
        for chart in self.charts(room, ticks, height / 3 + 1) {
            if count > 1 {
                screen.wrap(&chart.name, BOLD);
            }
            draw_chart(screen, &chart, height);
            let words = chart.series.in_words();
            let parts: Vec<_> = words.split(", ").map(|part| vec![(part.to_owned(), PLAIN)]).collect();
            screen.flow(0, &parts);
            screen.wrap(&chart.series.coverage(), DIM);
        }
    }

    fn draw_lines(&self, screen: &mut Screen, page: Page) {
        let total = page.columns;
        let is_narrow = total < NARROW;
        let numbers = match total {
            ..NARROW => 0,
            NARROW..60 => NUMBER,
            _ => 2 * NUMBER,
        };
        let longest = self.charts(1, 2, 2).iter().map(|chart| width(&chart.name)).max().unwrap_or(0);
        let names = if is_narrow { 0 } else { longest.min((total - numbers) / 2) + 1 };
        let columns = total - names - numbers;
        let charts = self.charts(columns, (columns / 13).max(2), 2);
        let common = self.common_axis((columns / 13).max(2));
        if !is_narrow {
            let row = screen.add_row();
            screen.text(row, names, &cut("seconds at each rate (square root)", columns), DIM);
            if numbers > NUMBER {
                screen.text_to(row, total - NUMBER, "p95", DIM);
            }
            screen.text_to(row, total, "max", DIM);
        }
        for chart in &charts {
            let rate = |value: Option<u64>| value.map_or("-".to_owned(), |value| Quantity::BitRate.show(value));
            let max = rate(chart.series.max());
            let mut row = screen.add_row();
            let room = if is_narrow { total.saturating_sub(width(&max) + 1) } else { names - 1 };
            screen.text(row, 0, &cut_name(&chart.name, room), PLAIN);
            screen.text_to(row, total, &max, PLAIN);
            if numbers > NUMBER {
                screen.text_to(row, total - NUMBER, &rate(chart.series.histogram.p95), PLAIN);
            }
            if is_narrow {
                row = screen.add_row();
            }
            let style = colour(&chart.series.direction);
            for (at, (seconds, _)) in spread(chart, columns).into_iter().enumerate() {
                screen.put(row, names + at, block(chart, seconds), style);
            }
        }
        match (common, charts.first()) {
            (Some(axis), Some(first)) => draw_rates(screen, &axis, (names, spread(first, columns).len())),
            _ => screen.wrap("Each line: from 0 to its own max", DIM),
        }
    }
}

/// Returns the seconds of each column, and whether they count; a bar may be several columns wide.
fn spread(chart: &Chart<'_>, columns: usize) -> Vec<(f64, bool)> {
    let bars = &chart.bars;
    let is_log = bars.axis.unit.is_empty();
    // On a logarithmic axis, the first two columns are for no traffic at all.
    let mut found: Vec<(f64, bool)> = Vec::new();
    if is_log {
        found.extend([(bars.below.unwrap_or(0.0), true), (0.0, false)]);
    }
    let wide = (columns.saturating_sub(found.len()) / bars.bars.len()).max(1);
    for bar in &bars.bars {
        found.extend(std::iter::repeat_n((bar.seconds, true), wide));
    }
    found.truncate(columns);
    found
}

fn block(chart: &Chart<'_>, seconds: f64) -> char {
    if seconds <= 0.0 {
        return ' ';
    }
    let most = chart.bars.counts().fold(0.0, f64::max).max(1.0);
    // The root shows few seconds beside many.
    EIGHTHS[((seconds / most).sqrt() * 7.0).round() as usize + 1]
}

fn draw_chart(screen: &mut Screen, chart: &Chart<'_>, height: usize) {
    let counts = &chart.counts;
    let labels = counts.ticks.iter().map(|tick| width(&tick.label));
    let gutter = labels.chain([7]).max().unwrap_or(7);
    let columns = screen.width().saturating_sub(gutter + 2);
    if !counts.unit.is_empty() {
        let row = screen.add_row();
        screen.text_to(row, gutter, counts.unit, DIM);
    }
    let rows: Vec<usize> = (0..height).map(|_| screen.add_row()).collect();
    for row in &rows {
        screen.put(*row, gutter + 1, '│', DIM);
    }
    // A tick is at the lower edge of its row, where bars of its height end.
    for tick in &counts.ticks {
        let level = (counts.scale.place(tick.value) * height as f64).round() as usize;
        if let Some(row) = height.checked_sub(level.max(1)).and_then(|at| rows.get(at)) {
            screen.text_to(*row, gutter, &tick.label, DIM);
            screen.put(*row, gutter + 1, '┤', DIM);
        }
    }
    let style = colour(&chart.series.direction);
    let found = spread(chart, columns);
    for (at, (seconds, _)) in found.iter().enumerate() {
        let eighths = (counts.scale.place(*seconds) * height as f64 * 8.0).round() as usize;
        let eighths = if *seconds > 0.0 { eighths.max(1) } else { 0 };
        for (from_below, row) in rows.iter().rev().enumerate() {
            let filled = eighths.saturating_sub(from_below * 8).min(8);
            if filled > 0 {
                screen.put(*row, gutter + 2 + at, EIGHTHS[filled], style);
            }
        }
    }
    draw_rates(screen, &chart.bars.axis, (gutter + 2, found.len()));
}

fn draw_rates(screen: &mut Screen, axis: &Axis, (left, columns): (usize, usize)) {
    let (line, labels) = (screen.add_row(), screen.add_row());
    if left > 0 {
        screen.put(line, left - 1, '└', DIM);
    }
    for at in 0..columns {
        screen.put(line, left + at, '─', DIM);
    }
    let zero = if axis.unit.is_empty() { 2 } else { 0 };
    let mut free = if zero > 0 { screen.text(labels, left, "0", DIM) + 1 } else { left.saturating_sub(2) };
    for tick in &axis.ticks {
        let room = columns.saturating_sub(zero).max(1);
        let place = axis.scale.place(tick.value) * room as f64;
        let at = left + zero + (place.round() as usize).min(room - 1);
        screen.put(line, at, '┬', DIM);
        let begin = at.saturating_sub(width(&tick.label) / 2).min(screen.width().saturating_sub(width(&tick.label)));
        if begin >= free {
            free = screen.text(labels, begin, &tick.label, DIM) + 1;
        }
    }
    if zero == 0 {
        let fits = free + width(axis.unit) <= screen.width();
        let row = if fits { labels } else { screen.add_row() };
        let begin = if fits { free } else { screen.width() - width(axis.unit) };
        screen.text(row, begin, axis.unit, DIM);
    }
}
