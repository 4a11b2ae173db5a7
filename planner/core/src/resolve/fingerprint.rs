//! Fingerprints: one digest of everything that decides what an instance is.
//!
//! In: rendered parameters and the content's digest. Out: a digest that differs if and only if the result on the host differs.
//! Not in it: where content comes from, time limits, probes, edges, the order and names of files.

use std::collections::BTreeMap;

use groundplan_protocol::{
    digest::{Digest, Fingerprint, Hasher},
    kinds::TaskParams,
};
use serde_json::Value;

/// Digest of the kind, the parameters that decide the result, and the content; never of what the task depends on.
pub(crate) fn fingerprint(params: &TaskParams, content: Option<Digest>) -> Fingerprint {
    let mut params = params.clone();
    params.drop_incidental();
    let mut hasher = Hasher::new();
    let mut text = String::new();
    canonical(&serde_json::to_value(&params).unwrap_or_default(), &mut text);
    hasher.field(text.as_bytes());
    if let Some(content) = content {
        hasher.field(content.as_bytes());
    }
    Fingerprint(hasher.finish())
}

/// JSON with its keys in order, whatever order the map keeps.
fn canonical(json: &Value, out: &mut String) {
    match json {
        Value::Object(fields) => {
            let fields: BTreeMap<_, _> = fields.iter().collect();
            out.push('{');
            for (key, value) in fields {
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                canonical(value, out);
                out.push(',');
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for item in items {
                canonical(item, out);
                out.push(',');
            }
            out.push(']');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}
