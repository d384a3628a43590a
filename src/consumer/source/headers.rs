use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use rdkafka::message::{BorrowedHeaders, BorrowedMessage, Headers as _, Message as _};

use crate::consumer::batch::PackedHeaders;

thread_local! {
    static IS_READING: Cell<bool> = const { Cell::new(false) };
}

/// Headers whose name is not UTF-8 get U+FFFD for a name, and no value.
pub(super) fn headers(message: &BorrowedMessage<'_>) -> PackedHeaders {
    let Some(headers) = message.headers() else { return PackedHeaders::default() };
    let all = || PackedHeaders::pack(headers.iter().map(|header| (header.key, header.value)));
    read(all).unwrap_or_else(|| {
        let one = |index| read(|| headers.get(index)).map_or(("\u{fffd}", None), |header| (header.key, header.value));
        PackedHeaders::pack((0..BorrowedHeaders::count(headers)).map(one))
    })
}

/// Returns `None` where rdkafka panics, which it does at a name that is not UTF-8.
fn read<T>(headers: impl FnOnce() -> T) -> Option<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let other = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if !IS_READING.get() {
                other(panic);
            }
        }));
    });
    IS_READING.set(true);
    let read = panic::catch_unwind(AssertUnwindSafe(headers)).ok();
    IS_READING.set(false);
    read
}
