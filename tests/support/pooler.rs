//! PgBouncer, between a program and its database.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use super::postgres::Database;
use super::process::{Spawned, until};

/// PgBouncer. Ended when it is dropped.
pub(crate) struct Pooler {
    pub(crate) url: String,
    _child: Spawned,
    _directory: tempfile::TempDir,
}

impl Pooler {
    pub(crate) fn start(database: &Database, mode: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (role, rest) = database.url.trim_start_matches("postgres://").split_once(':').unwrap();
        let (password, rest) = rest.split_once('@').unwrap();
        let (server, name) = rest.split_once('/').unwrap();
        let (host, server_port) = server.split_once(':').unwrap();
        let ini = format!(
            "[databases]\n{name} = host={host} port={server_port} user={role} password={password}\n[pgbouncer]\n\
             listen_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\npool_mode = {mode}\nunix_socket_dir =\n\
             ignore_startup_parameters = extra_float_digits\n"
        );
        let file = directory.path().join("pgbouncer.ini");
        fs::write(&file, ini).unwrap();
        let mut command = Command::new("pgbouncer");
        command
            .args(["-q", "-u", "postgres"])
            .arg(&file)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .stdout(Stdio::null());
        let child = Spawned::start(&mut command);
        until("pgbouncer listens", || TcpStream::connect(("127.0.0.1", port)).ok());
        Self { url: format!("postgres://{role}@127.0.0.1:{port}/{name}"), _child: child, _directory: directory }
    }
}
