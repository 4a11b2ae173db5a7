//! A value of a site file with the range it was read from.

use std::{cmp::Ordering, fmt, marker::PhantomData, ops::Range, sync::Arc};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{
    Deserialize, Deserializer,
    de::{Error, SeqAccess, Visitor},
};

use crate::diagnostic::{Located, Location};

/// The newtype name by which [`super::value`] recognizes that a range is wanted. Other deserializers do not support it.
pub(super) const MARKER: &str = "$groundplan::At";

/// A value and its range of bytes in the file. As a key of a table, the range is that of the key. Compares by value only.
#[derive(Debug, Clone)]
pub struct At<T> {
    /// The value as it was decoded.
    pub value: T,
    /// The byte range of its text in the document.
    pub span: Range<usize>,
}

impl<T> At<T> {
    /// The place, in `file`.
    pub fn location(&self, file: &Arc<str>) -> Location {
        Location::new(file.clone(), self.span.clone())
    }

    /// The value with its place in `file`.
    pub fn located(self, file: &Arc<str>) -> Located<T> {
        Located::new(self.value, Location::new(file.clone(), self.span))
    }
}

impl<T: PartialEq> PartialEq for At<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T: Eq> Eq for At<T> {}

impl<T: Ord> PartialOrd for At<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T: Ord> Ord for At<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.value.cmp(&other.value)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_newtype_struct(MARKER, AtVisitor(PhantomData))
    }
}

struct AtVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for AtVisitor<T> {
    type Value = At<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of a site file")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<At<T>, A::Error> {
        let absent = || A::Error::custom("a place is absent");
        let start = seq.next_element()?.ok_or_else(absent)?;
        let end = seq.next_element()?.ok_or_else(absent)?;
        let value = seq.next_element()?.ok_or_else(absent)?;
        Ok(At { value, span: start..end })
    }
}

impl<T: JsonSchema> JsonSchema for At<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> std::borrow::Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}
