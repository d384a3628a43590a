mod histogram;
mod live;
mod picture;
mod rate;
mod totals;

use clap::Subcommand;

use crate::process::exit::Failure;

pub(super) const HELP: &str = "\
In a terminal, a picture is as wide as it is (--width sets another width), with
colours unless NO_COLOR is set. `-o FILE.svg` or `-o FILE.png` writes a file; an
SVG follows the theme of whoever looks at it, unless --theme sets one. A time
that was not measured is a hole, and no line joins what is beside it.";

#[derive(Debug, Subcommand)]
pub(super) enum Plot {
    /// Rates over time, with limits and breaches
    #[command(after_help = rate::HELP)]
    Rate(rate::PlotRate),
    /// Distribution of one-second rates, stored or live
    #[command(after_help = histogram::HELP)]
    Histogram(histogram::PlotHistogram),
    /// Bytes over limit, by link and limit
    #[command(after_help = totals::HELP)]
    Totals(totals::PlotTotals),
}

impl Plot {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self {
            Self::Rate(command) => command.run(),
            Self::Histogram(command) if command.live => live::follow(&command),
            Self::Histogram(command) => command.run(),
            Self::Totals(command) => command.run(),
        }
    }
}
