//! Times, counts and excerpts of output, formatted for people.

use groundplan_protocol::report::Output;

/// The time of `then` relative to `now`, both in milliseconds since the Unix epoch; a time in the future is `just now`: `just now`, `12 s ago`, `3 h ago`.
pub(crate) fn ago(then_ms: u64, now_ms: u64) -> String {
    let seconds = now_ms.saturating_sub(then_ms) / 1000;
    match seconds {
        0 => "just now".to_owned(),
        1..120 => format!("{seconds} s ago"),
        120..7200 => format!("{} min ago", seconds / 60),
        7200..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

/// A duration in milliseconds: `84 ms`, `1.9 s`, `12 s`, `3 min 20 s`.
pub(crate) fn took(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..10_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        10_000..120_000 => format!("{} s", ms / 1000),
        _ => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1000),
    }
}

/// A number of bytes, in the largest unit of which it is at least one: `286 bytes`, `5.0 MiB`.
pub(crate) fn bytes(n: u64) -> String {
    match [("GiB", 30), ("MiB", 20), ("KiB", 10)].into_iter().find(|(_, shift)| n >> shift > 0) {
        Some((unit, shift)) => format!("{:.1} {unit}", n as f64 / (1_u64 << shift) as f64),
        None => count(n as usize, "byte"),
    }
}

/// A count with its noun, which takes a regular plural: `1 node`, `3 nodes`.
pub(crate) fn count(n: usize, thing: &str) -> String {
    if n == 1 { format!("1 {thing}") } else { format!("{n} {thing}s") }
}

/// The first nine digits of a commit id.
pub(crate) fn short(commit: &str) -> &str {
    commit.get(..9).unwrap_or(commit)
}

/// A task's output with a marker where bytes were omitted.
pub(crate) fn printed(output: &Output) -> String {
    match output.omitted {
        0 => format!("{}{}", output.head, output.tail),
        n => format!("{}\n… {n} bytes omitted …\n{}", output.head, output.tail),
    }
}

/// Indents every line by two spaces.
pub(crate) fn indent(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

/// The text up to its first newline.
pub(crate) fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_relative_times() {
        for (then, text) in [(0, "10 days ago"), (864_000_000 - 12_300, "12 s ago"), (864_000_001, "just now")] {
            assert_eq!(ago(then, 864_000_000), text);
        }
        assert_eq!([84, 1940, 12_500, 200_000].map(took), ["84 ms", "1.9 s", "12 s", "3 min 20 s"]);
    }
}
