//! Passwords at the embedded broker, as the planner makes them (`planner/src/embedded.rs`): a program started for each of 10 000 would
//! take minutes.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use ring::hmac;

/// The password of a user, which follows from the planner's secret.
pub(super) fn of(secret: &[u8], user: &str) -> String {
    BASE64.encode(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), user.as_bytes()))
}
