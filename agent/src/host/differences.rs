//! The differences that one check of a task has found.

use groundplan_protocol::drift::{Difference, TEXT_LIMIT};

/// Most differences that are reported of one task; the rest is only counted.
const MOST: usize = 32;

/// Differences, in the order in which the kind found them.
#[derive(Debug, Default)]
pub(crate) struct Differences {
    found: Vec<Difference>,
    more: usize,
}

impl Differences {
    pub(crate) fn push(&mut self, difference: Difference) {
        if self.found.len() < MOST {
            self.found.push(difference);
        } else {
            self.more += 1;
        }
    }

    pub(crate) fn into_vec(mut self) -> Vec<Difference> {
        if self.more > 0 {
            let found = Some(format!("{} more differences", self.more));
            self.found.push(Difference { what: "and".to_owned(), expected: None, found, content: None });
        }
        self.found
    }
}

/// `text` cut to what a difference may hold, in bytes.
pub(crate) fn shorten(text: &str) -> String {
    if text.len() <= TEXT_LIMIT {
        return text.to_owned();
    }
    const MARK: &str = " …";
    let end = (0..=TEXT_LIMIT - MARK.len()).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}{MARK}", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_bounded() {
        assert_eq!(shorten("short"), "short");
        let long = shorten(&"ä".repeat(TEXT_LIMIT));
        assert!(long.len() <= TEXT_LIMIT && long.ends_with("ä …"), "{}", long.len());
    }

    #[test]
    fn the_number_is_bounded() {
        let mut differences = Differences::default();
        let one = Difference { what: "mode".to_owned(), expected: None, found: None, content: None };
        (0..MOST + 3).for_each(|_| differences.push(one.clone()));
        let all = differences.into_vec();
        assert_eq!((all.len(), all[MOST].found.as_deref()), (MOST + 1, Some("3 more differences")));
    }
}
