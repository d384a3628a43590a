//! Where the server is and how to speak to it: a URL as libpq understands it, TLS included.
//!
//! The `postgres` crate knows fewer of libpq's words than people write: `sslmode`'s verifying values, `sslrootcert`, `sslcert`
//! and `sslkey` are taken out of the URL and understood here (<https://www.postgresql.org/docs/current/libpq-ssl.html>).

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use openssl::ssl::{SslConnector, SslFiletype, SslMethod, SslVerifyMode};
use postgres::config::{Host, SslMode};
use postgres::{Client, Config, NoTls};
use postgres_openssl::MakeTlsConnector;

use crate::config::SecretFile;

/// A server, a database in it, and who asks.
#[derive(Clone)]
pub(in crate::consumer::store) struct Address {
    config: Config,
    password: Option<SecretFile>,
    tls: Option<Tls>,
}

/// What is asked of the server's certificate, and ours.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Tls {
    needed: bool,
    verify: Verify,
    /// `None`: the system's.
    root: Option<PathBuf>,
    identity: Option<(PathBuf, PathBuf)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verify {
    Nothing,
    Authority,
    AuthorityAndName,
}

/// Silence on a connection after which it is asked for a sign of life; then so many times at such an interval.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;
/// How long bytes may stay unacknowledged.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(30);
const CONNECT_MAX: Duration = Duration::from_secs(10);

impl Address {
    /// Understands `postgres://USER@HOST/DATABASE?…`. A password in the URL wins over `password`.
    ///
    /// # Errors
    /// Says what would be right, and quotes no password.
    pub(in crate::consumer::store) fn parse(url: &str, password: Option<SecretFile>) -> Result<Self, String> {
        let (rest, ssl) = taken_apart(url)?;
        let mut config: Config = rest.parse().map_err(|e| {
            format!(
                "is not understood ({}); write it as \"postgres://USER@HOST/DATABASE\"",
                crate::exit::chain(&e as &dyn std::error::Error)
            )
        })?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err("names no host; write it as \"postgres://USER@HOST/DATABASE\"".to_owned());
        }
        let tls = Tls::understand(&ssl, &config)?;
        let connect_max = config.get_connect_timeout().copied().unwrap_or(CONNECT_MAX);
        config
            .ssl_mode(match &tls {
                None => SslMode::Disable,
                Some(tls) if tls.needed => SslMode::Require,
                Some(_) => SslMode::Prefer,
            })
            .connect_timeout(connect_max)
            .tcp_user_timeout(UNACKNOWLEDGED_MAX)
            .keepalives_idle(KEEPALIVE_IDLE)
            .keepalives_interval(KEEPALIVE_INTERVAL)
            .keepalives_retries(KEEPALIVE_RETRIES);
        let password = if config.get_password().is_some() { None } else { password };
        Ok(Self { config, password, tls })
    }

    /// A new connection, with secrets and certificates as their files have them now.
    ///
    /// # Errors
    /// The server's, or a file that can't be read.
    pub(super) fn connect(&self, application: &str) -> Result<Client, ConnectError> {
        let mut config = self.config.clone();
        config.application_name(application);
        if let Some(file) = &self.password {
            config.password(file.read().map_err(ConnectError::Local)?);
        }
        match &self.tls {
            None => config.connect(NoTls),
            Some(tls) => config.connect(tls.connector().map_err(ConnectError::Local)?),
        }
        .map_err(ConnectError::Server)
    }
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum ConnectError {
    Local(String),
    Server(postgres::Error),
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Address {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("postgres://")?;
        if let Some(user) = self.config.get_user() {
            write!(f, "{user}@")?;
        }
        for (index, host) in self.config.get_hosts().iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match host {
                Host::Tcp(name) => write!(f, "{comma}{name}")?,
                #[cfg(unix)]
                Host::Unix(path) => write!(f, "{comma}{}", path.display())?,
            }
            if let Some(port) = self.config.get_ports().get(index).or(self.config.get_ports().first()) {
                write!(f, ":{port}")?;
            }
        }
        write!(f, "/{}", self.config.get_dbname().or(self.config.get_user()).unwrap_or_default())
    }
}

/// libpq's words for TLS in a URL, and the URL without them.
fn taken_apart(url: &str) -> Result<(String, Vec<(String, String)>), String> {
    let Some((base, query)) = url.split_once('?') else { return Ok((url.to_owned(), Vec::new())) };
    let (mut rest, mut ssl) = (Vec::new(), Vec::new());
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some((name @ ("sslmode" | "sslrootcert" | "sslcert" | "sslkey"), value)) => {
                ssl.push((name.to_owned(), percent_decoded(value)?));
            }
            _ => rest.push(pair),
        }
    }
    let question = if rest.is_empty() { "" } else { "?" };
    Ok((format!("{base}{question}{}", rest.join("&")), ssl))
}

fn percent_decoded(text: &str) -> Result<String, String> {
    let wrong = || format!("`{text}` is not percent-encoded text");
    let (mut bytes, mut rest) = (Vec::new(), text.bytes());
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next().ok_or_else(wrong)?, rest.next().ok_or_else(wrong)?];
            let digits = std::str::from_utf8(&digits).map_err(|_| wrong())?;
            bytes.push(u8::from_str_radix(digits, 16).map_err(|_| wrong())?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

impl Tls {
    /// Without `sslmode`, a remote server has to prove who it is; one on this host is asked for TLS and may have none.
    fn understand(words: &[(String, String)], config: &Config) -> Result<Option<Self>, String> {
        let word = |name: &str| words.iter().rev().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
        let (system, root) = match word("sslrootcert") {
            Some("system") => (true, None),
            file => (false, file.map(PathBuf::from)),
        };
        let default = match () {
            () if system => "verify-full",
            () if config.get_hosts().iter().any(is_remote)
                || config.get_hostaddrs().iter().any(|a| !a.is_loopback()) =>
            {
                "verify-full"
            }
            () if config.get_hosts().iter().any(|host| matches!(host, Host::Tcp(_))) => "prefer",
            () => "disable",
        };
        let (needed, verify) = match word("sslmode").unwrap_or(default) {
            "disable" => return Ok(None),
            "allow" | "prefer" => (false, Verify::Nothing),
            // As libpq: who names a root certificate wants it to be used.
            "require" if root.is_some() => (true, Verify::Authority),
            "require" => (true, Verify::Nothing),
            "verify-ca" => (true, Verify::Authority),
            "verify-full" => (true, Verify::AuthorityAndName),
            other => {
                return Err(format!(
                    "has sslmode={other}, which is none of disable, allow, prefer, require, verify-ca, verify-full"
                ));
            }
        };
        if system && verify != Verify::AuthorityAndName {
            return Err("has sslrootcert=system, which needs sslmode=verify-full".to_owned());
        }
        let identity = match (word("sslcert"), word("sslkey")) {
            (Some(certificate), Some(key)) => Some((PathBuf::from(certificate), PathBuf::from(key))),
            (None, None) => None,
            _ => return Err("has one of sslcert and sslkey, which need each other".to_owned()),
        };
        let tls = Self { needed, verify, root, identity };
        tls.connector()?;
        Ok(Some(tls))
    }

    fn connector(&self) -> Result<MakeTlsConnector, String> {
        let failed = |what: &str, e: &dyn fmt::Display| format!("{what} cannot be used: {e}");
        let mut builder = SslConnector::builder(SslMethod::tls_client()).map_err(|e| failed("TLS", &e))?;
        if self.verify == Verify::Nothing {
            builder.set_verify(SslVerifyMode::NONE);
        } else if let Some(root) = self.root.clone().or_else(|| openssl_probe::probe().cert_file) {
            builder.set_ca_file(&root).map_err(|e| failed(&format!("sslrootcert {}", root.display()), &e))?;
        }
        if let Some((certificate, key)) = &self.identity {
            builder
                .set_certificate_chain_file(certificate)
                .map_err(|e| failed(&format!("sslcert {}", certificate.display()), &e))?;
            builder
                .set_private_key_file(key, SslFiletype::PEM)
                .map_err(|e| failed(&format!("sslkey {}", key.display()), &e))?;
        }
        let mut connector = MakeTlsConnector::new(builder.build());
        let with_name = self.verify == Verify::AuthorityAndName;
        connector.set_callback(move |configuration, _| {
            configuration.set_verify_hostname(with_name);
            Ok(())
        });
        Ok(connector)
    }
}

fn is_remote(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => name != "localhost" && !name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()),
        #[cfg(unix)]
        Host::Unix(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tls(url: &str) -> Option<(bool, Verify)> {
        Address::parse(url, None).unwrap().tls.map(|tls| (tls.needed, tls.verify))
    }

    #[test]
    fn sslmode_means_what_it_means_to_libpq() {
        use Verify::{Authority, AuthorityAndName, Nothing};
        assert_eq!(tls("postgres://u@db.example/d"), Some((true, AuthorityAndName)));
        assert_eq!(tls("postgres://u@10.0.0.1/d?sslmode=disable"), None);
        assert_eq!(tls("postgres://u@db.example/d?sslmode=require&connect_timeout=3"), Some((true, Nothing)));
        assert_eq!(tls("postgres://u@db.example/d?sslmode=verify-ca"), Some((true, Authority)));
        assert_eq!(tls("postgres://u@127.0.0.1/d"), Some((false, Nothing)));
        assert_eq!(tls("postgres://u@localhost:5433/d"), Some((false, Nothing)));
        assert_eq!(tls("postgres:///d?host=/run/postgresql&user=u"), None);
        assert_eq!(tls("postgres://u@localhost,db.example/d"), Some((true, AuthorityAndName)));
    }

    #[test]
    fn what_makes_no_sense_says_so_and_quotes_no_password() {
        for (url, says) in [
            ("postgres://u:s3cret@h/d?sslmode=maybe", "sslmode=maybe"),
            ("postgres://u:s3cret@h/d?sslcert=/a", "need each other"),
            ("postgres://u:s3cret@h/d?sslmode=require&sslrootcert=system", "verify-full"),
            ("postgres://u:s3cret@h/d?sslrootcert=/nowhere.pem", "/nowhere.pem"),
            ("postgres://u:s3cret@h/d?nonsense=1", "nonsense"),
            ("postgres://", "names no host"),
        ] {
            let error = Address::parse(url, None).unwrap_err();
            assert!(error.contains(says), "{url}: {error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
        let shown = Address::parse("postgres://u:s3cret@h:5433/d", None).unwrap();
        assert_eq!(format!("{shown} {shown:?}"), "postgres://u@h:5433/d postgres://u@h:5433/d");
    }

    #[test]
    fn a_password_in_the_url_wins() {
        let file = || Some(SecretFile::new("/nowhere", None));
        assert!(Address::parse("postgres://u:p@localhost/d", file()).unwrap().password.is_none());
        assert!(Address::parse("postgres://u@localhost/d", file()).unwrap().password.is_some());
    }

    proptest::proptest! {
        /// The password is not damaged itself: it then is a word of its own, to be found in what is said.
        #[test]
        fn no_damaged_url_panics_or_shows_its_password(
            before in crate::damage::damaged_text("postgres://user:"),
            after in crate::damage::damaged_text(
                "@db.example:5433,[::1]/highwater?sslmode=verify-full&sslrootcert=system&connect_timeout=10&options=-c%20a%3Db"
            ),
        ) {
            let url = format!("postgres://u:qqqqqqqqpassword{after}");
            match Address::parse(&url, None) {
                Ok(address) => {
                    let shown = format!("{address} {address:?}");
                    proptest::prop_assert!(!shown.contains("qqqqqqqqpassword"), "{}", shown);
                }
                Err(error) => proptest::prop_assert!(!error.contains("qqqqqqqqpassword"), "{url}: {error}"),
            }
            let _ = Address::parse(&format!("{before}p{after}"), None);
            let _ = crate::consumer::store::Location::parse(&format!("{before}{after}"), None);
        }
    }
}
