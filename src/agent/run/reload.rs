use std::time::Duration;

use log::{error, info, warn};

use super::{Agent, SampleStream, open_source};
use crate::agent::config::Settings;
use crate::process::exit::chain;
use crate::units::counted;

impl Agent {
    pub(super) fn reload(&mut self, read: &dyn Fn() -> Result<Settings, String>) {
        self.heartbeat.enter("reading the configuration", self.clock.monotonic());
        self.notifier.reloading(self.clock.monotonic());
        self.take_over(read());
        self.notifier.reloaded(self.settings.interval);
    }

    fn take_over(&mut self, settings: Result<Settings, String>) {
        let settings = match settings {
            Ok(settings) => settings,
            Err(error) => {
                error!("the previous configuration stays in effect: {error}");
                return;
            }
        };
        settings.warnings.iter().for_each(|warning| warn!("{warning}"));
        if settings.agent != self.settings.agent || settings.state_dir != self.settings.state_dir {
            warn!("agent and state_dir take effect only at the next start");
        }
        let kept =
            Settings { agent: self.settings.agent.clone(), state_dir: self.settings.state_dir.clone(), ..settings };
        let watched = |settings: &Settings| (settings.source.clone(), settings.selection());
        if watched(&kept) != watched(&self.settings) {
            match open_source(&kept) {
                Ok(source) => self.source = source,
                Err(error) => {
                    error!("the previous configuration stays in effect: {}", chain(&error));
                    return;
                }
            }
            self.detector.expect_all_links();
        }
        // Open breaches of remaining limits go on, and so do those that are rising or falling.
        self.detector.reconfigure(kept.limits.clone(), kept.interval, &mut self.detections);
        let monotonic = self.clock.monotonic();
        self.publisher.reconfigure(kept.publisher.clone(), monotonic);
        self.rates.reconfigure(&kept, monotonic);
        self.reconfigure_samples(&kept, monotonic);
        self.settings = kept;
        let now = self.stamp();
        self.add_detected(&now);
        let Settings { journal_size, journal_age, .. } = self.settings;
        if let Err(error) = self.system.reconfigure(journal_size, journal_age, &now) {
            self.report_error(&chain(&error));
        }
        info!("the configuration was reloaded: {}", counted(self.settings.limits.len() as u64, "limit"));
    }

    fn reconfigure_samples(&mut self, settings: &Settings, now: Duration) {
        match &mut self.samples {
            Some(samples) if settings.samples => samples.reconfigure(settings, now),
            None if settings.samples => match SampleStream::new(settings, &*self.clock) {
                Ok(samples) => {
                    self.samples = Some(samples);
                    self.note_samples();
                }
                Err(error) => error!("samples: {}", chain(&error)),
            },
            _ => {
                if let Some(samples) = self.samples.take() {
                    self.end_samples(samples);
                }
            }
        }
    }
}
