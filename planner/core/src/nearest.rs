//! Hints that suggest the nearest name.

use groundplan_inventory::hint;

/// "did you mean `…`?", if one of `names` is near enough to be a misspelling.
pub(crate) fn did_you_mean<'a>(given: &str, names: impl IntoIterator<Item = &'a str>) -> Option<String> {
    hint::nearest(given, names).map(|name| format!("did you mean `{name}`?"))
}
