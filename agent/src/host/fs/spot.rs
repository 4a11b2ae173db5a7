//! Where a line was in a text: between which others.
//!
//! In: the marks of the lines of a text, such as their text or the names of options. Out: where a line that was taken out belongs,
//! also if others have changed the text since. Pure.

use std::cmp::Reverse;

use serde::{Deserialize, Serialize};

/// The place of a line.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Spot {
    /// The line before it; `None` at the beginning of the text.
    pub(crate) before: Option<String>,
    /// The line after it; `None` at the end of the text.
    pub(crate) after: Option<String>,
    /// How many lines were before it.
    pub(crate) at: usize,
}

impl Spot {
    /// The place of what is from `at` up to `end`.
    pub(crate) fn of(at: usize, end: usize, mark: impl Fn(usize) -> Option<String>) -> Self {
        Self { before: at.checked_sub(1).and_then(&mark), after: mark(end), at }
    }

    /// The candidate at which it fits best: between both its neighbours, or else at one of them; of several, the one that is nearest
    /// to where it was. None if there is neither of the two.
    pub(crate) fn find(
        &self,
        candidates: impl IntoIterator<Item = usize>,
        mark: impl Fn(usize) -> Option<String>,
    ) -> Option<usize> {
        let neighbours = |at: usize| {
            let is_before = at.checked_sub(1).and_then(&mark) == self.before;
            usize::from(is_before) + usize::from(mark(at) == self.after)
        };
        let fitting = candidates.into_iter().map(|at| (neighbours(at), Reverse(at.abs_diff(self.at)), Reverse(at)));
        fitting.filter(|(count, ..)| *count > 0).max().map(|(.., Reverse(at))| at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn between_its_neighbours_or_at_one_of_them() {
        let find = |text: &str, spot: &Spot| {
            let marks: Vec<String> = text.chars().map(String::from).collect();
            spot.find(0..=marks.len(), |at| marks.get(at).cloned())
        };
        let text = "a-b-c";
        let spot = |at| Spot::of(at, at + 1, |at| text.chars().nth(at).map(String::from));
        for (at, cases) in [
            (0, [("-b-c", Some(0)), ("", Some(0)), ("xy", Some(0))]),
            (1, [("ab-c", Some(1)), ("xab", Some(2)), ("xx", None)]),
            (3, [("a-bc", Some(3)), ("b-bc", Some(3)), ("c", Some(0))]),
            (4, [("a-b-", Some(4)), ("-", Some(1)), ("a", Some(1))]),
        ] {
            for (text, expect) in cases {
                assert_eq!(find(text, &spot(at)), expect, "{at} in {text}");
            }
        }
    }
}
