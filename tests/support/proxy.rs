//! A TCP proxy that fails as networks do: it refuses, swallows, lets a peer vanish, or is slow.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Mode {
    Pass,
    /// Resets connections, and refuses new ones.
    Refuse,
    /// Accepts connections and reads their bytes, but never answers; swallowed bytes are lost when the mode ends.
    Swallow,
    /// A peer has lost its power: connections stay, but carry nothing, not even a FIN. New ones are accepted, and hang too.
    HalfOpen,
    /// A few hundred bytes at a time.
    Slow,
}

/// Moment at which a connection ends that carries certain bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Before the server gets them.
    Before,
    /// After the server got them, and before its answer.
    After,
}

/// Listens on a port of its own, in front of an address. Ends when dropped.
pub(crate) struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
}

struct State {
    upstream: Mutex<String>,
    mode: AtomicU8,
    closed: AtomicBool,
    /// The next connection whose client sends these bytes in one piece is cut.
    cut_at: Mutex<Option<(Vec<u8>, Cut)>>,
    cuts: AtomicU32,
    connections: Mutex<Vec<Pair>>,
    accepted: AtomicU32,
    open: AtomicU32,
    /// In both directions.
    bytes: AtomicU64,
}

/// Both ends of a connection. Once bytes were withheld from it, it never works again.
struct Pair {
    client: TcpStream,
    server: TcpStream,
    dead: Arc<AtomicBool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leg {
    Request,
    Response,
}

const POLL: Duration = Duration::from_millis(10);

impl Proxy {
    /// Starts on loopback in front of `upstream`, `HOST:PORT`, which may be set later.
    pub(crate) fn new(upstream: &str) -> Self {
        Self::on_host("127.0.0.1", upstream)
    }

    /// Starts a proxy on another address of this host.
    pub(crate) fn on_host(host: &str, upstream: &str) -> Self {
        let listener = TcpListener::bind((host, 0)).expect("a free port");
        let address = listener.local_addr().expect("it has one");
        let state = Arc::new(State {
            upstream: Mutex::new(upstream.to_owned()),
            mode: AtomicU8::new(Mode::Pass as u8),
            closed: AtomicBool::new(false),
            cut_at: Mutex::default(),
            cuts: AtomicU32::new(0),
            connections: Mutex::default(),
            accepted: AtomicU32::new(0),
            open: AtomicU32::new(0),
            bytes: AtomicU64::new(0),
        });
        let of_thread = Arc::clone(&state);
        thread::spawn(move || of_thread.listen(address, Some(listener)));
        Self { address, state }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Returns `HOST:PORT`.
    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// Changes the address, from the next connection on.
    pub(crate) fn set_upstream(&self, upstream: &str) {
        *self.state.upstream.lock().expect("nobody panics with it") = upstream.to_owned();
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.state.mode.store(mode as u8, Ordering::SeqCst);
        if mode == Mode::Refuse {
            self.cut();
        }
    }

    /// Ends the next connection whose client sends `bytes`, once.
    pub(crate) fn cut_at(&self, bytes: &[u8], cut: Cut) {
        *self.state.cut_at.lock().expect("nobody panics with it") = Some((bytes.to_vec(), cut));
    }

    pub(crate) fn cuts(&self) -> u32 {
        self.state.cuts.load(Ordering::SeqCst)
    }

    /// Makes all present connections carry nothing any more, not even a FIN; new ones work.
    pub(crate) fn forget(&self) {
        for pair in self.state.connections.lock().expect("nobody panics with it").iter() {
            pair.dead.store(true, Ordering::SeqCst);
        }
    }

    pub(crate) fn connections(&self) -> u32 {
        self.state.accepted.load(Ordering::SeqCst)
    }

    pub(crate) fn open(&self) -> u32 {
        self.state.open.load(Ordering::SeqCst)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.state.bytes.load(Ordering::SeqCst)
    }

    pub(crate) fn cut(&self) {
        for pair in self.state.connections.lock().expect("nobody panics with it").drain(..) {
            pair.dead.store(true, Ordering::SeqCst);
            let _ = pair.client.shutdown(Shutdown::Both);
            let _ = pair.server.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.closed.store(true, Ordering::SeqCst);
        self.cut();
    }
}

impl State {
    fn mode(&self) -> Mode {
        let mode = self.mode.load(Ordering::SeqCst);
        [Mode::Pass, Mode::Refuse, Mode::Swallow, Mode::HalfOpen, Mode::Slow][usize::from(mode)]
    }

    /// Accepts connections; while they are refused, it does not listen.
    fn listen(self: &Arc<Self>, address: SocketAddr, mut listener: Option<TcpListener>) {
        while !self.closed.load(Ordering::SeqCst) {
            if self.mode() == Mode::Refuse {
                listener = None;
                thread::sleep(POLL);
                continue;
            }
            let Some(open) = &listener else {
                listener = TcpListener::bind(address).ok();
                thread::sleep(POLL);
                continue;
            };
            open.set_nonblocking(true).expect("it is a socket");
            match open.accept() {
                Ok((client, _)) => self.join(client),
                Err(_) => thread::sleep(POLL),
            }
        }
    }

    fn join(self: &Arc<Self>, client: TcpStream) {
        let upstream = self.upstream.lock().expect("nobody panics with it").clone();
        let Ok(server) = TcpStream::connect(upstream) else { return }; // dropped: the client sees it closed
        let (Ok(client_too), Ok(server_too)) = (client.try_clone(), server.try_clone()) else { return };
        let dead = Arc::new(AtomicBool::new(false));
        self.accepted.fetch_add(1, Ordering::SeqCst);
        self.open.fetch_add(1, Ordering::SeqCst);
        for (from, to, way) in [(&client, &server, Leg::Request), (&server, &client, Leg::Response)] {
            let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else { return };
            let (state, dead) = (Arc::clone(self), Arc::clone(&dead));
            thread::spawn(move || {
                state.carry(from, to, &dead, way);
                if way == Leg::Request {
                    state.open.fetch_sub(1, Ordering::SeqCst);
                }
            });
        }
        let pair = Pair { client: client_too, server: server_too, dead };
        self.connections.lock().expect("nobody panics with it").push(pair);
    }

    /// Returns the cut for these bytes, once.
    fn is_cut(&self, bytes: &[u8]) -> Option<Cut> {
        let mut cut_at = self.cut_at.lock().expect("nobody panics with it");
        let (wanted, _) = cut_at.as_ref()?;
        bytes.windows(wanted.len()).any(|window| window == wanted).then(|| cut_at.take())?.map(|(_, cut)| cut)
    }

    fn carry(&self, mut from: TcpStream, mut to: TcpStream, dead: &AtomicBool, way: Leg) {
        let _ = from.set_nonblocking(false);
        let _ = from.set_read_timeout(Some(POLL));
        let mut buffer = vec![0; 64 << 10];
        while !self.closed.load(Ordering::SeqCst) {
            let mode = self.mode();
            if mode == Mode::HalfOpen || (dead.load(Ordering::SeqCst) && mode != Mode::Swallow) {
                // Neither read nor closed: it hangs for ever.
                dead.store(true, Ordering::SeqCst);
                thread::sleep(POLL);
                continue;
            }
            let room = if mode == Mode::Slow { 512 } else { buffer.len() };
            match from.read(&mut buffer[..room]) {
                Ok(0) => break,
                Ok(count) => match self.mode() {
                    Mode::Swallow | Mode::HalfOpen => dead.store(true, Ordering::SeqCst),
                    _ if dead.load(Ordering::SeqCst) => {}
                    now => {
                        if now == Mode::Slow {
                            thread::sleep(POLL);
                        }
                        if way == Leg::Request
                            && let Some(cut) = self.is_cut(&buffer[..count])
                        {
                            // From here on no answer comes back, whatever the server does.
                            dead.store(true, Ordering::SeqCst);
                            // Counted first: a client that sees the connection closed also sees the cut.
                            self.cuts.fetch_add(1, Ordering::SeqCst);
                            let _ = from.shutdown(Shutdown::Both);
                            if cut == Cut::After {
                                let _ = to.write_all(&buffer[..count]);
                                thread::sleep(POLL); // a reset would overtake it
                            }
                            break;
                        }
                        if to.write_all(&buffer[..count]).is_err() {
                            break;
                        }
                        self.bytes.fetch_add(count as u64, Ordering::SeqCst);
                    }
                },
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => break,
            }
        }
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echo() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it has one").to_string();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
            }
        });
        address
    }

    fn answers(stream: &mut TcpStream) -> bool {
        let mut buffer = [0; 4];
        stream.set_read_timeout(Some(Duration::from_millis(300))).expect("it is a socket");
        stream.write_all(b"ping").is_ok() && stream.read_exact(&mut buffer).is_ok() && &buffer == b"ping"
    }

    #[test]
    fn it_passes_and_fails_as_told() {
        let proxy = Proxy::new(&echo());
        let connect = || TcpStream::connect(proxy.address());
        let mut first = connect().expect("it listens");
        assert!(answers(&mut first));
        for mode in [Mode::Swallow, Mode::HalfOpen] {
            proxy.set(mode);
            let mut second = connect().expect("it listens");
            assert!(!answers(&mut first) && !answers(&mut second), "{mode:?}");
            proxy.set(Mode::Pass);
            assert!(!answers(&mut second), "what was swallowed is gone");
            first = connect().expect("it listens");
            assert!(answers(&mut first), "new connections work");
        }
        proxy.set(Mode::Slow);
        assert!(answers(&mut first));
        proxy.cut_at(b"ping", Cut::Before);
        assert!(!answers(&mut first) && proxy.cuts() == 1);
        first = connect().expect("it listens");
        assert!(answers(&mut first), "only one is cut");
        proxy.set(Mode::Refuse);
        assert!(!answers(&mut first));
        super::super::agent::until("it refuses", || connect().is_err().then_some(()));
        proxy.set(Mode::Pass);
        super::super::agent::until("it listens again", || connect().is_ok_and(|mut c| answers(&mut c)).then_some(()));
    }
}
