//! The schemas that messages name by their ids: asked of the registry once, on a thread of its own, and kept.
//!
//! A registry that is away decides nothing. Only its own word that it has no such schema does, and that is asked for again after
//! a while.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use super::backoff::Backoff;
use crate::clock::{Clock as _, SystemClock};
use crate::registry::{Address, Kept, Refusal};
use crate::wire::{DecodeError, Schemas, Undecoded, Writer};

/// So long an answer is waited for, which usually takes a thousandth of it; then the loop has other things to do.
const PATIENCE: Duration = Duration::from_secs(1);
/// So long the registry's word holds that there is no such schema.
const UNKNOWN_FOR: Duration = Duration::from_secs(30);
/// So many ids are remembered before all are forgotten.
const IDS_MAX: usize = 1_000;

/// A registry's schemas.
pub(super) struct Registered {
    address: Address,
    clock: SystemClock,
    answers: HashMap<u32, Answer>,
    asking: Option<(u32, Receiver<Result<Kept, Refusal>>)>,
    backoff: Backoff,
    /// It is left alone until this time, since it failed for this reason.
    resting: Option<(Duration, String)>,
}

enum Answer {
    Known(Arc<Writer>),
    Useless(String),
    /// Until then.
    Unknown(Duration),
}

impl Registered {
    pub(super) fn new(address: Address) -> Self {
        Self {
            address,
            clock: SystemClock::default(),
            answers: HashMap::new(),
            asking: None,
            backoff: Backoff::default(),
            resting: None,
        }
    }

    /// The registry's answer, if it comes soon.
    fn ask(&mut self, id: u32) -> Result<Result<Kept, Refusal>, String> {
        let receiver = match self.asking.take() {
            Some((asked, receiver)) if asked == id => receiver,
            // An answer that nobody waits for any more is dropped with its thread's end.
            _ => {
                let (sender, receiver) = channel();
                let address = self.address.clone();
                let question = move || drop(sender.send(address.open().and_then(|registry| registry.schema(id))));
                let thread = std::thread::Builder::new().name("registry".into()).spawn(question);
                thread.map_err(|error| format!("no thread to ask the schema registry: {error}"))?;
                receiver
            }
        };
        match receiver.recv_timeout(PATIENCE) {
            Ok(answer) => Ok(answer),
            Err(RecvTimeoutError::Timeout) => {
                self.asking = Some((id, receiver));
                Err(format!("schema registry {}: no answer yet", self.address.url()))
            }
            Err(RecvTimeoutError::Disconnected) => Err("asking the schema registry failed; see above".to_owned()),
        }
    }

    fn rest(&mut self, wait: Duration, why: String) -> Undecoded {
        self.resting = Some((self.clock.monotonic() + wait, why.clone()));
        Undecoded::NotNow { why, wait }
    }
}

impl Schemas for Registered {
    fn schema(&mut self, id: u32) -> Result<Arc<Writer>, Undecoded> {
        let now = self.clock.monotonic();
        let unknown = || DecodeError::UnknownId { id, registry: self.address.url().to_owned() };
        match self.answers.get(&id) {
            Some(Answer::Known(writer)) => return Ok(Arc::clone(writer)),
            Some(Answer::Useless(problem)) => return Err(DecodeError::Schema { id, problem: problem.clone() }.into()),
            Some(Answer::Unknown(until)) if now < *until => return Err(unknown().into()),
            _ => {}
        }
        if let Some((until, why)) = &self.resting
            && now < *until
        {
            return Err(Undecoded::NotNow { why: why.clone(), wait: *until - now });
        }
        let answer = match self.ask(id) {
            Ok(Ok(Kept { kind, text })) => match Writer::parse(kind.as_deref(), &text) {
                Ok(writer) => Answer::Known(Arc::new(writer)),
                Err(problem) => Answer::Useless(problem),
            },
            Ok(Err(Refusal::Unknown(_))) => Answer::Unknown(now + UNKNOWN_FOR),
            Ok(Err(Refusal::Away(why))) | Err(why) => {
                let wait = self.backoff.next();
                return Err(self.rest(wait, why));
            }
            Ok(Err(Refusal::Misconfigured(why))) => {
                let wait = self.backoff.slow();
                return Err(self.rest(wait, why));
            }
        };
        self.backoff.reset();
        self.resting = None;
        if self.answers.len() >= IDS_MAX {
            self.answers.clear();
        }
        self.answers.insert(id, answer);
        self.schema(id)
    }
}

impl fmt::Debug for Registered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registered").field("url", &self.address.url()).finish_non_exhaustive()
    }
}
