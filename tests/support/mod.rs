//! What tests share.

pub(crate) mod netns;
