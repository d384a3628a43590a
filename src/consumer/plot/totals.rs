//! Bytes over limit as horizontal bars, the largest first.

use super::axis::{Axis, Quantity};
use super::rate::{own_name, shared_names};
use super::screen::{BOLD, DIM, PLAIN, Page, Screen, cut, cut_name, width};
use super::svg::{Anchor, Area, Drawing, TEXT_PX, TITLE_PX, Theme, direction_class, fitted, fitted_name, text_width};
use crate::units::counted;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TotalBar {
    pub agent: String,
    pub interface: String,
    pub direction: String,
    pub limit_name: String,
    pub breaches: u64,
    pub excess_bytes: u64,
}

#[derive(Clone, Debug)]
pub struct TotalsPlot {
    bars: Vec<TotalBar>,
    span: String,
    others: u64,
    others_bytes: u64,
}

const BARS_MAX: usize = 40;
const TITLE: &str = "Bytes over limit";
const MARGIN: f64 = 24.0;
const BAR: f64 = 26.0;

impl TotalsPlot {
    pub fn new(mut bars: Vec<TotalBar>, span: String) -> Self {
        let name = |bar: &TotalBar| [&bar.agent, &bar.interface, &bar.direction, &bar.limit_name].map(String::clone);
        bars.sort_by(|a, b| b.excess_bytes.cmp(&a.excess_bytes).then_with(|| name(a).cmp(&name(b))));
        let others = bars.split_off(bars.len().min(BARS_MAX));
        let others_bytes = others.iter().fold(0_u64, |sum, bar| sum.saturating_add(bar.excess_bytes));
        Self { bars, span, others: others.len() as u64, others_bytes }
    }

    fn subtitle(&self) -> String {
        let title = if self.name() == TITLE { "" } else { "Bytes over limit" };
        [title, &self.span].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ")
    }

    fn names(&self) -> Vec<String> {
        fn links(bar: &TotalBar) -> [&str; 3] {
            [&bar.agent, &bar.interface, &bar.direction]
        }
        let mut shared = shared_names(self.bars.iter().map(links));
        // An agent that all share is in the title; link and direction are the bars' own.
        shared = [shared[0], false, false];
        self.bars.iter().map(|bar| format!("{} · {}", own_name(links(bar), shared), bar.limit_name)).collect()
    }

    fn name(&self) -> String {
        match self.bars.first() {
            Some(first) if self.bars.iter().all(|bar| bar.agent == first.agent) => first.agent.clone(),
            _ => TITLE.to_owned(),
        }
    }

    fn rest(&self) -> Option<String> {
        let bytes = Quantity::Bytes.show(self.others_bytes);
        (self.others > 0).then(|| format!("and {}: {bytes}", counted(self.others, "smaller total")))
    }

    fn axis(&self, ticks_max: usize) -> Axis {
        let most = self.bars.first().map_or(0, |bar| bar.excess_bytes);
        Axis::linear(Quantity::Bytes, most, ticks_max)
    }

    pub fn svg(&self, theme: Option<Theme>, width: u32) -> String {
        let width = f64::from(width);
        let mut drawing = Drawing::new(width, self.name());
        let names = self.names();
        let described = names.iter().zip(&self.bars).map(|(name, bar)| {
            format!(" {name}: {} in {}.", Quantity::Bytes.show(bar.excess_bytes), counted(bar.breaches, "breach"))
        });
        drawing.description = format!("{}.{}", self.subtitle(), described.collect::<String>());
        let room = width - 2.0 * MARGIN;
        drawing.text((MARGIN, 34.0), "title", Anchor::Start, &fitted(&self.name(), TITLE_PX, room));
        drawing.text((MARGIN, 54.0), "muted", Anchor::Start, &fitted(&self.subtitle(), TEXT_PX, room));
        let longest = names.iter().map(|name| text_width(name, TEXT_PX)).fold(0.0, f64::max);
        let label = longest.min(width * 0.4);
        let value_room = 84.0;
        let left = MARGIN + label + 12.0;
        let area = Area {
            left,
            top: 76.0,
            width: (width - left - MARGIN - value_room).max(40.0),
            height: (self.bars.len().max(3) as f64) * BAR,
        };
        let axis = self.axis((area.width / 90.0) as usize);
        if self.bars.is_empty() {
            drawing.text(
                (width / 2.0, area.y(0.5)),
                "title muted",
                Anchor::Middle,
                "No bytes over a limit in this span",
            );
        } else {
            draw_axis(&mut drawing, &axis, area);
        }
        for (at, (bar, name)) in self.bars.iter().zip(&names).enumerate() {
            let top = area.top + at as f64 * BAR;
            let length = (axis.place(bar.excess_bytes) * area.width).max(if bar.excess_bytes > 0 { 1.5 } else { 0.0 });
            let bytes = Quantity::Bytes.show(bar.excess_bytes);
            let tip = format!("{name}: {bytes} in {}", counted(bar.breaches, "breach"));
            drawing.text((area.left - 10.0, top + 17.0), "", Anchor::End, &fitted_name(name, TEXT_PX, label));
            let place = Area { left: area.left, top: top + 4.0, width: length, height: BAR - 8.0 };
            drawing.rectangle(place, direction_class(&bar.direction), &tip);
            drawing.text((area.left + length + 6.0, top + 17.0), "muted halo", Anchor::Start, &bytes);
        }
        let mut bottom = area.bottom() + 40.0;
        if let Some(rest) = self.rest() {
            drawing.text((area.left, bottom + 4.0), "muted", Anchor::Start, &rest);
            bottom += 24.0;
        }
        drawing.height = bottom;
        drawing.finish(theme)
    }

    pub fn text(&self, page: Page) -> String {
        let mut screen = Screen::new(page.columns);
        screen.wrap(&self.name(), BOLD);
        screen.wrap(&self.subtitle(), DIM);
        if self.bars.is_empty() {
            screen.wrap("No bytes over a limit in this span", PLAIN);
            return screen.print();
        }
        let names = self.names();
        let longest = names.iter().map(|name| width(name)).max().unwrap_or(0);
        let is_narrow = page.columns < 50;
        let label = if is_narrow { 0 } else { longest.min(page.columns * 2 / 5) };
        let left = if is_narrow { 0 } else { label + 2 };
        let columns = page.columns.saturating_sub(left + 11).max(1);
        let most = self.bars[0].excess_bytes.max(1) as f64;
        for (bar, name) in self.bars.iter().zip(&names) {
            if is_narrow {
                screen.wrap(name, PLAIN);
            }
            let row = screen.add_row();
            if !is_narrow {
                screen.text_to(row, label, &labelled(name, label), PLAIN);
            }
            let eighths = (bar.excess_bytes as f64 / most * columns as f64 * 8.0).round() as usize;
            let eighths = if bar.excess_bytes > 0 { eighths.max(1) } else { 0 };
            let style = super::screen::colour(&bar.direction);
            for at in 0..eighths.div_ceil(8) {
                let shown = PARTS[(eighths - at * 8).min(8)];
                screen.put(row, left + at, shown, style);
            }
            screen.text(row, left + eighths.div_ceil(8) + 1, &Quantity::Bytes.show(bar.excess_bytes), PLAIN);
        }
        if let Some(rest) = self.rest() {
            let row = screen.add_row();
            screen.text(row, left, &cut(&rest, page.columns - left), DIM);
        }
        screen.print()
    }
}

fn labelled(name: &str, columns: usize) -> String {
    let short = name.rsplit_once(" · ").and_then(|(link, limit)| {
        let room = columns.checked_sub(width(limit) + 3).filter(|room| *room >= 8)?;
        Some(format!("{} · {limit}", cut_name(link, room)))
    });
    cut_name(&short.unwrap_or_else(|| name.to_owned()), columns)
}

const PARTS: [char; 9] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉', '█'];

fn draw_axis(drawing: &mut Drawing, axis: &Axis, area: Area) {
    for tick in &axis.ticks {
        let x = area.x(axis.scale.place(tick.value));
        drawing.line((x, area.top), (x, area.bottom()), "grid");
        let is_last = axis.ticks.last() == Some(tick);
        let label = if is_last { format!("{} {}", tick.label, axis.unit) } else { tick.label.clone() };
        drawing.text((x, area.bottom() + 17.0), "tick", Anchor::Middle, &label);
    }
    drawing.line((area.left, area.top), (area.left, area.bottom()), "axis");
}
