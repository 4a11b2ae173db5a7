//! Diagnostics as people and programs read them: text with source lines, or JSON.

use std::sync::Arc;

use groundplan_inventory::Diagnostic;
use serde_json::Value;

/// The diagnostics as text, in the order of their places, with the lines they point at. `texts` gives the bytes of a file.
pub fn render(_diagnostics: &[Diagnostic], _texts: &dyn Fn(&str) -> Option<Arc<[u8]>>, _color: bool) -> String {
    String::new()
}

/// The diagnostics as a JSON list of `{file, line, column, message, label, hint, related}`. Lines and columns count from 1, columns in
/// characters.
pub fn to_json(_diagnostics: &[Diagnostic], _texts: &dyn Fn(&str) -> Option<Arc<[u8]>>) -> Value {
    Value::Null
}
