//! Texts for hints: the nearest name, the names to choose from, and user text cut to one line.

use crate::foreign;

/// How many names a hint lists.
const LISTED: usize = 30;

/// How many names are listed for one that resembles none of them.
const CHOICE: usize = 12;

/// Longest message of a library that is shown, in characters.
const MESSAGE: usize = 300;

/// Longest part of a user's text that a message repeats, in characters.
const EXCERPT: usize = 60;

/// The candidate that is most similar to `name`, if one is similar enough for a misspelling; of equals the first.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > 200 {
        return None;
    }
    let mut best: Option<(f64, &str)> = None;
    for candidate in candidates {
        let similarity = strsim::jaro_winkler(name, candidate);
        let close = similarity > 0.8 || strsim::damerau_levenshtein(name, candidate) <= 1 && candidate.len() > 2;
        if close && best.is_none_or(|(most, _)| similarity > most) {
            best = Some((similarity, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// Names in backticks, joined by commas; a long list is cut.
pub fn list<S: AsRef<str>>(names: &[S]) -> String {
    list_of(names, LISTED)
}

fn list_of<S: AsRef<str>>(names: &[S], most: usize) -> String {
    let mut text = names.iter().take(most).map(|name| format!("`{}`", name.as_ref())).collect::<Vec<_>>().join(", ");
    if names.len() > most {
        text.push_str(&format!(" and {} more", names.len() - most));
    }
    text
}

/// The hint for a `name` that is none of `candidates`: what another tool's word is here, else the nearest name, else some of all names.
pub fn choose<S: AsRef<str>>(name: &str, candidates: &[S]) -> String {
    let names = || candidates.iter().map(AsRef::as_ref);
    if let Some(hint) = foreign::key(name, names()) {
        return hint.to_owned();
    }
    if let Some(near) = nearest(name, names()) {
        return format!("did you mean `{near}`?");
    }
    // A word of another tool may be misspelt as well.
    if let Some(hint) = nearest(name, foreign::words(names())).and_then(|word| foreign::key(word, names())) {
        return hint.to_owned();
    }
    match candidates {
        [] => "none is known here".to_owned(),
        _ => format!("known here: {}", list_of(candidates, CHOICE)),
    }
}

/// The one of `candidates` that was probably meant by `name`.
pub fn meant<'a>(name: &str, candidates: &[&'a str]) -> Option<&'a str> {
    foreign::meant(name, candidates.iter().copied()).or_else(|| nearest(name, candidates.iter().copied()))
}

/// A message of a library, joined to one line and cut.
pub fn brief(message: &str) -> String {
    let line = message.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MESSAGE) {
        Some((cut, _)) => format!("{}…", &line[..cut]),
        None => line,
    }
}

/// A user's text, cut and without control characters, to be put into one line of a message.
pub fn excerpt(text: &str) -> String {
    let plain: String = text.chars().take(EXCERPT).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(EXCERPT).is_some() { format!("{plain}…") } else { plain }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found_and_none_where_none_is_near() {
        let names = ["file", "template", "directory", "link"];
        for (name, near) in
            [("fil", Some("file")), ("tempalte", Some("template")), ("dir", Some("directory")), ("quux", None)]
        {
            assert_eq!(nearest(name, names), near, "{name}");
        }
    }
}
