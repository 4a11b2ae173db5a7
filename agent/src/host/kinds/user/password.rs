//! A user's password and its lock: compared by the field of shadow(5), set by chpasswd(8) and usermod(8).

use groundplan_protocol::kinds::User;

use super::{
    super::group::{AccountError, change},
    account::Found,
    error::UserKindError,
};
use crate::host::{
    kinds::context::Context,
    tool::{Answer, Tool},
};

/// The hash in a password field: without the `!` of a lock (shadow(5)).
fn hash_of(field: &str) -> &str {
    field.trim_start_matches('!')
}

/// Whether the password is to be locked; `None` leaves that as it is. A hash that has the `!` itself wants it.
pub(super) fn wants_lock(user: &User) -> Option<bool> {
    user.locked.or(user.password.as_deref().filter(|wanted| wanted.starts_with('!')).map(|_| true))
}

/// Whether the password and its lock are as the task wants them.
pub(super) fn password_is(user: &User, found: &Found) -> bool {
    let same = user.password.as_ref().is_none_or(|wanted| hash_of(wanted) == hash_of(&found.password));
    // Where there is no hash, only the lock keeps everyone from logging in without a password.
    same && wants_lock(user).is_none_or(|locked| found.password.starts_with('!') == locked)
}

/// Sets the password and its lock where they differ.
pub(super) async fn set_password(cx: &Context<'_>, user: &User, found: &Found) -> Result<(), UserKindError> {
    if password_is(user, found) {
        return Ok(());
    }
    let what = format!("cannot set the password of {}", user.name);
    // Setting the hash sets or removes the lock as well.
    let mut locked = found.password.starts_with('!');
    let is_other = |hash: &&String| hash_of(hash) != hash_of(&found.password) || hash_of(hash).is_empty();
    if let Some(hash) = user.password.as_ref().filter(is_other) {
        put_password(cx, &user.name, hash, what.clone()).await?;
        locked = hash.starts_with('!');
    }
    if let Some(wanted) = wants_lock(user).filter(|wanted| *wanted != locked) {
        change(cx, &what, &["usermod", if wanted { "-L" } else { "-U" }, "--", &user.name]).await?;
    }
    Ok(())
}

/// Sets the password field as it is given, which may be a hash, a lock or empty.
pub(super) async fn put_password(cx: &Context<'_>, user: &str, hash: &str, what: String) -> Result<(), UserKindError> {
    // Through standard input: arguments are visible to all users in /proc.
    let line = format!("{user}:{hash}\n");
    let Answer { status, err, .. } = Tool::new(&["chpasswd", "-e"]).stdin(line.as_bytes()).ask(cx).await?;
    if !status.success() {
        return Err(AccountError::Refused { what, message: err }.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn passwords_and_locks() {
        let is = |user: serde_json::Value| {
            password_is(
                &serde_json::from_value(user).unwrap(),
                &Found { password: "!$6$x".to_owned(), ..Found::default() },
            )
        };
        assert!(is(json!({ "name": "bob" })) && is(json!({ "name": "bob", "password": "$6$x", "locked": true })));
        assert!(!is(json!({ "name": "bob", "password": "$6$y" })) && !is(json!({ "name": "bob", "locked": false })));
        let is = |password: &str, found: &str| {
            let user = serde_json::from_value(json!({ "name": "bob", "password": password })).unwrap();
            password_is(&user, &Found { password: found.to_owned(), ..Found::default() })
        };
        assert!(is("!", "!") && is("!", "!!") && is("*", "*") && is("!$6$x", "!$6$x") && is("$6$x", "!$6$x"));
        assert!(!is("!", ""), "one may log in without a password");
        assert!(!is("!$6$x", "$6$x") && !is("!", "$6$x") && !is("*", ""));
    }
}
