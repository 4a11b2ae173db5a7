//! Topic names and topic filters: grammar and matching (MQTT 3.1.1, section 4.7).
//!
//! In: strings from the wire. Out: [`Topic`] and [`Filter`], which hold only what the grammar allows, so that no later
//! code checks again. Works on whole levels, never on bytes: a level may begin with any character.
//! Pure; the tests of the subscription tree use this matcher as their reference.

use std::fmt;

/// Most levels of a topic or filter. The standard sets no limit; it bounds the depth of the subscription tree.
pub const MAX_LEVELS: usize = 128;

/// Why a string is not a topic or not a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// `[MQTT-4.7.3-1]`: at least one character.
    #[error("it is empty")]
    Empty,
    /// `[MQTT-4.7.3-2]`: no U+0000.
    #[error("it contains U+0000")]
    Nul,
    /// `[MQTT-3.3.2-2]` for names, `[MQTT-4.7.1-2]` and `[MQTT-4.7.1-3]` for filters.
    #[error("it has a misplaced wildcard")]
    Wildcard,
    /// More than [`MAX_LEVELS`].
    #[error("it has more than {MAX_LEVELS} levels")]
    Levels,
}

/// A valid topic name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic(Box<str>);

impl Topic {
    /// Checks the grammar of a topic name.
    pub fn new(name: impl Into<Box<str>>) -> Result<Self, Malformed> {
        let name = name.into();
        common(&name)?;
        if name.contains(['+', '#']) {
            return Err(Malformed::Wildcard);
        }
        Ok(Self(name))
    }

    /// The topic name as clients send it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A valid topic filter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Filter(Box<str>);

impl Filter {
    /// Checks the grammar of a topic filter.
    pub fn new(filter: impl Into<Box<str>>) -> Result<Self, Malformed> {
        let filter = filter.into();
        common(&filter)?;
        let mut levels = filter.split('/').peekable();
        while let Some(level) = levels.next() {
            let alone = match level {
                "#" => levels.peek().is_none(),
                "+" => true,
                literal => !literal.contains(['+', '#']),
            };
            if !alone {
                return Err(Malformed::Wildcard);
            }
        }
        Ok(Self(filter))
    }

    /// The filter as clients send it, wildcards included.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The longest literal prefix of all topics that match.
    pub(crate) fn literal_prefix(&self) -> &str {
        let end = self.0.find(['+', '#']).unwrap_or(self.0.len());
        let prefix = &self.0[..end];
        // `a/#` matches `a` as well, so the slash is not part of the prefix.
        if self.0[end..].starts_with('#') { prefix.strip_suffix('/').unwrap_or(prefix) } else { prefix }
    }

    /// Whether the filter names exactly one topic.
    pub(crate) fn is_literal(&self) -> bool {
        !self.0.contains(['+', '#'])
    }

    /// Whether `topic` matches. `#` and `+` in the first level do not match a topic that begins with `$`
    /// (`[MQTT-4.7.2-1]`).
    pub fn matches(&self, topic: &str) -> bool {
        if topic.starts_with('$') && self.0.starts_with(['+', '#']) {
            return false;
        }
        self.covers(topic)
    }

    /// Whether this filter matches every topic that `other` (a filter or a topic) matches. Ignores the rule for `$`: a
    /// policy that grants `#` grants what `#` can match.
    pub fn covers(&self, other: &str) -> bool {
        let (mut mine, mut theirs) = (self.0.split('/'), other.split('/'));
        loop {
            match (mine.next(), theirs.next()) {
                // `#` matches its parent level as well, so also where the other ends here.
                (Some("#"), _) | (None, None) => return true,
                // `#` stands for any number of levels, and `+` for one: it does not cover that.
                (Some("+"), Some(level)) if level != "#" => {}
                (Some(a), Some(b)) if a == b => {}
                _ => return false,
            }
        }
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn common(text: &str) -> Result<(), Malformed> {
    if text.is_empty() {
        return Err(Malformed::Empty);
    }
    if text.contains('\0') {
        return Err(Malformed::Nul);
    }
    if text.split('/').nth(MAX_LEVELS).is_some() {
        return Err(Malformed::Levels);
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The standard's rule, level by level and recursively: slow, and independent of the code under test.
    fn specified(filter: &[&str], topic: &[&str]) -> bool {
        match (filter, topic) {
            ([], []) | (["#"], _) => true,
            (["+", filter @ ..], [_, topic @ ..]) => specified(filter, topic),
            ([a, filter @ ..], [b, topic @ ..]) => a == b && specified(filter, topic),
            _ => false,
        }
    }

    /// Every path of one to three of these levels.
    pub(crate) fn paths(levels: &[&str]) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        let mut last = vec![None::<String>];
        for _ in 0..3 {
            last = last
                .iter()
                .flat_map(|head| {
                    levels.iter().map(move |level| match head {
                        Some(head) => Some(format!("{head}/{level}")),
                        None => Some((*level).to_owned()),
                    })
                })
                .collect();
            all.extend(last.iter().flatten().cloned());
        }
        all
    }

    #[test]
    fn every_short_filter_matches_what_the_standard_says() {
        let topics: Vec<_> = paths(&["", "a", "é", "$b"]).into_iter().filter_map(|t| Topic::new(t).ok()).collect();
        let filters: Vec<_> =
            paths(&["", "a", "é", "$b", "+", "#"]).into_iter().filter_map(|f| Filter::new(f).ok()).collect();
        assert!(topics.len() > 80 && filters.len() > 150);
        for filter in &filters {
            for topic in &topics {
                let (f, t) = (filter.as_str(), topic.as_str());
                let hidden = t.starts_with('$') && (f.starts_with('+') || f.starts_with('#'));
                let expected =
                    !hidden && specified(&f.split('/').collect::<Vec<_>>(), &t.split('/').collect::<Vec<_>>());
                assert_eq!(filter.matches(t), expected, "filter {f:?}, topic {t:?}");
                if expected {
                    assert!(t.starts_with(filter.literal_prefix()), "filter {f:?}, topic {t:?}");
                }
            }
        }
    }

    #[test]
    fn covering_is_what_matching_says_of_all_topics() {
        let topics: Vec<_> = paths(&["", "a", "b"]).into_iter().filter_map(|t| Topic::new(t).ok()).collect();
        let filters: Vec<_> = paths(&["", "a", "+", "#"]).into_iter().filter_map(|f| Filter::new(f).ok()).collect();
        for outer in &filters {
            for inner in filters.iter().filter(|inner| outer.covers(inner.as_str())) {
                for topic in topics.iter().filter(|topic| inner.matches(topic.as_str())) {
                    assert!(outer.matches(topic.as_str()), "{outer} is said to cover {inner}, but misses {topic}");
                }
            }
        }
        assert!(!Filter::new("a/+").unwrap().covers("a/#"));
        assert!(!Filter::new("a/b").unwrap().covers("a/+"));
        assert!(Filter::new("a/+/#").unwrap().covers("a/+/+"));
    }

    #[test]
    fn grammar() {
        for (text, topic, filter) in [
            ("", Err(Malformed::Empty), Err(Malformed::Empty)),
            ("a\0", Err(Malformed::Nul), Err(Malformed::Nul)),
            ("/", Ok(()), Ok(())),
            ("é", Ok(()), Ok(())),
            ("$SYS/x", Ok(()), Ok(())),
            ("a/+", Err(Malformed::Wildcard), Ok(())),
            ("#", Err(Malformed::Wildcard), Ok(())),
            ("a/#/b", Err(Malformed::Wildcard), Err(Malformed::Wildcard)),
            ("a#", Err(Malformed::Wildcard), Err(Malformed::Wildcard)),
            ("a+/b", Err(Malformed::Wildcard), Err(Malformed::Wildcard)),
        ] {
            assert_eq!(Topic::new(text).map(|_| ()), topic, "topic {text:?}");
            assert_eq!(Filter::new(text).map(|_| ()), filter, "filter {text:?}");
        }
        assert_eq!(Topic::new("/".repeat(MAX_LEVELS - 1)).map(|_| ()), Ok(()));
        assert_eq!(Topic::new("/".repeat(MAX_LEVELS)).map(|_| ()), Err(Malformed::Levels));
    }
}
