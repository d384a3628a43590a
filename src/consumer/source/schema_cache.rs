//! Schemas by id, requested once, on a thread, and kept. Only the registry's own answer that an id is unknown decides.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use crate::kafka::schema_registry::{RegisteredSchema, RegistryAddress, RegistryError};
use crate::process::backoff::Backoff;
use crate::process::clock::{Clock as _, SystemClock};
use crate::wire::{DecodeError, Schemas, Undecoded, WriterSchema};

/// Longest wait for an answer, which usually takes a thousandth of it.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// Longest wait once the registry did not answer: other partitions are read, and a later answer is taken at the next try.
const FAILING_ANSWER_MAX: Duration = Duration::from_millis(100);
const STALE: Duration = Duration::from_secs(180);
const QUESTIONS_MAX: usize = 16;
const UNKNOWN_FOR: Duration = Duration::from_secs(30);
const IDS_MAX: usize = 1_000;

pub(in crate::consumer) struct SchemaCache {
    address: RegistryAddress,
    clock: SystemClock,
    answers: HashMap<u32, Answer>,
    asking: HashMap<u32, Receiver<Result<RegisteredSchema, RegistryError>>>,
    backoff: Backoff,
    failing: Option<Failing>,
}

struct Failing {
    since: Duration,
    why: String,
    until: Duration,
}

enum Answer {
    Known(Arc<WriterSchema>),
    Unusable(String),
    /// Unknown to the registry, which is asked again at this time.
    Unknown(Duration),
}

impl SchemaCache {
    pub(in crate::consumer) fn new(address: RegistryAddress) -> Self {
        Self {
            address,
            clock: SystemClock::default(),
            answers: HashMap::new(),
            asking: HashMap::new(),
            backoff: Backoff::default(),
            failing: None,
        }
    }

    fn ask(&mut self, id: u32) -> Result<Result<RegisteredSchema, RegistryError>, String> {
        let receiver = match self.asking.remove(&id) {
            Some(receiver) => receiver,
            None => self.question(id)?,
        };
        let longest = if self.failing.is_some() { FAILING_ANSWER_MAX } else { ANSWER_MAX };
        match receiver.recv_timeout(longest) {
            Ok(answer) => Ok(answer),
            Err(RecvTimeoutError::Timeout) => {
                if self.asking.len() >= QUESTIONS_MAX {
                    self.asking.clear();
                }
                self.asking.insert(id, receiver);
                Err(format!("schema registry {}: no answer yet", self.address.url()))
            }
            Err(RecvTimeoutError::Disconnected) => Err("querying the schema registry failed; see above".to_owned()),
        }
    }

    fn question(&self, id: u32) -> Result<Receiver<Result<RegisteredSchema, RegistryError>>, String> {
        let (sender, receiver) = channel();
        let address = self.address.clone();
        let question = move || drop(sender.send(address.open().and_then(|registry| registry.schema(id))));
        let thread = std::thread::Builder::new().name("registry".into()).spawn(question);
        thread.map_err(|error| format!("cannot start a thread to query the schema registry: {error}"))?;
        Ok(receiver)
    }

    fn back_off(&mut self, wait: Duration, why: String) -> Undecoded {
        let now = self.clock.monotonic();
        let since = self.failing.as_ref().map_or(now, |failing| failing.since);
        self.failing = Some(Failing { since, why: why.clone(), until: now + wait });
        Undecoded::Transient { why, wait, lasted: now.saturating_sub(since) }
    }
}

impl Schemas for SchemaCache {
    fn schema(&mut self, id: u32) -> Result<Arc<WriterSchema>, Undecoded> {
        let now = self.clock.monotonic();
        let unknown = || DecodeError::UnknownId { id, registry: self.address.url().to_owned() };
        match self.answers.get(&id) {
            Some(Answer::Known(writer)) => return Ok(Arc::clone(writer)),
            Some(Answer::Unusable(problem)) => return Err(DecodeError::Schema { id, problem: problem.clone() }.into()),
            Some(Answer::Unknown(until)) if now < *until => return Err(unknown().into()),
            _ => {}
        }
        self.failing.take_if(|failing| now.saturating_sub(failing.until) > STALE);
        if let Some(Failing { since, why, until }) = &self.failing
            && now < *until
        {
            return Err(Undecoded::Transient {
                why: why.clone(),
                wait: *until - now,
                lasted: now.saturating_sub(*since),
            });
        }
        let answer = match self.ask(id) {
            Ok(Ok(RegisteredSchema { kind, text })) => match WriterSchema::parse(kind.as_deref(), &text) {
                Ok(writer) => Answer::Known(Arc::new(writer)),
                Err(problem) => Answer::Unusable(problem),
            },
            Ok(Err(RegistryError::NotFound(_))) => Answer::Unknown(now + UNKNOWN_FOR),
            Ok(Err(RegistryError::Unavailable(why))) | Err(why) => {
                let wait = self.backoff.pause();
                return Err(self.back_off(wait, why));
            }
            Ok(Err(RegistryError::Misconfigured(why))) => {
                let wait = self.backoff.slow_pause();
                return Err(self.back_off(wait, why));
            }
        };
        self.backoff.reset();
        self.failing = None;
        if self.answers.len() >= IDS_MAX {
            self.answers.clear();
        }
        self.answers.insert(id, answer);
        self.schema(id)
    }
}

impl fmt::Debug for SchemaCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SchemaCache").field("url", &self.address.url()).finish_non_exhaustive()
    }
}
