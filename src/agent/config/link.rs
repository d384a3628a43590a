use serde::Deserialize;

use super::{parsed, pattern};
use crate::agent::counters::filter::LinkOverride;
use crate::agent::counters::{CounterBits, Speed};
use crate::config::{Invalid, quoted};
use crate::units::BitRate;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLink {
    interface: Option<String>,
    speed: Option<String>,
    rx_speed: Option<String>,
    tx_speed: Option<String>,
    #[serde(default, deserialize_with = "quoted")]
    counter_bits: Option<u64>,
}

impl RawLink {
    pub(super) fn checked(self, index: usize, warnings: &mut Vec<Invalid>) -> Result<LinkOverride, Invalid> {
        let key = |name: &str| format!("link.{index}.{name}");
        let Some(interface) = self.interface.filter(|pattern| !pattern.is_empty()) else {
            return Err(Invalid::new(key("interface"), "is missing; write interface = \"eth0\""));
        };
        warnings.extend(pattern::check(&key("interface"), &interface)?);
        if self.speed.is_some() && (self.rx_speed.is_some() || self.tx_speed.is_some()) {
            let message = "is for both ways; write either it, or rx_speed and tx_speed";
            return Err(Invalid::new(key("speed"), message));
        }
        let both = speed(key("speed"), self.speed)?;
        let speed = Speed {
            rx: speed(key("rx_speed"), self.rx_speed)?.or(both),
            tx: speed(key("tx_speed"), self.tx_speed)?.or(both),
        };
        let counter_bits = match self.counter_bits {
            None => None,
            Some(32) => Some(CounterBits::B32),
            Some(64) => Some(CounterBits::B64),
            Some(bits) => {
                let message = format!("`{bits}` is not one of 32, 64");
                return Err(Invalid::new(key("counter_bits"), message));
            }
        };
        if speed == Speed::default() && counter_bits.is_none() {
            let message = "sets nothing for its links; add speed, rx_speed, tx_speed or counter_bits";
            return Err(Invalid::new(key("interface"), message));
        }
        Ok(LinkOverride { interface, speed, counter_bits })
    }
}

fn speed(key: String, text: Option<String>) -> Result<Option<BitRate>, Invalid> {
    match parsed::<BitRate>(&key, text)? {
        Some(rate) if rate.bps() == 0 => Err(Invalid::new(key, "is 0; leave it out where the speed is unknown")),
        speed => Ok(speed),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Settings;
    use super::*;
    use crate::agent::counters::{LinkInfo, LinkKind};
    use crate::config::Layers;
    use crate::process::host::ServiceEnvironment;

    fn settings(text: &str) -> Result<Settings, String> {
        let environment = ServiceEnvironment { hostname: "gw-042".into(), ..ServiceEnvironment::default() };
        Settings::new(&Layers::from_text("agent.toml", text), &environment).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_written_of_a_link_reaches_the_selection_and_is_shown() {
        let settings = settings(
            "[[link]]\ninterface = 'eth0'\nspeed = '100 Mbit/s'\n\
             [[link]]\ninterface = 'ppp*'\nrx_speed = '50 Mbit/s'\ntx_speed = '10 Mbit/s'\ncounter_bits = 32\n\
             [[link]]\ninterface = 'wwan0'\ntx_speed = '5 Mbit/s'\n",
        )
        .unwrap();
        let mbps = |mbps: u64| Some(BitRate::from_bps(mbps * 1_000_000));
        let link = |name: &str| LinkInfo::new(1, name, LinkKind::Physical);
        let selection = settings.selection();
        assert_eq!(selection.speed(&link("eth0")), Speed::both(mbps(100)));
        assert_eq!(selection.speed(&link("ppp1")), Speed { rx: mbps(50), tx: mbps(10) });
        assert_eq!(selection.speed(&link("wwan0")), Speed { rx: None, tx: mbps(5) });
        assert_eq!(selection.counter_bits(&link("ppp1")), Some(CounterBits::B32));
        assert_eq!(selection.counter_bits(&link("eth0")), None);
        let shown = settings.to_string();
        for line in [
            "link   eth0: speed 100.0 Mbit/s\n",
            "link   ppp*: rx speed 50.0 Mbit/s, tx speed 10.0 Mbit/s, counters of 32 bits\n",
            "link   wwan0: tx speed 5.0 Mbit/s\n",
        ] {
            assert!(shown.contains(line), "{shown}");
        }
    }

    #[test]
    fn what_cannot_be_right_is_named_with_its_line_and_the_remedy() {
        let link = |more: &str| format!("[[link]]\ninterface = 'eth0'\n{more}\n");
        for (text, says) in [
            (link(""), "agent.toml:2: link.interface: sets nothing for its links; add speed"),
            (link("speed = '0 bit/s'"), "agent.toml:3: link.speed: is 0; leave it out"),
            (link("rx_speed = '100'"), "agent.toml:3: link.rx_speed: `100` is not a bit rate"),
            (link("speed = '1 Mbit/s'\nrx_speed = '1 Mbit/s'"), "agent.toml:3: link.speed: is for both ways"),
            (link("speed = '1 Mbit/s'\ntx_speed = '1 Mbit/s'"), "agent.toml:3: link.speed: is for both ways"),
            (link("counter_bits = 48"), "agent.toml:3: link.counter_bits: `48` is not one of 32, 64"),
            (link("counter_bit = 32"), "agent.toml:3: unknown key `counter_bit`; did you mean `counter_bits`?"),
            ("[[link]]\nspeed = '1 Mbit/s'\n".into(), "link.interface: is missing; write interface = \"eth0\""),
            (
                "[[link]]\ninterface = 'eth 0'\nspeed = '1 Mbit/s'\n".into(),
                "agent.toml:2: link.interface: `eth 0` matches no interface",
            ),
            ("[[link]]\ninterface = ''\nspeed = '1 Mbit/s'\n".into(), "agent.toml:2: link.interface: is missing"),
        ] {
            let error = settings(&text).expect_err(&text);
            assert!(error.contains(says), "{text}\n{error}");
        }
    }
}
