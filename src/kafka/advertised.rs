//! Checks that the brokers' `advertised.listeners` can be reached: clients connect to those, not to the configured addresses.

use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use rdkafka::metadata::{Metadata, MetadataBroker};

use super::errors::unreachable_address;

const CONNECT_MAX: Duration = Duration::from_secs(2);
const BROKERS_MAX: usize = 3;

/// Names the first broker that cannot be resolved or reached, with the remedy. Tries each address of a few brokers for at most two
/// seconds; the resolver has its own limits.
pub fn unreachable_broker(metadata: &Metadata) -> Option<String> {
    metadata.brokers().iter().take(BROKERS_MAX).find_map(|broker| {
        let address = format!("{}:{}", broker.host(), broker.port());
        let why = connect(broker).err()?;
        Some(format!("{why}: {}", unreachable_address(&address)))
    })
}

fn connect(broker: &MetadataBroker) -> std::io::Result<()> {
    let port = u16::try_from(broker.port()).unwrap_or_default();
    let mut last = std::io::Error::other("its name has no address");
    for address in (broker.host(), port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_MAX) {
            Ok(_) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}
