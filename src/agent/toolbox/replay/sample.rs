use std::time::Duration;

use super::rows::{Amount, Recorded};
use crate::agent::detector::rate::bit_rate;
use crate::message::{Reason, Sample};

pub(crate) fn sample(interface: &str, recorded: &Recorded) -> Sample {
    let Recorded { elapsed, rx, tx } = *recorded;
    let (rx_bytes, rx_bps) = measured(rx, elapsed);
    let (tx_bytes, tx_bps) = tx.map_or((None, None), |tx| measured(tx, elapsed));
    let rate_is_missing = rx_bps.is_none() || tx.is_some() && tx_bps.is_none();
    let why = if elapsed.is_none() { Reason::First } else { Reason::Reset };
    Sample {
        interface: interface.to_owned(),
        duration_ms: elapsed.map(|elapsed| whole(elapsed.as_millis())),
        rx_bytes,
        tx_bytes,
        rx_bps,
        tx_bps,
        reason: rate_is_missing.then_some(why),
    }
}

fn measured(amount: Amount, elapsed: Option<Duration>) -> (Option<u64>, Option<u64>) {
    match amount {
        Amount::Bytes(bytes) => {
            let bps = elapsed.map(|elapsed| whole(bit_rate(bytes, elapsed).bps().into()));
            (Some(whole(bytes.into())), bps)
        }
        Amount::Rate(bps) => {
            let bytes = |elapsed: Duration| u128::from(bps) * elapsed.as_millis() / 8_000;
            (elapsed.map(|elapsed| whole(bytes(elapsed))), Some(whole(bps.into())))
        }
        Amount::Unknown => (None, None),
    }
}

fn whole(number: u128) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX).min(i64::MAX.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_bytes_over_time_and_the_other_way_round() {
        let minute = Some(Duration::from_secs(60));
        let recorded = Recorded { elapsed: minute, rx: Amount::Bytes(600), tx: Some(Amount::Rate(8_000)) };
        let sample = sample("eth0", &recorded);
        assert_eq!((sample.rx_bytes, sample.rx_bps), (Some(600), Some(80)));
        assert_eq!((sample.tx_bytes, sample.tx_bps), (Some(60_000), Some(8_000)));
        assert_eq!((sample.duration_ms, sample.reason), (Some(60_000), None));
    }

    #[test]
    fn a_rate_that_nobody_knows_says_why() {
        let why = |elapsed, rx, tx| sample("eth0", &Recorded { elapsed, rx, tx }).reason;
        let minute = Some(Duration::from_secs(60));
        assert_eq!(why(None, Amount::Bytes(1), None), Some(Reason::First));
        assert_eq!(why(minute, Amount::Unknown, None), Some(Reason::Reset));
        assert_eq!(why(minute, Amount::Bytes(1), Some(Amount::Unknown)), Some(Reason::Reset));
        assert_eq!(why(None, Amount::Rate(1), None), None);
    }

    #[test]
    fn what_is_too_large_for_a_database_stays_below_its_bound() {
        let tick = Some(Duration::from_nanos(1));
        let sample = sample("eth0", &Recorded { elapsed: tick, rx: Amount::Bytes(u64::MAX), tx: None });
        assert_eq!((sample.rx_bytes, sample.rx_bps), (Some(i64::MAX as u64), Some(i64::MAX as u64)));
    }
}
