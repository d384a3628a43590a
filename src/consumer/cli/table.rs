use std::io::{self, Write};

use super::common::unavailable;
use crate::cli::output::{self, OutputFormat, Rows, Value};
use crate::consumer::store::StoreError;
use crate::process::exit::Failure;

/// Rows of a report: JSON and CSV have all columns, a table those at the places `shown`.
pub(super) struct ReportTable {
    rows: Rows<Box<dyn Write>>,
    shown: Option<Vec<usize>>,
}

impl ReportTable {
    pub(super) fn new(format: OutputFormat, all: &'static [&'static str], shown: &'static [&'static str]) -> Self {
        let is_table = format == OutputFormat::Table;
        let places = || shown.iter().filter_map(|name| all.iter().position(|column| column == name)).collect();
        let rows = Rows::new(format, if is_table { shown } else { all }, output::stdout(format));
        Self { rows, shown: is_table.then(places) }
    }

    pub(super) fn fill(
        mut self,
        read: impl FnOnce(&mut dyn FnMut(Vec<Value>) -> io::Result<()>) -> Result<io::Result<()>, StoreError>,
    ) -> Result<(), Failure> {
        let printed = read(&mut |values| self.push(values)).map_err(unavailable)?;
        output::finished(printed.and_then(|()| self.rows.end()))
    }

    fn push(&mut self, mut values: Vec<Value>) -> io::Result<()> {
        match &self.shown {
            Some(places) => self.rows.push(places.iter().map(|at| std::mem::replace(&mut values[*at], Value::Null))),
            None => self.rows.push(values),
        }
    }
}
