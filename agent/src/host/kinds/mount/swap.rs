//! Swap areas (swapon(8), /proc/swaps).

use std::fs;

use groundplan_protocol::kinds::Mount;

use super::{
    error::{MountError, missing},
    shown::device,
    table::swaps,
};
use crate::host::kinds::context::Context;

/// The priority of the swap area, if it is in use.
pub(super) fn priority(mount: &Mount) -> Option<i32> {
    let source = mount.source.as_deref()?;
    let table = fs::read_to_string("/proc/swaps").unwrap_or_default();
    let real = device(source);
    let is_it = |path: &str| path == source || real.is_some() && device(path) == real;
    swaps(&table).find(|(path, _)| is_it(path)).map(|(_, priority)| priority)
}

/// Whether it has the wanted priority; one that is not given is the kernel's choice.
pub(super) fn is_as_wanted(mount: &Mount, priority: i32) -> bool {
    let wanted = mount.options().split(',').find_map(|option| option.strip_prefix("pri="));
    wanted.and_then(|wanted| wanted.parse().ok()).is_none_or(|wanted: i32| wanted == priority)
}

/// Has it used; one in use with another priority is used again.
pub(super) async fn put(cx: &Context<'_>, mount: &Mount) -> Result<(), MountError> {
    let former = priority(mount);
    if former.is_some() {
        off(cx, mount).await?;
    }
    let result = on(cx, mount, mount.options()).await;
    if let (Err(_), Some(former)) = (&result, former) {
        // Memory may be needed: what was in use is used again.
        let options = if former < 0 { "defaults".to_owned() } else { format!("pri={former}") };
        let again = on(cx, mount, &options).await;
        cx.report(match again {
            Ok(()) => "the swap area is used again as before",
            Err(_) => "the swap area could not be used again as before either",
        });
    }
    result
}

async fn on(cx: &Context<'_>, mount: &Mount, options: &str) -> Result<(), MountError> {
    let source = mount.source.as_deref().unwrap_or_default();
    // `sw` and `defaults` are of fstab(5) alone.
    let options: Vec<&str> = options.split(',').filter(|option| !matches!(*option, "sw" | "defaults")).collect();
    let options = options.join(",");
    let words =
        if options.is_empty() { vec!["swapon", "--", source] } else { vec!["swapon", "-o", &options, "--", source] };
    cx.tool(&words).await.map(drop).map_err(|error| match missing(&error) {
        Some(missing) => missing,
        None => MountError::Swap { doing: "used", area: source.to_owned(), source: error },
    })
}

/// Ends its use.
pub(super) async fn off(cx: &Context<'_>, mount: &Mount) -> Result<(), MountError> {
    let source = mount.source.as_deref().unwrap_or_default();
    cx.tool(&["swapoff", "--", source]).await.map(drop).map_err(|error| match missing(&error) {
        Some(missing) => missing,
        None => MountError::Swap { doing: "taken out of use", area: source.to_owned(), source: error },
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn priorities() {
        let swap = |options: &str| {
            serde_json::from_value(json!({ "path": "none", "source": "/dev/x", "fstype": "swap", "options": options }))
                .unwrap()
        };
        assert!(is_as_wanted(&swap("defaults"), -2) && is_as_wanted(&swap("pri=5,discard"), 5));
        assert!(!is_as_wanted(&swap("pri=5"), -2));
    }
}
