//! Whether the brokers of a cluster can be reached by the addresses that the cluster names: what a client connects to is not what was
//! configured, but what the brokers' `advertised.listeners` say.

use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use rdkafka::metadata::{Metadata, MetadataBroker};

use super::errors::unreachable_address;

/// A broker on the same continent takes a connection much sooner.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// Maximum number of brokers to try, so that the answer comes in time.
const BROKERS_MAX: usize = 3;

/// Names the first broker of a cluster whose address cannot be resolved or reached from here, and what to look at. Waits for each, two
/// seconds at most.
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
