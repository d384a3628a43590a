//! Another configuration, while it runs.

use log::{error, info, warn};

use super::{Agent, detector, open_source};
use crate::agent::config::Settings;
use crate::clock::Clock as _;
use crate::exit::{Failure, chain};

impl Agent {
    /// New limits, links and intervals; what is open goes on. What can't change while it runs is said.
    pub(super) fn reload(&mut self, read: &dyn Fn() -> Result<Settings, String>) -> Result<(), Failure> {
        self.heart.beat("reading the configuration", self.clock.monotonic());
        self.service.reloads(self.clock.monotonic());
        let reloaded = self.take_over(read());
        self.service.reloaded(self.settings.interval);
        reloaded
    }

    fn take_over(&mut self, settings: Result<Settings, String>) -> Result<(), Failure> {
        let settings = match settings {
            Ok(settings) => settings,
            Err(error) => {
                error!("the configuration stays as it was: {error}");
                return Ok(());
            }
        };
        if settings.agent != self.settings.agent || settings.state_dir != self.settings.state_dir {
            warn!("agent and state_dir change with the next start only");
        }
        let kept =
            Settings { agent: self.settings.agent.clone(), state_dir: self.settings.state_dir.clone(), ..settings };
        let source = match open_source(&kept) {
            Ok(source) => source,
            Err(error) => {
                error!("the configuration stays as it was: {}", chain(&error));
                return Ok(());
            }
        };
        let now = self.stamp();
        let mut detector = detector(&kept);
        detector.resume(self.detector.open_breaches(&now), kept.resume_within, &now);
        (self.source, self.detector) = (source, detector);
        self.publisher.reconfigure(kept.publisher.clone(), self.clock.monotonic());
        self.settings = kept;
        info!("the configuration was read again: {} limits", self.settings.limits.len());
        Ok(())
    }
}
