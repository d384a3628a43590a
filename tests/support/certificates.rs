//! A certificate authority for tests, and certificates of it: right, for another host, expired.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use openssl::pkey::PKey;
use openssl::symm::Cipher;
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, date_time_ymd};

pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

/// A signed certificate and its key, PEM.
pub(crate) struct Leaf {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name = named(name);
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("it signs itself").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Makes a certificate of a server on loopback, or of a client.
    pub(crate) fn leaf(&self, name: &str) -> Leaf {
        self.leaf_for(name, &["127.0.0.1", "localhost"])
    }

    /// Makes a certificate of a server with these names or addresses.
    pub(crate) fn leaf_for(&self, name: &str, hosts: &[&str]) -> Leaf {
        self.sign(name, hosts, false)
    }

    pub(crate) fn of_another_host(&self) -> Leaf {
        self.sign("elsewhere", &["elsewhere.example", "192.0.2.1"], false)
    }

    pub(crate) fn expired(&self) -> Leaf {
        self.sign("expired", &["127.0.0.1", "localhost"], true)
    }

    fn sign(&self, name: &str, hosts: &[&str], expired: bool) -> Leaf {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(hosts).expect("host names");
        params.distinguished_name = named(name);
        if expired {
            (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
        }
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("it signs").pem();
        Leaf { certificate, key: key.serialize_pem() }
    }
}

impl Leaf {
    /// Returns the key as encrypted PKCS#8.
    pub(crate) fn locked_key(&self, passphrase: &str) -> String {
        let key = PKey::private_key_from_pem(self.key.as_bytes()).expect("a key");
        let locked = key.private_key_to_pem_pkcs8_passphrase(Cipher::aes_256_cbc(), passphrase.as_bytes());
        String::from_utf8(locked.expect("it can be locked")).expect("PEM is text")
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

/// Writes a file that only its owner may read, in one step, as a careful rotation does.
pub(crate) fn write_file(directory: &Path, name: &str, text: &str) -> PathBuf {
    let (path, new) = (directory.join(name), directory.join(format!(".{name}.new")));
    fs::write(&new, text).expect("it can be written");
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).expect("it is ours");
    fs::rename(&new, &path).expect("one directory");
    path
}
