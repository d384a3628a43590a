use std::time::Duration;

use indicatif::ProgressBar;

use crate::agent::toolbox::sender::EventSender;
use crate::message::NewEvent;
use crate::process::clock::Clock as _;
use crate::process::exit::Failure;

pub(crate) struct Pace {
    rate: Option<u64>,
    began: Option<Duration>,
    pub(crate) events: u64,
}

impl Pace {
    pub(crate) fn new(rate: Option<u64>) -> Self {
        Self { rate, began: None, events: 0 }
    }

    pub(crate) fn add(
        &mut self,
        mut new_events: Vec<NewEvent>,
        sender: &mut EventSender,
        bar: &ProgressBar,
    ) -> Result<(), Failure> {
        let Some(rate) = self.rate else {
            self.events += new_events.len() as u64;
            bar.inc(new_events.len() as u64);
            return sender.add(new_events);
        };
        let began = *self.began.get_or_insert_with(|| sender.clock.monotonic());
        let portion = usize::try_from((rate / 10).max(1)).unwrap_or(usize::MAX);
        while !new_events.is_empty() && !sender.stopped() {
            sender.wait(began + Duration::from_secs_f64(self.events as f64 / rate as f64))?;
            let rest = new_events.split_off(new_events.len().min(portion));
            let now = std::mem::replace(&mut new_events, rest);
            self.events += now.len() as u64;
            bar.inc(now.len() as u64);
            sender.add(now)?;
        }
        Ok(())
    }
}
