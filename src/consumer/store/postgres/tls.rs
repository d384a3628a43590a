//! TLS to PostgreSQL by libpq's parameters (<https://www.postgresql.org/docs/current/libpq-ssl.html>), but stricter: a server that
//! is not on this host has to prove who it is unless the URL says otherwise, `allow` tries TLS first, `prefer` does not fall back
//! to plain text after a wrong certificate, a named root has to exist, and the default root is the system's CAs.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use openssl::pkey::{PKey, Private};
use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode};
use openssl::x509::store::X509StoreBuilder;
use postgres::Config;
use postgres::config::Host;
use postgres_openssl::MakeTlsConnector;

#[derive(Clone)]
pub(super) struct PostgresTls {
    pub(super) needed: bool,
    pub(super) verify: Verify,
    root: Option<PathBuf>,
    identity: Option<PostgresCertificate>,
}

#[derive(Clone)]
struct PostgresCertificate {
    certificate: PathBuf,
    key: PathBuf,
    password: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verify {
    Nothing,
    Authority,
    AuthorityAndName,
}

impl PostgresTls {
    pub(super) fn parse(words: &[(String, String)], config: &Config) -> Result<Option<Self>, String> {
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
        let mode = word("sslmode").unwrap_or(default);
        if system && mode != "verify-full" {
            return Err("has sslrootcert=system, which needs sslmode=verify-full".to_owned());
        }
        let (needed, verify) = match mode {
            "disable" => return Ok(None),
            // Like libpq, a root certificate that is named is used.
            "allow" | "prefer" if root.is_some() => (false, Verify::Authority),
            "allow" | "prefer" => (false, Verify::Nothing),
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
        let identity = match (word("sslcert"), word("sslkey")) {
            (Some(certificate), Some(key)) => {
                let password = word("sslpassword").map(str::to_owned);
                Some(PostgresCertificate { certificate: certificate.into(), key: key.into(), password })
            }
            (None, None) => None,
            _ => return Err("has one of sslcert and sslkey, which need each other".to_owned()),
        };
        let tls = Self { needed, verify, root, identity };
        tls.connector()?;
        Ok(Some(tls))
    }

    pub(super) fn files(&self) -> Vec<PathBuf> {
        let identity = self.identity.iter().flat_map(|identity| [&identity.certificate, &identity.key]);
        self.root.iter().chain(identity).cloned().collect()
    }

    pub(super) fn connector(&self) -> Result<MakeTlsConnector, String> {
        let failed = |what: &str, e: &dyn fmt::Display| format!("{what} cannot be used: {e}");
        let mut builder = SslConnector::builder(SslMethod::tls_client()).map_err(|e| failed("TLS", &e))?;
        // Servers take `sslnegotiation=direct` from clients that name the protocol.
        postgres_openssl::set_postgresql_alpn(&mut builder).map_err(|e| failed("TLS", &e))?;
        if self.verify == Verify::Nothing {
            builder.set_verify(SslVerifyMode::NONE);
        }
        if self.root.is_some() {
            // The root that is named is to be the only one: the builder has loaded OpenSSL's own CAs.
            let none = X509StoreBuilder::new().map_err(|e| failed("TLS", &e))?;
            builder.set_cert_store(none.build());
        }
        if self.verify != Verify::Nothing
            && let Some(root) = self.root.clone().or_else(|| openssl_probe::probe().cert_file)
        {
            builder.set_ca_file(&root).map_err(|e| failed(&format!("sslrootcert {}", root.display()), &e))?;
        }
        if let Some(identity) = &self.identity {
            let certificate = &identity.certificate;
            builder
                .set_certificate_chain_file(certificate)
                .map_err(|e| failed(&format!("sslcert {}", certificate.display()), &e))?;
            let at_key = |why: &dyn fmt::Display| failed(&format!("sslkey {}", identity.key.display()), why);
            builder.set_private_key(&*identity.read_key().map_err(|why| at_key(&why))?).map_err(|e| at_key(&e))?;
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

impl PostgresCertificate {
    fn read_key(&self) -> Result<PKey<Private>, String> {
        let mut file = File::open(&self.key).map_err(|e| e.to_string())?;
        let about = file.metadata().map_err(|e| e.to_string())?;
        // Like libpq: readable by us alone, or by a group too if root owns it.
        let open_to = about.mode() & if about.uid() == 0 { 0o037 } else { 0o077 };
        if about.is_file() && open_to != 0 {
            return Err(format!("others may read it (mode {:03o}); set its mode to 600", about.mode() & 0o777));
        }
        let mut pem = Vec::new();
        file.read_to_end(&mut pem).map_err(|e| e.to_string())?;
        // Without a callback OpenSSL would ask on the terminal.
        let password = |buffer: &mut [u8]| {
            let password = self.password.as_deref().unwrap_or_default().as_bytes();
            let fits = password.len().min(buffer.len());
            buffer[..fits].copy_from_slice(&password[..fits]);
            Ok(fits)
        };
        PKey::private_key_from_pem_callback(&pem, password)
            .map_err(|e| format!("{e}; if it is encrypted, sslpassword opens it"))
    }
}

fn is_remote(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => name != "localhost" && !name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()),
        #[cfg(unix)]
        Host::Unix(_) => false,
    }
}
