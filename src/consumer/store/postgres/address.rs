//! URL of a server, as libpq takes it. The parameters for TLS, of which the `postgres` crate knows few, go to [`PostgresTls`].

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::utf8_percent_encode;
use postgres::config::{Host, SslMode};
use postgres::{Client, Config, NoTls};

use super::tls::{PostgresTls, Verify};
use crate::config::SecretFile;
use crate::wire::{RESERVED, percent_decoded};

#[derive(Clone)]
pub(in crate::consumer::store) struct Address {
    config: Config,
    password: Option<SecretFile>,
    tls: Option<PostgresTls>,
    schema: Option<String>,
    parameters: String,
}

const SHOWN: [&str; 7] =
    ["sslmode", "sslrootcert", "sslcert", "sslkey", "target_session_attrs", "connect_timeout", "load_balance_hosts"];

const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(30);
const CONNECT_MAX: Duration = Duration::from_secs(10);

impl Address {
    /// Parses `postgres://USER@HOST/DATABASE?…`, whose password wins over `password`. Errors quote no password.
    pub(in crate::consumer::store) fn parse(
        url: &str,
        password: Option<SecretFile>,
        schema: Option<&str>,
    ) -> Result<Self, String> {
        let (base, query) = url.split_at(query_begin(url));
        // User and password end at the first `@`: beyond one, a part of them would be host or database, and shown.
        if base.matches('@').count() > 1 || !base.contains('@') && query.contains('@') {
            return Err("has an `@` in the user, the password or a parameter: it is written as %40".to_owned());
        }
        let (rest, ssl) = split_tls_parameters(base, query)?;
        let mut config: Config = rest.parse().map_err(|error| not_understood(&error))?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err("names no host; write it as \"postgres://USER@HOST/DATABASE\"".to_owned());
        }
        let tls = PostgresTls::parse(&ssl, &config)?;
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
        let is_shown = |pair: &&str| pair.split_once('=').is_some_and(|(name, _)| SHOWN.contains(&name));
        let shown: Vec<&str> = query.trim_start_matches('?').split('&').filter(is_shown).collect();
        let question = if shown.is_empty() { "" } else { "?" };
        let parameters = format!("{question}{}", shown.join("&"));
        Ok(Self { config, password, tls, schema: schema.map(str::to_owned), parameters })
    }

    pub(in crate::consumer::store) fn holds_password(&self) -> bool {
        self.config.get_password().is_some()
    }

    pub(in crate::consumer::store) fn files(&self) -> Vec<PathBuf> {
        self.tls.as_ref().map(PostgresTls::files).unwrap_or_default()
    }

    /// Returns whether TLS is demanded, but no proof that the server is the one that the URL names: `sslmode=require`.
    pub(super) fn trusts_any_server(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.needed && tls.verify == Verify::Nothing)
    }

    pub(super) fn schema(&self) -> Option<&str> {
        self.schema.as_deref()
    }

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
        .map_err(|error| ConnectError::Server(error, self.login()))
    }

    fn login(&self) -> Login {
        let role = self.config.get_user().unwrap_or_default();
        Login { role: role.to_owned(), database: self.config.get_dbname().unwrap_or(role).to_owned() }
    }
}

#[derive(Debug)]
pub(super) enum ConnectError {
    Local(String),
    Server(postgres::Error, Login),
}

#[derive(Debug)]
pub(super) struct Login {
    pub(super) role: String,
    pub(super) database: String,
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("postgres://")?;
        if let Some(user) = self.config.get_user() {
            write!(f, "{}@", utf8_percent_encode(user, RESERVED))?;
        }
        for (index, host) in self.config.get_hosts().iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match host {
                Host::Tcp(name) if name.contains(':') => write!(f, "{comma}[{name}]")?,
                Host::Tcp(name) => write!(f, "{comma}{name}")?,
                #[cfg(unix)]
                Host::Unix(path) => write!(f, "{comma}{}", utf8_percent_encode(&path.to_string_lossy(), RESERVED))?,
            }
            if let Some(port) = self.config.get_ports().get(index).or(self.config.get_ports().first()) {
                write!(f, ":{port}")?;
            }
        }
        write!(f, "/{}{}", utf8_percent_encode(&self.login().database, RESERVED), self.parameters)
    }
}

/// Explains an error of the `postgres` crate, which names a parameter that it does not know and nothing else of the URL.
fn not_understood(error: &postgres::Error) -> String {
    let text = crate::process::exit::chain(error as &dyn std::error::Error);
    match text.split_once("unknown option `").and_then(|(_, name)| name.strip_suffix('`')) {
        Some(name) => format!("has the parameter `{name}`, which is not understood here; leave it out"),
        None => format!("is not understood ({text}); write it as \"postgres://USER@HOST/DATABASE\""),
    }
}

/// Returns where `?` begins the parameters, as libpq finds it: not in a password.
fn query_begin(url: &str) -> usize {
    let authority = url.find("://").map_or(0, |at| at + 3);
    let path = url[authority..].find('/').map_or(url.len(), |at| authority + at);
    let host = url[authority..path].rfind('@').map_or(authority, |at| authority + at);
    url[host..].find('?').map_or(url.len(), |at| host + at)
}

fn split_tls_parameters(base: &str, query: &str) -> Result<(String, Vec<(String, String)>), String> {
    let (mut rest, mut ssl) = (Vec::new(), Vec::new());
    for pair in query.trim_start_matches('?').split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some((name @ ("sslmode" | "sslrootcert" | "sslcert" | "sslkey" | "sslpassword"), value)) => {
                let value = percent_decoded(value).ok_or_else(|| format!("{name} is not percent-encoded text"))?;
                // OpenSSL's binding panics at one.
                if value.contains('\0') {
                    return Err(format!("{name} holds a NUL character, which no file has in its name"));
                }
                ssl.push((name.to_owned(), value));
            }
            _ => rest.push(pair),
        }
    }
    let question = if rest.is_empty() { "" } else { "?" };
    Ok((format!("{base}{question}{}", rest.join("&")), ssl))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tls(url: &str) -> Option<(bool, Verify)> {
        Address::parse(url, None, None).unwrap().tls.map(|tls| (tls.needed, tls.verify))
    }

    #[test]
    fn sslmode_means_what_it_means_to_libpq() {
        use Verify::{Authority, AuthorityAndName, Nothing};
        assert_eq!(tls("postgres://u@db.example/d"), Some((true, AuthorityAndName)));
        assert_eq!(tls("postgres://u@10.0.0.1/d?sslmode=disable"), None);
        assert_eq!(tls("postgres://u@db.example/d?sslmode=require&connect_timeout=3"), Some((true, Nothing)));
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root.pem");
        let certificate = rcgen::generate_simple_self_signed(["root".to_owned()]).unwrap().cert;
        std::fs::write(&root, certificate.pem()).unwrap();
        for (mode, needed) in [("require", true), ("prefer", false), ("allow", false)] {
            let url = format!("postgres://u@db.example/d?sslmode={mode}&sslrootcert={}", root.display());
            assert_eq!(tls(&url), Some((needed, Authority)), "{mode}");
        }
        assert_eq!(tls("postgres://u@db.example/d?sslmode=verify-ca"), Some((true, Authority)));
        assert_eq!(tls("postgres://u@127.0.0.1/d"), Some((false, Nothing)));
        assert_eq!(tls("postgres://u@localhost:5433/d"), Some((false, Nothing)));
        assert_eq!(tls("postgres:///d?host=/run/postgresql&user=u"), None);
        assert_eq!(tls("postgres://u@localhost,db.example/d"), Some((true, AuthorityAndName)));
    }

    #[test]
    fn a_server_that_need_not_prove_who_it_is_is_noticed() {
        let trusts_any = |url: &str| Address::parse(url, None, None).unwrap().trusts_any_server();
        assert!(trusts_any("postgres://u@db.example/d?sslmode=require"));
        for url in ["db.example/d", "db.example/d?sslmode=verify-ca", "localhost/d", "db.example/d?sslmode=disable"] {
            assert!(!trusts_any(&format!("postgres://u@{url}")), "{url}");
        }
    }

    #[test]
    fn what_makes_no_sense_says_so_and_quotes_no_password() {
        for (url, says) in [
            ("postgres://u:s3cret@h/d?sslmode=maybe", "sslmode=maybe"),
            ("postgres://u:s3cret@h/d?sslcert=/a", "need each other"),
            ("postgres://u:s3cret@h/d?sslmode=require&sslrootcert=system", "verify-full"),
            ("postgres://u:s3cret@h/d?sslmode=disable&sslrootcert=system", "verify-full"),
            ("postgres://u:s3cret@h/d?sslrootcert=/nowhere.pem", "/nowhere.pem"),
            ("postgres://u:s3cret@h/d?sslrootcert=/a%00b", "sslrootcert holds a NUL"),
            ("postgres://u:s3cret@h/d?gssencmode=disable", "has the parameter `gssencmode`"),
            ("postgres://u:p@s3cret@h/d", "is written as %40"),
            ("postgres://u:p@s3/s3cret@h/d", "is written as %40"),
            ("postgres://u:a/b?s3cret@h/d?sslmode=disable", "is written as %40"),
            ("postgres://db.example/hw?user=u&password=p@s3cret", "is written as %40"),
            ("postgres://u@h/d?sslcert=/c&sslkey=/k&sslpassword=s3cret%off", "sslpassword is not percent-encoded"),
            ("postgres://", "names no host"),
        ] {
            let error = Address::parse(url, None, None).unwrap_err();
            assert!(error.contains(says), "{url}: {error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
        let shown = Address::parse("postgres://u:s3cret@h:5433/d", None, None).unwrap();
        assert_eq!(format!("{shown} {shown:?}"), "postgres://u@h:5433/d postgres://u@h:5433/d");
        let strange = Address::parse("postgres://u:a?b@localhost/d?sslmode=prefer", None, None).unwrap();
        assert_eq!(strange.config.get_password(), Some(&b"a?b"[..]));
    }

    #[test]
    fn what_is_shown_is_a_url_again() {
        for (url, shown) in [
            ("postgres://u:s3cret@[::1]:5433/d", "postgres://u@[::1]:5433/d"),
            ("postgres://rep%20u%40x:s3cret@h/my%20d", "postgres://rep%20u%40x@h:5432/my%20d"),
            ("postgres:///d?host=/run/postgresql&user=u", "postgres://u@%2Frun%2Fpostgresql/d"),
            (
                "postgres://u@a:1,b:2/d?sslmode=require&sslpassword=s3cret&target_session_attrs=read-write",
                "postgres://u@a:1,b:2/d?sslmode=require&target_session_attrs=read-write",
            ),
        ] {
            let address = Address::parse(url, None, None).unwrap();
            assert_eq!(address.to_string(), shown);
            let again = Address::parse(shown, None, None).unwrap();
            let target = |of: &Config| {
                (of.get_user().map(str::to_owned), of.get_hosts().to_vec(), of.get_dbname().map(str::to_owned))
            };
            assert_eq!(target(&again.config), target(&address.config), "{url}");
        }
    }

    #[test]
    fn a_password_in_the_url_wins() {
        let file = || Some(SecretFile::new("/nowhere", None));
        assert!(Address::parse("postgres://u:p@localhost/d", file(), None).unwrap().password.is_none());
        assert!(Address::parse("postgres://u@localhost/d", file(), None).unwrap().password.is_some());
    }

    proptest::proptest! {
        /// The password is not damaged itself: it then is a word of its own, to be found in what is said.
        #[test]
        fn no_damaged_url_panics_or_shows_its_password(
            before in crate::testing::damaged_text("postgres://user:"),
            after in crate::testing::damaged_text(
                "@db.example:5433,[::1]/highwater?sslmode=verify-full&sslrootcert=system&connect_timeout=10&options=-c%20a%3Db"
            ),
        ) {
            let url = format!("postgres://u:qqqqqqqqpassword{after}");
            match Address::parse(&url, None, None) {
                Ok(address) => {
                    let shown = format!("{address} {address:?}");
                    proptest::prop_assert!(!shown.contains("qqqqqqqqpassword"), "{}", shown);
                }
                Err(error) => proptest::prop_assert!(!error.contains("qqqqqqqqpassword"), "{url}: {error}"),
            }
            let _ = Address::parse(&format!("{before}p{after}"), None, None);
            let _ = crate::consumer::store::StoreUrl::parse(&format!("{before}{after}"), None, None);
        }
    }
}
